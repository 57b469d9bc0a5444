"""What becomes of a list page that could not be had: it is asked for again, or ends its list, or its run."""

import logging
from contextlib import suppress

from peewee import DataError, IntegrityError, PeeweeException

from workers.connections import database
from workers.engine import list_items
from workers.engine.attempt import DOWN_SECONDS, bounded, reason_of
from workers.engine.finalize import tidy_up
from workers.engine.refusals import Refusals
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
from workers.text.error_text import describe, message_of

log = logging.getLogger(__name__)


def settle(run: Run, error: BaseException) -> None:
    """Decide by the error what becomes of the page that a run was reading.

    Raises:
      Refused: The API refused, and it is not the page's own doing: the whole budget pauses.
      BaseException: `error`, where a database is away: the page has been put back.
    """
    if isinstance(error, RateLimited):
        _refused(run, error)
    elif isinstance(error, RetryableError):
        _retry_later(run, error)
    elif database.is_of_the_statement(error):
        _retry_later(run, RetryableError(describe(error)))
    elif database.is_away(error):
        with suppress(Exception):  # else the lease ends, and an attempt is spent
            database.reconnect()
            cursor.put_page_back(run, DOWN_SECONDS, refund=True)
        raise error
    else:
        _give_up(run, error)


def _refused(run: Run, wait: RateLimited) -> None:
    """Let a page that the API, or the source itself, refused be asked for again; or end its list.

    Raises:
      Refused: The whole budget pauses.
    """
    before = Refusals.of(run.metadata)
    refusals = before.and_one(wait, own=wait.own) if isinstance(wait, Refused) else before.and_a_wait()
    reason = f"list page {cursor_text.short(run.discovery_cursor)} {refusals.said(reason_of(wait))}"
    if refusals.are_too_many:
        _give_up(run, PermanentError(refusals.said(reason_of(wait)), FailureClass.RATE_LIMITED))
        return
    run.metadata |= refusals.kept()
    if isinstance(wait, Refused) and not wait.own:
        cursor.let_page_sleep(run, resend_delay(wait.wait_seconds, first=True))
        raise wait
    seconds = bounded(wait)
    log.warning("run %d: %s; again in %g s", run.id, reason, seconds)
    cursor.put_page_back(run, seconds, refund=True, reason=reason, metadata=run.metadata)
    broker.send("discover", run.id, delay_seconds=seconds)


def _retry_later(run: Run, error: RetryableError) -> None:
    settings = get_settings()
    if run.discovery_attempts >= settings.max_attempts:
        _give_up(run, error)
        return
    wait = settings.backoff_seconds[run.discovery_attempts - 1]
    attempt = f"attempt {run.discovery_attempts} of {settings.max_attempts}"
    said = f"list page {cursor_text.short(run.discovery_cursor)}, {attempt}: {error}"
    log.warning("run %d: %s; again in %g s", run.id, said, wait)
    cursor.put_page_back(run, wait, refund=False, reason=said)
    broker.send("discover", run.id, delay_seconds=wait)


def _reason(error: BaseException) -> str:
    if isinstance(error, SluiceError):
        return message_of(error)
    if isinstance(error, PeeweeException):
        return f"the database refuses it: {database.explain(error)}"
    return f"a bug in the source: {describe(error)}"


def _give_up(run: Run, error: BaseException) -> None:
    """End a list whose page cannot be had: with its run or, where the source says so, with what came until then."""
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


def _end_partly(run: Run, error: BaseException, reason: str) -> bool:
    """End a list at a page that cannot be had, where its source imports partial lists, and a page was read.

    The page stands for what is missing, as a failed item: the run cannot end as if it were whole.
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
        new = items.add(run.id, list_items.failed(source, missing, failure_class))
        seen_pages.forget(run.id)
        cursor.end_page(run, new, Usage(), cursor=None, partial=True)
        stated = run.metadata.get("last_total")
        of = f" of {stated:,}" if stated is not None else ""
        detail = f"{run.total_count:,}{of} items came before it. {reason}; `retry {run.id} --from-start` reads it anew"
        runs.note(run.id, "list cut short", who="sluice", door="discovery", detail=detail)
    log.error("run %d: its list ends at what came: %s", run.id, reason)
    broker.send("discover", run.id)  # which opens the lanes
    return True


def _source_of(run: Run) -> ImportSource | None:
    try:
        return get_registry()[run.source]
    except SluiceError:
        return None
