"""Makes one attempt at one item: sends its detail request, fills its row, and sorts every error into an outcome.

Top to bottom: `attempt` checks that the row is the item's own (`_why_unusable`), sends the request and fills the row
(`_fetch_and_fill`), or decides what an error means (`_outcome_of`): a retry after the backoff, a skip, a failure.
"""

import logging
from http import HTTPStatus
from typing import Any

from workers.connections import database
from workers.engine import backoff
from workers.engine.rate_limit_refusals import Refusals
from workers.errors import (
    AuthError,
    BudgetClosed,
    BudgetUnknown,
    ConfigurationError,
    DependencyDown,
    NotModified,
    PermanentError,
    RateLimited,
    Refused,
    RetryableError,
    Skip,
    other_budgets,
)
from workers.failures import FailureClass, class_named
from workers.limiter.permits import PermitClient, Subject
from workers.records import loaded_rows, model_database
from workers.records.commits import Outcome
from workers.records.import_status import external_id_of, item_type, item_types
from workers.records.tables import ItemStatus, RunItem
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.request_purpose import asking
from workers.text.error_text import describe, message_of

log = logging.getLogger(__name__)

#: What a model's own methods raise when the answer of the API has another shape than they read.
_UNEXPECTED_DATA = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def attempt(connector: Connector, permits: PermitClient, item: RunItem, row: Any) -> Outcome:
    """Fetch one item's details and fill its row; nothing is saved here.

    Parameters:
      connector(Connector): The API.
      permits(PermitClient): Gives the permit of the request.
      item(RunItem): A claimed item; its attempt has been counted.
      row(peewee.Model | Exception | None): The user's row, or why it cannot be read.

    Returns:
      Outcome: completed, skipped, failed, or pending again after the backoff.

    Raises:
      BudgetClosed: No permit, or no database: this was no attempt.
      Refused: The API refused the request. The caller decides whose refusal it is, then calls `refused`.

    Any other error of the source's code is an outcome of the item, even one that would end a thread.
    """
    if item.attempts > get_settings().max_attempts:
        return _failed(item, FailureClass.BUG, _lost_leases(item), asked=False)
    refusals = Refusals.of(item.metadata)
    permits.subject = refusals.subject
    try:
        unusable = _why_unusable(item, row)
        if unusable:
            return _failed(item, FailureClass.BAD_DATA, unusable, asked=False)
        return _fetch_and_fill(connector, permits, item, row)
    except (BudgetClosed, Refused, KeyboardInterrupt):
        raise
    except BudgetUnknown as error:
        raise backoff.closed_by_outage(error) from error
    except RateLimited as wait:  # of the source's own code
        return refused(item, refusals.with_wait(), wait)
    except BaseException as error:
        return _outcome_of(item, row, error)
    finally:
        permits.subject = Subject()


def _lost_leases(item: RunItem) -> str:
    """Return why an item failed whose last lease ended without an outcome, with the last reason that is known."""
    attempts = item.attempts - 1
    if not item.failure_reason:
        return f"the worker died, or lost its lease, {attempts} times while it had this item"
    return (
        f"the worker died, or lost its lease, in the last of {attempts} attempts. "
        f"Before that: {item.failure_reason.removesuffix('.')}"
    )


def _why_unusable(item: RunItem, row: Any) -> str:
    """Return why a row is not the item's own, or cannot be read: a database can give a primary key to a new row."""
    if row is None:
        return "its row is no longer in the table"
    if isinstance(row, Exception):
        return f"its row cannot be read: {describe(row)}"
    if item.item_type is not None and item.item_type not in item_types(type(row)):
        return f"its row is in {item.item_type}, and the source's model is in {item_type(type(row))} now"
    external_id = external_id_of(row, item.external_id)
    if external_id != item.external_id and not loaded_rows.is_respelled(row, item.external_id):
        return f"its row is no longer in the table: {row._pk} is the primary key of {external_id!r:.80} now"
    return ""


def _fetch_and_fill(connector: Connector, permits: PermitClient, item: RunItem, row: Any) -> Outcome:
    """Send the item's detail request with a permit, and fill its row; a row without a request is complete."""
    try:
        with other_budgets():
            request = row.get_api_detail_request()
    except _UNEXPECTED_DATA as error:
        reason = f"{type(row).__name__} cannot make the request for its details: {describe(error)}"
        return _failed(item, FailureClass.BAD_DATA, reason, asked=False)
    if request is not None:
        try:
            with asking(f"details of {item.external_id}"):
                data = connector.get_json(request, permits)
        except NotModified:  # the row is up to date
            return Outcome(item, ItemStatus.COMPLETED, model=row)
        with other_budgets():
            row.populate_from_api_response(data)
    return Outcome(item, ItemStatus.COMPLETED, model=row, asked=request is not None)


def _outcome_of(item: RunItem, row: Any, error: BaseException) -> Outcome:
    """Return the outcome of an error of the request, or of the source's code.

    Raises:
      BudgetClosed: The database that the model's own method queried does not answer.
    """
    if database.is_of_the_statement(error):
        return _retry(item, FailureClass.TRANSIENT, describe(error))
    if database.is_away(error) and not model_database.answers(type(row)):
        raise BudgetClosed(
            backoff.OUTAGE_SECONDS, f"the database does not answer: {database.explain(error)}"
        ) from error
    return _classify(item, row, error)


def _classify(item: RunItem, row: Any, error: BaseException) -> Outcome:
    """Return the outcome of an error that is no outage: skipped, retried as transient, or failed with a class."""
    if isinstance(error, Skip):
        return Outcome(item, ItemStatus.SKIPPED, reason=message_of(error))
    if isinstance(error, (RetryableError, DependencyDown)) or database.is_away(error):
        return _retry(item, FailureClass.TRANSIENT, message_of(error))
    if isinstance(error, ConfigurationError):  # a weight or a timeout that is not valid
        return _failed(item, FailureClass.CONTRACT, message_of(error), asked=False)
    if isinstance(error, PermanentError):
        forbidden = isinstance(error, AuthError) and error.status == HTTPStatus.FORBIDDEN
        return _failed(item, class_named(error.failure_class), message_of(error), forbidden=forbidden)
    if isinstance(error, _UNEXPECTED_DATA):
        reason = f"{type(row).__name__} cannot take what the API answered: {describe(error)}"
        return _failed(item, FailureClass.BAD_DATA, reason)
    return crashed(item, error)


def refused(item: RunItem, refusals: Refusals, wait: RateLimited) -> Outcome:
    """Return the outcome of an item whose refusal is its own: only this item waits, or it has failed.

    Parameters:
      refusals(Refusals): Its refusals, this one included.
      wait(RateLimited): How long it is to wait, and why.
    """
    reason = refusals.reason(wait)
    if refusals.are_too_many:
        return _failed(item, FailureClass.RATE_LIMITED, reason)
    return Outcome(
        item,
        ItemStatus.PENDING,
        failure_class=FailureClass.RATE_LIMITED,
        reason=reason,
        retry_seconds=backoff.asked_seconds(wait),
        metadata=(item.metadata or {}) | refusals.to_metadata(),
        refund=True,
    )


def crashed(item: RunItem, error: BaseException) -> Outcome:
    """Return the outcome of an item at which a turn ended in an error: pending again, or failed."""
    log.error("run %d: item %s", item.run_id, item.external_id, exc_info=error)
    return _retry(item, FailureClass.BUG, describe(error))


def save_timed_out(item: RunItem, error: Exception) -> Outcome:
    """Return the outcome of an item whose row the database did not save in time: pending again, or failed."""
    return _retry(item, FailureClass.TRANSIENT, f"the row could not be saved: {describe(error)}")


def _retry(item: RunItem, failure_class: FailureClass, reason: str) -> Outcome:
    """Return the outcome after a failed attempt: pending until the backoff is over; failed, if it was the last."""
    wait = backoff.seconds_until_next(item.attempts)
    if wait is None:
        return _failed(item, failure_class, f"{reason} ({item.attempts} attempts)")
    return Outcome(item, ItemStatus.PENDING, failure_class=failure_class, reason=reason, retry_seconds=wait)


def _failed(
    item: RunItem, failure_class: FailureClass, reason: str, *, asked: bool = True, forbidden: bool = False
) -> Outcome:
    return Outcome(
        item, ItemStatus.FAILED, failure_class=failure_class, reason=reason, asked=asked, forbidden=forbidden
    )
