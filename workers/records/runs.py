"""Creates runs, changes their status, and writes their timeline. Each change of status is one conditional UPDATE."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from workers import clock
from workers.connections import database
from workers.errors import InvalidTransition, UnknownRun, UsageError
from workers.failures import storable_reason
from workers.records.tables import (
    ENDED,
    HAS_FAILED,
    MISSING,
    TRANSITIONS,
    ListPage,
    Run,
    RunEvent,
    RunItem,
    RunStatus,
)


def get(run_id: int) -> Run:
    """Return the run.

    Raises:
      UnknownRun: No run has this id.
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
    """Record a new run: scheduled if `scheduled_at` is given, else pending; `activation.activate` starts it."""
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


def note(run_id: int, what: str, *, who: str, door: str, detail: str | None = None) -> None:
    """Add a line to the run's timeline."""
    RunEvent.create(
        run_id=run_id, what=what, who=who, door=door, detail=detail and storable_reason(detail), at=clock.now()
    )


def is_any_for(source: str, tenant: str | None) -> bool:
    """Whether a source has any run for a tenant."""
    whose = Run.tenant.is_null() if tenant is None else Run.tenant == tenant
    return bool(Run.select(Run.id).where(Run.source == source, whose).exists())


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
    """Change the status of a run, if the transition is legal.

    Parameters:
      hint(str): The repair, for the error.
      what(str | None): What the timeline calls the change; None: the new status.

    Raises:
      UnknownRun: No run has this id.
      InvalidTransition: A run in its status cannot get the status `to`.
    """
    froms = [a for a, b in TRANSITIONS if b is to]  # for PAUSED -> RUNNING see `resume`
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
        if to is RunStatus.PENDING:  # what was noted of an incomplete list; of a complete list it stays valid
            reopened = Run.update({Run.metadata: {}}).where(Run.id == run_id, Run.discovered_at.is_null())
            if reopened.execute():
                ListPage.delete().where(ListPage.run_id == run_id).execute()
        note(run_id, what or to.value, who=who, door=door, detail=detail)


def read_list_again(run_id: int) -> None:
    """Within the transaction that reopens a run: let it read its list again from the first page; its items stay.

    The item that stands for the missing pages is removed.
    """
    first: dict[Any, Any] = {Run.discovered_at: None, Run.discovery_cursor: None, Run.discovery_attempts: 0}
    without_a_row = (RunItem.run_id == run_id) & HAS_FAILED & RunItem.item_id.is_null()
    count = RunItem.delete().where(without_a_row, RunItem.external_id.endswith(MISSING)).execute()
    counts = {Run.failed_count: Run.failed_count - count, Run.total_count: Run.total_count - count}
    Run.update(first | counts | {Run.metadata: {}}).where(Run.id == run_id).execute()
    ListPage.delete().where(ListPage.run_id == run_id).execute()


def pause_because(run_id: int, reason: str) -> None:
    """Pause a running run, because its API asked for a wait so long that a person must decide; `reason` says which."""
    with suppress(InvalidTransition):
        move(run_id, RunStatus.PAUSED, who="sluice", door="limiter", detail=reason)


def resume(run_id: int, *, who: str, door: str) -> None:
    """Resume a paused run. If its list is not complete, the next list page is due now.

    Raises:
      UnknownRun, InvalidTransition: No run has this id, or it is not paused.
    """
    now = database.now()
    values = {
        Run.status: RunStatus.RUNNING,
        Run.updated_at: now,
        Run.discovery_due_at: now,
        Run.discovery_attempts: 0,  # an attempt that the pause interrupted does not count
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
    """Change the number of lanes of a run that has not ended. It locks the run's row until the transaction ends.

    Returns:
      int: The previous number.

    Raises:
      UnknownRun, UsageError: No run has this id, or it has ended.
    """
    return _set(run_id, Run.lanes, lanes, who=who, door=door)


def set_priority(run_id: int, priority: int, *, who: str, door: str) -> int:
    """Change the priority of a run that has not ended. Result and errors are as for `set_lanes`."""
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


def lock(run_id: int) -> RunStatus:
    """Within a transaction: lock the run's row until the transaction ends, as finalize does, and return its status.

    Raises:
      UnknownRun: No run has this id.
    """
    rows = Run.update({Run.updated_at: database.now()}).where(Run.id == run_id).returning(Run.status).tuples().execute()
    for (status,) in rows:
        return RunStatus(status)
    raise UnknownRun(run_id)


def running() -> Sequence[Run]:
    """Return the running runs."""
    return list(Run.select().where(Run.status == RunStatus.RUNNING).order_by(Run.id))


def running_ids() -> Sequence[int]:
    """Return the ids of the running runs. It reads no column that can be damaged."""
    rows: Any = Run.select(Run.id).where(Run.status == RunStatus.RUNNING).tuples()
    return [run_id for (run_id,) in rows]


def paused(limit: int) -> Sequence[Run]:
    """Return the newest paused runs."""
    return list(Run.select().where(Run.status == RunStatus.PAUSED).order_by(Run.id.desc()).limit(limit))


def ended_since(since: datetime, limit: int) -> Sequence[Run]:
    """Return the newest runs that had begun and have ended since then, and still have their items."""
    begun = Run.started_at.is_null(False) & Run.items_removed_at.is_null()
    found = Run.select().where(Run.ended_at >= since, begun)
    return list(found.order_by(Run.ended_at.desc(), Run.id.desc()).limit(limit))
