"""Leases a run's next list page to one process, and moves the cursor when the page is committed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from peewee import fn

from workers.connections import database
from workers.failures import storable_reason
from workers.limiter.permits import Usage
from workers.records import run_usage, runs
from workers.records.tables import ItemStatus, Run, RunStatus
from workers.records.upserts import Change

#: In a run's metadata: when its list is due, if it waits for its budget.
_SLEEPS_UNTIL = "sleeps_until"


def begin_page(run_id: int, lease_seconds: float) -> Run | None:
    """Claim the run's next list page for the length of a lease.

    Returns:
      Run | None: The run; its `discovery_due_at` identifies the lease. None if no page is due, or another process has
        claimed it.
    """
    now = database.now()
    values = {
        Run.discovery_due_at: now + timedelta(seconds=lease_seconds),
        Run.discovery_attempts: Run.discovery_attempts + 1,
    }
    rows = (
        Run.update(values)
        .where(
            Run.id == run_id,
            Run.status == RunStatus.RUNNING,
            Run.discovered_at.is_null(),
            Run.discovery_due_at <= now,
        )
        .returning(Run)
        .execute()
    )
    return next(iter(rows), None)


def leave_page(run_id: int, for_seconds: float) -> bool:
    """Make the run's next list page due later, without an attempt.

    Returns:
      bool: False if no page is due, or another process has claimed it.
    """
    now = database.now()
    later = Run.update({Run.discovery_due_at: now + timedelta(seconds=for_seconds)}).where(
        Run.id == run_id,
        Run.status == RunStatus.RUNNING,
        Run.discovered_at.is_null(),
        Run.discovery_due_at <= now,
    )
    return bool(later.execute())


@contextmanager
def page_commit(run: Run) -> Iterator[bool]:
    """Open the transaction in which a page's rows, its count and the next cursor are written together.

    Yields:
      bool: Whether the lease still holds. If not, write nothing: another process has the page, or the run was stopped.
    """
    with database.db.atomic():
        locked = Run.update({Run.updated_at: database.now()}).where(_is_leased(run)).execute()
        yield bool(locked)


def end_page(
    run: Run,
    new: Mapping[str, int],
    usage: Usage,
    *,
    cursor: Any,
    changes: Mapping[Change, int] | None = None,
    **kept: Any,
) -> None:
    """Within `page_commit`: count the items of the page and move the cursor.

    Parameters:
      new(Mapping[str, int]): How many items were new, by status.
      usage(Usage): Requests, rate-limit hits and waits to add to the run.
      cursor(Any): Of the next page; None ends discovery.
      changes(Mapping[Change, int]): How many of the user's rows were created, updated and left unchanged.
      kept(Any): State for the next page; it is added to the run's metadata.
    """
    now, rows = database.now(), changes or {}
    values: dict[Any, Any] = run_usage.update_values(usage) | {
        Run.total_count: fn.COALESCE(Run.total_count, 0) + sum(new.values()),
        Run.failed_count: Run.failed_count + new.get(ItemStatus.FAILED, 0),
        Run.skipped_count: Run.skipped_count + new.get(ItemStatus.SKIPPED, 0),
        Run.rows_created: Run.rows_created + rows.get(Change.CREATED, 0),
        Run.rows_updated: Run.rows_updated + rows.get(Change.UPDATED, 0),
        Run.rows_unchanged: Run.rows_unchanged + rows.get(Change.UNCHANGED, 0),
        Run.discovery_cursor: cursor,
        Run.discovery_attempts: 0,
        Run.discovery_due_at: now if cursor is not None else None,
        Run.error_summary: None,
        Run.metadata: run.metadata | kept,
    }
    if cursor is None:
        values[Run.discovered_at] = now
    Run.update(values).where(Run.id == run.id).execute()


def extend_page(run: Run, lease_seconds: float) -> None:
    """Within `page_commit`: start the lease again, because the work before the page takes longer than one lease."""
    run.discovery_due_at = database.now() + timedelta(seconds=lease_seconds)
    Run.update({Run.discovery_due_at: run.discovery_due_at}).where(Run.id == run.id).execute()


def put_page_back(
    run: Run, wait_seconds: float, *, refund: bool, reason: str | None = None, metadata: dict[str, Any] | None = None
) -> bool:
    """Make the page due again after `wait_seconds`.

    Parameters:
      refund(bool): Whether this attempt does not count.
      reason(str | None): Why it failed; None: an earlier reason stays.
      metadata(dict | None): The new metadata of the run; None: unchanged.

    Returns:
      bool: Whether the lease still held.
    """
    values: dict[Any, Any] = {Run.discovery_due_at: database.now() + timedelta(seconds=wait_seconds)}
    if refund:
        values[Run.discovery_attempts] = Run.discovery_attempts - 1
    if reason:
        values[Run.error_summary] = storable_reason(reason)
    if metadata is not None:
        values[Run.metadata] = metadata
    return bool(Run.update(values).where(_is_leased(run)).execute())


def let_page_sleep(run: Run, wait_seconds: float) -> bool:
    """Make the page due when the budget opens, in `wait_seconds`; the attempt does not count.

    Parameters:
      run(Run): Its metadata is written, too.

    Returns:
      bool: Whether the lease still held.
    """
    due = database.now() + timedelta(seconds=wait_seconds)
    values: dict[Any, Any] = {
        Run.discovery_due_at: due,
        Run.discovery_attempts: Run.discovery_attempts - 1,
        Run.metadata: run.metadata | {_SLEEPS_UNTIL: due.isoformat()},
    }
    return bool(Run.update(values).where(_is_leased(run)).execute())


def sleeps(run: Run) -> bool:
    """Whether a run's list waits for its budget: no process reads it, and its last attempt did not fail."""
    if run.discovery_due_at is None or run.discovery_due_at <= database.now():
        return False
    if run.discovery_due_at.isoformat() == run.metadata.get(_SLEEPS_UNTIL):
        return True
    return run.discovery_attempts == 0 and not run.error_summary  # put back by a process of an older version


def wake_page(run_id: int) -> bool:
    """Make a run's list page due now, if it waits for its budget.

    Returns:
      bool: Whether it did.
    """
    run = runs.get(run_id)
    if run.discovered_at is not None or not sleeps(run):
        return False
    return bool(Run.update({Run.discovery_due_at: database.now()}).where(_is_leased(run)).execute())


def _is_leased(run: Run) -> Any:
    return (Run.id == run.id) & (Run.status == RunStatus.RUNNING) & (Run.discovery_due_at == run.discovery_due_at)
