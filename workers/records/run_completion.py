"""Completes a run in which no item can change any more; of a fresh run, after the removal of rows."""

from dataclasses import dataclass

from workers.connections import database
from workers.records import circuit_breaker, runs
from workers.records.tables import (
    HAS_FAILED,
    IS_OPEN,
    OPEN,
    Run,
    RunItem,
    RunStatus,
)


@dataclass(frozen=True)
class Removed:
    """The result of the removal at the end of a fresh run.

    Parameters:
      what(str), detail(str): The line for the run's timeline; empty if there is none.
      failure(str): Why the run fails; empty if it completes.
    """

    what: str = ""
    detail: str = ""
    failure: str = ""


def complete_if_done(run_id: int, removed: Removed | None = None) -> bool:
    """End the run if no item can still change and, for a fresh run, the removal of rows is over.

    A separate statement locks the row first. On Postgres, a single UPDATE with NOT EXISTS checks the items in the
    snapshot in which it began, and could complete a run that has just got a pending item.

    Parameters:
      removed(Removed | None): The result of the removal of a fresh run; None while it is not over.

    Returns:
      bool: Whether this call ended the run: as completed, or as failed if the API refused the credentials of every
        item or rows could not be removed.
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
        if circuit_breaker.is_refused_everywhere(run):
            refused = RunItem.select(RunItem.failure_reason).where(RunItem.run_id == run_id, HAS_FAILED)
            circuit_breaker.open_circuit(run_id, run.failed_count, refused.limit(1).scalar())
            return True
        if run.options.get("fresh") and removed is None:
            return False
        if removed and removed.what:
            runs.note(run_id, removed.what, who="sluice", door="queue", detail=removed.detail)
        if removed and removed.failure:
            runs.move(run_id, RunStatus.FAILED, who="sluice", door="queue", detail=removed.failure)
            return True
        Run.update(
            {Run.status: RunStatus.COMPLETED, Run.ended_at: now, Run.updated_at: now, Run.error_summary: None}
        ).where(Run.id == run_id).execute()
        runs.note(run_id, "completed", who="sluice", door="queue")
    return True


def has_nothing_open(run: Run) -> bool:
    """Whether only the removal of rows is left of a running run: its list and all its items have ended."""
    if run.status != RunStatus.RUNNING or run.discovered_at is None or circuit_breaker.is_refused_everywhere(run):
        return False
    return not has_open_items(run.id)


def has_open_items(run_id: int) -> bool:
    """Whether the run has a pending or claimed item."""
    for status in OPEN:  # one query for both would make Postgres read the whole table, not the index
        open_items = RunItem.select(RunItem.id).where(RunItem.run_id == run_id, RunItem.status == status, IS_OPEN)
        if open_items.order_by(RunItem.due_at).limit(1).scalar() is not None:
            return True
    return False
