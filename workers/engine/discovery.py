"""Reads a run's list page by page: requests a page, saves its rows and items, moves the cursor; then opens the lanes.

The walk of a list page, top to bottom:

1. begin   `discover`: the run's row is read, once a message. `cursor.begin_page` claims the next page and returns
           the row as it is then; the message carries no cursor.
2. request `_work_page`, `_read_page`: a permit, the list request. `list_parser.read` makes unsaved models of it.
3. record  `_record`, `_write`: the rows (`list_rows`), the items (`new_items`), the counts and the next cursor in one
           transaction (`cursor.page_commit`), if the page is still ours.
4. fail    `list_failure.settle`: a page that could not be read is attempted again, or ends its list or its run.
5. open    `_start_lanes`: after the last page, one message for each lane; this thread works the first lane itself.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from peewee import PeeweeException

from workers import clock
from workers.connections import database
from workers.connections.commit_retry import retry_commit
from workers.engine import (
    backoff,
    control_request,
    fresh_runs,
    list_failure,
    list_notes,
    list_parser,
    list_rows,
    new_items,
    unknown_source,
)
from workers.engine.detail import fetch_details
from workers.engine.list_parser import Page
from workers.engine.list_rows import Listed
from workers.engine.rate_limit_refusals import KEY, Refusals
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
from workers.records import cursor, items, lanes, model_database, run_connector, run_usage, runs, seen_pages
from workers.records.import_status import item_type
from workers.records.tables import Run, RunStatus
from workers.records.watermark import Watermark
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.sources.request_purpose import asking
from workers.text.error_text import describe

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: The pages that this process reads, for `abandon_pages`.
_reading: dict[int, Run] = {}


def discover(run_id: int) -> None:
    """Read list pages for the length of a turn, then send the message again.

    Raises:
      RateLimited: The budget is closed; the middleware sends the message again when it opens.
    """
    run = runs.get(run_id)
    if run.discovered_at is None and unknown_source.is_unknown(run):
        unknown_source.leave_page(run)
        return
    _wake_lanes(run)
    lease_seconds = _lease_seconds(run)
    ends_at = None  # until the first page is read: a message that comes before its budget opens sleeps first
    while claimed := cursor.begin_page(run_id, lease_seconds):
        messages = _work_page(claimed, lease_seconds)
        if messages:
            _start_lanes(messages)
        ends_at = ends_at or clock.monotonic() + get_settings().turn_seconds
        if clock.monotonic() > ends_at or clock.stop_requested.is_set():
            broker.send("discover", run_id)
            return


def _wake_lanes(run: Run) -> None:
    """Open the lanes of a run whose list is complete, if none is alive: the run was retried while it had to queue."""
    if not lanes.alive(run.id):
        _open_lanes(run)


def _lease_seconds(run: Run) -> float:
    """Return the lease of a list page: no answer can come after it."""
    settings = get_settings()
    connector = run_connector.connector_or_error(run)
    if isinstance(connector, Exception):  # `_work_page` meets the same error, and settles it
        return settings.lease_seconds + settings.request_timeout_seconds
    return settings.lease_seconds + connector.timeout_seconds


def _work_page(run: Run, lease_seconds: float) -> Sequence[lanes.Message]:
    """Read and record the list page that a run has claimed; return the lanes' messages, if it was the last page."""
    permits: PermitClient | None = None
    _reading[id(run)] = run
    try:
        _refuse_poison(run)
        source = get_registry()[run.source]
        if run.total_count is None and not fresh_runs.begin(run, source, lease_seconds):
            return ()
        connector = _connector_of(run)
        permits = connector.permit_client(run.id, f"{run.id}:list", Watermark(connector.name))
        if _read_page(run, source, connector, permits):
            return _lane_messages(runs.get(run.id))  # with the counts of this page
    except LongWait as wait:
        cursor.put_page_back(run, 0.0, refund=True)
        runs.pause_because(run.id, str(wait))
    except BudgetClosed as wait:
        cursor.let_page_sleep(run, resend_delay(wait.wait_seconds, first=True))
        raise
    except BudgetUnknown as error:
        cursor.let_page_sleep(run, resend_delay(backoff.OUTAGE_SECONDS, first=True))
        raise backoff.closed_by_outage(error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        list_failure.settle(run, error)
    finally:
        del _reading[id(run)]
        if permits:
            permits.flush()
            run_usage.add(run.id, permits.take_usage())
    return ()


def _refuse_poison(run: Run) -> None:
    """Refuse a page whose every attempt ended with the death of its worker, or the end of the lease.

    Raises:
      PermanentError: All attempts are used up, and the last one ended without a reason.
    """
    attempts = run.discovery_attempts - 1
    if attempts < get_settings().max_attempts:
        return
    if run.error_summary:  # an attempt before the last left a reason
        times = f"in the last of {attempts} attempts to read this page. Before that: {run.error_summary}"
    else:
        times = f"{attempts} times while it read this page"
    raise PermanentError(f"the worker died, or lost its lease, {times}", FailureClass.BUG)


def _connector_of(run: Run) -> Connector:
    try:
        return run_connector.of(run)
    except run_connector.SourceError as error:
        raise RetryableError(str(error)) from None


def _read_page(run: Run, source: ImportSource, connector: Connector, permits: PermitClient) -> bool:
    """Request the page that a run has claimed, and record it; return whether it was the list's last, and still ours."""
    refusals = Refusals.of(run.metadata)
    has_control = run.total_count is not None
    if refusals.need_control and has_control:
        _send_control_first(run, source, connector, permits)
    page_cursor = _cursor_of(run, source)
    request = _of_the_source(source, lambda: source.get_list_request(page_cursor, source.per_page))
    permits.subject = refusals.subject
    try:
        with asking(run.source):
            data = connector.get_json(request, permits)
    except Refused as refusal:
        if refusal.own and has_control:
            control_request.send(run, source, connector, permits)  # what it raises is the budget's refusal
        raise
    return _record(run, source, _of_the_source(source, lambda: list_parser.read(source, data, page_cursor)), permits)


def _send_control_first(run: Run, source: ImportSource, connector: Connector, permits: PermitClient) -> None:
    """Send a control request before the page is requested: its refusal is not the page's."""
    try:
        control_request.send(run, source, connector, permits)
    except LongWait:
        raise
    except Refused as refusal:
        raise BudgetClosed(refusal.wait_seconds, refusal.reason) from None


def _cursor_of(run: Run, source: ImportSource) -> Any:
    """Return the cursor of a run's next page: the source's first cursor, if no page was read."""
    is_first = run.total_count is None or run.discovery_cursor is None
    return source.first_cursor if is_first else run.discovery_cursor


def _of_the_source(source: ImportSource, call: Callable[[], Result]) -> Result:
    """Call a method of the source, and return its result.

    Raises:
      RetryableError: It failed with an error of a database, and that database answers.
    """
    try:
        with other_budgets():
            return call()
    except Exception as error:
        if not database.is_away(error) or not model_database.answers(source.model):
            raise
        raise RetryableError(f"a bug in the source: {describe(error)}") from None


def _record(run: Run, source: ImportSource, read: Page, permits: PermitClient) -> bool:
    """Record a page, and the usage of its permits; return whether it was the list's last, and still ours.

    The statements are repeated while the database is away, and after a deadlock, until the page's lease ends.
    """
    ends_at = clock.monotonic() + (run.discovery_due_at - database.now()).total_seconds()
    last = retry_commit(
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
        # A deferred constraint is checked at the commit: with a transaction for each row, it refuses only its row.
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
        new = items.add(run.id, new_items.pending(source, saved))
        if new.total() < len(saved.rows):  # an earlier page had the other items, or other rows with their ids
            saved.refuse(items.of_other_rows(run.id, saved.rows))
        new += items.add(run.id, new_items.skipped_and_refused(source, read, saved))
        kept = _metadata_of(run, source, read, saved)
        cursor.end_page(run, new, permits.usage, cursor=read.next_cursor, changes=saved.changes, **kept)
        if read.next_cursor is None:
            came = (run.total_count or 0) + new.total()
            list_notes.write(run, came, (read.came, source.per_page), kept)
    return read.next_cursor is None


def _metadata_of(run: Run, source: ImportSource, read: Page, saved: Listed) -> dict[str, Any]:
    """Return what the run's metadata keeps of the pages so far, for the next page.

    Raises:
      PermanentError: The list seems to be endless.
    """
    first = run.metadata.get("first_total")
    first = read.total if first is None else first
    page_cursor = _cursor_of(run, source)
    return seen_pages.add(
        run, source, page_cursor, came=read.came, digest=read.digest, next_cursor=read.next_cursor
    ) | {
        KEY: None,
        "first_total": first,
        "total_changed": run.metadata.get("total_changed", False) or read.total not in (None, first),
        "passed_over": run.metadata.get("passed_over", 0) + _passes_over(page_cursor, read),
        "last_total": run.metadata.get("last_total") if read.total is None else read.total,
        "rows_of_others": _rows_of_others(run, source, saved),
    }


def _passes_over(cursor: Any, read: Page) -> int:
    """Return by how many items more than the page held the offset grew; 0 if the cursor is no offset."""
    if type(cursor) is not int or type(read.next_cursor) is not int or not read.came:
        return 0
    return max(0, read.next_cursor - cursor - read.came)


def _rows_of_others(run: Run, source: ImportSource, saved: Listed) -> dict[str, int]:
    """Return, by tenant, how many rows of the list were written by runs of other tenants."""
    so_far = Counter(run.metadata.get("rows_of_others", {}))
    so_far.update(items.rows_of_other_tenants(item_type(source.model), saved.known, run.tenant))
    return dict(so_far)


def _save_apart(run: Run, source: ImportSource, read: Page, *, row_by_row: bool) -> Listed | None:
    """Save a page's rows before the page's transaction: rows of another database, or each row in its own transaction.

    Returns:
      Listed | None: None if the page is not ours any more, or its lease is over: it is read again.
    """
    with cursor.page_commit(run) as ours:
        pass
    if not ours or database.now() >= run.discovery_due_at:
        return None
    with model_database.connected(source.model):
        return list_rows.save_row_by_row(source, read) if row_by_row else list_rows.save_page(source, read)


def _start_lanes(messages: Sequence[lanes.Message]) -> None:
    """Send the lanes' messages; work the first lane in this thread: a small run need not queue behind large ones."""
    first_lane, *others = messages
    for message in others:
        if not broker.send("fetch_details", *message):
            break
    try:
        fetch_details(*first_lane)
    except RateLimited as wait:
        broker.send("fetch_details", *first_lane, delay_seconds=resend_delay(wait.wait_seconds, first=True))


def abandon_pages() -> int:
    """Put back the list pages that this process reads, from another thread, because the process is about to end.

    Returns:
      int: How many pages.
    """
    put_back = [run for run in list(_reading.values()) if cursor.put_page_back(run, 0.0, refund=True)]
    for run in put_back:
        broker.send("discover", run.id)
    return len(put_back)


def open_lanes(run_id: int, first: int = 0) -> None:
    """Open, or wake, the lanes of a run whose list is complete; a run without open items is finalized.

    Parameters:
      first(int): The lanes before this one are left as they are.
    """
    _open_lanes(runs.get(run_id), first)


def _open_lanes(run: Run, first: int = 0) -> None:
    for message in _lane_messages(run, first):
        if not broker.send("fetch_details", *message):
            return  # the reaper sends the others: each would wait for a broker that hangs


def _lane_messages(run: Run, first: int = 0) -> Sequence[lanes.Message]:
    """Open, or wake, the lanes of a run, and return their messages."""
    if run.status != RunStatus.RUNNING or run.discovered_at is None:
        return ()
    count = min(run.lanes, (run.total_count or 0) - run.failed_count - run.succeeded_count - run.skipped_count)
    if count <= 0:
        broker.send("finalize", run.id)
        return ()
    return lanes.open_for(run.id, count, first)
