"""Claims due items for the length of a lease, and ends claims early. An item whose lease has expired is due again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import fn

from workers.connections import database
from workers.failures import storable_reason
from workers.records.tables import IS_OPEN, ItemStatus, Run, RunItem, RunStatus

#: After this many attempts, an item whose lease expired is suspected of killing its process.
_SUSPECT_ATTEMPTS = 2


@dataclass(frozen=True)
class Claim:
    """Items that were claimed until `until`. Their `due_at` identifies the claim: it is equal while the claim holds."""

    items: Sequence[RunItem]
    until: datetime


def claim(run_id: int, limit: int, lease_seconds: float) -> Claim:
    """Claim the next due items of a run.

    An item whose lease expired can be the one that killed its process. It is claimed alone, so that no other item is
    lost with it. An item that lost two leases is claimed only while no other such item of the run is claimed: else
    innocent items that were in the same process twice would lose a third lease.

    Parameters:
      run_id(int): The run.
      limit(int): Most items to claim; at least 1.
      lease_seconds(float): How long the claim holds.
    """
    now = database.now()
    until = now + timedelta(seconds=lease_seconds)
    items = _claim_lost(run_id, now, until) or _claim(_due(run_id, ItemStatus.PENDING, now).limit(limit), until)
    return Claim(items, until)


def _claim_lost(run_id: int, now: datetime, until: datetime) -> list[RunItem]:
    lost = _due(run_id, ItemStatus.PROCESSING, now).limit(1)
    if lost.scalar() is None:
        return []
    items = _claim(lost.where(RunItem.attempts < _SUSPECT_ATTEMPTS), until)
    return items or ([] if _is_suspect_claimed(run_id, now) else _claim(lost, until))


def _due(run_id: int, status: ItemStatus, now: datetime) -> Any:
    wanted = (RunItem.run_id == run_id) & (RunItem.status == status) & (RunItem.due_at <= now) & IS_OPEN
    return RunItem.select(RunItem.id).where(wanted).order_by(RunItem.due_at, RunItem.id)


def _is_suspect_claimed(run_id: int, now: datetime) -> bool:
    """Whether a claimed item has lost two leases. *Warning:* two processes that ask at once can both get False."""
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & (RunItem.due_at > now) & IS_OPEN
    suspects = RunItem.select(RunItem.id).where(claimed, RunItem.attempts > _SUSPECT_ATTEMPTS)
    return suspects.limit(1).scalar() is not None


def _claim(due: Any, until: datetime) -> list[RunItem]:
    values = {RunItem.status: ItemStatus.PROCESSING, RunItem.due_at: until, RunItem.attempts: RunItem.attempts + 1}
    if database.is_sqlite():
        update = RunItem.update(values).where(RunItem.id.in_(due))
    else:
        # Materialized: the planner must not run a LIMIT with SKIP LOCKED twice.
        chosen = due.for_update(skip_locked=True).cte("due", columns=("id",), materialized=True)
        update = RunItem.update(values).where(RunItem.id.in_(chosen.select(chosen.c.id))).with_cte(chosen)
    return sorted(update.returning(RunItem).execute(), key=lambda item: item.id)


def give_back(claim: Claim, items: Iterable[RunItem]) -> int:
    """End the claim of these items: they are due now, and their attempt does not count.

    Returns:
      int: How many of them were still claimed.
    """
    ids = [item.id for item in items]
    if not ids:
        return 0
    values = {
        RunItem.status: ItemStatus.PENDING,
        RunItem.due_at: database.now(),
        RunItem.attempts: RunItem.attempts - 1,
    }
    given: int = RunItem.update(values).where(RunItem.id.in_(ids), is_held(claim)).execute()
    return given


def put_behind(claim: Claim, item: RunItem, wait_seconds: float, metadata: dict[str, Any]) -> None:
    """End the claim of one item and make it due later, after the others; its attempt does not count."""
    values = {
        RunItem.status: ItemStatus.PENDING,
        RunItem.due_at: database.now() + timedelta(seconds=wait_seconds),
        RunItem.attempts: RunItem.attempts - 1,
        RunItem.metadata: metadata,
    }
    RunItem.update(values).where(RunItem.id == item.id, is_held(claim)).execute()


def suspect(claim: Claim, items: Iterable[RunItem], reason: str) -> None:
    """Let the lease of these items expire now, so that each is claimed alone: one of them ended a turn with an error.

    Parameters:
      reason(str): The error.
    """
    values = {RunItem.due_at: database.now(), RunItem.failure_reason: storable_reason(reason)}
    RunItem.update(values).where(RunItem.id.in_([item.id for item in items]), is_held(claim)).execute()


def renew(claim: Claim, items: Iterable[RunItem], lease_seconds: float) -> Claim:
    """Start the lease of these items of a claim again.

    Returns:
      Claim: The same items, with the new end.
    """
    until = database.now() + timedelta(seconds=lease_seconds)
    RunItem.update({RunItem.due_at: until}).where(RunItem.id.in_([item.id for item in items]), is_held(claim)).execute()
    return Claim(claim.items, until)


def reopen_all(run_id: int) -> None:
    """Within a transaction that fails a run: make its claimed items pending, with all their attempts left."""
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
    values = {RunItem.status: ItemStatus.PENDING, RunItem.attempts: 0, RunItem.due_at: database.now()}
    RunItem.update(values).where(claimed).execute()


def is_held(claim: Claim) -> Any:
    return (RunItem.status == ItemStatus.PROCESSING) & (RunItem.due_at == claim.until)


def has_any(run_id: int) -> bool:
    """Whether any item of the run is claimed."""
    processing = RunItem.status == ItemStatus.PROCESSING
    return RunItem.select(RunItem.id).where(RunItem.run_id == run_id, processing, IS_OPEN).exists()


def is_any_due(run_id: int, now: datetime) -> bool:
    """Whether an item of the run can be claimed now."""
    return _due(run_id, ItemStatus.PENDING, now).limit(1).scalar() is not None


def take_back(run_id: int) -> int:
    """End all claims of a run that is not running; results that their lanes commit later are ignored.

    The attempts count, because an item can be the reason why its lane hangs.

    Returns:
      int: How many there were.
    """
    stopped = Run.select(Run.id).where(Run.id == run_id, Run.status != RunStatus.RUNNING)
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
    values = {RunItem.status: ItemStatus.PENDING, RunItem.due_at: database.now()}
    taken: int = RunItem.update(values).where(claimed, fn.EXISTS(stopped)).execute()
    return taken
