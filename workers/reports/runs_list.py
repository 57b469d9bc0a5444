"""The runs list: the runs that somebody wants to see, the newest first, a page at a time. Each query has an index."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, fn

from workers.connections import database
from workers.records.tables import ACTIVE, IS_OPEN, LABEL, ItemStatus, Run, RunItem, RunStatus

#: The kinds of run there are.
KINDS = ("import",)
#: What a run may be called: its status, or what people say instead (`stats.RunStats.label`).
LABELS = (
    *("running", "pausing", "paused", "pending", "scheduled", "overdue"),
    *("completed", "completed with failures", "failed", "cancelled", "skipped"),
)
#: What may also be asked for: whatever has failed items, however it is called.
WITH_FAILURES = "with failures"
_MAY_HAVE_FAILURES = ("running", "paused", "pending", "completed with failures", "failed", "cancelled")
_BEGUN = ("running", "paused", "completed", "completed with failures", "failed", "cancelled")
PAGE = 50
#: Counted, and named, are so many at most.
MOST = 1_000

#: Of skipped slots the newest few are listed unless they are asked for: a night without a scheduler leaves many.
_FEW_SKIPPED = 5
_LATELY = timedelta(hours=24)
_ABOVE_ALL = 2**63 - 1

_NEXT_AND_NEXT = """
WITH RECURSIVE found(value) AS (
    SELECT MIN({column}) FROM sluice_runs WHERE {column} IS NOT NULL
    UNION ALL
    SELECT (SELECT MIN({column}) FROM sluice_runs WHERE {column} > found.value) FROM found WHERE found.value IS NOT NULL
)
SELECT value FROM found WHERE value IS NOT NULL LIMIT {most}
"""


@dataclass(frozen=True)
class Wanted:
    """Which runs somebody wants to see; what is empty leaves nothing out.

    Attributes:
      label: One of LABELS, or WITH_FAILURES.
      lately: Only those that ended, ran or waited in the last 24 hours.
      before: Only those with a lower id: an older page.
    """

    kind: str = ""
    source: str = ""
    tenant: str = ""
    label: str = ""
    lately: bool = False
    before: int = 0

    @property
    def narrows(self) -> bool:
        """Whether it leaves any run out, older pages aside."""
        return bool(self.kind or self.source or self.tenant or self.label or self.lately)


def newest(wanted: Wanted, now: datetime, limit: int = PAGE) -> list[Run]:
    """Return the newest of the wanted runs.

    Parameters:
      now(datetime): What `lately` and *overdue* are reckoned from.
      limit(int): How many at most.
    """
    return list(_listed(wanted, now).order_by(Run.id.desc()).limit(limit))


def count(wanted: Wanted, now: datetime) -> int:
    """Return how many runs are wanted, of all pages; more than MOST are one more."""
    ids = _listed(replace(wanted, before=0), now).select(Run.id).order_by(Run.id.desc())
    return len(list(ids.limit(MOST + 1).tuples()))  # .count() would leave out the order, and with it the index


def active(limit: int) -> list[Run]:
    """Return runs that are running or paused: the running ones first, then those that began first."""
    running_first = Run.status == RunStatus.RUNNING
    return list(Run.select().where(Run.status.in_(ACTIVE)).order_by(running_first.desc(), Run.id).limit(limit))


def count_active() -> int:
    """Return how many runs are running or paused."""
    found: int = Run.select().where(Run.status.in_(ACTIVE)).count()
    return found


def has_any_begun() -> bool:
    """Return whether a run has ever begun."""
    return bool(Run.select(Run.id).where(LABEL.in_(_BEGUN), Run.started_at.is_null(False)).exists())


def sources() -> list[str]:
    """Return the names of all sources that have runs, whether they are still registered or not."""
    return _distinct(Run.source)


def tenants(source: str = "") -> list[str]:
    """Return whom there are runs for, MOST at the most.

    Parameters:
      source(str): Only runs of this one, as far as the newest MOST of them tell; empty: of all.
    """
    if not source:
        return _distinct(Run.tenant)
    newest: Any = Run.select(Run.tenant).where(Run.source == source).order_by(Run.id.desc()).limit(MOST).tuples()
    return sorted({tenant for (tenant,) in newest if tenant})


# --- the conditions


def _listed(wanted: Wanted, now: datetime) -> Any:
    if wanted.label:
        return _query(wanted, now)
    skipped = _query(replace(wanted, label="skipped", before=0), now).select(Run.id)
    few = [run.id for run in skipped.order_by(Run.id.desc()).limit(_FEW_SKIPPED)]
    return _query(wanted, now).where((LABEL != "skipped") | Run.id.in_(few))


def _query(wanted: Wanted, now: datetime) -> Any:
    query = Run.select()
    for column, value in ((Run.kind, wanted.kind), (Run.source, wanted.source), (Run.tenant, wanted.tenant)):
        if value:
            query = query.where(column == value)
    if wanted.label:
        query = query.where(_is_called(wanted.label, now))
    older = Run.id < (wanted.before or _ABOVE_ALL)
    return query.where(Run.id.in_(_lately(now, older)) if wanted.lately else older)


def _is_called(label: str, now: datetime) -> Any:
    if label == WITH_FAILURES:
        return LABEL.in_(_MAY_HAVE_FAILURES) & (Run.failed_count > 0)
    if label in ("scheduled", "overdue"):
        has_come = Run.scheduled_at <= now
        return (Run.status == RunStatus.SCHEDULED) & (has_come if label == "overdue" else ~has_come)
    if label in ("paused", "pausing"):
        claimed = (RunItem.run_id == Run.id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
        in_hand = fn.EXISTS(RunItem.select(SQL("1")).where(claimed))
        return (Run.status == RunStatus.PAUSED) & (in_hand if label == "pausing" else ~in_hand)
    return label == LABEL


def _lately(now: datetime, older: Any) -> Any:
    """Return the ids of what ended, ran or waited in the last 24 hours: each part has an index of its own."""
    ended = Run.ended_at.is_null(False) & (Run.ended_at >= now - _LATELY)
    ids = Run.select(Run.id).where(older)
    return (
        ids.where(ended, Run.items_removed_at.is_null())
        .union_all(ids.where(ended, Run.items_removed_at.is_null(False)))
        .union_all(ids.where(Run.status.in_([*ACTIVE, RunStatus.PENDING])))
        .union_all(ids.where(Run.status == RunStatus.SCHEDULED, Run.scheduled_at <= now))
    )


def _distinct(column: Any) -> list[str]:
    """Return the values of a column, each found by its index from the one before: DISTINCT would read every row."""
    rows = database.db.execute_sql(_NEXT_AND_NEXT.format(column=column.column_name, most=MOST)).fetchall()
    return [value for (value,) in rows]
