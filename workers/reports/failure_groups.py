"""Failure groups: groups a run's failed items by class and fingerprint, and lists the failed items."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import chunked, fn

from workers.records.tables import HAS_FAILED, RunItem

_CHUNK = 1000


@dataclass(frozen=True)
class FailureGroup:
    """Failed items of a run with the same class and fingerprint.

    Attributes:
      failure_class: One of `failures.FailureClass`.
      fingerprint: Identifies what their reasons have in common; see `failures.fingerprint`.
      count: How many there are.
      reason: The reason of the first of them.
      external_id: The id of the first of them.
    """

    failure_class: str
    fingerprint: str
    count: int
    reason: str
    external_id: str


def failure_groups(run_id: int, limit: int = 50) -> Sequence[FailureGroup]:
    """Return the groups of a run's failed items, the largest first; counted from an index of failed items alone."""
    kind = (RunItem.failure_class, RunItem.failure_fingerprint)
    count, first = fn.COUNT(RunItem.id), fn.MIN(RunItem.id)
    found = RunItem.select(*kind, count, first).where(RunItem.run_id == run_id, HAS_FAILED).group_by(*kind)
    groups: Any = list(found.order_by(count.desc(), first).limit(limit).tuples())
    samples = {item.id: item for item in RunItem.select().where(RunItem.id.in_([group[3] for group in groups]))}
    return [
        FailureGroup(
            failure_class=failure_class or "",
            fingerprint=fingerprint or "",
            count=count,
            reason=samples[first].failure_reason or "",
            external_id=samples[first].external_id,
        )
        for failure_class, fingerprint, count, first in groups
    ]


@dataclass(frozen=True)
class FailedItem:
    """An item of a run that failed.

    Attributes:
      retriable: Whether it can be retried: an item that the list refused has no row to fill.
    """

    external_id: str
    failure_class: str
    fingerprint: str
    attempts: int
    failed_at: datetime | None
    reason: str
    retriable: bool


def failed_items(
    run_id: int, *, failure_class: str | None = None, fingerprint: str | None = None, limit: int = 50
) -> tuple[Sequence[FailedItem], int]:
    """Return the first of a run's failed items, grouped, and how many there are.

    Parameters:
      failure_class(str | None): Only those filed under it.
      fingerprint(str | None): Only those with this fingerprint.
      limit(int): How many are returned at most.
    """
    wanted = RunItem.select().where(RunItem.run_id == run_id, HAS_FAILED)
    if failure_class:
        wanted = wanted.where(RunItem.failure_class == failure_class)
    if fingerprint:
        wanted = wanted.where(RunItem.failure_fingerprint == fingerprint)
    order = (RunItem.failure_class, RunItem.failure_fingerprint, RunItem.id)  # as the index has them
    return [_failed(item) for item in wanted.order_by(*order).limit(limit)], wanted.count()


def _failed(item: RunItem) -> FailedItem:
    return FailedItem(
        external_id=item.external_id,
        failure_class=item.failure_class or "",
        fingerprint=item.failure_fingerprint or "",
        attempts=item.attempts,
        failed_at=item.last_failed_at,
        reason=item.failure_reason or "",
        retriable=item.item_id is not None,
    )


def first_failed(run_id: int, group: FailureGroup, limit: int = 10) -> Sequence[FailedItem]:
    """Return the first items of a group, without counting them: cheap for any number of items."""
    alike = _alike(group.failure_class or None, group.fingerprint or None)
    found = RunItem.select().where(RunItem.run_id == run_id, HAS_FAILED, alike).order_by(RunItem.id)
    return [_failed(item) for item in found.limit(limit)]


def retriable_count(run_id: int, failure_class: str | None = None, fingerprint: str | None = None) -> int:
    """Return how many failed items of a run can be retried. *Warning:* it reads each of them.

    Parameters:
      failure_class(str | None), fingerprint(str | None): As for `failed_items`.
    """
    wanted = RunItem.select().where(RunItem.run_id == run_id, HAS_FAILED, RunItem.item_id.is_null(False))
    if failure_class:
        wanted = wanted.where(RunItem.failure_class == failure_class)
    if fingerprint:
        wanted = wanted.where(RunItem.failure_fingerprint == fingerprint)
    count: int = wanted.count()
    return count


def known_ids(run_id: int, external_ids: Iterable[str]) -> set[str]:
    """Return which of these ids are those of items of the run."""
    known: set[str] = set()
    for some in chunked(external_ids, _CHUNK):
        found: Any = RunItem.select(RunItem.external_id).where(RunItem.run_id == run_id, RunItem.external_id.in_(some))
        known |= {external_id for (external_id,) in found.tuples()}
    return known


def retriable_counts(run_id: int) -> dict[tuple[str, str], int]:
    """Return how many failed items of a run can be retried, by class and fingerprint.

    *Warning:* it reads each of them.
    """
    kind = (RunItem.failure_class, RunItem.failure_fingerprint)
    wanted = RunItem.select(*kind, fn.COUNT(RunItem.id)).where(
        RunItem.run_id == run_id, HAS_FAILED, RunItem.item_id.is_null(False)
    )
    found: Any = wanted.group_by(*kind).tuples()
    return {(failure_class or "", fingerprint or ""): count for failure_class, fingerprint, count in found}


def failed_chunks(run_id: int) -> Iterator[Sequence[FailedItem]]:
    """Yield all failed items of a run, grouped, in chunks that fit into memory.

    Each chunk is read by a query of its own, so that no database snapshot stays open while a client downloads them.

    *Warning:* items that are retried meanwhile are left out; items that fail meanwhile can be left out.
    """
    kinds = RunItem.select(RunItem.failure_class, RunItem.failure_fingerprint).where(
        RunItem.run_id == run_id, HAS_FAILED
    )
    found: Any = list(kinds.distinct().order_by(RunItem.failure_class, RunItem.failure_fingerprint).tuples())
    for kind in found:
        yield from _chunks(run_id, _alike(*kind))


def _chunks(run_id: int, alike: Any) -> Iterator[Sequence[FailedItem]]:
    last = 0
    while True:
        more = RunItem.select().where(RunItem.run_id == run_id, HAS_FAILED, alike, RunItem.id > last)
        found = list(more.order_by(RunItem.id).limit(_CHUNK))
        if not found:
            return
        last = found[-1].id
        yield [_failed(item) for item in found]


def _alike(failure_class: str | None, fingerprint: str | None) -> Any:
    return (RunItem.failure_class == failure_class) & (RunItem.failure_fingerprint == fingerprint)
