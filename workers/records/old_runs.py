"""Finds the runs that ended long enough ago for their items, and later their rows, to be removed; and removes them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from peewee import fn

from workers.connections import database
from workers.records.runs import note
from workers.records.tables import ENDED, Lane, ListPage, OldRow, Removal, Run, RunEvent, RunItem, Sample


def with_old_items(ended_before: datetime) -> Any:
    """Return a query for the runs whose items can be removed, those that ended first in front."""
    return _ended(ended_before).where(Run.items_removed_at.is_null())


def outlived(ended_before: datetime, items_ended_before: datetime | None = None) -> Any:
    """Return a query for the runs whose rows can be removed: they have no items left, and no schedule needs them.

    Parameters:
      items_ended_before(datetime | None): Count the items of runs that ended before it as removed.
    """
    later = Run.alias()
    newer = (later.schedule_id == Run.schedule_id) & (later.slot_at > Run.slot_at) & (later.slot_at <= database.now())
    used_since = later.select(later.id).where(newer)
    bare = Run.items_removed_at.is_null(False)
    if items_ended_before:
        bare |= Run.ended_at < items_ended_before
    # Schedules need the run of the newest past slot, and those of future slots, to know which slots were used.
    return _ended(ended_before).where(bare, Run.schedule_id.is_null() | Run.slot_at.is_null() | fn.EXISTS(used_since))


def _ended(before: datetime) -> Any:
    # COALESCE: else SQLite would use the index of statuses, and read every run that ever ended.
    has_ended = fn.COALESCE(Run.status, "").in_(ENDED)
    return Run.select(Run.id).where(has_ended, Run.ended_at < before).order_by(Run.ended_at, Run.id)


def lock(some: Any, limit: int) -> list[int]:
    """Within a transaction: lock the first runs of a query that no other process has locked, and return their ids.

    A run whose status has changed meanwhile is not among them.
    """
    first = some.limit(limit)
    rows: Any = (first if database.is_sqlite() else first.for_update(skip_locked=True)).tuples()
    return [run_id for (run_id,) in rows]


def mark_items_removed(locked: Sequence[int], *, who: str, door: str) -> list[int]:
    """Within a transaction that has locked these runs: mark those that have no item and no sample left.

    Returns:
      list[int]: The runs that were marked.
    """
    left = RunItem.select(RunItem.id).where(RunItem.run_id == Run.id)
    sampled = Sample.select(Sample.slot).where(Sample.run_id == Run.id)
    gone = Run.update({Run.items_removed_at: database.now()}).where(
        Run.id.in_(locked), Run.items_removed_at.is_null(), ~fn.EXISTS(left), ~fn.EXISTS(sampled)
    )
    marked = sorted(gone.returning(Run.id, Run.total_count).tuples().execute())
    for run_id, total in marked:
        if total:
            note(run_id, "items removed", who=who, door=door, detail=f"{total:,} items")
    return [run_id for run_id, _ in marked]


def remove(locked: Sequence[int]) -> None:
    """Within a transaction that has locked these runs: remove their rows, lanes, timelines, samples and removals."""
    for table in (RunEvent, Lane, ListPage, Sample, OldRow, Removal):
        table.delete().where(table.run_id.in_(locked)).execute()
    Run.delete().where(Run.id.in_(locked)).execute()
