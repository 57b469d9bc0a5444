"""Decides what follows when a list page could not be read: another attempt, a partial list, or a failed run."""

import logging
from contextlib import suppress

from peewee import DataError, IntegrityError, PeeweeException

from workers.connections import database
from workers.engine import backoff, new_items
from workers.engine.finalize import tidy_up
from workers.engine.rate_limit_refusals import Refusals
from workers.errors import InvalidTransition, PermanentError, RateLimited, Refused, RetryableError, SluiceError
from workers.failures import FailureClass, class_named
from workers.limiter.permits import Usage
from workers.messaging import broker
from workers.messaging.middleware import resend_delay
from workers.records import cursor, cursor_text, items, runs, seen_pages
from workers.records.tables import MISSING, Run, RunStatus
from workers.settings import get_settings
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.durations import duration
from workers.text.error_text import describe, message_of

log = logging.getLogger(__name__)


def settle(run: Run, error: BaseException) -> None:
    """Decide by the error whether a run attempts its list page again, ends its list there, or fails.

    Raises:
      Refused: The API refused, and the refusal is the budget's: the whole budget pauses.
      BaseException: `error`, where a database is away: the page has been put back.
    """
    if isinstance(error, RateLimited):
        _refused(run, error)
    elif isinstance(error, RetryableError):
        _retry_later(run, error)
    elif database.is_of_the_statement(error):
        _retry_later(run, RetryableError(describe(error)))
    elif database.is_away(error):
        with suppress(Exception):  # else the lease ends, and the attempt is spent
            database.reconnect()
            cursor.put_page_back(run, backoff.OUTAGE_SECONDS, refund=True)
        raise error
    else:
        _give_up(run, error)


def _refused(run: Run, wait: RateLimited) -> None:
    """Attempt a page again that the API, or the source's code, refused; give up after too many refusals.

    Raises:
      Refused: The whole budget pauses.
    """
    before = Refusals.of(run.metadata)
    refusals = before.with_refusal(wait, own=wait.own) if isinstance(wait, Refused) else before.with_wait()
    reason = f"list page {cursor_text.short(run.discovery_cursor)} {refusals.reason(wait)}"
    if refusals.are_too_many:
        _give_up(run, PermanentError(refusals.reason(wait), FailureClass.RATE_LIMITED))
        return
    run.metadata |= refusals.to_metadata()
    if isinstance(wait, Refused) and not wait.own:
        cursor.let_page_sleep(run, resend_delay(wait.wait_seconds, first=True))
        raise wait
    seconds = backoff.asked_seconds(wait)
    log.warning("run %d: %s; again in %s", run.id, reason, duration(seconds))
    cursor.put_page_back(run, seconds, refund=True, reason=reason, metadata=run.metadata)
    broker.send("discover", run.id, delay_seconds=seconds)


def _retry_later(run: Run, error: RetryableError) -> None:
    """Attempt a page again after the backoff; give up after the last attempt."""
    seconds = backoff.seconds_until_next(run.discovery_attempts)
    if seconds is None:
        _give_up(run, error)
        return
    attempt = f"attempt {run.discovery_attempts} of {get_settings().max_attempts}"
    reason = f"list page {cursor_text.short(run.discovery_cursor)}, {attempt}: {error}"
    log.warning("run %d: %s; again in %s", run.id, reason, duration(seconds))
    cursor.put_page_back(run, seconds, refund=False, reason=reason)
    broker.send("discover", run.id, delay_seconds=seconds)


def _give_up(run: Run, error: BaseException) -> None:
    """Fail a run whose list page cannot be read; if its source allows partial lists, end the list there instead."""
    if not isinstance(error, (SluiceError, IntegrityError, DataError)):
        log.error("run %d: list page %s", run.id, cursor_text.short(run.discovery_cursor), exc_info=error)
    reason = f"list page {cursor_text.short(run.discovery_cursor)}: {_reason(error)}"
    if _end_partly(run, error, reason):
        return
    if runs.get(run.id).discovery_due_at != run.discovery_due_at:
        return  # another process has the page now
    try:
        runs.move(run.id, RunStatus.FAILED, who="sluice", door="discovery", detail=reason)
    except InvalidTransition:
        return  # it was cancelled meanwhile
    log.error("run %d failed: %s", run.id, reason)
    tidy_up(run)


def _reason(error: BaseException) -> str:
    if isinstance(error, SluiceError):
        return message_of(error)
    if isinstance(error, PeeweeException):
        return f"the database refuses it: {database.explain(error)}"
    return f"a bug in the source: {describe(error)}"


def _end_partly(run: Run, error: BaseException, reason: str) -> bool:
    """End a list before a page that cannot be read, if its source allows partial lists, and a page was read.

    A failed item is recorded for that page: the run must not end as if its list were complete.
    """
    source = _source_of(run)
    if source is None or not source.partial_list or run.total_count is None:
        return False
    failure_class = class_named(error.failure_class) if isinstance(error, PermanentError) else FailureClass.BUG
    if isinstance(error, RetryableError):
        failure_class = FailureClass.TRANSIENT
    missing = {f"page {cursor_text.short(run.discovery_cursor)}{MISSING}": reason}
    with cursor.page_commit(run) as ours:
        if not ours:
            return True
        new = items.add(run.id, new_items.failed(source, missing, failure_class))
        seen_pages.forget(run.id)
        cursor.end_page(run, new, Usage(), cursor=None, partial=True)
        stated = run.metadata.get("last_total")
        of = f" of {stated:,}" if stated is not None else ""
        detail = f"{run.total_count:,}{of} items came before it. {reason}; `retry {run.id} --from-start` reads it anew"
        runs.note(run.id, "list cut short", who="sluice", door="discovery", detail=detail)
    log.error("run %d: its list ends before its last page: %s", run.id, reason)
    broker.send("discover", run.id)  # which opens the lanes
    return True


def _source_of(run: Run) -> ImportSource | None:
    try:
        return get_registry()[run.source]
    except SluiceError:
        return None
