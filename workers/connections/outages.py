"""Outages: logs when Redis or the database is away, full or read-only, and when that ends, each once per process.

An outage of the database cannot be recorded in the database. It is written to Redis, under a key that expires; the page
and the command line show it as the reason why a run is stalled.
"""

import json
import logging
import math
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import redis

from workers import clock
from workers.connections import database, database_errors, redis_errors
from workers.connections.redis_client import shared_quick_client
from workers.connections.redis_url import is_redis
from workers.connections.trouble import Cause, Trouble
from workers.errors import DependencyDown
from workers.settings import get_settings
from workers.text import redaction
from workers.text.durations import duration

log = logging.getLogger(__name__)

_REMIND_SECONDS = 60.0
#: An outage has ended after that long without an error: one statement can succeed while others still fail.
_CALM_SECONDS = 3.0
#: How long a report stays in Redis: a process that waits for a locked SQLite file fails again after 30 s and a tick.
_REPORT_TTL_SECONDS = 45
#: A report is written to Redis again after that long, at the earliest.
_REPORT_AGAIN_SECONDS = 5.0
_LENGTH = 300

_END_THE_OTHER = "end the transaction that another program holds open in it"
_SET_POOLER = "set SLUICE_DATABASE_POOLER=transaction: a pooler gives each transaction another session"

#: The repair, by SQLSTATE; the longest prefix counts.
_BY_SQLSTATE = {
    "08P01": "see the log of Postgres, or of the pooler in front of it",
    "25006": "let SLUICE_DATABASE_URL name a server that accepts writes",
    "25": _SET_POOLER,
    "26": _SET_POOLER,
    "28": "correct the user or the password in SLUICE_DATABASE_URL, or the server's pg_hba.conf",
    "28P01": "correct the password in SLUICE_DATABASE_URL",
    "3D": "correct the database's name in SLUICE_DATABASE_URL, or create it",
    "40": "none needed: it is repeated",
    "42P05": _SET_POOLER,
    "53": "see its log: it has run out of a resource",
    "53100": "free disk space",
    "53200": "give it more memory",
    database_errors.TOO_MANY_CONNECTIONS: "raise max_connections of Postgres, or run fewer worker threads",
    "55": _END_THE_OTHER,
    "57014": f"{_END_THE_OTHER}, or raise its statement_timeout",
    "57P": "wait, if it is restarting; else see its log",
    "58": "see its log, and its disk",
    "XX": "see its log: a part of the database is damaged; restore a backup",
}
#: The repair, by SQLite's primary result code.
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_BUSY: _END_THE_OTHER,
    sqlite3.SQLITE_LOCKED: _END_THE_OTHER,
    sqlite3.SQLITE_FULL: "free disk space",
    sqlite3.SQLITE_IOERR: "check the disk that its file is on",
    sqlite3.SQLITE_READONLY: "make its file and folder writable",
    sqlite3.SQLITE_PERM: "make its file and folder writable",
    sqlite3.SQLITE_CANTOPEN: "create its folder, and make it writable",
    sqlite3.SQLITE_CORRUPT: "restore a backup",
    sqlite3.SQLITE_NOTADB: "move it away, or restore a copy",
    sqlite3.SQLITE_NOMEM: "give this machine more memory",
}
_START_IT = "start it, or correct SLUICE_DATABASE_URL"


class Outage:
    """One server's outage as this process sees it: a log line when it begins, a line each minute, and one when it ends.

    Parameters:
      name(str): The server.
      promise(str): What the outage means for the work.
      calm_seconds(float): The outage has ended after that long without an error.
    """

    def __init__(self, name: str, promise: str, calm_seconds: float = _CALM_SECONDS) -> None:
        self.name = name
        self.promise = promise
        self.calm_seconds = calm_seconds
        self._lock = threading.Lock()
        self._since: float | None = None
        self._what = ""
        self._last = self._logged_at = 0.0

    def met(self, what: Trouble) -> None:
        """Record an error of this server. Logs it at once where it is new, then every minute. Thread-safe."""
        now = clock.monotonic()
        with self._lock:
            new = self._since is None or what.what != self._what
            since = self._since = now if self._since is None else self._since
            self._last = now
            if not new and now - self._logged_at < _REMIND_SECONDS:
                return
            self._logged_at, self._what = now, what.what
        if new:
            log.warning("%s (%s): %s. To do: %s", what.what, what.said, self.promise, what.repair)
        else:
            log.warning("%s (%s), for %s now. To do: %s", what.what, what.said, duration(now - since), what.repair)

    @property
    def lasts(self) -> bool:
        """Whether the outage has begun and not ended."""
        return self._since is not None

    @property
    def lasted_seconds(self) -> float:
        """How long the outage has lasted; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else clock.monotonic() - since

    def forget(self) -> None:
        """Forget the outage, without a log line."""
        with self._lock:
            self._since, self._what = None, ""

    def over(self) -> bool:
        """Record that the server answered. Thread-safe, and cheap where there was no outage.

        Returns:
          bool: Whether this ended an outage.
        """
        if self._since is None:
            return False
        now = clock.monotonic()
        with self._lock:
            if self._since is None or now - self._last < self.calm_seconds:
                return False
            since, self._since = self._since, None
        log.warning("%s works again, after %s", self.name, duration(now - since))
        return True


_redis = Outage("Redis", "no permit is granted; nothing is lost: the scheduler sends unsent messages later")
_broker = Outage("the broker", "nothing is lost: the scheduler sends unsent messages later")
_database = Outage("the database", "no item is claimed or committed; nothing is lost, the work continues automatically")
#: Some threads have a connection, so that the first statement that succeeds is not the end.
_full = Outage("Postgres, which had no connection left,", "nothing is lost: threads without one wait for it", 60.0)
_report_lock = threading.Lock()
_reported_at = -math.inf


def report(error: BaseException) -> bool:
    """Log an error of Redis or of the database; write an error of the database to Redis for the page.

    Parameters:
      error(BaseException): The error, or one that was raised from it.

    Returns:
      bool: Whether it is an outage. The caller handles any other error.
    """
    for cause in _causes(error):
        if isinstance(cause, redis.RedisError):
            _redis.met(redis_errors.trouble(cause))
            return True
        if database.is_away(cause) and not isinstance(cause, DependencyDown):
            what = database_trouble(cause)
            outage = _full if what.cause is Cause.NO_CONNECTION_LEFT else _database
            outage.met(what)
            _report_in_redis(what, cause, clock.now() - timedelta(seconds=outage.lasted_seconds))
            return True
    return False


def broker() -> Outage:
    """Return the outage of the Redis that holds the queue, which can be the Redis of the budgets."""
    settings = get_settings()
    return _redis if settings.broker == settings.redis_url else _broker


def over() -> None:
    """Record that work was done: neither Redis nor the database is away."""
    _redis.over()
    database_over()


def database_over() -> None:
    """Record that the database could be used."""
    global _reported_at
    _full.over()
    if _database.over():
        _reported_at = -math.inf
        _quietly(lambda client: client.delete(_key()))


def reset() -> None:
    """Forget all outages, as a new process would."""
    global _reported_at
    _reported_at = -math.inf
    for outage in (_redis, _broker, _database, _full):
        outage.forget()


def reported_trouble() -> Trouble | None:
    """Return the trouble that a process had with the database in the last 45 s, read from Redis; None: it had none."""
    value = _quietly(lambda client: client.get(_key()))
    return _read_trouble(value.decode("utf-8", "replace")) if isinstance(value, bytes) else None


def _read_trouble(text: str) -> Trouble:
    try:
        value = json.loads(text)
        since = datetime.fromisoformat(value["since"])
        return Trouble(str(value["what"]), str(value["repair"]), since=since, cause=Cause(value["cause"]))
    except (ValueError, KeyError, TypeError):  # a process of an older version wrote a sentence
        return Trouble(text[:_LENGTH], "see the log of the workers", cause=Cause.DATABASE)


def is_redis_away() -> bool:
    """Return whether Redis last failed for this process, and has not answered since."""
    return _redis.lasts


def redis_trouble() -> Trouble | None:
    """Return why Redis cannot be written; None where it can.

    The probe is a write that changes nothing, because a Redis that is out of memory, or a replica, answers every read;
    and one command with two keys, as permits use, which a cluster refuses.
    """
    try:
        probe(shared_quick_client(get_settings().redis_url))
    except redis.RedisError as error:
        return redis_errors.trouble(error)
    except ValueError:  # its text can contain a part of the password
        return redis_errors.UNREADABLE
    return None


def probe(client: "redis.Redis") -> None:
    """Write to a Redis without changing anything, and read two keys at once.

    Raises:
      redis.RedisError: It cannot be written, or is a cluster.
    """
    key = f"{get_settings().prefix}:probe"
    with client.pipeline(transaction=False) as pipe:
        pipe.setrange(key, 0, "")
        pipe.exists(key, f"{key}:2")
        pipe.execute()


def broker_trouble() -> Trouble | None:
    """Return why the broker's Redis does not answer, where it is not the Redis of the budgets; None where it does."""
    settings = get_settings()
    if settings.broker == settings.redis_url or not is_redis(settings.broker):
        return None
    try:
        shared_quick_client(settings.broker).ping()
    except redis.RedisError as error:
        return redis_errors.trouble(error)
    except ValueError:  # its text can contain a part of the password
        return redis_errors.UNREADABLE
    return None


def database_trouble(error: BaseException) -> Trouble:
    """Return what an error of the database means."""
    said = redaction.redact(database.explain(error))
    cause = next((cause for cause in _causes(error) if database_errors.classify(cause)), error)
    if database_errors.sqlstate(cause) == database_errors.TOO_MANY_CONNECTIONS:
        return Trouble("Postgres has no connection left", _repair(cause), said, cause=Cause.NO_CONNECTION_LEFT)
    return Trouble("the database cannot be used", _repair(cause), said, cause=Cause.DATABASE)


def _repair(error: BaseException) -> str:
    if code := database_errors.sqlite_code(error):
        return _BY_SQLITE_CODE.get(code, _START_IT)
    state = database_errors.sqlstate(error)
    return next((_BY_SQLSTATE[state[:n]] for n in (5, 3, 2) if state[:n] in _BY_SQLSTATE), _START_IT)


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or getattr(error, "orig", None)  # peewee can wrap an error twice
    return causes


def _report_in_redis(trouble: Trouble, error: BaseException, since: datetime) -> None:
    """Write a trouble of the database to Redis, where pages and commands read it.

    Parameters:
      since(datetime): When it began; a report that is written again keeps it.
    """
    global _reported_at
    with _report_lock:
        now = clock.monotonic()
        if now - _reported_at < _REPORT_AGAIN_SECONDS:
            return
        _reported_at = now
    # The address and the user are for the log: every viewer of the page can read this.
    hidden = database_errors.is_of_no_connection(error) or "://" in trouble.said
    said = "it refuses the connection" if hidden else trouble.said
    is_full = trouble.cause is Cause.NO_CONNECTION_LEFT
    what = trouble.what if is_full else f"the workers cannot use the database: {said}"
    value = {"what": what[:_LENGTH], "repair": trouble.repair[:_LENGTH], "since": since.isoformat()}
    text = json.dumps(value | {"cause": trouble.cause})
    _quietly(lambda client: client.set(_key(), text, ex=_REPORT_TTL_SECONDS))


def _key() -> str:
    return f"{get_settings().prefix}:trouble:database"


def _quietly(do: Callable[["redis.Redis"], Any]) -> object:
    try:
        return do(shared_quick_client(get_settings().redis_url))
    except (redis.RedisError, ValueError):
        return None


database.full_listeners.append(report)
