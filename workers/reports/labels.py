"""Labels: names the state of a run for people, the same on every page and command, in Python and in SQL."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from peewee import SQL, Case, fn

from workers.records.tables import IS_OPEN, LABEL, OVERTAKEN, ItemStatus, Run, RunItem, RunStatus

OVERDUE = "overdue"
PAUSING = "pausing"
WITH_FAILURES = "completed with failures"
SKIPPED = "skipped"
#: Its slot got no run of its own, because a newer one did.
OVERTAKEN_LABEL = "overtaken"

#: What a run may be called: its status, or what people say instead.
LABELS = (
    *("running", PAUSING, "paused", "pending", "scheduled", OVERDUE),
    *("completed", WITH_FAILURES, "failed", "cancelled", SKIPPED),
)
#: The labels that a run in each status can have.
LABELS_OF_STATUS: dict[str, tuple[str, ...]] = {
    **{status.value: (status.value,) for status in RunStatus},
    RunStatus.SCHEDULED.value: (RunStatus.SCHEDULED.value, OVERDUE),
    RunStatus.PAUSED.value: (RunStatus.PAUSED.value, PAUSING),
    RunStatus.COMPLETED.value: (RunStatus.COMPLETED.value, WITH_FAILURES),
    RunStatus.CANCELLED.value: (RunStatus.CANCELLED.value, SKIPPED),
}
#: The labels of runs that completed, with failed items or without.
SUCCEEDED = LABELS_OF_STATUS[RunStatus.COMPLETED.value]

#: What a calendar calls its runs, the most important first: the labels without *pausing*, and *overtaken*.
OUTCOMES = (
    *("running", "paused", "failed", WITH_FAILURES, OVERDUE, "pending"),
    *(OVERTAKEN_LABEL, SKIPPED, "cancelled", "completed", "scheduled"),
)
#: The outcomes that need an explanation.
EXPLAINED = ("failed", OVERTAKEN_LABEL, SKIPPED, "cancelled", "paused")


def label_of(run: Run, now: datetime, is_pausing: Callable[[int], bool]) -> str:
    """Return what people call a run.

    Parameters:
      run(Run): As it was read.
      now(datetime): When that was.
      is_pausing(Callable[[int], bool]): Whether items of a run are still claimed, asked by its id if it is paused.
    """
    if run.status == RunStatus.SCHEDULED and run.scheduled_at <= now:
        return OVERDUE
    if run.status == RunStatus.CANCELLED and run.slot_at and run.started_at is None:
        return SKIPPED
    if run.status == RunStatus.COMPLETED and run.failed_count:
        return WITH_FAILURES
    if run.status == RunStatus.PAUSED and is_pausing(run.id):
        return PAUSING
    return str(run.status)


def has_label(label: str, now: datetime) -> Any:
    """Return the SQL condition that a run has a label, in the form that an index answers.

    Parameters:
      label(str): One of LABELS.
      now(datetime): A run that is scheduled for an instant up to this one is overdue.
    """
    if label in (RunStatus.SCHEDULED, OVERDUE):
        is_due = Run.scheduled_at <= now
        return (Run.status == RunStatus.SCHEDULED) & (is_due if label == OVERDUE else ~is_due)
    if label in (RunStatus.PAUSED, PAUSING):
        claimed = (RunItem.run_id == Run.id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
        is_pausing = fn.EXISTS(RunItem.select(SQL("1")).where(claimed))
        return (Run.status == RunStatus.PAUSED) & (is_pausing if label == PAUSING else ~is_pausing)
    return label == LABEL


def outcome(now: datetime) -> Any:
    """Return the SQL expression of a run's outcome, so that thousands of runs can be counted by it.

    Parameters:
      now(datetime): A run that is scheduled for an instant up to this one is overdue.
    """
    never_began = (Run.status == RunStatus.CANCELLED) & Run.started_at.is_null()
    return Case(
        None,
        (
            (never_began & Run.error_summary.startswith(OVERTAKEN), OVERTAKEN_LABEL),
            (never_began & Run.slot_at.is_null(False), SKIPPED),
            ((Run.status == RunStatus.COMPLETED) & (Run.failed_count > 0), WITH_FAILURES),
            ((Run.status == RunStatus.SCHEDULED) & (Run.scheduled_at <= now), OVERDUE),
        ),
        Run.status,
    )
