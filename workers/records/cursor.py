"""Cursor: which list page of a run is next. The run's row holds it, with its attempts and its lease."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from peewee import fn

from workers.connections import database
from workers.failures import storable_reason
from workers.limiter.permits import Usage
from workers.records import runs
from workers.records.saving import Change
from workers.records.tables import ItemStatus, Run, RunStatus

#: Under this name a run's metadata holds when its list is due that waits for its budget.
_SLEEPS_UNTIL = "sleeps_until"


def begin_page(run_id: int, lease_seconds: float) -> Run | None:
    """Claim the run's next list page until the lease ends.

    Returns:
      Run | None: The run, its `discovery_due_at` being the lease's token; None where no page is due, or somebody has
        it.
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
    """Let the run's next list page be due later, with no attempt begun.

    Returns:
      bool: False where no page is due, or another process has it.
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
    """Hold the transaction in which a page's rows, its count and the next cursor are written together.

    Yields:
      bool: Whether the page is still ours. If not, write nothing: somebody else has it, or the run was stopped.
    """
    with database.db.atomic():
        held = Run.update({Run.updated_at: database.now()}).where(_ours(run)).execute()
        yield bool(held)


def end_page(
    run: Run,
    new: Mapping[str, int],
    usage: Usage,
    *,
    cursor: Any,
    changes: Mapping[Change, int] | None = None,
    **kept: Any,
) -> None:
    """Within `page_commit`: count what the page brought and move the cursor.

    Parameters:
      new(Mapping[str, int]): How many items were new, by status.
      usage(Usage): Requests, hits and sleeps to add to the run.
      cursor(Any): The next page's; None ends discovery.
      changes(Mapping[Change, int]): How many of the user's rows were created, updated and left as they were.
      kept(Any): What is to be known of the list at its next page: goes into the run's metadata.
    """
    now, rows = database.now(), changes or {}
    values: dict[Any, Any] = runs.usage_values(usage) | {
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
    """Within `page_commit`: let the lease begin again, for what comes before the page takes longer than one."""
    run.discovery_due_at = database.now() + timedelta(seconds=lease_seconds)
    Run.update({Run.discovery_due_at: run.discovery_due_at}).where(Run.id == run.id).execute()


def put_page_back(
    run: Run, wait_seconds: float, *, refund: bool, reason: str | None = None, metadata: dict[str, Any] | None = None
) -> bool:
    """Let the page be tried again after `wait_seconds`; `refund` says that the attempt did not count.

    Parameters:
      reason(str | None): Why it could not be had; None: what is known of that stays.
      metadata(dict | None): The run's, as its next attempt is to find it; None leaves it as it is.

    Returns:
      bool: Whether it was still ours.
    """
    values: dict[Any, Any] = {Run.discovery_due_at: database.now() + timedelta(seconds=wait_seconds)}
    if refund:
        values[Run.discovery_attempts] = Run.discovery_attempts - 1
    if reason:
        values[Run.error_summary] = storable_reason(reason)
    if metadata is not None:
        values[Run.metadata] = metadata
    return bool(Run.update(values).where(_ours(run)).execute())


def let_page_sleep(run: Run, wait_seconds: float) -> bool:
    """Let the page be asked for when the budget opens, in `wait_seconds`; its attempt is refunded.

    Parameters:
      run(Run): Its metadata is written, too.

    Returns:
      bool: Whether it was still ours.
    """
    due = database.now() + timedelta(seconds=wait_seconds)
    values: dict[Any, Any] = {
        Run.discovery_due_at: due,
        Run.discovery_attempts: Run.discovery_attempts - 1,
        Run.metadata: run.metadata | {_SLEEPS_UNTIL: due.isoformat()},
    }
    return bool(Run.update(values).where(_ours(run)).execute())


def sleeps(run: Run) -> bool:
    """Whether a run's list waits for its budget: no process reads it, and it has not failed or been refused."""
    if run.discovery_due_at is None or run.discovery_due_at <= database.now():
        return False
    if run.discovery_due_at.isoformat() == run.metadata.get(_SLEEPS_UNTIL):
        return True
    return run.discovery_attempts == 0 and not run.error_summary  # put back by a process of an older version


def wake_page(run_id: int) -> bool:
    """Make the page due at once of a run whose list waits for its budget.

    Returns:
      bool: Whether it was waiting.
    """
    run = runs.get(run_id)
    if run.discovered_at is not None or not sleeps(run):
        return False
    return bool(Run.update({Run.discovery_due_at: database.now()}).where(_ours(run)).execute())


def _ours(run: Run) -> Any:
    return (Run.id == run.id) & (Run.status == RunStatus.RUNNING) & (Run.discovery_due_at == run.discovery_due_at)
