"""Re-sends overdue messages of every run: list pages, lanes, finalizations, starts. Any process can run it.

A message that waits in the queue for a worker is not sent twice. An error with one run does not stop the others. A pass
that has sent enough messages ends, and the next pass continues with the next run.
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
from workers.records import activation, items, lanes, runs
from workers.records.tables import Run, RunStatus
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: Messages after which a pass ends: a tick must not take long.
_MOST_MESSAGES = 1_000

#: The first run of the next pass.
_next_id = 0


def reap() -> int:
    """Re-send overdue messages: list pages, lanes, finalizations. Start pending runs whose source has no active run.

    Returns:
      int: How many messages were sent.

    Raises:
      DependencyDown, peewee.PeeweeException: The database is away.
    """
    queued = broker.waiting()
    if queued is None:
        return 0  # no message can be sent; a lane that is expected anew would only be re-sent later
    return _revive_all(queued) + _start_all()


def _revive_all(queued: Collection[str]) -> int:
    global _next_id
    sent = 0
    for run_id in _from(_next_id, runs.running_ids()):
        if sent >= _MOST_MESSAGES:
            _next_id = run_id
            return sent
        sent += isolated(f"overdue messages of run {run_id} cannot be re-sent", partial(_revive, run_id, queued)) or 0
    _next_id = 0
    return sent


def _from(first: int, run_ids: Sequence[int]) -> list[int]:
    """Return the runs from the first id on, and then those before it."""
    return sorted(run_ids, key=lambda run_id: (run_id < first, run_id))


def _revive(run_id: int, queued: Collection[str]) -> int:
    return revive(runs.get(run_id), queued)


def _start_all() -> int:
    sent = 0
    for source, tenant in activation.waiting():
        whose = source + (f" for {tenant}" if tenant else "")
        sent += isolated(f"the next run of {whose} cannot be started", partial(_start, source, tenant)) or 0
    return sent


def _start(source: str, tenant: str | None) -> int:
    if activation.is_active(source, tenant):
        return 0
    start_next(source, tenant)
    return 1


def revive(run: Run, queued: Collection[str] = ()) -> int:
    """Re-send the overdue messages of one run.

    Parameters:
      queued(Collection[str]): Messages that wait for a worker, by `consumer.name_of`: they are not sent.

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
            break  # each lane would wait for a broker that hangs
        log.info("run %d: lane %d was silent; its message is sent again", run.id, message[1])
        sent += 1
    if items.next_due(run.id) is not None:
        if not lanes.alive(run.id):
            open_lanes(run.id)
        return sent
    finalized = run.last_finalize_attempt_at
    if finalized is None or finalized < now - timedelta(seconds=settings.finalize_seconds):
        sent += _send(queued, "finalize", run.id)
    return sent


def _send(queued: Collection[str], name: str, *args: Any) -> bool:
    """Send a message, unless it waits in the queue already; return whether it was sent."""
    return name_of(name, args) not in queued and broker.send(name, *args)
