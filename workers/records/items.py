"""RunItem: claims, and the commit of what came of them. A claim is only a due time: what is lost is due again."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, chunked, fn

from workers.connections import database
from workers.failures import CIRCUIT, REASON_LENGTH, FailureClass, fingerprint, storable_reason, whole_reason
from workers.limiter.permits import Usage
from workers.records import runs, saving
from workers.records.tables import HAS_FAILED, IS_OPEN, OPEN, ItemStatus, Run, RunItem, RunStatus

#: Rows of one INSERT: a statement takes 65,535 values on Postgres, 32,766 on some builds of SQLite.
_CHUNK = 500


#: From so many attempts on, an item whose lease ran out is suspected of killing its process.
_SUSPECT_ATTEMPTS = 2


@dataclass(frozen=True)
class Claim:
    """Items that are ours until `until`; their `due_at` is the token."""

    items: Sequence[RunItem]
    until: datetime


@dataclass(frozen=True)
class Outcome:
    """What came of one claimed item.

    Parameters:
      item(RunItem): The item.
      status(ItemStatus): completed, skipped, failed, or pending for another attempt.
      model(peewee.Model | None): The user's row to save, for a completed one.
      failure_class(FailureClass): For a failed attempt.
      reason(str): For a failed attempt, or why it was skipped.
      retry_seconds(float): For pending: in how long it is due again.
      asked(bool): Whether the API was asked, so that it tells of the credentials.
      forbidden(bool): Whether it was refused with 403, which may be about this item alone.
      metadata(dict | None): For pending: what the next attempt is to know; None leaves it as it is.
      refund(bool): For pending: whether this was no attempt.
    """

    item: RunItem
    status: ItemStatus
    model: Any = None
    failure_class: FailureClass | None = None
    reason: str | None = None
    retry_seconds: float = 0.0
    asked: bool = True
    forbidden: bool = False
    metadata: dict[str, Any] | None = None
    refund: bool = False


def add(run_id: int, rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """Insert the items of a list page; the known ones are left as they are.

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
    """Return the external ids under which the run has items of other rows than these.

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
    """Return how many of these rows the runs of other tenants had as items, by tenant; "" stands for none.

    Parameters:
      item_type(str), item_ids(Sequence[str]): The rows: see `RunItem`.
      tenant(str | None): Whose runs are not meant.
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


def claim(run_id: int, limit: int, lease_seconds: float) -> Claim:
    """Claim the next due items of a run.

    An item whose lease ran out may be the one that killed its process: it is claimed alone, so that it cannot take
    others with it. One that lost two leases is claimed only while no other such item is in hand anywhere: else those
    that were in the same process each time would share its fate.

    Parameters:
      run_id(int): The run.
      limit(int): Most items to claim; at least 1.
      lease_seconds(float): How long they are ours.
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
    return items or ([] if _suspect_in_hand(run_id, now) else _claim(lost, until))


def _due(run_id: int, status: ItemStatus, now: datetime) -> Any:
    wanted = (RunItem.run_id == run_id) & (RunItem.status == status) & (RunItem.due_at <= now) & IS_OPEN
    return RunItem.select(RunItem.id).where(wanted).order_by(RunItem.due_at, RunItem.id)


def _suspect_in_hand(run_id: int, now: datetime) -> bool:
    """Whether an item is in hand that may have lost two leases. Two that ask at once may both be told no."""
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
    """Let others have these items of the claim at once; the attempt is refunded.

    Returns:
      int: How many were still ours.
    """
    ids = [item.id for item in items]
    if not ids:
        return 0
    values = {
        RunItem.status: ItemStatus.PENDING,
        RunItem.due_at: database.now(),
        RunItem.attempts: RunItem.attempts - 1,
    }
    given: int = RunItem.update(values).where(RunItem.id.in_(ids), _held(claim)).execute()
    return given


def put_behind(claim: Claim, item: RunItem, wait_seconds: float, metadata: dict[str, Any]) -> None:
    """Give an item of the claim back so that the others are asked before it; the attempt is refunded."""
    values = {
        RunItem.status: ItemStatus.PENDING,
        RunItem.due_at: database.now() + timedelta(seconds=wait_seconds),
        RunItem.attempts: RunItem.attempts - 1,
        RunItem.metadata: metadata,
    }
    RunItem.update(values).where(RunItem.id == item.id, _held(claim)).execute()


def suspect(claim: Claim, items: Iterable[RunItem], reason: str) -> None:
    """Leave these items of the claim as if their worker had died: each is claimed alone, for one of them ended a turn.

    Parameters:
      reason(str): The error that did.
    """
    values = {RunItem.due_at: database.now(), RunItem.failure_reason: storable_reason(reason)}
    RunItem.update(values).where(RunItem.id.in_([item.id for item in items]), _held(claim)).execute()


def renew(claim: Claim, items: Iterable[RunItem], lease_seconds: float) -> Claim:
    """Let the lease of these items of a claim begin again.

    Returns:
      Claim: The same items, until later.
    """
    until = database.now() + timedelta(seconds=lease_seconds)
    RunItem.update({RunItem.due_at: until}).where(RunItem.id.in_([item.id for item in items]), _held(claim)).execute()
    return Claim(claim.items, until)


def clear(run_id: int) -> None:
    """Within a transaction that fails a run: its items that are claimed are open again, with all their attempts."""
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
    values = {RunItem.status: ItemStatus.PENDING, RunItem.attempts: 0, RunItem.due_at: database.now()}
    RunItem.update(values).where(claimed).execute()


def commit(
    run_id: int, claim: Claim, outcomes: Sequence[Outcome], usage: Usage, save: Callable[[Sequence[Any]], None]
) -> RunStatus:
    """Write what came of claimed items, the users' rows, the statuses and the run's counters, in one transaction.

    Items whose lease has passed to somebody else are left to them. If the rows cannot be saved together, they are
    saved one by one, and what cannot be saved fails alone. To repeat a commit of which it is not known whether it took
    effect counts nothing twice.

    Parameters:
      run_id(int): The run.
      claim(Claim): Whose items these are.
      outcomes(Sequence[Outcome]): At most one an item.
      usage(Usage): Requests, hits and sleeps to add to the run.
      save(Callable): Saves a sequence of the user's models; raises where it cannot.

    Returns:
      RunStatus: The run's status now: anything but running asks the lane to stop.

    *Warning:* rows on another database than ours are saved before the transaction, for no transaction spans two
    databases: if the process dies in between, they are fetched and saved again. The counts stay exact.
    """
    elsewhere = [o for o in outcomes if o.model is not None and not database.is_ours(type(o.model))]
    if elsewhere:
        saved = {o.item.id: o for o in _saved_elsewhere(elsewhere, save)}
        outcomes = [saved.get(o.item.id, o) for o in outcomes]
    try:
        return _commit(run_id, claim, outcomes, usage, save, one_by_one=False)
    except Exception as error:
        if database.is_away(error) or not any(outcome.model is not None for outcome in outcomes):
            raise
    try:
        return _commit(run_id, claim, outcomes, usage, save, one_by_one=True)
    except Exception as error:
        if database.is_away(error):
            raise
    return _commit_each(run_id, claim, outcomes, usage, save)


def _commit_each(
    run_id: int, claim: Claim, outcomes: Sequence[Outcome], usage: Usage, save: Callable[[Sequence[Any]], None]
) -> RunStatus:
    """Give each outcome a transaction of its own: a constraint may be checked as late as at its end."""
    status = RunStatus.RUNNING
    for outcome in outcomes:
        try:
            status = _commit(run_id, claim, [outcome], usage, save, one_by_one=True)
        except Exception as error:
            if database.is_away(error):
                raise
            status = _commit(run_id, claim, [_unsaved(outcome, error)], usage, save, one_by_one=True)
        usage = Usage()
    return status


def _saved_elsewhere(outcomes: Sequence[Outcome], save: Callable[[Sequence[Any]], None]) -> Sequence[Outcome]:
    """Save rows of another database in a transaction of its own; return the outcomes, those saved without their row."""
    model = type(outcomes[0].model)
    theirs = model._meta.database
    with saving.connected(model):
        try:
            with theirs.atomic():
                save([outcome.model for outcome in outcomes])
        except Exception as error:
            if database.is_away(error):
                raise
            outcomes = [_saved_alone(outcome, save, theirs) for outcome in outcomes]
    return [replace(outcome, model=None) for outcome in outcomes]


def _commit(
    run_id: int,
    claim: Claim,
    outcomes: Sequence[Outcome],
    usage: Usage,
    save: Callable[[Sequence[Any]], None],
    *,
    one_by_one: bool,
) -> RunStatus:
    with database.db.atomic():
        ours = _lock_ours(claim, outcomes)
        if one_by_one:
            ours = [_saved_alone(outcome, save, database.db) for outcome in ours]
        else:
            save([outcome.model for outcome in ours if outcome.model is not None])
        _write_statuses(ours)
        return _count(run_id, ours, usage if ours or not outcomes else Usage())


def _lock_ours(claim: Claim, outcomes: Sequence[Outcome]) -> list[Outcome]:
    held = (
        RunItem.select(RunItem.id)
        .where(RunItem.id.in_([o.item.id for o in outcomes]), _held(claim))
        .order_by(RunItem.id)
    )
    if not database.is_sqlite():
        held = held.for_update()
    rows: Any = held.tuples()
    ids = {item_id for (item_id,) in rows}
    return [outcome for outcome in outcomes if outcome.item.id in ids]


def _saved_alone(outcome: Outcome, save: Callable[[Sequence[Any]], None], where: Any) -> Outcome:
    if outcome.model is None:
        return outcome
    try:
        with where.atomic():
            save([outcome.model])
        return outcome
    except Exception as error:
        if database.is_away(error):
            raise
        return _unsaved(outcome, error)


def _unsaved(outcome: Outcome, error: Exception) -> Outcome:
    reason = f"the row could not be saved: {type(error).__name__}: {database.explain(error)}"
    return Outcome(outcome.item, ItemStatus.FAILED, failure_class=FailureClass.BAD_DATA, reason=reason)


def _write_statuses(outcomes: Sequence[Outcome]) -> None:
    now = database.now()
    completed = [o.item.id for o in outcomes if o.status is ItemStatus.COMPLETED]
    if completed:
        done = {RunItem.status: ItemStatus.COMPLETED, RunItem.completed_at: now, RunItem.due_at: now}
        RunItem.update(done).where(RunItem.id.in_(completed)).execute()
    for outcome in outcomes:
        if outcome.status is not ItemStatus.COMPLETED:
            RunItem.update(_unfinished(outcome, now)).where(RunItem.id == outcome.item.id).execute()


def _unfinished(outcome: Outcome, now: datetime) -> dict[Any, Any]:
    whole = whole_reason(outcome.reason)
    values: dict[Any, Any] = {
        RunItem.status: outcome.status,
        RunItem.due_at: now + timedelta(seconds=outcome.retry_seconds),
        RunItem.failure_reason: whole[:REASON_LENGTH],
    }
    if outcome.status is not ItemStatus.SKIPPED:
        values |= {
            RunItem.failure_class: outcome.failure_class,
            RunItem.failure_fingerprint: fingerprint(outcome.failure_class or "", whole, outcome.item.external_id),
            RunItem.failure_count: RunItem.failure_count + 1,
            RunItem.last_failed_at: now,
        }
    if outcome.metadata is not None:
        values[RunItem.metadata] = outcome.metadata
    if outcome.refund:
        values[RunItem.attempts] = RunItem.attempts - 1
    return values


def _count(run_id: int, outcomes: Sequence[Outcome], usage: Usage) -> RunStatus:
    counts = Counter(outcome.status for outcome in outcomes)
    refused, answered = _refusals(outcomes)
    values = runs.usage_values(usage) | {
        Run.succeeded_count: Run.succeeded_count + counts[ItemStatus.COMPLETED],
        Run.failed_count: Run.failed_count + counts[ItemStatus.FAILED],
        Run.skipped_count: Run.skipped_count + counts[ItemStatus.SKIPPED],
        Run.auth_failures_in_a_row: refused if answered else Run.auth_failures_in_a_row + refused,
        Run.updated_at: database.now(),
    }
    changed = (
        Run.update(values)
        .where(Run.id == run_id)
        .returning(Run.status, Run.auth_failures_in_a_row, Run.succeeded_count)
    )
    status, in_a_row, succeeded = next(iter(changed.tuples().execute()))
    told = [o for o in outcomes if o.failure_class == FailureClass.AUTH]
    # Some items may be forbidden where others are not; a key that is unknown, is unknown for all of them.
    for_all = not succeeded or any(not outcome.forbidden for outcome in told)
    if refused and in_a_row >= CIRCUIT and for_all and status == RunStatus.RUNNING:
        return runs.open_circuit(run_id, in_a_row, storable_reason(told[-1].reason))
    return RunStatus(status)


def _refusals(outcomes: Sequence[Outcome]) -> tuple[int, bool]:
    """Count the refused credentials after the last answer that was none; and tell whether there was such an answer."""
    refused = 0
    for outcome in reversed(outcomes):
        if outcome.failure_class == FailureClass.AUTH:
            refused += 1
        elif outcome.asked and outcome.failure_class != FailureClass.TRANSIENT:  # which tells nothing of them
            return refused, True
    return refused, False


def _held(claim: Claim) -> Any:
    return (RunItem.status == ItemStatus.PROCESSING) & (RunItem.due_at == claim.until)


def next_due(run_id: int) -> datetime | None:
    """Return when the earliest open item of the run is due, or its lease ends; None where nothing is open."""
    earliest: datetime | None = None
    for status in OPEN:  # one index look-up each; both at once would read every open item
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
    """Return when the last item of the run is due that nobody has in hand; None where there is none."""
    waits = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN
    due: datetime | None = RunItem.select(RunItem.due_at).where(waits).order_by(RunItem.due_at.desc()).limit(1).scalar()
    return due


def last_reason(run_id: int) -> str:
    """Return why an item failed that waits for another attempt: the one that is due first; empty where none does."""
    waits = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN
    return RunItem.select(RunItem.failure_reason).where(waits).order_by(RunItem.due_at).limit(1).scalar() or ""


def wait_again(run_id: int, now: datetime, most: int) -> tuple[int, str]:
    """Return how many items wait for another attempt, and why the one of them failed that is due first.

    Parameters:
      most(int): More are not counted.
    """
    later = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN & (RunItem.due_at > now)
    reason = RunItem.select(RunItem.failure_reason).where(later).order_by(RunItem.due_at).limit(1).scalar()
    return (RunItem.select(RunItem.id).where(later).limit(most).count() if reason else 0), reason or ""


def in_hand(run_id: int) -> bool:
    """Whether an item of the run is claimed."""
    processing = RunItem.status == ItemStatus.PROCESSING
    return RunItem.select(RunItem.id).where(RunItem.run_id == run_id, processing, IS_OPEN).exists()


def is_any_due(run_id: int, now: datetime) -> bool:
    """Whether an item of the run may be claimed, that nobody has in hand."""
    return _due(run_id, ItemStatus.PENDING, now).limit(1).scalar() is not None


def take_back(run_id: int) -> int:
    """Take from their claimers the items of a run that is not running: what they bring later is refused.

    The attempts are not refunded, for an item may be what its claimer hangs at.

    Returns:
      int: How many there were.
    """
    stopped = Run.select(Run.id).where(Run.id == run_id, Run.status != RunStatus.RUNNING)
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
    values = {RunItem.status: ItemStatus.PENDING, RunItem.due_at: database.now()}
    taken: int = RunItem.update(values).where(claimed, fn.EXISTS(stopped)).execute()
    return taken


def reopen_failed(
    run_id: int,
    failure_class: FailureClass | None = None,
    fingerprint: str | None = None,
    external_ids: Sequence[str] = (),
) -> int:
    """Make failed items of a run pending again, with all their attempts: those that fit all that is given.

    Returns:
      int: How many there were.
    """
    # An item that was refused from the list has no row to fill.
    wanted = (RunItem.run_id == run_id) & HAS_FAILED & RunItem.item_id.is_null(False)
    if failure_class:
        wanted &= RunItem.failure_class == failure_class
    if fingerprint:
        wanted &= RunItem.failure_fingerprint == fingerprint
    with database.db.atomic():
        count = sum(_reopen(wanted & some) for some in _among(external_ids))
        Run.update({Run.failed_count: Run.failed_count - count}).where(Run.id == run_id).execute()
    return count


def _reopen(wanted: Any) -> int:
    values = {
        RunItem.status: ItemStatus.PENDING,
        RunItem.attempts: 0,
        RunItem.due_at: database.now(),
        RunItem.metadata: None,
    }
    count: int = RunItem.update(values).where(wanted).execute()
    return count


def _among(external_ids: Sequence[str]) -> Iterator[Any]:
    """Yield the conditions under which items have one of these ids; a single one that always holds for none."""
    if not external_ids:
        yield SQL("1 = 1")
    for some in chunked(dict.fromkeys(external_ids), _CHUNK):
        yield RunItem.external_id.in_(some)


def not_retriable(run_id: int, external_ids: Sequence[str]) -> dict[str, str]:
    """Return which of these ids cannot be tried again, and why."""
    columns = (RunItem.external_id, RunItem.status, RunItem.item_id)
    why = dict.fromkeys(external_ids, "not in this run")
    for some in _among(external_ids) if external_ids else ():
        rows: Any = RunItem.select(*columns).where(RunItem.run_id == run_id, some).tuples()
        why |= {external_id: _why_not(status, item_id) for external_id, status, item_id in rows}
    return {external_id: reason for external_id, reason in why.items() if reason}


def _why_not(status: str, item_id: str | None) -> str:
    if status != ItemStatus.FAILED:
        return status
    return "" if item_id is not None else "refused from the list: it has no row to fill"


def remove(run_id: int, limit: int) -> int:
    """Within a transaction that holds an ended run's row: remove some of its items; the run's counts stay.

    Parameters:
      limit(int): Most items to remove.

    Returns:
      int: How many there were.
    """
    # Side by side in the table, too: 500 rows in the order of random external ids lie in 500 pages.
    count = _remove(RunItem.completed_at.is_null(False), RunItem.completed_at, run_id, limit)
    return count + _remove(RunItem.completed_at.is_null(), RunItem.external_id, run_id, limit - count)


def _remove(which: Any, order: Any, run_id: int, limit: int) -> int:
    """Remove some of a run's items in the order of an index: else Postgres reads past all that was removed before."""
    some = RunItem.select(RunItem.id).where(RunItem.run_id == run_id, which).order_by(order).limit(limit)
    if database.is_sqlite():
        removal = RunItem.delete().where(RunItem.id.in_(some))
    else:
        chosen = some.for_update(skip_locked=True).cte("old", columns=("id",), materialized=True)
        removal = RunItem.delete().where(RunItem.id.in_(chosen.select(chosen.c.id))).with_cte(chosen)
    count: int = removal.execute()
    return count
