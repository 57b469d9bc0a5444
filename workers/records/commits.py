"""Commits what a lane did with its claimed items: the users' rows, the items' statuses and the run's counters."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from workers.connections import database
from workers.failures import CIRCUIT, REASON_LENGTH, FailureClass, fingerprint, storable_reason, uncut_reason
from workers.limiter.permits import Usage
from workers.records import circuit_breaker, claims, model_database, row_batch, run_usage
from workers.records.claims import Claim
from workers.records.row_batch import Refusal
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus


@dataclass(frozen=True)
class Outcome:
    """The result of one claimed item.

    Parameters:
      item(RunItem): The item.
      status(ItemStatus): completed, skipped, failed, or pending for another attempt.
      model(peewee.Model | None): For completed: the user's row to save.
      failure_class(FailureClass): For a failed attempt.
      reason(str): For a failed attempt, or why it was skipped.
      retry_seconds(float): For pending: the time until it is due again.
      asked(bool): Whether a request was sent, so that the outcome shows whether the credentials work.
      forbidden(bool): Whether the API answered 403, which can concern this item alone.
      metadata(dict | None): For pending: state for the next attempt; None: unchanged.
      refund(bool): For pending: whether this attempt does not count.
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


def commit(
    run_id: int, claim: Claim, outcomes: Sequence[Outcome], usage: Usage, save: Callable[[Sequence[Any]], None]
) -> RunStatus:
    """Write the users' rows, the statuses of claimed items and the run's counters, in one transaction.

    Items that another lane has claimed since are skipped. If the rows cannot be saved together, they are saved one by
    one, and only the items of refused rows fail. The commit is idempotent: repeated after a lost connection, it counts
    nothing twice.

    Parameters:
      run_id(int): The run.
      claim(Claim): The claim of the items.
      outcomes(Sequence[Outcome]): At most one for each item.
      usage(Usage): Requests, rate-limit hits and waits to add to the run.
      save(Callable): Saves a sequence of the user's models, or raises.

    Returns:
      RunStatus: The status of the run now. If it is not running, the lane must stop.

    *Warning:* rows in another database are saved before this transaction, because no transaction spans two databases.
    If the process dies in between, these rows are fetched and saved again. The counts stay exact.
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
    """Commit each outcome in a transaction of its own, because a deferred constraint is checked at the commit only."""
    status = RunStatus.RUNNING
    for outcome in outcomes:
        try:
            status = _commit(run_id, claim, [outcome], usage, save, one_by_one=True)
        except Exception as error:
            if database.is_away(error):
                raise
            status = _commit(run_id, claim, [_settled(outcome, Refusal.of(error))], usage, save, one_by_one=True)
        usage = Usage()
    return status


def _saved_elsewhere(outcomes: Sequence[Outcome], save: Callable[[Sequence[Any]], None]) -> Sequence[Outcome]:
    """Save the rows of another database in a transaction of their own; return the outcomes without their rows."""
    model = type(outcomes[0].model)
    with model_database.connected(model):
        results = row_batch.save_together(model._meta.database, outcomes, partial(_save_rows, save))
    return [replace(_settled(*result), model=None) for result in results]


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
        held = _lock_claimed(claim, outcomes)
        if one_by_one:
            held = [_settled(*result) for result in row_batch.save_each(database.db, held, partial(_save_rows, save))]
        else:
            _save_rows(save, held)
        _write_statuses(held)
        return _count(run_id, held, usage if held or not outcomes else Usage())


def _lock_claimed(claim: Claim, outcomes: Sequence[Outcome]) -> list[Outcome]:
    held = (
        RunItem.select(RunItem.id)
        .where(RunItem.id.in_([o.item.id for o in outcomes]), claims.is_held(claim))
        .order_by(RunItem.id)
    )
    if not database.is_sqlite():
        held = held.for_update()
    rows: Any = held.tuples()
    ids = {item_id for (item_id,) in rows}
    return [outcome for outcome in outcomes if outcome.item.id in ids]


def _save_rows(save: Callable[[Sequence[Any]], None], outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    models = [outcome.model for outcome in outcomes if outcome.model is not None]
    if models:
        save(models)
    return outcomes


def _settled(outcome: Outcome, saved: Outcome | Refusal) -> Outcome:
    """Return the outcome to record: failed, if its row was refused."""
    if not isinstance(saved, Refusal):
        return outcome
    return Outcome(outcome.item, ItemStatus.FAILED, failure_class=FailureClass.BAD_DATA, reason=saved.reason)


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
    whole = uncut_reason(outcome.reason)
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
    values = run_usage.update_values(usage) | {
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
    auth_failures = [o for o in outcomes if o.failure_class == FailureClass.AUTH]
    # With 403, some items can be forbidden and others not; 401 means that the key is refused for all of them.
    for_all = not succeeded or any(not outcome.forbidden for outcome in auth_failures)
    if refused and in_a_row >= CIRCUIT and for_all and status == RunStatus.RUNNING:
        return circuit_breaker.open_circuit(run_id, in_a_row, storable_reason(auth_failures[-1].reason))
    return RunStatus(status)


def _refusals(outcomes: Sequence[Outcome]) -> tuple[int, bool]:
    """Count the auth failures after the last response that accepted the credentials; say whether there was one."""
    refused = 0
    for outcome in reversed(outcomes):
        if outcome.failure_class == FailureClass.AUTH:
            refused += 1
        elif (
            outcome.asked and outcome.failure_class != FailureClass.TRANSIENT
        ):  # a transient failure does not show whether they work
            return refused, True
    return refused, False
