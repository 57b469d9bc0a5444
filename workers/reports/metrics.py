"""Figures: how Redis and the database are, and how much there is to do. Each may be unknown; none costs a scan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import redis
from peewee import PeeweeException

from workers import clock
from workers.connections import database
from workers.connections.database import db
from workers.connections.redis_client import shared_quick_client
from workers.errors import ConfigurationError, DependencyDown
from workers.messaging.broker import QUEUE
from workers.records import schema
from workers.records.tables import ACTIVE, IS_OPEN, ItemStatus, Lane, Run, RunItem, RunStatus
from workers.settings import get_settings

#: Due items of a run are counted up to here: nobody needs to know it better, and it costs the same whatever there is.
MOST_DUE = 1_000


@dataclass(frozen=True)
class RedisFigures:
    """What Redis tells of itself.

    Attributes:
      limit_bytes: Its maxmemory; None where it has none.
      policy: What it does when that is reached.
      persistence: What a restart would keep.
    """

    title: str
    used_bytes: int
    limit_bytes: int | None
    policy: str
    persistence: str
    latency_seconds: float


@dataclass(frozen=True)
class DatabaseFigures:
    """What the database tells of itself.

    Attributes:
      migration: The last one that was applied; empty where one is missing.
    """

    title: str
    size_bytes: int
    latency_seconds: float
    migration: str


@dataclass(frozen=True)
class WorkFigures:
    """What there is to do.

    Attributes:
      messages: How many the broker holds, be it for later; None where it cannot tell.
      lanes: Lanes of active runs that have not ended.
      overdue_lanes: Of these, those that should have been heard of: the reaper wakes them.
      due_items: Items that may be claimed now, of running runs; counted up to `MOST_DUE` a run.
      in_hand_items: Those that are claimed, counted likewise.
    """

    messages: int | None
    active_runs: int
    lanes: int
    overdue_lanes: int
    due_items: int
    in_hand_items: int


def redis_figures() -> RedisFigures | None:
    """Return what Redis tells of itself; None where it does not answer, or may not tell."""
    try:
        client = shared_quick_client(get_settings().redis_url)
        info: Any = client.info()
        began = clock.monotonic()
        client.ping()  # after another question: to connect takes longer
        took = clock.monotonic() - began
    except (redis.RedisError, ValueError):
        return None
    return RedisFigures(
        title=_name(info),
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)) or None,
        policy=str(info.get("maxmemory_policy", "")),
        persistence=_persistence(info),
        latency_seconds=took,
    )


def _name(info: dict[str, Any]) -> str:
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info.get('redis_version', '')}".strip()


def _persistence(info: dict[str, Any]) -> str:
    if "aof_enabled" not in info:
        return "unknown"
    if "err" in (info.get("rdb_last_bgsave_status"), info.get("aof_last_write_status")):
        return "its last save failed: see its log"
    if info["aof_enabled"]:
        return "appendonly: a restart keeps the budgets"
    return "not appendonly: after a restart each budget waits for its windows"


def database_figures() -> DatabaseFigures | None:
    """Return what the database tells of itself; None where it does not answer."""
    return _asked(_database_figures)


def _database_figures() -> DatabaseFigures:
    began = clock.monotonic()
    db.execute_sql("SELECT 1").fetchone()
    took = clock.monotonic() - began
    if database.is_sqlite():
        title = f"SQLite {_one('SELECT sqlite_version()')}"
        size = int(_one("PRAGMA page_count")) * int(_one("PRAGMA page_size"))
    else:
        title = f"PostgreSQL {str(_one('SHOW server_version')).partition(' ')[0]}"
        size = int(_one("SELECT pg_database_size(current_database())"))
    return DatabaseFigures(title, size, took, _last_migration())


def _last_migration() -> str:
    return str(_one("SELECT name FROM sluice_migrations ORDER BY name DESC LIMIT 1")) if schema.is_migrated() else ""


def work_figures(*, redis_answers: bool = True) -> WorkFigures | None:
    """Return what there is to do; None where the database does not answer.

    Parameters:
      redis_answers(bool): Whether a queue in that Redis is asked for at all: one that hangs costs time.
    """
    settings = get_settings()
    asks = redis_answers or settings.broker != settings.redis_url
    return _asked(lambda: _work_figures(messages() if asks else None))


def _work_figures(messages: int | None) -> WorkFigures:
    now = database.now()
    active = list(Run.select(Run.id, Run.status).where(Run.status.in_(ACTIVE)))
    running = [run.id for run in active if run.status == RunStatus.RUNNING]
    late = now - timedelta(seconds=get_settings().lane_lease_seconds)
    lanes, overdue = _lanes([run.id for run in active], late)
    return WorkFigures(
        messages=messages,
        active_runs=len(active),
        lanes=lanes,
        overdue_lanes=overdue,
        due_items=sum(_count(run_id, ItemStatus.PENDING, RunItem.due_at <= now) for run_id in running),
        in_hand_items=sum(_count(run_id, ItemStatus.PROCESSING, RunItem.due_at > now) for run_id in running),
    )


def _lanes(run_ids: Sequence[int], late: datetime) -> tuple[int, int]:
    """Return how many lanes are open, and how many of them should have been heard of."""
    if not run_ids:
        return 0, 0
    still_open = Lane.select(Lane.id).where(Lane.run_id.in_(run_ids), Lane.due_at.is_null(False))
    return still_open.count(), still_open.where(Lane.due_at < late).count()


def _count(run_id: int, status: ItemStatus, due: Any) -> int:
    """Count items of a run by the index that claims use, and no further than anybody reads."""
    wanted = RunItem.select(RunItem.id).where(RunItem.run_id == run_id, IS_OPEN, RunItem.status == status, due)
    count: int = wanted.limit(MOST_DUE).count()
    return count


def messages() -> int | None:
    """Return how many messages the broker holds, those for later included; None where it cannot tell.

    It is not asked by `broker.waiting`, which is patient: a page must not hang where Redis does.
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


def is_redis(url: str) -> bool:
    return url.partition(":")[0] in ("redis", "rediss", "unix")


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        with database.connection():
            return ask()
    except (DependencyDown, ConfigurationError, PeeweeException):
        return None


def _one(statement: str) -> Any:
    return db.execute_sql(statement).fetchone()[0]
