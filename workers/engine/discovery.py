"""discover(run_id): fetch the next list page, save its rows and items, go on. The last page opens the lanes."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from peewee import PeeweeException

from workers import clock
from workers.connections import database
from workers.connections.commit_retry import patiently
from workers.engine import control_request, fresh_runs, list_failure, list_items, list_notes, list_page, list_rows
from workers.engine.attempt import DOWN_SECONDS
from workers.engine.detail import fetch_details
from workers.engine.list_page import Page
from workers.engine.list_rows import Listed
from workers.engine.refusals import KEY, Refusals
from workers.errors import (
    BudgetClosed,
    BudgetUnknown,
    LongWait,
    PermanentError,
    RateLimited,
    Refused,
    RetryableError,
    other_budgets,
)
from workers.failures import FailureClass
from workers.limiter.permits import PermitClient
from workers.messaging import broker
from workers.messaging.middleware import resend_delay
from workers.records import cursor, items, lanes, run_connector, runs, saving, seen_pages
from workers.records.tables import Run, RunStatus
from workers.records.tracking import item_type
from workers.records.watermark import Watermark
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.sources.request_purpose import asking
from workers.text.error_text import describe

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: The pages that this process reads, where the draining process finds them.
_reading: dict[int, Run] = {}


def discover(run_id: int) -> None:
    """Fetch list pages for the length of a turn, then send the message again.

    Raises:
      RateLimited: The budget is closed; the middleware sends the message again when it opens.
    """
    settings = get_settings()
    wake_lanes(run_id)
    ends_at = None  # until the first page is in: a message that came early, to sleep for the opening, has done nothing
    lease = _lease_seconds(run_id)
    while run := cursor.begin_page(run_id, lease):
        messages = _do_page(run)
        if messages:
            _work(messages)
        ends_at = ends_at or clock.monotonic() + settings.turn_seconds
        if clock.monotonic() > ends_at or clock.stop_requested.is_set():
            broker.send("discover", run_id)
            return


def _lease_seconds(run_id: int) -> float:
    """Return how long a page may take: no answer may come after its lease."""
    settings = get_settings()
    run = runs.get(run_id)
    try:
        timeout = run_connector.of(run).timeout_seconds
    except Exception:  # `_do_page` meets it too, and says what it is
        timeout = settings.request_timeout_seconds
    return settings.lease_seconds + timeout


def _work(messages: Sequence[lanes.Message]) -> None:
    """Go on with the first lane in the thread that read the list: a small run need not queue behind large ones."""
    first_lane, *others = messages
    for message in others:
        if not broker.send("fetch_details", *message):
            break
    try:
        fetch_details(*first_lane)
    except RateLimited as wait:
        broker.send("fetch_details", *first_lane, delay_seconds=resend_delay(wait.wait_seconds, first=True))


def _do_page(run: Run) -> Sequence[lanes.Message]:
    """Fetch and record the list page a run is due to read; return the lanes' messages, where it was the last page."""
    permits: PermitClient | None = None
    _reading[id(run)] = run
    try:
        _refuse_poison(run)
        source = get_registry()[run.source]
        if run.total_count is None and not fresh_runs.begin(run, source, _lease_seconds(run.id)):
            return ()
        connector = _connector_of(run)
        permits = connector.permit_client(run.id, f"{run.id}:list", Watermark(connector.name))
        if _read(run, source, connector, permits):
            return _lanes_of(run.id)
    except LongWait as wait:
        cursor.put_page_back(run, 0.0, refund=True)
        runs.pause_because(run.id, str(wait))
    except BudgetClosed as wait:
        cursor.let_page_sleep(run, resend_delay(wait.wait_seconds, first=True))
        raise
    except BudgetUnknown as error:
        cursor.let_page_sleep(run, resend_delay(DOWN_SECONDS, first=True))
        raise BudgetClosed(DOWN_SECONDS, str(error)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        list_failure.settle(run, error)
    finally:
        del _reading[id(run)]
        if permits:
            permits.flush()
            runs.add_usage(run.id, permits.take_usage())
    return ()


def _read(run: Run, source: ImportSource, connector: Connector, permits: PermitClient) -> bool:
    """Ask for the page that a run is due to read, and record it; return whether it was the list's last, and ours."""
    refusals = Refusals.of(run.metadata)
    has_control = run.total_count is not None
    if refusals.are_doubted and has_control:
        _ask_a_control(run, source, connector, permits)
    asked_with = _cursor_of(run, source)
    request = _of_the_source(source, lambda: source.get_list_request(asked_with, source.per_page))
    permits.subject = refusals.subject
    try:
        with asking(run.source):
            data = connector.get_json(request, permits)
    except Refused as refusal:
        if refusal.own and has_control:
            control_request.ask(run, source, connector, permits)  # what it raises is everybody's
        raise
    return _record(run, source, _of_the_source(source, lambda: list_page.read(source, data, asked_with)), permits)


def _ask_a_control(run: Run, source: ImportSource, connector: Connector, permits: PermitClient) -> None:
    """See that something is answered, before the page is asked for: what is refused here is none of the page's."""
    try:
        control_request.ask(run, source, connector, permits)
    except LongWait:
        raise
    except Refused as refusal:
        raise BudgetClosed(refusal.wait_seconds, refusal.reason) from None


def _of_the_source(source: ImportSource, ask: Callable[[], Result]) -> Result:
    """Return what a source's method returns.

    Raises:
      RetryableError: It failed by an error of a database, and the database answers.
    """
    try:
        with other_budgets():
            return ask()
    except Exception as error:
        if not database.is_away(error) or not saving.answers(source.model):
            raise
        raise RetryableError(f"a bug in the source: {describe(error)}") from None


def _cursor_of(run: Run, source: ImportSource) -> Any:
    """Return what a run's next page is asked for with: the source's first cursor, where no page was read."""
    is_first = run.total_count is None or run.discovery_cursor is None
    return source.first_cursor if is_first else run.discovery_cursor


def _connector_of(run: Run) -> Connector:
    try:
        return run_connector.of(run)
    except run_connector.SourceError as error:
        raise RetryableError(str(error)) from None


def abandon_pages() -> int:
    """Put back the list pages that are being read, from another thread: the process is about to end.

    Returns:
      int: How many pages.
    """
    given = [run for run in list(_reading.values()) if cursor.put_page_back(run, 0.0, refund=True)]
    for run in given:
        broker.send("discover", run.id)
    return len(given)


def _refuse_poison(run: Run) -> None:
    """Stop at a page that each of its readers has died of, before one more does.

    Raises:
      PermanentError: All attempts are used up, and the last one has left no word.
    """
    attempts = run.discovery_attempts - 1
    if attempts < get_settings().max_attempts:
        return
    if run.error_summary:  # an attempt before the last had something to say
        said = f"in the last of {attempts} attempts to read this page. Before that: {run.error_summary}"
    else:
        said = f"{attempts} times while it read this page"
    raise PermanentError(f"the worker died, or lost its lease, {said}", FailureClass.BUG)


def _record(run: Run, source: ImportSource, read: Page, permits: PermitClient) -> bool:
    """Write a page, and what it took of the permits; return whether it was the list's last, and ours.

    It is repeated while the database is away, and after a deadlock, until the page's lease ends: no request is.
    """
    ends_at = clock.monotonic() + (run.discovery_due_at - database.now()).total_seconds()
    last = patiently(
        lambda: _record_once(run, source, read, permits),
        {database.db.obj, source.model._meta.database},
        lambda error: ends_at - clock.monotonic(),
    )
    permits.take_usage()  # it is written
    return last


def _record_once(run: Run, source: ImportSource, read: Page, permits: PermitClient) -> bool:
    try:
        return _write(run, source, read, permits)
    except PeeweeException as error:
        if database.is_away(error) or not read.models:
            raise
        # A constraint that is checked as late as at the commit: each row in a transaction of its own shows whose it is.
        return _write(run, source, read, permits, row_by_row=True)


def _write(run: Run, source: ImportSource, read: Page, permits: PermitClient, *, row_by_row: bool = False) -> bool:
    saved: Listed | None = None
    if row_by_row or not database.is_ours(source.model):
        saved = _save_apart(run, source, read, row_by_row=row_by_row)
        if saved is None:
            return False
    with cursor.page_commit(run) as ours:
        if not ours:
            return False
        if saved is None:
            saved = list_rows.save_page(source, read)
        fresh_runs.seen(source, saved.rows.values())
        new = items.add(run.id, list_items.pending(source, saved))
        if new.total() < len(saved.rows):  # an earlier page had the others, if they are the same
            saved.refuse(items.of_other_rows(run.id, saved.rows))
        new += items.add(run.id, list_items.not_wanted(source, read, saved))
        kept = _what_to_keep(run, source, read, saved)
        cursor.end_page(run, new, permits.usage, cursor=read.next_cursor, changes=saved.changes, **kept)
        if read.next_cursor is None:
            came = (run.total_count or 0) + new.total()
            list_notes.write(run, came, (read.came, source.per_page), kept)
    return read.next_cursor is None


def _what_to_keep(run: Run, source: ImportSource, read: Page, saved: Listed) -> dict[str, Any]:
    """Return what the next page must know of the ones before it.

    Raises:
      PermanentError: The list is taken for endless.
    """
    first = run.metadata.get("first_total")
    first = read.total if first is None else first
    asked_with = _cursor_of(run, source)
    return seen_pages.add(run, source, asked_with, came=read.came, digest=read.digest, next_cursor=read.next_cursor) | {
        KEY: None,
        "first_total": first,
        "total_changed": run.metadata.get("total_changed", False) or read.total not in (None, first),
        "passed_over": run.metadata.get("passed_over", 0) + _passes_over(asked_with, read),
        "last_total": run.metadata.get("last_total") if read.total is None else read.total,
        "rows_of_others": _rows_of_others(run, source, saved),
    }


def _passes_over(cursor: Any, read: Page) -> int:
    """Return by how many items more than came an offset went on; 0 for what is no offset."""
    if type(cursor) is not int or type(read.next_cursor) is not int or not read.came:
        return 0
    return max(0, read.next_cursor - cursor - read.came)


def _rows_of_others(run: Run, source: ImportSource, saved: Listed) -> dict[str, int]:
    """Return, by tenant, how many rows of the list were written by runs of other tenants."""
    so_far = Counter(run.metadata.get("rows_of_others", {}))
    so_far.update(items.rows_of_other_tenants(item_type(source.model), saved.known, run.tenant))
    return dict(so_far)


def _save_apart(run: Run, source: ImportSource, read: Page, *, row_by_row: bool) -> Listed | None:
    """Save a page's rows before our transaction: those of another database, for none spans two; or each in its own.

    Returns:
      Listed | None: None where the page is not ours any more, or its lease is over: it is read again.
    """
    with cursor.page_commit(run) as ours:
        pass
    if not ours or database.now() >= run.discovery_due_at:
        return None
    with saving.connected(source.model):
        return list_rows.save_row_by_row(source, read) if row_by_row else list_rows.save_page(source, read)


def wake_lanes(run_id: int) -> None:
    """Open the lanes of a run whose list is known and that has none at work: it was retried, and waited its turn."""
    if not lanes.alive(run_id):
        open_lanes(run_id)


def open_lanes(run_id: int, first: int = 0) -> None:
    """Open, or wake, the lanes of a run whose list is known, from the first on; one with nothing open is finalized."""
    for message in _lanes_of(run_id, first):
        if not broker.send("fetch_details", *message):
            return  # the reaper sends the others: a broker that hangs would be waited for once a lane


def _lanes_of(run_id: int, first: int = 0) -> Sequence[lanes.Message]:
    """As `open_lanes`, but return the lanes' messages instead of sending them."""
    run = runs.get(run_id)
    if run.status != RunStatus.RUNNING or run.discovered_at is None:
        return ()
    count = min(run.lanes, (run.total_count or 0) - run.failed_count - run.succeeded_count - run.skipped_count)
    if count <= 0:
        broker.send("finalize", run_id)
        return ()
    return lanes.open_for(run_id, count, first)
