"""Recent errors: copies of the last warnings and errors that processes logged, kept in Redis for the page to show.

The copies are cut, and hold no secrets and no tracebacks; the log itself is unchanged. A thread that logs never waits
for Redis; while Redis does not answer, copies are dropped.
"""

import json
import logging
import os
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from logging.handlers import QueueHandler
from typing import Any

import redis

from workers.connections.database import storable
from workers.connections.redis_client import shared_quick_client
from workers.log import message_in
from workers.settings import get_settings
from workers.text import redaction
from workers.text.error_text import message_of
from workers.text.plain_text import one_line

#: How many lines are kept, and for how long after the last one.
KEPT = 100
_KEPT_SECONDS = 7 * 86_400
#: The same line within this time is counted instead of kept twice.
_REPEAT_SECONDS = 60.0
#: How often lines are written to Redis.
_WRITE_SECONDS = 0.5
#: How many lines can wait to be written; further ones are dropped.
_WAITING = 500
_LENGTH = 500
#: How long a process that ends waits until its last lines are written.
_FAREWELL_SECONDS = 0.2
_THREAD = "recent-errors"


@dataclass(frozen=True)
class LoggedError:
    """A line of a process's log.

    Attributes:
      at: When it was logged last, by the clock of its host.
      process: Which process: `worker 4711 on host-a`.
      level: WARNING, ERROR or CRITICAL.
      text: The message, cut and without secrets.
      count: How often it was logged within a minute.
    """

    at: datetime
    process: str
    level: str
    text: str
    count: int = 1


def recent_errors(limit: int = 20) -> tuple[LoggedError, ...]:
    """Return the last lines, the newest first.

    Raises:
      redis.RedisError: Redis does not answer.
      ValueError: SLUICE_REDIS_URL cannot be read.
    """
    found: Any = shared_quick_client(get_settings().redis_url).zrange(_key(), 0, limit - 1, desc=True, withscores=True)
    return tuple(filter(None, (_line(text, at) for text, at in found)))


@contextmanager
def kept(kind: str) -> Iterator[None]:
    """Keep copies of what this process logs within the block, from WARNING on.

    Parameters:
      kind(str): What the process is: "worker".
    """
    writer = _Writer(kind)
    writer.start()
    try:
        yield
    finally:
        writer.end()


class _Copies(QueueHandler):
    """Puts a short copy of a record into the queue without waiting; drops it if the queue is full."""

    def prepare(self, record: logging.LogRecord) -> Any:
        text = message_in(record)[: 4 * _LENGTH]
        if record.exc_info and record.exc_info[1]:
            text = f"{text}: {_name_and_message(record.exc_info[1])}"
        return LoggedError(datetime.fromtimestamp(record.created, UTC), "", record.levelname, text)

    def enqueue(self, record: Any) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what the writing thread logs, because each failed write would add another line."""
        return record.threadName != _THREAD and bool(super().filter(record))


class _Writer:
    """The copies of one process, and the thread that writes them to Redis."""

    def __init__(self, kind: str) -> None:
        self._process = f"{kind} {os.getpid()} on {socket.gethostname()}"
        self._lines: queue.Queue[LoggedError] = queue.Queue(_WAITING)
        self._handler = _Copies(self._lines)
        self._handler.setLevel(logging.WARNING)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=_THREAD, daemon=True)
        #: By level and text: the line as it was last written, and when its minute began.
        self._known: dict[tuple[str, str], tuple[LoggedError, datetime]] = {}

    def start(self) -> None:
        logging.getLogger().addHandler(self._handler)
        self._thread.start()

    def end(self) -> None:
        logging.getLogger().removeHandler(self._handler)
        self._over.set()
        self._thread.join(_FAREWELL_SECONDS)

    def _work(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(_WRITE_SECONDS)
            try:
                self.write()
            except (redis.RedisError, ValueError):  # Redis does not answer: these are dropped
                continue

    def write(self) -> None:
        """Write the waiting lines; equal lines become one with a count."""
        old, new = [], {}
        for line in self._waiting():
            key = (line.level, line.text)
            before, began = self._known.get(key, (None, line.at))
            if before is None or line.at - began > timedelta(seconds=_REPEAT_SECONDS):
                self._known[key] = line, line.at
            else:
                old.append(before)
                self._known[key] = replace(line, count=before.count + 1), began
            new[key] = self._known[key][0]
        if new:
            self._forget(max(line.at for line in new.values()))
            _store(old, list(new.values()))

    def _waiting(self) -> Iterator[LoggedError]:
        for _ in range(self._lines.qsize()):
            line = self._lines.get_nowait()
            yield replace(line, process=self._process, text=_short(line.text))

    def _forget(self, now: datetime) -> None:
        since = now - timedelta(seconds=_REPEAT_SECONDS)
        self._known = {key: value for key, value in self._known.items() if value[1] >= since}


def _store(old: Sequence[LoggedError], new: Sequence[LoggedError]) -> None:
    key = _key()
    with shared_quick_client(get_settings().redis_url).pipeline() as pipe:
        if old:
            pipe.zrem(key, *map(_as_text, old))
        pipe.zadd(key, {_as_text(line): line.at.timestamp() for line in new})
        pipe.zremrangebyrank(key, 0, -KEPT - 1)
        pipe.expire(key, _KEPT_SECONDS)
        pipe.execute()


def _as_text(line: LoggedError) -> str:
    about = {"process": line.process, "level": line.level, "text": line.text, "count": line.count}
    return json.dumps({"at": line.at.timestamp(), **about})


def _line(text: bytes, at: float) -> LoggedError | None:
    """Return a line as it was kept; None if it is not one that Sluice writes."""
    try:
        kept_line = json.loads(text)
        level, count = storable(str(kept_line["level"]), 20), int(kept_line["count"])
        where, what = storable(str(kept_line["process"]), 200), storable(str(kept_line["text"]), _LENGTH)
        return LoggedError(datetime.fromtimestamp(at, UTC), where, level, what, count)
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def _name_and_message(error: BaseException) -> str:
    """Return an error's class and the first line of its message, without its traceback."""
    lines = message_of(error).strip().splitlines()
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{name}: {lines[0]}"[: 4 * _LENGTH] if lines else name


def _short(text: str) -> str:
    return " ".join(one_line(redaction.excerpt(text, _LENGTH)).split())


def _key() -> str:
    return f"{get_settings().prefix}:errors"
