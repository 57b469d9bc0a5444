"""Removes, in small batches, the items of runs that ended long ago, and later the rows of these runs.

Any number of processes can do this at the same time.
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

#: Most items and samples, and most runs, of one batch, so that its transaction takes a few hundredths of a second.
_ITEMS, _RUNS = 500, 50

#: The pause between two batches: SQLite has one writer at a time, and lanes need it, too.
_PAUSE_SECONDS = 0.05

#: A hundred years, as in the settings.
_LONGEST_DAYS = 36_500

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Pruned:
    """How much was removed, or would be.

    Parameters:
      items(int): Rows of items.
      runs(int): Rows of runs, with their lanes, timelines and samples.
    """

    items: int = 0
    runs: int = 0

    def __add__(self, other: "Pruned") -> "Pruned":
        return Pruned(self.items + other.items, self.runs + other.runs)


def removable(*, items_days: float, runs_days: float) -> Pruned:
    """Count what `prune` would remove now. Parameters are as for `prune`."""
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
    """Remove the items of runs that ended long ago, and the rows of runs that ended even longer ago.

    A run's row is removed only after its items, however short `runs_days` is. The newest run of a schedule stays.

    Parameters:
      items_days(float): How many days after its end a run loses its items; 0 keeps all items.
      runs_days(float): How many days after its end a run's row is removed; 0 keeps all rows.
      who(str), door(str): For the timeline.
      on_batch(Callable): Called after each batch with what was removed so far.

    Returns:
      Pruned: What this call removed: everything that is old enough, unless the process was asked to stop.

    Raises:
      UsageError: A number of days is out of range.

    *Warning:* the file of SQLite does not shrink: it keeps the free space for later rows.
    """
    pruned = Pruned()
    for batch in _batches(*_days_ago(items_days, runs_days), who, door):
        pruned += batch
        on_batch(pruned)
    return pruned


def tidy(seconds: float) -> Pruned:
    """Do as much of `prune` as fits in `seconds`, at least one batch, with the ages of the settings.

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
    """Return the latest ends of runs whose items, and whose rows, are removed; 0 days: a time before all runs."""
    for days in (items_days, runs_days):
        if not 0 <= days <= _LONGEST_DAYS:
            raise UsageError(f"{days:g} days is out of range: give 0, which keeps all, or up to {_LONGEST_DAYS:,}")
    now = database.now()
    items_before, runs_before = (now - timedelta(days=days) if days else _NEVER for days in (items_days, runs_days))
    return items_before, runs_before


def _batches(items_before: datetime, runs_before: datetime, who: str, door: str) -> Iterator[Pruned]:
    """Yield what each batch removed; nothing if another process removes the same runs.

    Raises:
      peewee.PeeweeException: A run cannot be removed. All others were removed before.
    """
    refused: dict[int, Exception] = {}
    while True:
        if (useless := old_rows.leftover()) is not None:
            old_rows.clear_some(useless)
            yield Pruned()
        elif (first := _except(old_runs.with_old_items(items_before), refused).limit(1).scalar()) is not None:
            some = _except(old_runs.with_old_items(items_before), refused)
            yield _remove_batch_or_first(partial(_remove_items, some, who, door), first, refused)
        elif (first := _except(old_runs.outlived(runs_before), refused).limit(1).scalar()) is not None:
            yield _remove_batch_or_first(
                partial(_remove_runs, _except(old_runs.outlived(runs_before), refused)), first, refused
            )
        else:
            break
        if clock.sleep(_PAUSE_SECONDS):
            return
    for error in refused.values():
        raise error


def _except(query: Any, refused: dict[int, Exception]) -> Any:
    return query.where(Run.id.not_in(sorted(refused))) if refused else query


def _remove_batch_or_first(remove: Callable[[int], Pruned], first: int, refused: dict[int, Exception]) -> Pruned:
    """Remove a batch of runs; if the database refuses it, remove only the first run, or note why that is refused."""
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
        refused[first] = error
    return Pruned()


def _remove_items(some: Any, who: str, door: str, most: int) -> Pruned:
    removed = sampled = 0
    with database.db.atomic():
        locked = old_runs.lock(some, most)
        for run_id in locked:
            if removed + sampled < _ITEMS:
                removed += items.remove(run_id, _ITEMS - removed - sampled)
                sampled += samples.remove(run_id, _ITEMS - removed - sampled)
        bare = old_runs.mark_items_removed(locked, who=who, door=door)
    for run_id in bare:
        log.info("run %d ended long ago: its items were removed, its counts stay", run_id)
    return Pruned(items=removed)


def _remove_runs(some: Any, most: int) -> Pruned:
    with database.db.atomic():
        locked = old_runs.lock(some, most)
        old_runs.remove(locked)
    return Pruned(runs=len(locked))
