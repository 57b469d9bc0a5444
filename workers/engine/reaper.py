"""The reaper: sends overdue messages again: list pages, lanes, finalizations, starts. It may run in every process.

It serves every run, whatever the queue holds: a message that waits there for a worker is not sent a second time, what
fails for one run keeps none of the others from its turn, and where one pass has sent enough the next one begins.
"""

import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from workers.connections import database
from workers.connections.fault_isolation import isolated
from workers.engine.discovery import open_lanes
from workers.engine.finalize import start_next
from workers.messaging import broker
from workers.messaging.consumer import name_of
from workers.records import items, lanes, runs
from workers.records.tables import Run, RunStatus
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: A pass that has sent this many messages leaves the other runs to the next one: a tick must not take long.
_MOST = 1_000

#: The first run of the next pass.
_next_id = 0


def reap() -> int:
    """Send again what is overdue: list pages, lanes, finalizations; and start the runs whose turn it is.

    Returns:
      int: How many messages were sent.

    Raises:
      DependencyDown, peewee.PeeweeException: The database is away.
    """
    queued = broker.waiting()
    if queued is None:
        return 0  # nothing can be sent, and what is expected anew for nothing is looked for later
    return _revive_all(queued) + _start_all()


def _revive_all(queued: Collection[str]) -> int:
    global _next_id
    found, sent = _from(_next_id, runs.running_ids()), 0
    for run_id in found:
        if sent >= _MOST:
            _next_id = run_id
            return sent
        sent += isolated(f"run {run_id} cannot be looked at", partial(_revive, run_id, queued)) or 0
    _next_id = 0
    return sent


def _from(first: int, run_ids: Sequence[int]) -> list[int]:
    """Return the runs from the first one on, and then those before it."""
    return sorted(run_ids, key=lambda run_id: (run_id < first, run_id))


def _revive(run_id: int, queued: Collection[str]) -> int:
    return revive(runs.get(run_id), queued)


def _start_all() -> int:
    sent = 0
    for source, tenant in runs.waiting():
        whose = source + (f" for {tenant}" if tenant else "")
        sent += isolated(f"the next run of {whose} cannot be started", partial(_start, source, tenant)) or 0
    return sent


def _start(source: str, tenant: str | None) -> int:
    if runs.is_active(source, tenant):
        return 0
    start_next(source, tenant)
    return 1


def revive(run: Run, queued: Collection[str] = ()) -> int:
    """Send again what is overdue in one run.

    Parameters:
      queued(Collection[str]): The messages that wait for a worker, by `consumer.name_of`: these are not sent.

    Returns:
      int: How many messages were sent.
    """
    if run.status != RunStatus.RUNNING:
        return 0
    settings = get_settings()
    now = database.now()
    if run.discovered_at is None:
        late = run.discovery_due_at is None or run.discovery_due_at < now - timedelta(seconds=settings.tick_seconds)
        return int(late and _send(queued, "discover", run.id))
    sent = 0
    for message in lanes.silent(run.id, settings.tick_seconds, settings.lane_lease_seconds):
        if name_of("fetch_details", message) in queued:
            continue
        if not broker.send("fetch_details", *message):
            break  # a broker that hangs would be waited for once a lane
        log.info("run %d: lane %d was silent; its message is sent again", run.id, message[1])
        sent += 1
    if items.next_due(run.id) is not None:
        if not lanes.alive(run.id):
            open_lanes(run.id)
        return sent
    looked = run.last_finalize_attempt_at
    if looked is None or looked < now - timedelta(seconds=settings.finalize_seconds):
        sent += _send(queued, "finalize", run.id)
    return sent


def _send(queued: Collection[str], name: str, *args: Any) -> bool:
    """Send a message that does not wait in the queue already; say whether that was done."""
    return name_of(name, args) not in queued and broker.send(name, *args)
