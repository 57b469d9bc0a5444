"""A message of a source that this process does not know is left to a worker that knows it; no attempt is spent.

A worker knows the sources that there were when it started. Those that are added later, or are listed on another host
only, are for others: the message comes back after a while, and the run says why it waits.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from workers.messaging import broker, presence
from workers.records import cursor, lanes
from workers.records.tables import Run, RunStatus
from workers.sources.registry import get_registry

log = logging.getLogger(__name__)

#: After how long the message comes back where another worker knows the source, and where none does.
SOON_SECONDS, LATER_SECONDS = 0.5, 15.0

#: The sources that the log has named already.
_said: set[str] = set()


def left_to_others(name: str, function: Callable[..., None]) -> Callable[..., None]:
    """Return an actor's function that leaves messages of unknown sources to other workers.

    Parameters:
      name(str): The actor's.
      function(Callable): Called with the id of a run first.
    """

    @wraps(function)
    def work(run_id: int, *args: Any) -> None:
        run = _of_unknown_source(run_id)
        if run is None or not _leave(name, run, *args):
            function(run_id, *args)

    return work


def _of_unknown_source(run_id: int) -> Run | None:
    """Return a running run of a source that this process does not know; None for any other."""
    source = Run.select(Run.source).where(Run.id == run_id).scalar()
    if source is None or source in get_registry():
        return None
    return Run.get_or_none(Run.id == run_id, Run.status == RunStatus.RUNNING)


def _leave(name: str, run: Run, *args: Any) -> bool:
    """Leave a message to others; False where it can be worked without the source."""
    if name == "discover" and run.discovered_at is None:
        _leave_page(run)
    elif name == "fetch_details" and args[0] < run.lanes:
        _leave_turn(run, *args)
    elif not (name == "finalize" and run.options.get("fresh")):  # that one is sent again by the reaper
        return False
    if run.source not in _said:
        _said.add(run.source)
        log.warning(
            "run %d: this process does not know the source %s (was it started before the sources changed?); it is left "
            "to a worker that does",
            run.id,
            run.source,
        )
    return True


def _leave_page(run: Run) -> None:
    wait = _wait_seconds(run.source)
    if cursor.leave_page(run.id, wait - SOON_SECONDS):  # so it is due when its message comes
        broker.send("discover", run.id, delay_seconds=wait)


def _leave_turn(run: Run, lane: int, turn: int) -> None:
    """Move the turn on, so that of two messages one is left."""
    wait = _wait_seconds(run.source)
    if lanes.start_turn(run.id, lane, turn, wait):
        broker.send("fetch_details", run.id, lane, turn + 1, delay_seconds=wait)


def _wait_seconds(source: str) -> float:
    return LATER_SECONDS if presence.no_worker_knows(source) else SOON_SECONDS
