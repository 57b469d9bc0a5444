"""Fill a database as after a month (1,000 runs, a million items), with ten sources on one budget, for the page."""

import hashlib
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import psycopg

from models import Item
from sources import ItemSource
from workers import Connector, Limit

SOURCE_NAMES = (
    "customers",
    "invoices",
    "items",
    "orders",
    "prices",
    "products",
    "returns",
    "reviews",
    "stock",
    "taxes",
)

api = Connector(
    "crowded",
    base_url="http://127.0.0.1:9",
    limits=[Limit(500, seconds=20), Limit(2000, seconds=100)],
    timeout_seconds=1.0,
)


def _source(name: str, hour: int) -> ItemSource:
    made: ItemSource = type(
        f"{name.title()}Source",
        (ItemSource,),
        {"name": name, "model": Item, "connector": api, "schedule": f"0 {hour} * * *"},
    )()
    return made


SOURCES = [_source(name, hour) for hour, name in enumerate(SOURCE_NAMES)]

_REASONS = (
    ("transient", "503 Service Unavailable"),
    ("transient", "the answer did not come within 30 s"),
    ("not_found", "404 Not Found"),
    ("bad_data", "price: 'n/a' is not a number"),
    ("bad_data", "the answer has no field 'description'"),
    ("contract", "populate_from_api_response raised KeyError('price')"),
)


@dataclass(frozen=True)
class Shape:
    """One run of the month.

    Parameters:
      done(int), failed(int), open(int): How many of its items are in, failed, and not yet tried.
      begin(datetime), end(datetime | None): When; None: it is still running.
    """

    id: int
    source: str
    tenant: str | None
    status: str
    done: int
    failed: int
    open: int
    begin: datetime
    end: datetime | None


def month(runs: int, items: int, now: datetime) -> list[Shape]:
    """Return the runs of a month. The last one is running and has four tenths of all items, the one before a tenth,
    and half of these failed.

    Parameters:
      runs(int), items(int): How many in all.
      now(datetime): The end of the month, UTC-aware.
    """
    pick = random.Random(7)
    large, failing = items * 4 // 10, items // 10
    each = (items - large - failing) // (runs - 2)
    shapes = []
    for number in range(1, runs - 1):
        begin = now - timedelta(days=30) * (1 - number / runs)
        failed = pick.choice((0, 0, 0, 1, each // 20))
        end = begin + timedelta(seconds=each / 20 * pick.uniform(1.0, 1.4))
        status = pick.choices(("completed", "failed", "cancelled"), (94, 3, 3))[0]
        source, tenant = SOURCE_NAMES[number % 10], pick.choice((None, None, "north", "south"))
        shapes.append(Shape(number, source, tenant, status, each - failed, failed, 0, begin, end))
    begin = now - timedelta(hours=6)
    shapes.append(
        Shape(
            runs - 1,
            "orders",
            None,
            "completed",
            failing // 2,
            failing - failing // 2,
            0,
            begin,
            now - timedelta(hours=3),
        )
    )
    done, failed = large // 2, large // 20
    shapes.append(
        Shape(runs, "products", None, "running", done, failed, large - done - failed, now - timedelta(hours=3), None)
    )
    return shapes


def fill(url: str, shapes: Sequence[Shape], now: datetime) -> None:
    """Write a month into a migrated, empty database: runs, items, samples, events.

    Parameters:
      url(str): sqlite:///... or postgresql://...
    """
    put = _put_sqlite if url.startswith("sqlite:") else _put_postgres
    put(url, "sluice_runs", (_run(shape, now) for shape in shapes))
    put(url, "sluice_run_items", (row for shape in shapes for row in _items(shape, now)))
    put(url, "sluice_samples", (row for shape in shapes for row in _samples(shape, now)))
    put(url, "sluice_run_events", (row for shape in shapes for row in _events(shape)))
    _gather_statistics(url)


def _put_sqlite(url: str, table: str, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows)
    marks = ", ".join("?" for _ in first)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        values = ([_text(value) for value in row.values()] for row in chain([first], rows))
        connection.executemany(f"INSERT INTO {table} ({', '.join(first)}) VALUES ({marks})", values)


def _put_postgres(url: str, table: str, rows: Iterator[dict[str, Any]]) -> None:
    first = next(rows)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy(f"COPY {table} ({', '.join(first)}) FROM STDIN") as copy:
            for row in chain([first], rows):
                copy.write_row(list(row.values()))
        if "id" in first:
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")


def _gather_statistics(url: str) -> None:
    """Do what autovacuum does within a minute, and SQLite's own optimizer when a connection is closed."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA optimize")
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _text(value: Any) -> Any:
    return value.astimezone(UTC).isoformat(" ", "microseconds") if isinstance(value, datetime) else value


def _run(shape: Shape, now: datetime) -> dict[str, Any]:
    done = shape.done + shape.failed
    seconds = ((shape.end or now) - shape.begin).total_seconds()
    why = "its list could not be read: 500 Internal Server Error" if shape.status == "failed" else None
    return {
        "id": shape.id,
        "kind": "import",
        "source": shape.source,
        "tenant": shape.tenant,
        "status": shape.status,
        "scheduled_at": shape.begin,
        "started_at": shape.begin,
        "ended_at": shape.end,
        "total_count": done + shape.open,
        "succeeded_count": shape.done,
        "failed_count": shape.failed,
        "skipped_count": 0,
        "discovery_cursor": json.dumps(1),
        "discovery_attempts": 0,
        "discovered_at": shape.begin + timedelta(seconds=2),
        "lanes": 16,
        "priority": 0,
        "options": "{}",
        "error_summary": why,
        "rate_limit_hits_count": int(shape.id % 17 == 0),
        "rate_limit_sleeps_count": int(seconds // 20) + 1,
        "total_sleep_seconds": seconds * 0.8,
        "requests_count": done,
        "auth_failures_in_a_row": 0,
        "finalize_attempts": 0,
        "metadata": "{}",
        "created_by": "scheduler",
        "created_at": shape.begin,
        "updated_at": shape.end or now,
    }


def _items(shape: Shape, now: datetime) -> Iterator[dict[str, Any]]:
    end = shape.end or now
    seconds = (end - shape.begin).total_seconds()
    ended = shape.done + shape.failed
    for number in range(shape.done):
        at = shape.begin + timedelta(seconds=seconds * (number + 1) / ended)
        yield _item(shape, number, status="completed", attempts=1, due_at=at, completed_at=at)
    for number in range(shape.done, ended):
        failure_class, reason = _REASONS[number % len(_REASONS)]
        yield _item(
            shape,
            number,
            status="failed",
            attempts=5,
            due_at=end,
            last_failed_at=end,
            failure_class=failure_class,
            failure_reason=reason,
            failure_fingerprint=hashlib.sha256(reason.encode()).hexdigest()[:12],
            failure_count=5,
        )
    for number in range(ended, ended + shape.open):
        yield _item(shape, number, status="pending", attempts=0, due_at=now)


def _item(shape: Shape, number: int, **values: Any) -> dict[str, Any]:
    none = dict.fromkeys(("last_failed_at", "failure_class", "failure_reason", "failure_fingerprint", "completed_at"))
    named = {"run_id": shape.id, "item_type": "items", "item_id": str(number), "external_id": f"i{number}"}
    return named | {"failure_count": 0} | none | values


def _samples(shape: Shape, now: datetime, most: int = 460) -> Iterator[dict[str, Any]]:
    end = shape.end or now
    seconds = (end - shape.begin).total_seconds()
    first, last = int(shape.begin.timestamp()) // 2 + 1, int(end.timestamp()) // 2
    for slot in range(first, last + 1, max(1, -(-(last - first + 1) // most))):
        at = datetime.fromtimestamp(2 * slot, UTC)
        share = (at - shape.begin).total_seconds() / seconds
        done, failed = int(shape.done * share), int(shape.failed * share)
        yield {
            "run_id": shape.id,
            "slot": slot,
            "at": at,
            "succeeded": done,
            "failed": failed,
            "skipped": 0,
            "requests": done + failed,
            "hits": 0,
            "sleeps": int(share * seconds // 20),
            "waiting_seconds": 0.8 * share * seconds,
        }


def _events(shape: Shape) -> Iterator[dict[str, Any]]:
    yield _event(shape, shape.begin, "created", "scheduler")
    yield _event(shape, shape.begin, "started", "scheduler")
    if shape.end:
        yield _event(shape, shape.end, shape.status, "finalize")


def _event(shape: Shape, at: datetime, what: str, who: str) -> dict[str, Any]:
    return {"run_id": shape.id, "at": at, "what": what, "who": who, "door": "worker"}
