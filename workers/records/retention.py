"""Retention: what ended long ago is removed in small batches, a run's items first and its row later.

Any number of processes may do it at once.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from workers import clock
from workers.connections import database
from workers.connections.fault_isolation import is_for_all
from workers.errors import UsageError
from workers.records import items, old_rows, old_runs, samples
from workers.records.tables import Run, RunItem
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: Most items and samples, and most runs, of one batch, so that its transaction is over in a few hundredths of a second.
_ITEMS, _RUNS = 500, 50

#: Between two batches: SQLite has one writer, and the lanes want it too.
_PAUSE_SECONDS = 0.05

#: A hundred years, as in the settings.
_LONGEST_DAYS = 36_500

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be.

    Parameters:
      items(int): Rows of items.
      runs(int): Rows of runs, with their lanes, timelines and samples.
    """

    items: int = 0
    runs: int = 0

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(self.items + other.items, self.runs + other.runs)


def removable(*, items_days: float, runs_days: float) -> Pruned:
    """Count what `prune` would remove now. Parameters are those of `prune`."""
    items_before, runs_before = _days_ago(items_days, runs_days)
    its_run = RunItem.run_id.in_(old_runs.with_old_items(items_before))
    return Pruned(RunItem.select().where(its_run).count(), old_runs.outlived(runs_before, items_before).count())


def prune(
    *,
    items_days: float,
    runs_days: float,
    who: str = "sluice",
    door: str = "scheduler",
    on_batch: Callable[[Pruned], None] = lambda pruned: None,
) -> Pruned:
    """Remove the items of runs that ended long ago, and the rows of those that ended longer ago still.

    A run's row goes only after its items, however short `runs_days` is; and never the newest run of a schedule.

    Parameters:
      items_days(float): How many days a run must have ended ago for its items to go; 0 keeps all items.
      runs_days(float): The same for the rows of runs; 0 keeps all rows.
      who(str), door(str): For the timeline.
      on_batch(Callable): Told after each batch what was removed so far.

    Returns:
      Pruned: What this call removed: all there was, unless the process was asked to stop.

    Raises:
      UsageError: A number of days cannot be.

    *Warning:* SQLite keeps the room in its file for rows to come, and the file does not shrink.
    """
    pruned = Pruned()
    for batch in _batches(*_days_ago(items_days, runs_days), who, door):
        pruned += batch
        on_batch(pruned)
    return pruned


def tidy(seconds: float) -> Pruned:
    """Do as much of `prune` as fits in `seconds`, with the ages that the settings give; at least a batch.

    Returns:
      Pruned: What this call removed.
    """
    settings = get_settings()
    until = clock.monotonic() + seconds
    pruned = Pruned()
    for batch in _batches(*_days_ago(settings.keep_items_days, settings.keep_runs_days), "sluice", "scheduler"):
        pruned += batch
        if clock.monotonic() + _PAUSE_SECONDS >= until:
            break
    return pruned


def _days_ago(items_days: float, runs_days: float) -> tuple[datetime, datetime]:
    """Return before when a run must have ended for its items and for its row to go; nothing ended before that of 0."""
    for days in (items_days, runs_days):
        if not 0 <= days <= _LONGEST_DAYS:
            raise UsageError(f"{days:g} days cannot be: give 0, which keeps all, or up to {_LONGEST_DAYS:,}")
    now = database.now()
    items_before, runs_before = (now - timedelta(days=days) if days else _NEVER for days in (items_days, runs_days))
    return items_before, runs_before


def _batches(items_before: datetime, runs_before: datetime, who: str, door: str) -> Iterator[Pruned]:
    """Yield what each batch removed: nothing, where another process is at it.

    Raises:
      peewee.PeeweeException: A run cannot be removed; the others have been before.
    """
    stay: dict[int, Exception] = {}
    while True:
        if (useless := old_rows.leftover()) is not None:
            old_rows.clear_some(useless)
            yield Pruned()
        elif (first := _but(old_runs.with_old_items(items_before), stay).limit(1).scalar()) is not None:
            some = _but(old_runs.with_old_items(items_before), stay)
            yield _whole_or_first(partial(_remove_items, some, who, door), first, stay)
        elif (first := _but(old_runs.outlived(runs_before), stay).limit(1).scalar()) is not None:
            yield _whole_or_first(partial(_remove_runs, _but(old_runs.outlived(runs_before), stay)), first, stay)
        else:
            break
        if clock.sleep(_PAUSE_SECONDS):
            return
    for error in stay.values():
        raise error


def _but(query: Any, stay: dict[int, Exception]) -> Any:
    return query.where(Run.id.not_in(sorted(stay))) if stay else query


def _whole_or_first(remove: Callable[[int], Pruned], first: int, stay: dict[int, Exception]) -> Pruned:
    """Remove a batch of runs; where it is refused, the first of them alone, which stays where that is refused, too."""
    try:
        return remove(_RUNS)
    except Exception as error:
        if is_for_all(error):
            raise
    try:
        return remove(1)
    except Exception as error:
        if is_for_all(error):
            raise
        stay[first] = error
    return Pruned()


def _remove_items(some: Any, who: str, door: str, most: int) -> Pruned:
    removed = sampled = 0
    with database.db.atomic():
        held = old_runs.hold(some, most)
        for run_id in held:
            if removed + sampled < _ITEMS:
                removed += items.remove(run_id, _ITEMS - removed - sampled)
                sampled += samples.remove(run_id, _ITEMS - removed - sampled)
        bare = old_runs.mark_items_removed(held, who=who, door=door)
    for run_id in bare:
        log.info("run %d ended long ago: its items are removed, its counts stay", run_id)
    return Pruned(items=removed)


def _remove_runs(some: Any, most: int) -> Pruned:
    with database.db.atomic():
        held = old_runs.hold(some, most)
        old_runs.remove(held)
    return Pruned(runs=len(held))
