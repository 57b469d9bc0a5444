"""Finds the run of higher priority that a running run must give way to, because both use the same budget."""

from datetime import datetime

from workers.connections import database
from workers.records import claims, run_connector
from workers.records.tables import Run, RunStatus


def first_on_its_budget(run: Run) -> Run | None:
    """Return the run that a running run gives way to: of higher priority, on its budget, with work that is due.

    Parameters:
      run(Run): Its list is complete. If several runs have a higher priority, the highest is returned.
    """
    higher = (Run.status == RunStatus.RUNNING) & (Run.priority > run.priority)
    ahead = list(Run.select().where(higher).order_by(Run.priority.desc(), Run.id))
    if not ahead:
        return None
    budget, now = budget_name(run), database.now()
    return next((other for other in ahead if budget_name(other) == budget and _has_work(other, now)), None)


def budget_name(run: Run) -> str:
    """Return the name of a run's budget; a unique name if its connector cannot be found."""
    budget = run_connector.budget_of(run)
    return budget.name if budget else f"run {run.id}"


def _has_work(run: Run, now: datetime) -> bool:
    """Whether a run can use permits now: its list is not complete, or items are due."""
    if run.discovered_at is not None:
        return claims.is_any_due(run.id, now)
    waits = run.error_summary and run.discovery_due_at and run.discovery_due_at > now
    return not waits
