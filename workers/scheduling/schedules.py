"""Reads and writes the rows of schedules; applies actions in one transaction that only one scheduler can win."""

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
from workers.scheduling.slot_rules import Action, Begin, Cancel, Make, Move, Skip

log = logging.getLogger(__name__)


def find(source: str, tenant: str | None = None) -> Schedule | None:
    """Return the schedule of a source and tenant; None if it has none."""
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
      Schedule | None: None if the source and tenant already have one.
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
    """Write columns of a schedule, unless another process has changed it or applied actions since it was read.

    Parameters:
      schedule(Schedule): As it was read.
      who(str): Who changes it.
      values: Columns by name.

    Returns:
      Schedule | None: As it is now; None if another process was first: read it again.
    """
    now = database.now()
    moved = {"version": schedule.version + 1, "updated_by": who, "updated_at": now}
    rows = Schedule.update(values | moved).where(_as_read(schedule)).returning(Schedule).execute()
    return next(iter(rows), None)


def remove(schedule: Schedule) -> bool:
    """Delete a schedule; its runs stay.

    Returns:
      bool: False if another process has changed it since it was read.
    """
    return bool(Schedule.delete().where(_as_read(schedule)).execute())


def runs_to_decide(schedule: Schedule, now: datetime) -> Sequence[Run]:
    """Return the runs of a schedule that `decide` needs.

    Those are the scheduled and pending runs, and all from the newest slot on whose run still belonged to it when the
    slot came. A run that a person moved or cancelled before does not prove that earlier slots have their rows.
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
    """Apply the actions, all of them or none.

    Parameters:
      schedule(Schedule): As it was read before the decision.
      actions(Sequence[Action]): What `decide` returned.
      lanes(int): The lanes of new runs.
      who(str), door(str): Who acts, for the timelines.
      detail(str | None): Why, for the timelines.

    Returns:
      bool: False if another process has applied actions, or changed the schedule, in between.
    """
    try:
        with database.db.atomic():
            if not Schedule.update({Schedule.version: Schedule.version + 1}).where(_as_read(schedule)).execute():
                return False
            for action in actions:
                _do(schedule, action, lanes, {"who": who, "door": door}, detail)
    except IntegrityError as error:
        log.info("schedule of %s: another process was first (%s)", schedule.source, database.explain(error))
        return False
    return True


def _do(schedule: Schedule, action: Action, lanes: int, by: Mapping[str, str], detail: str | None) -> None:
    """Apply one action. A run that a person has moved or cancelled in between is unchanged: the next tick sees it."""
    match action:
        case Begin(run_id):
            scheduled_runs.claim(run_id)
        case Cancel(run_id, reason, free):
            scheduled_runs.call_off(run_id, reason, free=free, **by)
        case Move(run_id, slot):
            scheduled_runs.move_to_slot(run_id, slot, detail=detail, **by)
        case Make(slot, due):
            status = RunStatus.PENDING if due else RunStatus.SCHEDULED
            scheduled_runs.create_for_slot(schedule, slot, status, lanes=lanes, detail=detail, **by)
        case Skip(slot, reason):
            scheduled_runs.create_for_slot(schedule, slot, RunStatus.CANCELLED, lanes=lanes, detail=reason, **by)


def _as_read(schedule: Schedule) -> Any:
    return (Schedule.id == schedule.id) & (Schedule.version == schedule.version)
