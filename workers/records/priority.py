"""Precedence: of several runs on one budget, the one of the highest priority goes first; the others keep one lane."""

from datetime import datetime

from workers.connections import database
from workers.records import items, run_connector
from workers.records.tables import Run, RunStatus


def first_on_its_budget(run: Run) -> Run | None:
    """Return the run that a running one gives way to: of higher priority, on its budget, and with something to do.

    Parameters:
      run(Run): Its list is known. Where several go before it, the highest is returned.
    """
    higher = (Run.status == RunStatus.RUNNING) & (Run.priority > run.priority)
    ahead = list(Run.select().where(higher).order_by(Run.priority.desc(), Run.id))
    if not ahead:
        return None
    budget, now = budget_name(run), database.now()
    return next((other for other in ahead if budget_name(other) == budget and _has_work(other, now)), None)


def budget_name(run: Run) -> str:
    """Name the budget of a run; one of its own where that cannot be told."""
    try:
        return run_connector.of(run).budget.name
    except Exception:  # a user's get_connector may fail in any way; its own turns say so
        return f"run {run.id}"


def _has_work(run: Run, now: datetime) -> bool:
    """Whether a run could use permits now: its list goes on, or items are due."""
    if run.discovered_at is not None:
        return items.is_any_due(run.id, now)
    waits = run.error_summary and run.discovery_due_at and run.discovery_due_at > now
    return not waits
