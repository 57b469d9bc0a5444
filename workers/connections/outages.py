"""Outage: Redis or the database is away, full, or refuses to be written. A process says so once, and when it is over.

Where the database cannot be written, the trouble cannot be recorded in it: it is told through Redis, under a key that
expires, and every door shows it as the reason why a run does not go on.
"""

import logging
import math
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import redis

from workers import clock
from workers.connections import database, database_errors, redis_errors
from workers.connections.redis_client import shared_quick_client
from workers.connections.redis_errors import Trouble
from workers.errors import DependencyDown
from workers.settings import get_settings
from workers.text import redaction

log = logging.getLogger(__name__)

_REMIND_SECONDS = 60.0
#: Other threads may still fail, or a statement that changes nothing succeed: it is over after so long without an error.
_CALM_SECONDS = 3.0
#: How long the doors show what was told: who meets a locked SQLite file meets it again after 30 s and a tick.
_TOLD_SECONDS = 45
#: How often it is told again, at most.
_TELL_AGAIN_SECONDS = 5.0
_LENGTH = 300

_END_THE_OTHER = "end the transaction that another program holds open in it"
_SET_POOLER = "set SLUICE_DATABASE_POOLER=transaction: a pooler gives each transaction another session"

#: The repair, by SQLSTATE; the longest prefix counts.
_BY_SQLSTATE = {
    "08P01": "see the log of Postgres, or of the pooler in front of it",
    "25006": "let SLUICE_DATABASE_URL name a server that can be written",
    "25": _SET_POOLER,
    "26": _SET_POOLER,
    "28": "correct the user or the password in SLUICE_DATABASE_URL, or what its pg_hba.conf lets in",
    "28P01": "correct the password in SLUICE_DATABASE_URL",
    "3D": "correct the database's name in SLUICE_DATABASE_URL, or create it",
    "40": "nothing: it is repeated",
    "42P05": _SET_POOLER,
    "53": "see its log: it has run out of something",
    "53100": "free disk space",
    "53200": "give it more memory",
    database_errors.TOO_MANY_CONNECTIONS: "raise max_connections of Postgres, or run fewer worker threads",
    "55": _END_THE_OTHER,
    "57014": f"{_END_THE_OTHER}, or raise its statement_timeout",
    "57P": "wait, if it is being restarted; else see its log",
    "58": "see its log, and its disk",
    "XX": "see its log: a part of it is damaged; restore a backup",
}
#: The repair, by SQLite's primary result code.
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_BUSY: _END_THE_OTHER,
    sqlite3.SQLITE_LOCKED: _END_THE_OTHER,
    sqlite3.SQLITE_FULL: "free disk space",
    sqlite3.SQLITE_IOERR: "see the disk that it is on",
    sqlite3.SQLITE_READONLY: "make its file and folder writable",
    sqlite3.SQLITE_PERM: "make its file and folder writable",
    sqlite3.SQLITE_CANTOPEN: "see that its folder is there and can be written",
    sqlite3.SQLITE_CORRUPT: "restore a backup",
    sqlite3.SQLITE_NOTADB: "move it away, or restore a copy",
    sqlite3.SQLITE_NOMEM: "give this machine more memory",
}
_START_IT = "start it, or correct SLUICE_DATABASE_URL"
#: What `database_trouble` says of SQLSTATE 53300.
FULL = "Postgres has no connection left"


class Outage:
    """One server's outage as this process sees it: a line in the log when it begins, reminders, a line when it is over.

    Parameters:
      name(str): What is away.
      promise(str): What that means for the work.
      calm_seconds(float): It is over after so long without an error.
    """

    def __init__(self, name: str, promise: str, calm_seconds: float = _CALM_SECONDS) -> None:
        self.name = name
        self.promise = promise
        self.calm_seconds = calm_seconds
        self._lock = threading.Lock()
        self._since: float | None = None
        self._what = ""
        self._last = self._said_at = 0.0

    def met(self, what: Trouble) -> None:
        """Say that it was met with: at once where it is new, then every minute. Thread-safe."""
        now = clock.monotonic()
        with self._lock:
            new = self._since is None or what.what != self._what
            since = self._since = now if self._since is None else self._since
            self._last = now
            if not new and now - self._said_at < _REMIND_SECONDS:
                return
            self._said_at, self._what = now, what.what
        if new:
            log.warning("%s (%s): %s. To do: %s", what.what, what.said, self.promise, what.repair)
        else:
            log.warning("%s (%s), for %.0f s now. To do: %s", what.what, what.said, now - since, what.repair)

    @property
    def lasts(self) -> bool:
        """Whether it was met, and is not over."""
        return self._since is not None

    def forget(self) -> None:
        """Take up as a new process would."""
        with self._lock:
            self._since, self._what = None, ""

    def over(self) -> bool:
        """Say that it answered. Thread-safe, and cheap where nothing was the matter.

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
        log.warning("%s works again, after %.0f s", self.name, now - since)
        return True


_redis = Outage("Redis", "no permit is given, and nothing is lost: what was ordered and not sent, the scheduler sends")
_broker = Outage("the broker", "nothing is lost: what was ordered and not sent, the scheduler sends")
_database = Outage("the database", "nothing is claimed or committed, and nothing is lost: it goes on by itself")
#: Some have a connection, so that its end is not the first statement that succeeds.
_full = Outage("Postgres, which had no connection left,", "nothing is lost: who has none waits for one", 60.0)
_tell_lock = threading.Lock()
_told_at = -math.inf


def tell(error: BaseException) -> bool:
    """Say in the log, and to the doors, that an error of Redis or of the database was met.

    Parameters:
      error(BaseException): The error, or one that was raised from it.

    Returns:
      bool: Whether it is an outage. Any other error is left to the caller.
    """
    for cause in _causes(error):
        if isinstance(cause, redis.RedisError):
            _redis.met(redis_errors.trouble(cause))
            return True
        if database.is_away(cause) and not isinstance(cause, DependencyDown):
            what = database_trouble(cause)
            (_full if what.what == FULL else _database).met(what)
            _tell_doors(what, cause)
            return True
    return False


def broker() -> Outage:
    """Return the outage of the Redis that holds the queue: the same as that of the budgets, where it is the same."""
    settings = get_settings()
    return _redis if settings.broker == settings.redis_url else _broker


def over() -> None:
    """Say that work was done: neither Redis nor the database is away."""
    _redis.over()
    database_over()


def database_over() -> None:
    """Say that the database could be used."""
    global _told_at
    _full.over()
    if _database.over():
        _told_at = -math.inf
        _quietly(lambda client: client.delete(_key()))


def forget() -> None:
    """Take up as a new process would: what was met before is not known any more."""
    global _told_at
    _told_at = -math.inf
    for outage in (_redis, _broker, _database, _full):
        outage.forget()


def told() -> str:
    """Return what a process that cannot use the database told the doors; empty where none did lately."""
    value = _quietly(lambda client: client.get(_key()))
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def is_redis_away() -> bool:
    """Whether this process has met a Redis that does not answer, and has not seen it answer since."""
    return _redis.lasts


def redis_trouble() -> Trouble | None:
    """Return what keeps Redis from being written; None where nothing does.

    It asks with a write that changes nothing, for a Redis that is out of memory, or a replica, answers to everything
    else; and for two keys at once, as permits do, which a cluster refuses.
    """
    probe = f"{get_settings().prefix}:probe"
    try:
        with shared_quick_client(get_settings().redis_url).pipeline(transaction=False) as pipe:
            pipe.setrange(probe, 0, "")
            pipe.exists(probe, f"{probe}:2")
            pipe.execute()
    except redis.RedisError as error:
        return redis_errors.trouble(error)
    except ValueError:  # its text may hold a piece of the password
        return redis_errors.UNREADABLE
    return None


def broker_trouble() -> Trouble | None:
    """Return what keeps the broker from being asked, where it is a Redis of its own; None where nothing does."""
    settings = get_settings()
    if settings.broker == settings.redis_url or settings.broker.partition(":")[0] not in ("redis", "rediss", "unix"):
        return None
    try:
        shared_quick_client(settings.broker).ping()
    except redis.RedisError as error:
        return redis_errors.trouble(error)
    except ValueError:  # its text may hold a piece of the password
        return redis_errors.UNREADABLE
    return None


def database_trouble(error: BaseException) -> Trouble:
    """Return what an error of the database means."""
    said = redaction.redact(database.explain(error))
    cause = next((cause for cause in _causes(error) if database_errors.sort(cause)), error)
    what = (
        FULL
        if database_errors.sqlstate(cause) == database_errors.TOO_MANY_CONNECTIONS
        else "the database cannot be used"
    )
    return Trouble(what, _repair(cause), said)


def _repair(error: BaseException) -> str:
    if code := database_errors.sqlite_code(error):
        return _BY_SQLITE_CODE.get(code, _START_IT)
    state = database_errors.sqlstate(error)
    return next((_BY_SQLSTATE[state[:n]] for n in (5, 3, 2) if state[:n] in _BY_SQLSTATE), _START_IT)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or getattr(error, "orig", None)  # what peewee wrapped, which it may do twice
    return found


def _tell_doors(what: Trouble, error: BaseException) -> None:
    global _told_at
    with _tell_lock:
        now = clock.monotonic()
        if now - _told_at < _TELL_AGAIN_SECONDS:
            return
        _told_at = now
    at = f"{clock.now():%H:%M:%S} UTC"
    # Where it is, and as whom they connect, is for the log: pages show this to whoever may look.
    hidden = database_errors.is_of_no_connection(error) or "://" in what.said
    said = "it refuses the connection" if hidden else what.said
    text = what.what if what.what == FULL else f"the workers cannot use the database: {said}"
    text = f"{text} ({at}): {what.repair}; it goes on by itself"
    _quietly(lambda client: client.set(_key(), text[:_LENGTH], ex=_TOLD_SECONDS))


def _key() -> str:
    return f"{get_settings().prefix}:trouble:database"


def _quietly(do: Callable[["redis.Redis"], Any]) -> object:
    try:
        return do(shared_quick_client(get_settings().redis_url))
    except (redis.RedisError, ValueError):
        return None


database.full_listeners.append(tell)
