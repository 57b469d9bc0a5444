"""Creates, moves and cancels runs that have not begun: those of a schedule, and those that a person set for later."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from peewee import fn

from workers.connections import database
from workers.failures import storable_reason
from workers.records import runs
from workers.records.tables import (
    STANDS_FOR_ITS_SLOT,
    Run,
    RunStatus,
    Schedule,
)


def create_for_slot(
    schedule: Schedule, slot: datetime, status: RunStatus, *, lanes: int, who: str, door: str, detail: str | None = None
) -> Run:
    """Record the run of a schedule's slot: scheduled, pending, or cancelled if the slot is skipped.

    Raises:
      peewee.IntegrityError: The slot has a run already, or the schedule has a future run.
    """
    skipped = status is RunStatus.CANCELLED
    run: Run = Run.create(
        source=schedule.source,
        tenant=schedule.tenant,
        status=status,
        scheduled_at=slot,
        schedule_id=schedule.id,
        slot_at=slot,
        lanes=lanes,
        created_by=who,
        discovery_cursor=1,
        ended_at=database.now() if skipped else None,
        error_summary=storable_reason(detail) if skipped else None,
        items_removed_at=database.now() if skipped else None,  # it never had any
    )
    runs.note(run.id, "skipped" if skipped else status.value, who=who, door=door, detail=detail)
    return run


def claim(run_id: int) -> bool:
    """Make a scheduled run pending whose time has come.

    Returns:
      bool: False if another process did it first, or a person has moved the run to a later time.
    """
    now = database.now()
    due = (Run.status == RunStatus.SCHEDULED) & (Run.scheduled_at <= now)
    values = {Run.status: RunStatus.PENDING, Run.updated_at: now}
    return bool(Run.update(values).where(Run.id == run_id, due).execute())


def call_off(run_id: int, reason: str, *, who: str, door: str, free: bool = False) -> bool:
    """Cancel a schedule's run that has not begun.

    Parameters:
      free(bool): Whether its slot can get another run.

    Returns:
      bool: False if it has begun, was cancelled, or a person has moved it.
    """
    now = database.now()
    values = {
        Run.status: RunStatus.CANCELLED,
        Run.ended_at: now,
        Run.updated_at: now,
        Run.error_summary: storable_reason(reason),
        Run.items_removed_at: now,  # it never had any; retention removes its row later
    } | ({Run.slot_at: None} if free else {})
    ahead = Run.status.in_([RunStatus.SCHEDULED, RunStatus.PENDING]) & Run.started_at.is_null()
    with database.db.atomic():
        took = Run.update(values).where(Run.id == run_id, ahead, STANDS_FOR_ITS_SLOT).execute()
        if took:
            runs.note(run_id, RunStatus.CANCELLED.value, who=who, door=door, detail=reason)
    return bool(took)


def move_to_slot(run_id: int, slot: datetime, *, who: str, door: str, detail: str | None = None) -> bool:
    """Move a schedule's future run to another slot.

    Returns:
      bool: False if it has begun, was cancelled, or a person has moved it.
    """
    values = {Run.scheduled_at: slot, Run.slot_at: slot, Run.updated_at: database.now()}
    with database.db.atomic():
        own = (Run.status == RunStatus.SCHEDULED) & STANDS_FOR_ITS_SLOT
        took = Run.update(values).where(Run.id == run_id, own).execute()
        if took:
            change = f"to {slot:%Y-%m-%d %H:%M:%S} UTC" + (f": {detail}" if detail else "")
            runs.note(run_id, "rescheduled", who=who, door=door, detail=change)
    return bool(took)


def free_slots(run_ids: Sequence[int]) -> None:
    """Let other runs use the slots of these runs, if these are cancelled."""
    Run.update({Run.slot_at: None}).where(Run.id.in_(run_ids), Run.status == RunStatus.CANCELLED).execute()


def due(now: datetime) -> list[int]:
    """Return the ids of the due runs that no schedule controls, oldest first.

    A person scheduled or moved them, or their schedule was deleted.
    """
    has_no_schedule = (
        Run.slot_at.is_null() | ~STANDS_FOR_ITS_SLOT | Run.schedule_id.not_in(Schedule.select(Schedule.id))
    )
    is_due = (Run.status == RunStatus.SCHEDULED) & (Run.scheduled_at <= now) & has_no_schedule
    rows: Any = Run.select(Run.id).where(is_due).order_by(Run.scheduled_at, Run.id).tuples()
    return [run_id for (run_id,) in rows]


def pull_forward(source: str, at: datetime, *, who: str, door: str, tenant: str | None = None) -> Run | None:
    """Move the next scheduled run of a source and tenant to `at`; later runs keep their time.

    Returns:
      Run | None: The run that was moved; None if none is scheduled.
    """
    with database.db.atomic():
        run = next_for(source, tenant)
        if run is None:
            return None
        if at == run.slot_at:  # equal times would return the run to its schedule, which can have made another one
            at += timedelta(microseconds=1)
        moved = Run.update({Run.scheduled_at: at}).where(Run.id == run.id, Run.status == RunStatus.SCHEDULED)
        if not moved.execute():
            return None
        detail = f"from {run.scheduled_at:%Y-%m-%d %H:%M:%S} UTC to {at:%Y-%m-%d %H:%M:%S} UTC"
        runs.note(run.id, "rescheduled", who=who, door=door, detail=detail)
    return runs.get(run.id)


def next_for(source: str, tenant: str | None) -> Run | None:
    """Return the earliest scheduled run of a source and tenant."""
    its = (Run.source == source) & (fn.COALESCE(Run.tenant, "") == (tenant or ""))
    return Run.select().where(its, Run.status == RunStatus.SCHEDULED).order_by(Run.scheduled_at, Run.id).first()
