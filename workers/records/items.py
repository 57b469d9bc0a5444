"""Adds the items of a list page to a run, finds when items are due, and removes the items of old runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from peewee import chunked, fn

from workers.connections import database
from workers.records.tables import IS_OPEN, OPEN, ItemStatus, Run, RunItem

#: Rows of one INSERT: a statement takes 65,535 values on Postgres, 32,766 on some builds of SQLite.
_CHUNK = 500


def add(run_id: int, rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """Insert the items of a list page; items that the run already has stay unchanged.

    Parameters:
      rows(Iterable[dict]): Columns by name, the same in each.

    Returns:
      Counter[str]: How many were new, by status.
    """
    fields = [RunItem.run_id, RunItem.external_id]
    new: Counter[str] = Counter()
    for some in chunked([{"run_id": run_id, **row} for row in rows], _CHUNK):
        insert = RunItem.insert_many(some).on_conflict(action="NOTHING", conflict_target=fields)
        new.update(status for (status,) in insert.returning(RunItem.status).tuples().execute())
    return new


def of_other_rows(run_id: int, rows: Mapping[str, str]) -> list[str]:
    """Return the external ids whose items in this run refer to other rows than these.

    Parameters:
      rows(Mapping[str, str]): External id -> primary key as text.
    """
    found: list[str] = []
    for some in chunked(rows, _CHUNK):
        known = RunItem.select(RunItem.external_id, RunItem.item_id)
        listed: Any = known.where(RunItem.run_id == run_id, RunItem.external_id.in_(some)).tuples()
        found += [external_id for external_id, item_id in listed if item_id not in (None, rows[external_id])]
    return found


def rows_of_other_tenants(item_type: str, item_ids: Sequence[str], tenant: str | None) -> Counter[str]:
    """Count by tenant how many of these rows are items of runs of other tenants; "" stands for runs without a tenant.

    Parameters:
      item_type(str), item_ids(Sequence[str]): The rows: see `RunItem`.
      tenant(str | None): The tenant whose runs are not counted.
    """
    found: Counter[str] = Counter()
    if not item_ids or (tenant is None and not Run.select(Run.id).where(Run.tenant.is_null(False)).limit(1).exists()):
        return found
    for some in chunked(item_ids, _CHUNK):
        count = (
            RunItem.select(Run.tenant, fn.COUNT(RunItem.item_id.distinct()))
            .join(Run, on=(Run.id == RunItem.run_id))
            .where(RunItem.item_type == item_type, RunItem.item_id.in_(some))
            .where(fn.COALESCE(Run.tenant, "") != (tenant or ""))
            .group_by(Run.tenant)
        )
        found.update({whose or "": rows for whose, rows in count.tuples().execute()})
    return found


def next_due(run_id: int) -> datetime | None:
    """Return when the earliest open item of the run is due, or its lease ends; None where nothing is open."""
    earliest: datetime | None = None
    for status in OPEN:  # one index lookup each; one query for both would read every open item
        due = (
            RunItem.select(RunItem.due_at)
            .where(RunItem.run_id == run_id, RunItem.status == status, IS_OPEN)
            .order_by(RunItem.due_at)
            .limit(1)
            .scalar()
        )
        earliest = min(filter(None, (earliest, due)), default=None)
    return earliest


def last_due(run_id: int) -> datetime | None:
    """Return when the last pending item of the run is due; None if no item is pending."""
    waits = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN
    due: datetime | None = RunItem.select(RunItem.due_at).where(waits).order_by(RunItem.due_at.desc()).limit(1).scalar()
    return due


def last_reason(run_id: int) -> str:
    """Return the failure reason of the pending item that is due first; empty if there is none."""
    waits = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN
    return RunItem.select(RunItem.failure_reason).where(waits).order_by(RunItem.due_at).limit(1).scalar() or ""


def wait_again(run_id: int, now: datetime, most: int) -> tuple[int, str]:
    """Count the items that wait for another attempt, and return the failure reason of the one that is due first.

    Parameters:
      most(int): Where the count stops.
    """
    later = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN & (RunItem.due_at > now)
    reason = RunItem.select(RunItem.failure_reason).where(later).order_by(RunItem.due_at).limit(1).scalar()
    return (RunItem.select(RunItem.id).where(later).limit(most).count() if reason else 0), reason or ""


def remove(run_id: int, limit: int) -> int:
    """Within a transaction that has locked an ended run's row: remove some of its items; the run's counts stay.

    Parameters:
      limit(int): Most items to remove.

    Returns:
      int: How many were removed.
    """
    # In this order they are also close together on disk: 500 rows in the order of random ids are on 500 pages.
    count = _remove(RunItem.completed_at.is_null(False), RunItem.completed_at, run_id, limit)
    return count + _remove(RunItem.completed_at.is_null(), RunItem.external_id, run_id, limit - count)


def _remove(which: Any, order: Any, run_id: int, limit: int) -> int:
    """Remove some of a run's items in the order of an index: else Postgres scans all rows that were removed before."""
    some = RunItem.select(RunItem.id).where(RunItem.run_id == run_id, which).order_by(order).limit(limit)
    if database.is_sqlite():
        removal = RunItem.delete().where(RunItem.id.in_(some))
    else:
        chosen = some.for_update(skip_locked=True).cte("old", columns=("id",), materialized=True)
        removal = RunItem.delete().where(RunItem.id.in_(chosen.select(chosen.c.id))).with_cte(chosen)
    count: int = removal.execute()
    return count
