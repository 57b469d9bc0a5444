"""One attempt at one item: its request, its row filled, and every error sorted to what becomes of the item."""

import logging
import math
from http import HTTPStatus
from typing import Any

from workers.connections import database
from workers.engine.refusals import Refusals
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
from workers.records import saving
from workers.records.items import Outcome
from workers.records.tables import ItemStatus, RunItem
from workers.records.tracking import external_id_of, item_type, item_types
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.request_purpose import asking
from workers.text.error_text import describe, message_of

log = logging.getLogger(__name__)

#: How long work stays away while Redis gives no permits.
DOWN_SECONDS = 5.0

#: So long a thing that is refused alone waits at least; at most where its source's own code asked for it, or its API.
_LEAST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, _LONGEST_ASKED_SECONDS = 1.0, 3_600.0, 90_000.0

#: What a model's own methods raise when the API answered with something else than they read.
_CANNOT_TAKE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def attempt(connector: Connector, permits: PermitClient, item: RunItem, row: Any) -> Outcome:
    """Fetch one item's details and fill its row; nothing is saved here.

    Parameters:
      connector(Connector): The API.
      permits(PermitClient): Whose permit the request takes.
      item(RunItem): A claimed item; its attempt has been counted.
      row(peewee.Model | Exception | None): The user's row, or why it cannot be read.

    Returns:
      Outcome: completed, skipped, failed, or pending again after the backoff.

    Raises:
      BudgetClosed: No permit, or no database: this was no attempt.
      Refused: The API refused: see `refused` for what becomes of the item.

    Whatever else the source's code raises is what became of the item, be it an exception that would end a thread.
    """
    if item.attempts > get_settings().max_attempts:
        return _failed(item, FailureClass.BUG, _of_the_dead(item), asked=False)
    refusals = Refusals.of(item.metadata)
    permits.subject = refusals.subject
    try:
        unusable = _why_unusable(item, row)
        if unusable:
            return _failed(item, FailureClass.BAD_DATA, unusable, asked=False)
        return _fill(connector, permits, item, row)
    except (BudgetClosed, Refused, KeyboardInterrupt):
        raise
    except BudgetUnknown as error:
        raise BudgetClosed(DOWN_SECONDS, str(error)) from error
    except RateLimited as wait:  # of the source's own code
        return refused(item, refusals.and_a_wait(), wait)
    except BaseException as error:
        return _of_an_error(item, row, error)
    finally:
        permits.subject = Subject()


def _of_an_error(item: RunItem, row: Any, error: BaseException) -> Outcome:
    if database.is_of_the_statement(error):
        return _again(item, FailureClass.TRANSIENT, describe(error))
    if database.is_away(error) and not saving.answers(type(row)):  # the model's own method asked it
        raise BudgetClosed(DOWN_SECONDS, f"the database does not answer: {database.explain(error)}") from error
    return _sort(item, row, error)


def refused(item: RunItem, refusals: Refusals, wait: RateLimited) -> Outcome:
    """Return what becomes of an item that is refused by itself: it waits alone, or has failed.

    Parameters:
      refusals(Refusals): Its refusals, this one among them.
      wait(RateLimited): How long it is to wait, and why.
    """
    reason = refusals.said(reason_of(wait))
    if refusals.are_too_many:
        return _failed(item, FailureClass.RATE_LIMITED, reason)
    return Outcome(
        item,
        ItemStatus.PENDING,
        failure_class=FailureClass.RATE_LIMITED,
        reason=reason,
        retry_seconds=bounded(wait),
        metadata=(item.metadata or {}) | refusals.kept(),
        refund=True,
    )


def bounded(wait: RateLimited) -> float:
    """Return a wait as one that can be kept: an hour at most where a source asked for it, 25 where the API did."""
    seconds = getattr(wait, "wait_seconds", None)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        return _LEAST_WAIT_SECONDS
    longest = _LONGEST_ASKED_SECONDS if isinstance(wait, Refused) else _LONGEST_WAIT_SECONDS
    return float(min(max(seconds, _LEAST_WAIT_SECONDS), longest))


def reason_of(wait: RateLimited) -> str:
    """Return why it is to be waited; of a user's own kind of this error, what it says."""
    reason = getattr(wait, "reason", None)
    return reason if isinstance(reason, str) else message_of(wait)


def _why_unusable(item: RunItem, row: Any) -> str:
    """Say why a row is not the item's own, or cannot be read: a database may give a primary key again."""
    if row is None:
        return "its row is no longer in the table"
    if isinstance(row, Exception):
        return f"its row cannot be read: {describe(row)}"
    if item.item_type is not None and item.item_type not in item_types(type(row)):
        return f"its row is in {item.item_type}, and the source's model is in {item_type(type(row))} now"
    external_id = external_id_of(row, item.external_id)
    if external_id != item.external_id and not saving.is_respelled(row, item.external_id):
        return f"its row is no longer in the table: {row._pk} is the primary key of {external_id!r:.80} now"
    return ""


def ended(item: RunItem, error: Exception) -> Outcome:
    """Return what becomes of an item whose row a database would not save in time: pending again, or failed."""
    return _again(item, FailureClass.TRANSIENT, f"the row could not be saved: {describe(error)}")


def crashed(item: RunItem, error: BaseException) -> Outcome:
    """Return what becomes of an item at which a whole turn ended in an error: pending again, or failed."""
    log.error("run %d: item %s", item.run_id, item.external_id, exc_info=error)
    return _again(item, FailureClass.BUG, describe(error))


def _fill(connector: Connector, permits: PermitClient, item: RunItem, row: Any) -> Outcome:
    try:
        with other_budgets():
            request = row.get_api_detail_request()
    except _CANNOT_TAKE as error:
        reason = f"{type(row).__name__} cannot make the request for its details: {describe(error)}"
        return _failed(item, FailureClass.BAD_DATA, reason, asked=False)
    if request is not None:
        try:
            with asking(f"details of {item.external_id}"):
                data = connector.get_json(request, permits)
        except NotModified:  # the row is as it should be
            return Outcome(item, ItemStatus.COMPLETED, model=row)
        with other_budgets():
            row.populate_from_api_response(data)
    return Outcome(item, ItemStatus.COMPLETED, model=row, asked=request is not None)


def _sort(item: RunItem, row: Any, error: BaseException) -> Outcome:
    if isinstance(error, Skip):
        return Outcome(item, ItemStatus.SKIPPED, reason=message_of(error))
    if isinstance(error, (RetryableError, DependencyDown)) or database.is_away(error):
        return _again(item, FailureClass.TRANSIENT, message_of(error))
    if isinstance(error, ConfigurationError):  # a weight or a timeout that cannot be
        return _failed(item, FailureClass.CONTRACT, message_of(error), asked=False)
    if isinstance(error, PermanentError):
        forbidden = isinstance(error, AuthError) and error.status == HTTPStatus.FORBIDDEN
        return _failed(item, class_named(error.failure_class), message_of(error), forbidden=forbidden)
    if isinstance(error, _CANNOT_TAKE):
        reason = f"{type(row).__name__} cannot take what the API answered: {describe(error)}"
        return _failed(item, FailureClass.BAD_DATA, reason)
    return crashed(item, error)


def _of_the_dead(item: RunItem) -> str:
    """Say what became of the attempts at an item of which not all have left a word."""
    attempts = item.attempts - 1
    if not item.failure_reason:
        return f"the worker died, or lost its lease, {attempts} times while it had this item"
    return (
        f"the worker died, or lost its lease, in the last of {attempts} attempts. "
        f"Before that: {item.failure_reason.removesuffix('.')}"
    )


def _again(item: RunItem, failure_class: FailureClass, reason: str) -> Outcome:
    settings = get_settings()
    if item.attempts >= settings.max_attempts:
        return _failed(item, failure_class, f"{reason} ({item.attempts} attempts)")
    wait = settings.backoff_seconds[item.attempts - 1]
    return Outcome(item, ItemStatus.PENDING, failure_class=failure_class, reason=reason, retry_seconds=wait)


def _failed(
    item: RunItem, failure_class: FailureClass, reason: str, *, asked: bool = True, forbidden: bool = False
) -> Outcome:
    return Outcome(
        item, ItemStatus.FAILED, failure_class=failure_class, reason=reason, asked=asked, forbidden=forbidden
    )
