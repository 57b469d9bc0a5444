"""Leaves messages of a source that this process does not know to a worker that knows it; no attempt is spent.

A worker knows the sources that were listed when it started. A source that was added later, or is listed on another host
only, is unknown to it: the message is sent again later, and the run's status says why it waits.
"""

import logging

from workers.messaging import broker, process_heartbeat
from workers.records import cursor
from workers.records.tables import Run, RunStatus
from workers.sources.registry import get_registry

log = logging.getLogger(__name__)

#: Wait until the message is sent again: where another worker knows the source, and where none does.
SOON_SECONDS, LATER_SECONDS = 0.5, 15.0

#: Sources that were logged already.
_logged: set[str] = set()


def is_unknown(run: Run) -> bool:
    """Whether this process does not know the source of a running run; the log says so once a source."""
    if run.status != RunStatus.RUNNING or run.source in get_registry():
        return False
    if run.source not in _logged:
        _logged.add(run.source)
        log.warning(
            "run %d: this process does not know the source %s (was it started before the sources changed?); it is left "
            "to a worker that does",
            run.id,
            run.source,
        )
    return True


def wait_seconds(run: Run) -> float:
    """Return in how many seconds the message of a run of an unknown source is sent again."""
    return LATER_SECONDS if process_heartbeat.no_worker_knows(run.source) else SOON_SECONDS


def leave_page(run: Run) -> None:
    """Leave the next list page of a run to a worker that knows the source."""
    wait = wait_seconds(run)
    if cursor.leave_page(run.id, wait - SOON_SECONDS):  # so it is due when its message comes
        broker.send("discover", run.id, delay_seconds=wait)
