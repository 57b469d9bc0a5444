"""Runs list: queries the runs that pages and commands list, the newest first, a page at a time, each by an index."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from workers.connections import database
from workers.records.tables import ACTIVE, LABEL, Run, RunStatus
from workers.reports import labels

#: The kinds of run there are.
KINDS = ("import",)
#: A filter beside the labels: runs with failed items, whatever their label.
WITH_FAILURES = "with failures"
_MAY_HAVE_FAILURES = ("running", "paused", "pending", labels.WITH_FAILURES, "failed", "cancelled")
_BEGUN = ("running", "paused", *labels.SUCCEEDED, "failed", "cancelled")
PAGE = 50
#: How many runs are counted, and tenants named, at most.
MOST = 1_000

#: How many skipped slots are listed, unless they are filtered for: a night without a scheduler leaves many.
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
    """A filter of runs; an empty field leaves no run out.

    Attributes:
      label: One of `labels.LABELS`, or WITH_FAILURES.
      status: A `RunStatus`: the runs of every label it can have.
      lately: Only those that ended, ran or waited in the last 24 hours.
      before: Only those with a lower id: an older page.
    """

    kind: str = ""
    source: str = ""
    tenant: str = ""
    label: str = ""
    status: str = ""
    lately: bool = False
    before: int = 0

    @property
    def narrows(self) -> bool:
        """Whether it leaves any run out, older pages aside."""
        return bool(self.kind or self.source or self.tenant or self.label or self.status or self.lately)


def newest(wanted: Wanted, now: datetime, limit: int = PAGE) -> list[Run]:
    """Return the newest of the wanted runs.

    Parameters:
      now(datetime): What `lately` and *overdue* refer to.
      limit(int): How many at most.
    """
    return list(_listed(wanted, now).order_by(Run.id.desc()).limit(limit))


def newest_active_first(wanted: Wanted, now: datetime, limit: int = PAGE) -> list[Run]:
    """Return the newest of the wanted runs, the running and paused ones before all others. As `newest` otherwise."""
    running = list(_query(wanted, now).where(Run.status.in_(ACTIVE)).order_by(Run.id.desc()).limit(limit))
    others = [run for run in newest(wanted, now, limit) if run.status not in ACTIVE]
    return (running + others)[:limit]


def count(wanted: Wanted, now: datetime) -> int:
    """Return how many runs are wanted, on all pages; MOST + 1 where there are more than MOST."""
    ids = _listed(replace(wanted, before=0), now).select(Run.id).order_by(Run.id.desc())
    return len(list(ids.limit(MOST + 1).tuples()))  # .count() would leave out the order, and with it the index


def active(limit: int) -> list[Run]:
    """Return runs that are running or paused: the running ones first, the oldest of them first."""
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
    """Return the tenants that have runs, MOST of them at most.

    Parameters:
      source(str): Only those in the newest MOST runs of this source; empty: of all sources.
    """
    if not source:
        return _distinct(Run.tenant)
    newest: Any = Run.select(Run.tenant).where(Run.source == source).order_by(Run.id.desc()).limit(MOST).tuples()
    return sorted({tenant for (tenant,) in newest if tenant})


# --- the conditions


def _listed(wanted: Wanted, now: datetime) -> Any:
    if wanted.label or wanted.status:
        return _query(wanted, now)
    skipped = _query(replace(wanted, label=labels.SKIPPED, before=0), now).select(Run.id)
    few: Any = skipped.order_by(Run.id.desc()).limit(_FEW_SKIPPED)
    if wanted.lately:  # as a subquery, it would let Postgres read the whole table
        few = [run.id for run in few]
    return _query(wanted, now).where((LABEL != labels.SKIPPED) | Run.id.in_(few))


def _query(wanted: Wanted, now: datetime) -> Any:
    query = Run.select()
    for column, value in ((Run.kind, wanted.kind), (Run.source, wanted.source), (Run.tenant, wanted.tenant)):
        if value:
            query = query.where(column == value)
    if wanted.label == WITH_FAILURES:
        query = query.where(LABEL.in_(_MAY_HAVE_FAILURES) & (Run.failed_count > 0))
    elif wanted.label:
        query = query.where(labels.has_label(wanted.label, now))
    if wanted.status:
        query = query.where(LABEL.in_(labels.LABELS_OF_STATUS[wanted.status]))
    older = Run.id < (wanted.before or _ABOVE_ALL)
    return query.where(Run.id.in_(_lately(now, older)) if wanted.lately else older)


def _lately(now: datetime, older: Any) -> Any:
    """Return the ids of the runs that ended, ran or waited in the last 24 hours: each part has an index of its own."""
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
