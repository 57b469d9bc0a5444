"""Schedule: its row, and what was decided for it, written in one transaction that only one scheduler wins."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from peewee import IntegrityError, fn

from workers.connections import database
from workers.cron import CatchUp
from workers.records import scheduled_runs
from workers.records.tables import IS_AHEAD, STANDS_FOR_ITS_SLOT, Run, RunStatus, Schedule
from workers.scheduling.rules import Action, Begin, Cancel, Make, Move, Skip

log = logging.getLogger(__name__)


def find(source: str, tenant: str | None = None) -> Schedule | None:
    """Return the schedule of a source, for a tenant or for none."""
    return Schedule.get_or_none(Schedule.source == source, fn.COALESCE(Schedule.tenant, "") == (tenant or ""))


def every() -> Sequence[Schedule]:
    """Return all schedules, by source and tenant."""
    return list(Schedule.select().order_by(Schedule.source, fn.COALESCE(Schedule.tenant, "")))


def create(
    source: str,
    *,
    cron: str,
    timezone: str,
    catch_up: str,
    who: str,
    tenant: str | None = None,
    declared: str | None = None,
    edited: bool = False,
) -> Schedule | None:
    """Record a schedule.

    Returns:
      Schedule | None: None where the source and tenant have one already.
    """
    now = database.now()
    with suppress(IntegrityError), database.db.atomic():
        made: Schedule = Schedule.create(
            source=source,
            tenant=tenant,
            cron=cron,
            timezone=timezone,
            catch_up=CatchUp(catch_up),
            declared=declared,
            edited=edited,
            since=now,
            created_by=who,
            updated_by=who,
        )
        return made
    return None


def change(schedule: Schedule, *, who: str, **values: Any) -> Schedule | None:
    """Write columns of a schedule, if nobody has changed or decided it since it was read.

    Parameters:
      schedule(Schedule): As it was read.
      who(str): Who changes it.
      values: Columns by name.

    Returns:
      Schedule | None: As it is now; None where somebody was faster: read it anew.
    """
    now = database.now()
    moved = {"version": schedule.version + 1, "updated_by": who, "updated_at": now}
    rows = Schedule.update(values | moved).where(_as_read(schedule)).returning(Schedule).execute()
    return next(iter(rows), None)


def remove(schedule: Schedule) -> bool:
    """Delete a schedule; its runs stay.

    Returns:
      bool: False where somebody has changed it since it was read.
    """
    return bool(Schedule.delete().where(_as_read(schedule)).execute())


def runs_to_decide(schedule: Schedule, now: datetime) -> Sequence[Run]:
    """Return the runs of a schedule that `decide` must see.

    Those are the ones ahead, and those for slots from the newest on that came while its run stood for it; what a person
    moved, or cancelled before, does not tell that the slots before it have their rows.
    """
    own = Run.select().where(Run.schedule_id == schedule.id)
    stood = STANDS_FOR_ITS_SLOT & (Run.ended_at.is_null() | (Run.ended_at >= Run.slot_at))
    newest = own.where(Run.slot_at <= now, stood).order_by(Run.slot_at.desc()).first()
    since = newest.slot_at if newest else min(schedule.since, now)
    found = [*own.where(IS_AHEAD), *own.where(Run.slot_at >= since)]
    return list({run.id: run for run in found}.values())


def future_run(schedule: Schedule) -> Run | None:
    """Return the run that is scheduled for the schedule's next slot."""
    return Run.get_or_none(
        Run.schedule_id == schedule.id, IS_AHEAD, Run.status == RunStatus.SCHEDULED, STANDS_FOR_ITS_SLOT
    )


def apply(
    schedule: Schedule, actions: Sequence[Action], *, lanes: int, who: str, door: str, detail: str | None = None
) -> bool:
    """Do what was decided, all of it or nothing.

    Parameters:
      schedule(Schedule): As it was read before the decision.
      actions(Sequence[Action]): What `decide` returned.
      lanes(int): Of the runs that are made.
      detail(str | None): Why, for the timelines.

    Returns:
      bool: False where somebody else has decided, or changed the schedule, meanwhile.
    """
    try:
        with database.db.atomic():
            if not Schedule.update({Schedule.version: Schedule.version + 1}).where(_as_read(schedule)).execute():
                return False
            for action in actions:
                _do(schedule, action, lanes, {"who": who, "door": door}, detail)
    except IntegrityError as error:
        log.info("schedule of %s: somebody was faster (%s)", schedule.source, database.explain(error))
        return False
    return True


def _do(schedule: Schedule, action: Action, lanes: int, told: Mapping[str, str], detail: str | None) -> None:
    """Do one thing. A run that a person has moved or cancelled meanwhile is left as it is: the next tick sees it."""
    match action:
        case Begin(run_id):
            scheduled_runs.claim(run_id)
        case Cancel(run_id, reason, free):
            scheduled_runs.call_off(run_id, reason, free=free, **told)
        case Move(run_id, slot):
            scheduled_runs.move_to_slot(run_id, slot, detail=detail, **told)
        case Make(slot, due):
            status = RunStatus.PENDING if due else RunStatus.SCHEDULED
            scheduled_runs.create_for_slot(schedule, slot, status, lanes=lanes, detail=detail, **told)
        case Skip(slot, reason):
            scheduled_runs.create_for_slot(schedule, slot, RunStatus.CANCELLED, lanes=lanes, detail=reason, **told)


def _as_read(schedule: Schedule) -> Any:
    return (Schedule.id == schedule.id) & (Schedule.version == schedule.version)
