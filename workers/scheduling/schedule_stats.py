"""The read side of schedules: their next slots, who set them, and what prevents their runs, as plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from workers.connections import database
from workers.connections.trouble import Trouble
from workers.cron import Cron, read_catch_up
from workers.errors import SluiceError
from workers.messaging import scheduler_heartbeat
from workers.records.tables import STANDS_FOR_ITS_SLOT, Run, RunStatus, Schedule
from workers.scheduling import schedules
from workers.sources.registry import get_registry

#: How many slots a preview shows.
PREVIEW = 5


@dataclass(frozen=True)
class ScheduleStats:
    """One schedule, as people see it. Instants are UTC-aware.

    Attributes:
      in_words: What the cron expression means, without the timezone; empty if it cannot be read.
      declared: Whether its source declares a schedule.
      edited: Whether a person has changed it.
      next_at: Its next slots; empty while it is paused or cannot be followed.
      next_run_id: The run of the next slot; None if no scheduler has created it yet.
      trouble: Why it cannot be followed, and the repair; empty if it can.
      unattended: That no scheduler runs, or which slot has passed without one, and the repair; empty if all is well.
    """

    source: str
    tenant: str | None
    cron: str
    timezone: str
    in_words: str
    catch_up: str
    paused_at: datetime | None
    declared: bool
    edited: bool
    next_at: tuple[datetime, ...]
    next_run_id: int | None
    updated_by: str
    updated_at: datetime
    trouble: str
    unattended: str


def all_schedules(most: int | None = None) -> Sequence[ScheduleStats]:
    """Return every schedule, by source and tenant.

    Parameters:
      most(int | None): How many at most; None: all.
    """
    future, missing = _future_runs(), scheduler_heartbeat.no_scheduler()
    now = database.now()
    return [_stats(schedule, future.get(schedule.id), missing, now) for schedule in schedules.every()[:most]]


def schedule_stats(source: str, tenant: str | None = None) -> ScheduleStats | None:
    """Return the schedule of a source and tenant; None if it has none."""
    found = schedules.find(source, tenant)
    return (
        _stats(found, schedules.future_run(found), scheduler_heartbeat.no_scheduler(), database.now())
        if found
        else None
    )


def _future_runs() -> dict[int | None, Run]:
    """Return the run that is scheduled for the next slot, by schedule."""
    own = Run.schedule_id.is_null(False) & STANDS_FOR_ITS_SLOT
    return {run.schedule_id: run for run in Run.select().where(Run.status == RunStatus.SCHEDULED, own)}


def _stats(schedule: Schedule, future: Run | None, missing: Trouble | None, now: datetime) -> ScheduleStats:
    in_words, trouble = "", ""
    next_at: tuple[datetime, ...] = ()
    try:
        cron = Cron(schedule.cron, schedule.timezone)
        in_words = cron.in_words
        read_catch_up(schedule.catch_up)
        if not schedule.paused_at:
            next_at = _next(cron, future.slot_at if future else None, now)
    except SluiceError as error:
        trouble = str(error)
    if schedule.source not in get_registry():
        trouble = (
            f"there is no source named {schedule.source} here: add it to SLUICE_SOURCES again, "
            f"or `python -m workers schedule remove {schedule.source}`"
        )
        next_at = ()
    return ScheduleStats(
        source=schedule.source,
        tenant=schedule.tenant,
        cron=schedule.cron,
        timezone=schedule.timezone,
        in_words=in_words,
        catch_up=schedule.catch_up,
        paused_at=schedule.paused_at,
        declared=schedule.declared is not None,
        edited=schedule.edited,
        next_at=next_at,
        next_run_id=future.id if future else None,
        updated_by=schedule.updated_by,
        updated_at=schedule.updated_at,
        trouble=trouble,
        unattended="" if schedule.paused_at or trouble else _unattended(future, missing, now),
    )


def _unattended(future: Run | None, missing: Trouble | None, now: datetime) -> str:
    if missing and future and future.slot_at <= now:
        return f"its slot of {future.slot_at:%Y-%m-%d %H:%M} UTC has passed: {missing.sentence}"
    return missing.sentence if missing else ""


def _next(cron: Cron, first: datetime | None, now: datetime) -> tuple[datetime, ...]:
    """Return the next slots, from that of the future run on, because earlier ones have had their run."""
    if first is None or first <= now:
        return tuple(cron.next(PREVIEW, now))
    return (first, *cron.next(PREVIEW - 1, first))
