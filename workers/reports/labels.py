"""Outcome: what became of a run, in a word, told by the database, so that thousands of runs can be counted by it."""

from datetime import datetime
from typing import Any

from peewee import Case

from workers.records.tables import Run, RunStatus

#: The words, the one that most wants to be seen first; they are those of `RunStats.label`, and "overtaken" beside them.
OUTCOMES = (
    *("running", "paused", "failed", "completed with failures", "overdue", "pending"),
    *("overtaken", "skipped", "cancelled", "completed", "scheduled"),
)
#: Those of which a person asks why.
EXPLAINED = ("failed", "overtaken", "skipped", "cancelled", "paused")


def outcome(now: datetime) -> Any:
    """Return the SQL expression that says what became of a run.

    Parameters:
      now(datetime): A run that is scheduled for an instant up to this one is overdue.
    """
    never_began = (Run.status == RunStatus.CANCELLED) & Run.started_at.is_null()
    overtaken = Run.error_summary.startswith("overtaken")
    return Case(
        None,
        (
            (never_began & overtaken, "overtaken"),
            (never_began & Run.slot_at.is_null(False), "skipped"),
            ((Run.status == RunStatus.COMPLETED) & (Run.failed_count > 0), "completed with failures"),
            ((Run.status == RunStatus.SCHEDULED) & (Run.scheduled_at <= now), "overdue"),
        ),
        Run.status,
    )
