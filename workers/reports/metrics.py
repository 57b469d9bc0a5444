"""Metrics: reads memory, latency and size of Redis and the database, and counts open work, without table scans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import redis
from peewee import PeeweeException

from workers import clock
from workers.connections import database
from workers.connections.database import db
from workers.connections.redis_client import shared_quick_client
from workers.connections.redis_url import is_redis
from workers.errors import ConfigurationError, DependencyDown
from workers.messaging.broker import QUEUE
from workers.records import schema
from workers.records.tables import ACTIVE, IS_OPEN, ItemStatus, Lane, Run, RunItem, RunStatus
from workers.settings import get_settings

#: Due items of a run are counted up to this number, so that counting takes the same time for any run.
MOST_DUE = 1_000


@dataclass(frozen=True)
class RedisMetrics:
    """The state of the Redis of the budgets.

    Attributes:
      limit_bytes: Its maxmemory; None where it has none.
      policy: What it does when its memory is full: its maxmemory-policy.
      persistence: What a restart would keep, in words.
    """

    title: str
    used_bytes: int
    limit_bytes: int | None
    policy: str
    persistence: str
    latency_seconds: float


@dataclass(frozen=True)
class DatabaseMetrics:
    """The state of the database.

    Attributes:
      migration: The last one that was applied; empty where one is missing.
    """

    title: str
    size_bytes: int
    latency_seconds: float
    migration: str


@dataclass(frozen=True)
class WorkMetrics:
    """The open work.

    Attributes:
      messages: How many the broker holds, delayed ones included; None where that is unknown.
      lanes: Lanes of active runs that have not ended.
      overdue_lanes: Lanes whose message is overdue: the reaper sends it again.
      due_items: Items of running runs that can be claimed now; counted up to `MOST_DUE` a run.
      claimed_items: Claimed items of running runs, counted likewise.
    """

    messages: int | None
    active_runs: int
    lanes: int
    overdue_lanes: int
    due_items: int
    claimed_items: int


def redis_metrics() -> RedisMetrics | None:
    """Return the state of Redis; None where it does not answer, or forbids INFO."""
    try:
        client = shared_quick_client(get_settings().redis_url)
        info: Any = client.info()
        began = clock.monotonic()
        client.ping()  # after another command, so that the connection is open
        took = clock.monotonic() - began
    except (redis.RedisError, ValueError):
        return None
    return RedisMetrics(
        title=_name(info),
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)) or None,
        policy=str(info.get("maxmemory_policy", "")),
        persistence=persistence(info),
        latency_seconds=took,
    )


def _name(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}".strip()


class Persistence(StrEnum):
    """What a restart of Redis keeps, in words."""

    UNKNOWN = "unknown"
    SAVE_FAILED = "its last save failed: see its log"
    APPEND_ONLY = "appendonly: a restart keeps the budgets"
    NOT_APPEND_ONLY = "not appendonly: after a restart each budget waits for its windows"


def persistence(info: dict[str, Any]) -> Persistence:
    """Return what a restart keeps, by the reply of INFO."""
    if "aof_enabled" not in info:
        return Persistence.UNKNOWN
    if "err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")):
        return Persistence.SAVE_FAILED
    return Persistence.APPEND_ONLY if info["aof_enabled"] else Persistence.NOT_APPEND_ONLY


def database_metrics() -> DatabaseMetrics | None:
    """Return the state of the database; None where it does not answer."""
    return _read(_database_metrics)


def _database_metrics() -> DatabaseMetrics:
    began = clock.monotonic()
    db.execute_sql("SELECT 1").fetchone()
    took = clock.monotonic() - began
    if database.is_sqlite():
        title = f"SQLite {_one('SELECT sqlite_version()')}"
        size = int(_one("PRAGMA page_count")) * int(_one("PRAGMA page_size"))
    else:
        title = f"PostgreSQL {str(_one('SHOW server_version')).partition(' ')[0]}"
        size = int(_one("SELECT pg_database_size(current_database())"))
    return DatabaseMetrics(title, size, took, _last_migration())


def _last_migration() -> str:
    return str(_one("SELECT name FROM sluice_migrations ORDER BY name DESC LIMIT 1")) if schema.is_migrated() else ""


def work_metrics(*, redis_answers: bool = True) -> WorkMetrics | None:
    """Return the open work; None where the database does not answer.

    Parameters:
      redis_answers(bool): False: a queue in this Redis is not read, because waiting for one that hangs takes time.
    """
    settings = get_settings()
    reads = redis_answers or settings.broker != settings.redis_url
    return _read(lambda: _work_metrics(messages() if reads else None))


def _work_metrics(messages: int | None) -> WorkMetrics:
    now = database.now()
    active = list(Run.select(Run.id, Run.status).where(Run.status.in_(ACTIVE)))
    running = [run.id for run in active if run.status == RunStatus.RUNNING]
    late = now - timedelta(seconds=get_settings().lane_lease_seconds)
    lanes, overdue = _lanes([run.id for run in active], late)
    return WorkMetrics(
        messages=messages,
        active_runs=len(active),
        lanes=lanes,
        overdue_lanes=overdue,
        due_items=sum(_count(run_id, ItemStatus.PENDING, RunItem.due_at <= now) for run_id in running),
        claimed_items=sum(_count(run_id, ItemStatus.PROCESSING, RunItem.due_at > now) for run_id in running),
    )


def _lanes(run_ids: Sequence[int], late: datetime) -> tuple[int, int]:
    """Return how many lanes are open, and how many of them are overdue."""
    if not run_ids:
        return 0, 0
    still_open = Lane.select(Lane.id).where(Lane.run_id.in_(run_ids), Lane.due_at.is_null(False))
    return still_open.count(), still_open.where(Lane.due_at < late).count()


def _count(run_id: int, status: ItemStatus, due: Any) -> int:
    """Count items of a run by the index that claims use, up to `MOST_DUE`."""
    wanted = RunItem.select(RunItem.id).where(RunItem.run_id == run_id, IS_OPEN, RunItem.status == status, due)
    count: int = wanted.limit(MOST_DUE).count()
    return count


def messages() -> int | None:
    """Return how many messages the broker holds, delayed ones included; None where it does not answer.

    `broker.waiting` counts them with longer timeouts: a page must not hang where Redis does.
    """
    settings = get_settings()
    if not is_redis(settings.broker):
        return None
    name = f"{settings.prefix}:queue:{QUEUE}"
    try:
        with shared_quick_client(settings.broker).pipeline(transaction=False) as pipe:
            pipe.hlen(f"{name}.msgs")
            pipe.hlen(f"{name}.DQ.msgs")
            return sum(pipe.execute())
    except (redis.RedisError, ValueError):  # the text of the latter may hold a piece of the password
        return None


def _read(read: Callable[[], Any]) -> Any:
    try:
        with database.connection():
            return read()
    except (DependencyDown, ConfigurationError, PeeweeException):
        return None


def _one(statement: str) -> Any:
    return db.execute_sql(statement).fetchone()[0]
