"""Run: how one begins, changes course, discovers and ends. Every change is one conditional statement.

Only this module, `items` and `lanes` write a status or a counter.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import IntegrityError, fn

from workers import clock
from workers.connections import database
from workers.errors import InvalidTransition, UnknownRun, UsageError
from workers.failures import storable_reason
from workers.limiter.permits import Usage
from workers.records.tables import (
    ACTIVE,
    ENDED,
    HAS_FAILED,
    IS_OPEN,
    MISSING,
    OPEN,
    STANDS_FOR_ITS_SLOT,
    TRANSITIONS,
    ListPage,
    Run,
    RunEvent,
    RunItem,
    RunStatus,
    Schedule,
)


@dataclass(frozen=True)
class Removed:
    """What the removal at the end of a fresh run came to.

    Parameters:
      what(str), detail(str): The line of the run's timeline; empty where there is nothing to say.
      failure(str): Why the run fails; empty where it completes.
    """

    what: str = ""
    detail: str = ""
    failure: str = ""


def get(run_id: int) -> Run:
    """Return the run.

    Raises:
      UnknownRun: There is none with this id.
    """
    run = Run.get_or_none(Run.id == run_id)
    if run is None:
        raise UnknownRun(run_id)
    return run


def create(
    source: str,
    *,
    lanes: int,
    created_by: str,
    door: str,
    tenant: str | None = None,
    scheduled_at: datetime | None = None,
    options: dict[str, Any] | None = None,
) -> Run:
    """Record a new run: pending, or scheduled where it is for a later time. `activate` starts a pending one."""
    status = RunStatus.SCHEDULED if scheduled_at else RunStatus.PENDING
    with database.db.atomic():
        run = Run.create(
            source=source,
            tenant=tenant,
            status=status,
            scheduled_at=scheduled_at,
            lanes=lanes,
            options=options or {},
            created_by=created_by,
            discovery_cursor=1,
        )
        note(run.id, status.value, who=created_by, door=door)
    return run


def create_for_slot(
    schedule: Schedule, slot: datetime, status: RunStatus, *, lanes: int, who: str, door: str, detail: str | None = None
) -> Run:
    """Record the run of a schedule's slot: scheduled, pending or, where it is skipped, cancelled.

    Raises:
      peewee.IntegrityError: The slot has a run, or the schedule has a future one.
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
    note(run.id, "skipped" if skipped else status.value, who=who, door=door, detail=detail)
    return run


def note(run_id: int, what: str, *, who: str, door: str, detail: str | None = None) -> None:
    """Leave a line in the run's timeline."""
    RunEvent.create(
        run_id=run_id, what=what, who=who, door=door, detail=detail and storable_reason(detail), at=clock.now()
    )


def activate(run_id: int) -> bool:
    """Start a pending run, unless another one of its source and tenant is active: the unique index keeps that rule.

    Returns:
      bool: Whether this call started it.
    """
    now = database.now()
    values = {
        Run.status: RunStatus.RUNNING,
        Run.started_at: fn.COALESCE(Run.started_at, now),
        Run.ended_at: None,
        Run.discovery_due_at: now,
        Run.updated_at: now,
    }
    try:
        with database.db.atomic():
            took = Run.update(values).where(Run.id == run_id, Run.status == RunStatus.PENDING).execute()
            if took:
                note(run_id, "started", who="sluice", door="queue")
    except IntegrityError:
        return False
    return bool(took)


def active(source: str, tenant: str | None) -> Run | None:
    """Return the run of this source and tenant that is running or paused."""
    return Run.get_or_none(Run.source == source, fn.COALESCE(Run.tenant, "") == (tenant or ""), Run.status.in_(ACTIVE))


def is_active(source: str, tenant: str | None) -> bool:
    """Whether a run of this source and tenant is running or paused, whatever its row holds."""
    its = (Run.source == source) & (fn.COALESCE(Run.tenant, "") == (tenant or ""))
    return Run.select(Run.id).where(its, Run.status.in_(ACTIVE)).exists()


def active_of(sources: Collection[str]) -> list[Run]:
    """Return the running and paused runs of some sources, whatever their tenants."""
    return list(Run.select().where(Run.source.in_(sources), Run.status.in_(ACTIVE)).order_by(Run.id))


def is_any_for(source: str, tenant: str | None) -> bool:
    """Whether there is a run of a source for a tenant."""
    whose = Run.tenant.is_null() if tenant is None else Run.tenant == tenant
    return bool(Run.select(Run.id).where(Run.source == source, whose).exists())


def next_pending(source: str, tenant: str | None) -> Run | None:
    """Return the run that starts when the active one of this source and tenant ends."""
    return (
        Run.select()
        .where(Run.source == source, fn.COALESCE(Run.tenant, "") == (tenant or ""), Run.status == RunStatus.PENDING)
        .order_by(Run.priority.desc(), Run.id)
        .first()
    )


def move(
    run_id: int,
    to: RunStatus,
    *,
    who: str,
    door: str,
    detail: str | None = None,
    hint: str = "",
    what: str | None = None,
) -> None:
    """Take a run to another status, where that is legal.

    Parameters:
      what(str | None): What the timeline calls it; None: as the status.

    Raises:
      UnknownRun: There is no such run.
      InvalidTransition: It is in a status from which there is no way to `to`.
    """
    froms = [a for a, b in TRANSITIONS if b is to]  # resuming has a function of its own
    now = database.now()
    values: dict[Any, Any] = {Run.status: to, Run.updated_at: now}
    if to in (RunStatus.CANCELLED, RunStatus.FAILED, RunStatus.COMPLETED):
        values[Run.ended_at] = now
    if to in (RunStatus.FAILED, RunStatus.PAUSED) or (to is RunStatus.CANCELLED and detail):
        values[Run.error_summary] = storable_reason(detail)
    if to is RunStatus.PENDING:
        values |= {
            Run.ended_at: None,
            Run.error_summary: None,
            Run.discovery_attempts: 0,
            Run.auth_failures_in_a_row: 0,
        }
    with database.db.atomic():
        if not Run.update(values).where(Run.id == run_id, Run.status.in_(froms)).execute():
            raise InvalidTransition(run_id, get(run_id).status, to.value, hint)
        if to is RunStatus.PENDING:  # what the pages said of a list that may be mended; of a whole one it stays true
            reopened = Run.update({Run.metadata: {}}).where(Run.id == run_id, Run.discovered_at.is_null())
            if reopened.execute():
                ListPage.delete().where(ListPage.run_id == run_id).execute()
        note(run_id, what or to.value, who=who, door=door, detail=detail)


def read_list_again(run_id: int) -> None:
    """Within the transaction that reopens a run: its list is read from the first page; what it has of it stays.

    What stands for the pages that could not be had is no item any more.
    """
    first: dict[Any, Any] = {Run.discovered_at: None, Run.discovery_cursor: None, Run.discovery_attempts: 0}
    without_a_row = (RunItem.run_id == run_id) & HAS_FAILED & RunItem.item_id.is_null()
    count = RunItem.delete().where(without_a_row, RunItem.external_id.endswith(MISSING)).execute()
    counts = {Run.failed_count: Run.failed_count - count, Run.total_count: Run.total_count - count}
    Run.update(first | counts | {Run.metadata: {}}).where(Run.id == run_id).execute()
    ListPage.delete().where(ListPage.run_id == run_id).execute()


def pause_because(run_id: int, reason: str) -> None:
    """Pause a run that goes on, because its API asked for a wait that a person should know of."""
    with suppress(InvalidTransition):
        move(run_id, RunStatus.PAUSED, who="sluice", door="limiter", detail=reason)


def resume(run_id: int, *, who: str, door: str) -> None:
    """Go on with a paused run, its list page due at once where the list is not known yet.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it is not paused.
    """
    now = database.now()
    values = {
        Run.status: RunStatus.RUNNING,
        Run.updated_at: now,
        Run.discovery_due_at: now,
        Run.discovery_attempts: 0,  # what the pause cut short was no attempt
        Run.auth_failures_in_a_row: 0,
        Run.error_summary: None,
    }
    with database.db.atomic():
        if not Run.update(values).where(Run.id == run_id, Run.status == RunStatus.PAUSED).execute():
            raise InvalidTransition(
                run_id, get(run_id).status, RunStatus.RUNNING.value, "Only a paused run can be resumed."
            )
        note(run_id, "resumed", who=who, door=door)


def set_lanes(run_id: int, lanes: int, *, who: str, door: str) -> int:
    """Give a run that has not ended another number of lanes; within a transaction, its row is held until the end.

    Returns:
      int: How many it had.

    Raises:
      UnknownRun, UsageError: There is no such run, or it has ended.
    """
    return _set(run_id, Run.lanes, lanes, who=who, door=door)


def set_priority(run_id: int, priority: int, *, who: str, door: str) -> int:
    """Give a run that has not ended another priority. What it returns and raises is as for `set_lanes`."""
    return _set(run_id, Run.priority, priority, who=who, door=door)


def _set(run_id: int, column: Any, value: int, *, who: str, door: str) -> int:
    with database.db.atomic():
        status = lock(run_id)
        if status in ENDED:
            raise UsageError(f"Run {run_id} is {status}: its {column.name} cannot be changed any more; start a new run")
        was: int = getattr(get(run_id), column.name)
        Run.update({column: value}).where(Run.id == run_id).execute()
        note(run_id, column.name, who=who, door=door, detail=f"{was} -> {value}")
    return was


def claim_scheduled(run_id: int) -> bool:
    """Take a scheduled run whose time has come out of the schedule; it is pending then.

    Returns:
      bool: False where somebody else took it first, or a person has moved it to a later time.
    """
    now = database.now()
    due = (Run.status == RunStatus.SCHEDULED) & (Run.scheduled_at <= now)
    values = {Run.status: RunStatus.PENDING, Run.updated_at: now}
    return bool(Run.update(values).where(Run.id == run_id, due).execute())


def call_off(run_id: int, reason: str, *, who: str, door: str, free: bool = False) -> bool:
    """Cancel a schedule's run that has not begun.

    Parameters:
      free(bool): Whether its slot may have another run.

    Returns:
      bool: False where it has begun, was cancelled, or was moved by a person.
    """
    now = database.now()
    values = {
        Run.status: RunStatus.CANCELLED,
        Run.ended_at: now,
        Run.updated_at: now,
        Run.error_summary: storable_reason(reason),
        Run.items_removed_at: now,  # it never had any: its row goes when it is old
    } | ({Run.slot_at: None} if free else {})
    ahead = Run.status.in_([RunStatus.SCHEDULED, RunStatus.PENDING]) & Run.started_at.is_null()
    with database.db.atomic():
        took = Run.update(values).where(Run.id == run_id, ahead, STANDS_FOR_ITS_SLOT).execute()
        if took:
            note(run_id, RunStatus.CANCELLED.value, who=who, door=door, detail=reason)
    return bool(took)


def move_to_slot(run_id: int, slot: datetime, *, who: str, door: str, detail: str | None = None) -> bool:
    """Give a schedule's future run another slot.

    Returns:
      bool: False where it has begun, was cancelled, or was moved by a person.
    """
    values = {Run.scheduled_at: slot, Run.slot_at: slot, Run.updated_at: database.now()}
    with database.db.atomic():
        own = (Run.status == RunStatus.SCHEDULED) & STANDS_FOR_ITS_SLOT
        took = Run.update(values).where(Run.id == run_id, own).execute()
        if took:
            said = f"to {slot:%Y-%m-%d %H:%M:%S} UTC" + (f": {detail}" if detail else "")
            note(run_id, "rescheduled", who=who, door=door, detail=said)
    return bool(took)


def free_slots(run_ids: Sequence[int]) -> None:
    """Let the slots of these runs have other runs, where these are cancelled."""
    Run.update({Run.slot_at: None}).where(Run.id.in_(run_ids), Run.status == RunStatus.CANCELLED).execute()


def lock(run_id: int) -> RunStatus:
    """Within a transaction: hold the run's row until its end, as finalize does, and return the status it has.

    Raises:
      UnknownRun: There is no such run.
    """
    rows = Run.update({Run.updated_at: database.now()}).where(Run.id == run_id).returning(Run.status).tuples().execute()
    for (status,) in rows:
        return RunStatus(status)
    raise UnknownRun(run_id)


def due_scheduled(now: datetime) -> list[int]:
    """Return the ids of the runs whose time has come and that no schedule decides, oldest first.

    Those are what a person scheduled, or moved, and what is left of a schedule that is gone.
    """
    a_person_s = Run.slot_at.is_null() | ~STANDS_FOR_ITS_SLOT | Run.schedule_id.not_in(Schedule.select(Schedule.id))
    due = (Run.status == RunStatus.SCHEDULED) & (Run.scheduled_at <= now) & a_person_s
    return _ids(Run.select(Run.id).where(due).order_by(Run.scheduled_at, Run.id))


def pull_forward(source: str, at: datetime, *, who: str, door: str, tenant: str | None = None) -> Run | None:
    """Move the next scheduled run of a source and tenant to `at`; the later ones keep their time.

    Returns:
      Run | None: The run that was moved, or None where none is scheduled.
    """
    with database.db.atomic():
        run = next_scheduled(source, tenant)
        if run is None:
            return None
        if at == run.slot_at:  # it would be its schedule's again, which may have made another one
            at += timedelta(microseconds=1)
        moved = Run.update({Run.scheduled_at: at}).where(Run.id == run.id, Run.status == RunStatus.SCHEDULED)
        if not moved.execute():
            return None
        detail = f"from {run.scheduled_at:%Y-%m-%d %H:%M:%S} UTC to {at:%Y-%m-%d %H:%M:%S} UTC"
        note(run.id, "rescheduled", who=who, door=door, detail=detail)
    return get(run.id)


def next_scheduled(source: str, tenant: str | None) -> Run | None:
    """Return the run of a source and tenant whose time comes next."""
    its = (Run.source == source) & (fn.COALESCE(Run.tenant, "") == (tenant or ""))
    return Run.select().where(its, Run.status == RunStatus.SCHEDULED).order_by(Run.scheduled_at, Run.id).first()


# --- counters and the end


def add_usage(run_id: int, usage: Usage) -> None:
    """Add what a lane sent, and what its waiting came to."""
    if usage:
        Run.update(usage_values(usage)).where(Run.id == run_id).execute()


def add_idle(run_id: int, seconds: float) -> None:
    """Add for how long nothing could work on a run."""
    Run.update({Run.idle_seconds: Run.idle_seconds + seconds}).where(Run.id == run_id).execute()


def usage_values(usage: Usage) -> dict[Any, Any]:
    """Return the part of an UPDATE that adds `usage` to a run."""
    return {
        Run.requests_count: Run.requests_count + usage.requests,
        Run.rate_limit_hits_count: Run.rate_limit_hits_count + usage.hits,
        Run.rate_limit_sleeps_count: Run.rate_limit_sleeps_count + usage.sleeps,
        Run.total_sleep_seconds: Run.total_sleep_seconds + usage.slept_seconds,
    }


def open_circuit(run_id: int, refused: int, reason: str) -> RunStatus:
    """Within a transaction that holds the run's row: fail a running run whose credentials are refused everywhere.

    Parameters:
      refused(int): How many refusals there were in a row.
      reason(str): The last one's.

    Returns:
      RunStatus: failed.
    """
    said = f"everything is refused ({refused} in a row): {reason}; `retry` goes on with the run once they are mended"
    move(run_id, RunStatus.FAILED, who="sluice", door="circuit", detail=said)
    return RunStatus.FAILED


def complete_if_done(run_id: int, removed: Removed | None = None) -> bool:
    """End the run if no item is left that can change, and what a fresh one may remove is removed.

    The row is locked by a statement of its own first: on Postgres, one UPDATE with NOT EXISTS re-checks with the
    snapshot it began with, and could complete a run that has just been given a pending item.

    Parameters:
      removed(Removed | None): What the removal of a fresh run came to; None while it is not over.

    Returns:
      bool: Whether this call ended it: completed or, where every item was refused for its credentials, or rows could
        not be removed, failed.
    """
    now = database.now()
    with database.db.atomic():
        looked = {Run.finalize_attempts: Run.finalize_attempts + 1, Run.last_finalize_attempt_at: now}
        locked = Run.update(looked).where(
            Run.id == run_id, Run.status == RunStatus.RUNNING, Run.discovered_at.is_null(False)
        )
        run = next(iter(locked.returning(Run).execute()), None)
        if run is None or has_open_items(run_id):
            return False
        if _is_refused_everywhere(run):
            refused = RunItem.select(RunItem.failure_reason).where(RunItem.run_id == run_id, HAS_FAILED)
            open_circuit(run_id, run.failed_count, refused.limit(1).scalar())
            return True
        if run.options.get("fresh") and removed is None:
            return False
        if removed and removed.what:
            note(run_id, removed.what, who="sluice", door="queue", detail=removed.detail)
        if removed and removed.failure:
            move(run_id, RunStatus.FAILED, who="sluice", door="queue", detail=removed.failure)
            return True
        Run.update(
            {Run.status: RunStatus.COMPLETED, Run.ended_at: now, Run.updated_at: now, Run.error_summary: None}
        ).where(Run.id == run_id).execute()
        note(run_id, "completed", who="sluice", door="queue")
    return True


def has_nothing_open(run: Run) -> bool:
    """Whether a running run's list and items have ended, so that nothing but its removal is left."""
    if run.status != RunStatus.RUNNING or run.discovered_at is None or _is_refused_everywhere(run):
        return False
    return not has_open_items(run.id)


def _is_refused_everywhere(run: Run) -> bool:
    """Whether the credentials were refused for every item, and those were too few to have opened the circuit."""
    return bool(0 < (run.total_count or 0) == run.failed_count == run.auth_failures_in_a_row)


def has_open_items(run_id: int) -> bool:
    """Whether an item of the run can still change."""
    for status in OPEN:  # in order of the index of open items: Postgres would read the whole table for both at once
        open_items = RunItem.select(RunItem.id).where(RunItem.run_id == run_id, RunItem.status == status, IS_OPEN)
        if open_items.order_by(RunItem.due_at).limit(1).scalar() is not None:
            return True
    return False


def running() -> Sequence[Run]:
    """Return the running runs."""
    return list(Run.select().where(Run.status == RunStatus.RUNNING).order_by(Run.id))


def running_ids() -> Sequence[int]:
    """Return the ids of the running runs: of each, whatever its row holds."""
    return _ids(Run.select(Run.id).where(Run.status == RunStatus.RUNNING))


def paused(limit: int) -> Sequence[Run]:
    """Return the newest paused runs."""
    return list(Run.select().where(Run.status == RunStatus.PAUSED).order_by(Run.id.desc()).limit(limit))


def ended_since(since: datetime, limit: int) -> Sequence[Run]:
    """Return the newest runs that have begun and ended since then, as long as they have their items."""
    begun = Run.started_at.is_null(False) & Run.items_removed_at.is_null()
    found = Run.select().where(Run.ended_at >= since, begun)
    return list(found.order_by(Run.ended_at.desc(), Run.id.desc()).limit(limit))


def waiting() -> Sequence[tuple[str, str | None]]:
    """Return the sources and tenants that have a pending run."""
    found: Any = Run.select(Run.source, Run.tenant).where(Run.status == RunStatus.PENDING).distinct().tuples()
    return list(found)


def _ids(query: Any) -> list[int]:
    return [run_id for (run_id,) in query.tuples()]
