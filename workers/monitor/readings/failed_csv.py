"""Streams the failed items of a run as a CSV file; ids survive a spreadsheet, and no cell is a formula."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from peewee import PeeweeException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from workers.connections import database
from workers.errors import DependencyDown
from workers.monitor.readings.log_throttle import log_throttled
from workers.records.tables import Run
from workers.reports.failure_groups import FailedItem, failed_chunks
from workers.text.sheet_cell import exact, harmless

PATH = "/runs/{run_id}/failed.csv"
_COLUMNS = ("external_id", "failure_class", "fingerprint", "attempts", "failed_at_utc", "can_be_retried", "reason")
#: With it, spreadsheets read the file as UTF-8; other readers skip it.
_BOM = "\ufeff"
_ID, _LARGEST_ID = re.compile(r"[0-9]{1,19}"), 2**63 - 1


def respond(request: Request) -> Response:
    """Send the file, or an error status where there is no such run or the database does not answer."""
    number = request.path_params["run_id"]
    run_id = int(number) if _ID.fullmatch(number) else 0
    try:
        with database.connection():
            is_there = run_id <= _LARGEST_ID and Run.select().where(Run.id == run_id).exists()
    except (DependencyDown, PeeweeException) as error:
        log_throttled("the failed items could not be sent", error)
        return PlainTextResponse("The database does not answer: try again.\n", 503)
    if not is_there:
        return PlainTextResponse("There is no such run.\n", 404)
    headers = {"Content-Disposition": f'attachment; filename="{file_name(run_id)}"', "Cache-Control": "no-store"}
    return StreamingResponse(csv_parts(run_id), media_type="text/csv; charset=utf-8", headers=headers)


def file_name(run_id: int) -> str:
    """Return the name of the file."""
    return f"run-{run_id}-failed.csv"


def csv_parts(run_id: int) -> Iterator[str]:
    """Yield the file in parts. Each part uses its own connection, because each can be read in another thread."""
    yield _BOM + _lines([_COLUMNS])
    chunks = failed_chunks(run_id)
    while True:
        with database.connection():
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield _lines(_row(item) for item in chunk)


def _row(item: FailedItem) -> Sequence[str]:
    at = f"{item.failed_at:%Y-%m-%d %H:%M:%S}" if item.failed_at else ""
    again = "yes" if item.retriable else "no"
    values = (item.failure_class, item.attempts, at, again, item.reason)
    failure_class, *others = map(harmless, values)
    return [exact(item.external_id), failure_class, exact(item.fingerprint), *others]


def _lines(rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
