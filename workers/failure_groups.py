"""Failure groups: a run's failed items, those that failed alike together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peewee import fn

from workers.tables import HAS_FAILED, RunItem


@dataclass(frozen=True)
class FailureGroup:
    """Items of a run that failed alike.

    Attributes:
      failure_class: One of `failures.FailureClass`.
      fingerprint: What their reasons have in common; see `failures.fingerprint`.
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
