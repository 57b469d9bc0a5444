"""Finds the last run of each source and tenant, with its outcome: the active one, else the one that ended last."""

from datetime import datetime
from typing import Any, NamedTuple

from workers.records.tables import Run, Schedule
from workers.reports.labels import outcome
from workers.scheduling import schedules
from workers.sources.registry import get_registry

#: How many of a source's newest runs, and of all that ended last, are searched; then the schedule's own are.
_NEWEST = 100


class LastRun(NamedTuple):
    """A run that has begun.

    Parameters:
      outcome(str): One of `labels.OUTCOMES`.
      ended_at(datetime | None): None while it is active.
    """

    id: int
    outcome: str
    started_at: datetime
    ended_at: datetime | None


def last_runs(now: datetime) -> dict[tuple[str, str | None], LastRun]:
    """Return the run that is active or ended last, by source and tenant; for each with a schedule it finds one."""
    every = schedules.every()
    found: dict[tuple[str, str | None], LastRun] = {}
    for source in {*get_registry(), *(schedule.source for schedule in every)}:
        newest = _begun(now).where(Run.source == source).order_by(Run.id.desc()).limit(_NEWEST)
        for tenant, *values in newest.tuples():
            _keep_later(found, (source, tenant), LastRun(*values))
    ended = Run.ended_at.is_null(False) & Run.items_removed_at.is_null()  # an old run that was retried has its items
    latest = _begun(now).select_extend(Run.source).where(ended).order_by(Run.ended_at.desc(), Run.id.desc())
    for tenant, *values, source in latest.limit(_NEWEST).tuples():
        _keep_later(found, (source, tenant), LastRun(*values))
    for schedule in every:
        if (schedule.source, schedule.tenant) not in found:
            found |= _of_schedule(schedule, now)
    return found


def _keep_later(found: dict[tuple[str, str | None], LastRun], whose: tuple[str, str | None], run: LastRun) -> None:
    if whose not in found or _when(run) > _when(found[whose]):
        found[whose] = run


def _when(run: LastRun) -> tuple[bool, datetime, int]:
    """Return the sort key of the last run: an active run is later than all that have ended."""
    return run.ended_at is None, run.ended_at or run.started_at, run.id


def _of_schedule(schedule: Schedule, now: datetime) -> dict[tuple[str, str | None], LastRun]:
    own = _begun(now).where(Run.schedule_id == schedule.id, Run.slot_at.is_null(False))
    newest = own.order_by(Run.slot_at.desc()).limit(1).tuples()
    return {(schedule.source, tenant): LastRun(*values) for tenant, *values in newest}


def _begun(now: datetime) -> Any:
    columns = (Run.tenant, Run.id, outcome(now), Run.started_at, Run.ended_at)
    return Run.select(*columns).where(Run.started_at.is_null(False))
