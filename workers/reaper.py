"""The reaper: what nobody speaks for any more goes back to work. It may run in every process at once."""

import logging
from datetime import timedelta

from workers import broker, database, items, lanes, runs
from workers.discovery import open_lanes
from workers.finalize import start_next
from workers.settings import get_settings
from workers.tables import Run, RunStatus

log = logging.getLogger(__name__)

#: With so many messages in the queue none is sent again.
_ENOUGH = 1_000


def reap() -> int:
    """Send again what should have been heard of: list pages, lanes, finalize, runs whose turn it is.

    Returns:
      int: How many messages were sent.
    """
    waiting = broker.backlog()
    if waiting is None:
        return 0  # nothing can be sent, and who is expected anew for nothing is looked for later
    if waiting > _ENOUGH:
        return 0  # nobody consumes, or not fast enough: more of the same would only fill Redis
    sent = sum(revive(run) for run in runs.running())
    for source, tenant in runs.waiting():
        if runs.active(source, tenant) is None:
            start_next(source, tenant)
            sent += 1
    return sent


def revive(run: Run) -> int:
    """Send again what should have been heard of in one run; return how many messages that were."""
    if run.status != RunStatus.RUNNING:
        return 0
    settings = get_settings()
    now = database.now()
    if run.discovered_at is None:
        late = run.discovery_due_at is None or run.discovery_due_at < now - timedelta(seconds=settings.tick_seconds)
        return int(late and broker.send("discover", run.id))
    silent = lanes.silent(run.id, settings.tick_seconds, settings.lane_lease_seconds)
    for message in silent:
        log.info("run %d: lane %d was silent; its message is sent again", run.id, message[1])
        if not broker.send("fetch_details", *message):
            break
    if items.next_due(run.id) is not None:
        if not lanes.alive(run.id):
            open_lanes(run.id)
        return len(silent)
    looked = run.last_finalize_attempt_at
    if looked is None or looked < now - timedelta(seconds=settings.finalize_seconds):
        broker.send("finalize", run.id)
    return len(silent) + 1
