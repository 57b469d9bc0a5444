"""Decides which failed items of a run can be retried, and makes them pending again."""

from collections.abc import Iterator, Sequence
from typing import Any

from peewee import SQL, chunked

from workers.connections import database
from workers.failures import FailureClass
from workers.records.tables import HAS_FAILED, ItemStatus, Run, RunItem

#: Ids of one IN: a statement takes 32,766 values on some builds of SQLite.
_CHUNK = 500


def reopen(
    run_id: int,
    failure_class: FailureClass | None = None,
    fingerprint: str | None = None,
    external_ids: Sequence[str] = (),
) -> int:
    """Make failed items of a run pending again, with all their attempts left: those that match every given condition.

    Returns:
      int: How many.
    """
    # An item that was refused when the list was read has no row.
    wanted = (RunItem.run_id == run_id) & HAS_FAILED & RunItem.item_id.is_null(False)
    if failure_class:
        wanted &= RunItem.failure_class == failure_class
    if fingerprint:
        wanted &= RunItem.failure_fingerprint == fingerprint
    with database.db.atomic():
        count = sum(_update(wanted & some) for some in _among(external_ids))
        Run.update({Run.failed_count: Run.failed_count - count}).where(Run.id == run_id).execute()
    return count


def _update(wanted: Any) -> int:
    values = {
        RunItem.status: ItemStatus.PENDING,
        RunItem.attempts: 0,
        RunItem.due_at: database.now(),
        RunItem.metadata: None,
    }
    count: int = RunItem.update(values).where(wanted).execute()
    return count


def _among(external_ids: Sequence[str]) -> Iterator[Any]:
    """Yield SQL conditions for these ids, in chunks; without ids, one condition that is always true."""
    if not external_ids:
        yield SQL("1 = 1")
    for some in chunked(dict.fromkeys(external_ids), _CHUNK):
        yield RunItem.external_id.in_(some)


def not_retriable(run_id: int, external_ids: Sequence[str]) -> dict[str, str]:
    """Return the ids whose items cannot be retried, each with the reason."""
    columns = (RunItem.external_id, RunItem.status, RunItem.item_id)
    why = dict.fromkeys(external_ids, "not in this run")
    for some in _among(external_ids) if external_ids else ():
        rows: Any = RunItem.select(*columns).where(RunItem.run_id == run_id, some).tuples()
        why |= {external_id: _why_not(status, item_id) for external_id, status, item_id in rows}
    return {external_id: reason for external_id, reason in why.items() if reason}


def _why_not(status: str, item_id: str | None) -> str:
    if status != ItemStatus.FAILED:
        return status
    return "" if item_id is not None else "refused from the list, so it has no row"
