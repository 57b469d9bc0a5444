"""discover(run_id): fetch the next list page, save its rows and items, go on. The last page opens the lanes."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from peewee import DataError, IntegrityError, PeeweeException

from workers import broker, clock, cursor, database, fresh, items, lanes, listed, page, runs, saving
from workers.asked import asking
from workers.attempt import DOWN_SECONDS
from workers.caller import Caller
from workers.contracts import ImportSource
from workers.detail import fetch_details
from workers.error_text import describe
from workers.errors import (
    DependencyDown,
    InvalidTransition,
    LongWait,
    PermanentError,
    RateLimited,
    RetryableError,
    SluiceError,
)
from workers.failures import REASON_LENGTH, FailureClass, fingerprint, storable_reason, whole_reason
from workers.finalize import tidy_up
from workers.listed import Listed
from workers.middleware import resend_delay
from workers.page import Page
from workers.patience import patiently
from workers.registry import get_registry
from workers.settings import get_settings
from workers.tables import ItemStatus, Run, RunStatus
from workers.tracking import item_type
from workers.watermark import Watermark

log = logging.getLogger(__name__)

#: The pages that this process reads, where the draining process finds them.
_reading: dict[int, Run] = {}

#: So many list pages in a row may bring nothing new; then the list is taken for endless.
_BARREN_PAGES = 20


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
        timeout = get_registry()[run.source].get_connector(run).timeout_seconds
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
    caller: Caller | None = None
    _reading[id(run)] = run
    try:
        _refuse_poison(run)
        source = get_registry()[run.source]
        if run.total_count is None and not fresh.begin(run, source, _lease_seconds(run.id)):
            return ()
        connector = source.get_connector(run)
        caller = connector.caller(run.id, f"{run.id}:list", Watermark(connector.name))
        request = source.get_list_request(run.discovery_cursor, source.per_page)
        with asking(run.source):
            data = connector.get_json(request, caller)
        read = page.read(source, data, run.discovery_cursor)
        if _record(run, source, read, caller):
            return _lanes_of(run.id)
    except LongWait as wait:
        cursor.put_page_back(run, 0.0, refund=True)
        runs.pause_because(run.id, str(wait))
    except RateLimited as wait:
        cursor.put_page_back(run, resend_delay(wait.wait_seconds, first=True), refund=True)
        raise
    except DependencyDown as error:
        cursor.put_page_back(run, resend_delay(DOWN_SECONDS, first=True), refund=True)
        raise RateLimited(DOWN_SECONDS, str(error)) from error
    except RetryableError as error:
        _retry_later(run, error)
    except Exception as error:
        if database.is_of_the_statement(error):
            _retry_later(run, RetryableError(describe(error)))
        elif database.is_away(error):
            with suppress(Exception):  # else the lease ends, and an attempt is spent
                database.reconnect()
                cursor.put_page_back(run, DOWN_SECONDS, refund=True)
            raise
        else:
            _give_up(run, error)
    finally:
        del _reading[id(run)]
        if caller:
            caller.settle()
            runs.add_usage(run.id, caller.take_usage())
    return ()


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


def _record(run: Run, source: ImportSource, read: Page, caller: Caller) -> bool:
    """Write a page, and what it took of the caller; return whether it was the list's last, and ours.

    It is repeated while the database is away, and after a deadlock, until the page's lease ends: no request is.
    """
    ends_at = clock.monotonic() + (run.discovery_due_at - database.now()).total_seconds()
    last = patiently(
        lambda: _record_once(run, source, read, caller),
        {database.db.obj, source.model._meta.database},
        lambda error: ends_at - clock.monotonic(),
    )
    caller.take_usage()  # it is written
    return last


def _record_once(run: Run, source: ImportSource, read: Page, caller: Caller) -> bool:
    try:
        return _write(run, source, read, caller)
    except PeeweeException as error:
        if database.is_away(error) or not read.models:
            raise
        # A constraint that is checked as late as at the commit: each row in a transaction of its own shows whose it is.
        return _write(run, source, read, caller, row_by_row=True)


def _write(run: Run, source: ImportSource, read: Page, caller: Caller, *, row_by_row: bool = False) -> bool:
    saved: Listed | None = None
    if row_by_row or not database.is_ours(source.model):
        saved = _save_apart(run, source, read, row_by_row=row_by_row)
        if saved is None:
            return False
    with cursor.page_commit(run) as ours:
        if not ours:
            return False
        if saved is None:
            saved = listed.save_page(source, read)
        fresh.seen(source, saved.rows.values())
        new = items.add(run.id, _pending(source, saved))
        if new.total() < len(saved.rows):  # an earlier page had the others, if they are the same
            saved.refuse(items.of_other_rows(run.id, saved.rows))
        new += items.add(run.id, _not_wanted(source, read, saved))
        kept = _what_to_keep(run, source, read, saved, new)
        cursor.end_page(run, new, caller.usage, cursor=read.next_cursor, changes=saved.changes, **kept)
        if read.next_cursor is None:
            _tell_of_a_gap(run, (run.total_count or 0) + new.total(), kept)
            _tell_of_others(run, kept)
            _note_a_short_end(run, read.came, source.per_page, kept)
    return read.next_cursor is None


def _what_to_keep(run: Run, source: ImportSource, read: Page, saved: Listed, new: Counter[str]) -> dict[str, Any]:
    """Return what the next page must know of the ones before it.

    Raises:
      PermanentError: The list is taken for endless.
    """
    seen = run.metadata.get("pages_without_a_row", [])
    news = new[ItemStatus.PENDING] or (new and not read.models and read.digest not in seen)
    barren = 0 if news or read.next_cursor is None else run.metadata.get("barren_pages", 0) + 1
    if barren >= _BARREN_PAGES:
        raise PermanentError(
            f"{barren} pages in a row brought nothing new: does next_cursor advance?", FailureClass.CONTRACT
        )
    if (run.total_count or 0) + new.total() > source.max_items:
        raise PermanentError(
            f"the list brought more than {source.max_items:,} items: does next_cursor ever return None? "
            f"Set max_items on {type(source).__name__} if the list is that long",
            FailureClass.CONTRACT,
        )
    first = run.metadata.get("first_total")
    first = read.total if first is None else first
    return {
        "barren_pages": barren,
        "pages_without_a_row": [*seen, read.digest][-_BARREN_PAGES:] if read.digest else seen,
        "first_total": first,
        "total_changed": run.metadata.get("total_changed", False) or read.total not in (None, first),
        "passed_over": run.metadata.get("passed_over", 0) + _passes_over(run.discovery_cursor, read),
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


def _tell_of_others(run: Run, kept: Mapping[str, Any]) -> None:
    """Leave a line in the timeline where runs of other tenants write the same rows."""
    others = kept["rows_of_others"]
    if not others:
        return
    said = ", ".join(f"{count:,} by {tenant or 'runs without a tenant'}" for tenant, count in sorted(others.items()))
    detail = (
        f"rows of this list were written for others before: {said}. Each run overwrites what the other wrote: let "
        f"unique_by hold the tenant as well, as in unique_by = ('shop', 'external_id')"
    )
    log.warning("run %d: %s", run.id, detail)
    runs.note(run.id, "rows shared by tenants", who="sluice", door="discovery", detail=detail)


def _tell_of_a_gap(run: Run, came: int, kept: Mapping[str, Any]) -> None:
    """Leave a line in the timeline where the list brought another number of items than the API says it has."""
    first, last = kept["first_total"], kept["last_total"]
    if last is None or last == came:
        return
    stated = f"{last:,}" if first == last else f"{first:,} at first and {last:,} at last"
    detail = (
        f"the API stated a total of {stated}; {came:,} items came. If the list changed while it was read, the next run "
        f"finds what was missed; if the API counts otherwise, set total_key = None"
    )
    log.warning("run %d: %s", run.id, detail)
    runs.note(run.id, "list changed", who="sluice", door="discovery", detail=detail)


def _note_a_short_end(run: Run, came: int, per_page: int, kept: Mapping[str, Any]) -> None:
    """Leave a line in the timeline where the last page was shorter than asked for, and no total says that all came."""
    if kept["last_total"] is not None or not (0 < came < per_page or kept["passed_over"]):
        return
    if kept["passed_over"]:
        detail = (
            f"the API gave fewer items a page than the {per_page:,} that were asked for, and next_cursor went on by "
            f"more than came, {kept['passed_over']:,} in all: let it step by what came, as in cursor + len(data)"
        )
    else:
        detail = (
            f"the list ended at a page of {came:,} where {per_page:,} were asked for, and the API states no total: if "
            f"it gives shorter pages than it is asked for, let next_cursor end the list at an empty page"
        )
    log.info("run %d: %s", run.id, detail)
    runs.note(run.id, "short last page", who="sluice", door="discovery", detail=detail)


def _pending(source: ImportSource, saved: Listed) -> list[dict[str, Any]]:
    """Return the columns of the items that have a row."""
    common = _columns(source, ItemStatus.PENDING)
    return [common | {"external_id": external_id, "item_id": key} for external_id, key in saved.rows.items()]


def _not_wanted(source: ImportSource, read: Page, saved: Listed) -> list[dict[str, Any]]:
    """Return the columns of the items that the source skips, and of those that were refused."""
    skipped = _columns(source, ItemStatus.SKIPPED)
    failed = _columns(source, ItemStatus.FAILED)
    failed |= {"failure_class": FailureClass.BAD_DATA, "failure_count": 1, "last_failed_at": failed["due_at"]}
    refused = [(where, whole_reason(why)) for where, why in (read.refused | saved.refused).items()]
    return [
        *(
            skipped | {"external_id": where, "failure_reason": storable_reason(why)}
            for where, why in read.skipped.items()
        ),
        *(
            failed
            | {
                "external_id": where,
                "failure_reason": why[:REASON_LENGTH],
                "failure_fingerprint": fingerprint(FailureClass.BAD_DATA, why, where),
            }
            for where, why in refused
        ),
    ]


def _columns(source: ImportSource, status: ItemStatus) -> dict[str, Any]:
    blank = dict.fromkeys(("item_id", "failure_class", "failure_reason", "failure_fingerprint", "last_failed_at"))
    return blank | {
        "item_type": item_type(source.model),
        "status": status,
        "due_at": database.now(),
        "failure_count": 0,
    }


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
        return listed.save_row_by_row(source, read) if row_by_row else listed.save_page(source, read)


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


def _retry_later(run: Run, error: RetryableError) -> None:
    settings = get_settings()
    if run.discovery_attempts >= settings.max_attempts:
        _give_up(run, error)
        return
    wait = settings.backoff_seconds[run.discovery_attempts - 1]
    attempt = f"attempt {run.discovery_attempts} of {settings.max_attempts}"
    said = f"list page {page.short(run.discovery_cursor)}, {attempt}: {error}"
    log.warning("run %d: %s; again in %g s", run.id, said, wait)
    cursor.put_page_back(run, wait, refund=False, reason=said)
    broker.send("discover", run.id, delay_seconds=wait)


def _reason(error: Exception) -> str:
    if isinstance(error, SluiceError):
        return str(error)
    if isinstance(error, PeeweeException):
        return f"the database refuses it: {database.explain(error)}"
    return f"a bug in the source: {describe(error)}"


def _give_up(run: Run, error: Exception) -> None:
    if not isinstance(error, (SluiceError, IntegrityError, DataError)):
        log.exception("run %d: list page %s", run.id, page.short(run.discovery_cursor))
    reason = _reason(error)
    if runs.get(run.id).discovery_due_at != run.discovery_due_at:
        return  # somebody else has the page now
    try:
        runs.move(
            run.id,
            RunStatus.FAILED,
            who="sluice",
            door="discovery",
            detail=f"list page {page.short(run.discovery_cursor)}: {reason}",
        )
    except InvalidTransition:
        return  # it was cancelled meanwhile
    log.error("run %d failed: list page %s: %s", run.id, page.short(run.discovery_cursor), reason)
    tidy_up(run)
