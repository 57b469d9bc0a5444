"""Takes samples: snapshots of the counters of running runs, every two seconds, for charts.

Any number of processes can take them: a run has at most one row for each slot of two seconds. Older samples are
thinned, so that even a long run has about five hundred.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from peewee import Value, fn

from workers.records.tables import Run, RunStatus, Sample

#: The length of a slot, and how often a process should call `take`.
SLOT_SECONDS = 2
#: A run with more rows than the first number is thinned: the newest (second) stay, and of the older at most the third.
_MOST, _NEWEST, _OLDER = 480, 60, 400
#: How often, in slots, the rows are counted.
_LOOK_SLOTS = 16


def take(now: datetime) -> int:
    """As `take_each`, but return the number of samples that this call took."""
    return len(take_each(now))


def take_each(now: datetime) -> list[int]:
    """Take a sample of each running run that has none in this slot, and thin the samples of long runs.

    Parameters:
      now(datetime): The time of the database.

    Returns:
      list[int]: The ids of the runs that this call took a sample of.
    """
    slot = slot_of(now)
    due = Run.select(Run.id).where(Run.status == RunStatus.RUNNING, ~fn.EXISTS(_of_slot(slot)))
    if due.limit(1).scalar() is None:  # no write if there is nothing to write: SQLite has one writer at a time
        return []
    taken = _insert(slot, now)
    if slot % _LOOK_SLOTS == 0:
        for run_id in taken:
            thin(run_id)
    return taken


def thin(run_id: int) -> int:
    """Remove some of a run's older samples, if it has too many: those of every second, fourth, ... slot stay.

    Returns:
      int: How many were removed.
    """
    rows: Any = Sample.select(Sample.slot).where(Sample.run_id == run_id).order_by(Sample.slot).tuples()
    slots = [slot for (slot,) in rows]
    if len(slots) <= _MOST:
        return 0
    newest, step = slots[-_NEWEST], _step(slots[:-_NEWEST])
    old = (Sample.run_id == run_id) & (Sample.slot < newest)
    removed: int = Sample.delete().where(old, Sample.slot.bin_and(step - 1) != 0).execute()
    return removed


def slot_of(at: datetime) -> int:
    """Return the number of the slot that contains a time."""
    return int(at.timestamp()) // SLOT_SECONDS


def remove(run_id: int, limit: int) -> int:
    """Within a transaction that has locked an ended run's row: remove some of its samples.

    Returns:
      int: How many were removed.
    """
    some = Sample.select(Sample.slot).where(Sample.run_id == run_id).order_by(Sample.slot).limit(limit)
    removed: int = Sample.delete().where(Sample.run_id == run_id, Sample.slot.in_(some)).execute()
    return removed


def _of_slot(slot: int) -> Any:
    return Sample.select(Value(1)).where(Sample.run_id == Run.id, Sample.slot == slot)


def _insert(slot: int, now: datetime) -> list[int]:
    values = {
        Sample.run_id: Run.id,
        Sample.slot: Value(slot),
        Sample.at: Value(Sample.at.db_value(now), converter=False),
        Sample.succeeded: Run.succeeded_count,
        Sample.failed: Run.failed_count,
        Sample.skipped: Run.skipped_count,
        Sample.requests: Run.requests_count,
        Sample.hits: Run.rate_limit_hits_count,
        Sample.sleeps: Run.rate_limit_sleeps_count,
        Sample.waiting_seconds: Run.total_sleep_seconds,
    }
    running = Run.select(*values.values()).where(Run.status == RunStatus.RUNNING)
    insert = Sample.insert_from(running, list(values)).on_conflict_ignore()
    return [run_id for (run_id,) in insert.returning(Sample.run_id).tuples().execute()]


def _step(slots: Sequence[int]) -> int:
    """Return the smallest power of two so that at most `_OLDER` of these slots are multiples of it."""
    step = 2
    while sum(slot % step == 0 for slot in slots) > _OLDER:
        step *= 2
    return step
