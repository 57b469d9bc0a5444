"""Heartbeat of every process, written to Redis every 5 s; 16 s without one, a process counts as dead.

All times come from Redis's clock, because the clocks of hosts differ.
"""

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import redis

from workers import clock
from workers.connections.database import storable
from workers.connections.redis_client import shared_quick_client
from workers.connections.trouble import Cause, Trouble
from workers.settings import get_settings
from workers.version import VERSION

Kind = Literal["worker", "scheduler", "monitor"]

#: How often a process writes its heartbeat.
BEAT_SECONDS = 5.0
#: Without a heartbeat for this long a process counts as dead: three are missing.
GONE_SECONDS = 16.0
#: How long a dead process is still listed.
REMEMBERED_SECONDS = 600.0
#: How many processes are listed at most.
_MOST = 1_000
#: How often a process checks whether it was asked to stop, which it reports at once.
_LOOK_SECONDS = 0.5
#: How many sources a process names at most.
_MOST_SOURCES = 1_000
#: How long a process that ends waits until its entry is deleted.
_FAREWELL_SECONDS = 0.2
_SCRIPT = (Path(__file__).parent / "process_heartbeat.lua").read_text()


@dataclass(frozen=True)
class Process:
    """A process of this installation, on any host.

    Attributes:
      kind, host, pid, version: What it is, and where.
      threads: How many messages it can process at the same time; 0 if it processes none.
      since: When it began.
      seen: When its last heartbeat was written.
      alive: Whether that is at most 16 s ago.
      busy_lanes: How many of its threads process a message, waits included; None if it processes none.
      silent_seconds: How long ago its last heartbeat was written, by Redis's clock alone.
      stopping: Whether it was asked to stop: it takes no more messages.
      sources: The names of its sources; None if it names none: it processes no messages, or is of an older version.
    """

    kind: Kind
    host: str
    pid: int
    threads: int
    version: str
    since: datetime
    seen: datetime
    alive: bool
    busy_lanes: int | None = None
    silent_seconds: float = 0.0
    stopping: bool = False
    sources: tuple[str, ...] | None = None

    @property
    def takes_messages(self) -> bool:
        """Whether it is a live worker that was not asked to stop."""
        return self.kind == "worker" and self.alive and not self.stopping

    def knows(self, source: str) -> bool:
        """Whether it has a source of that name; True if it names none."""
        return self.sources is None or source in self.sources


def processes() -> tuple[Process, ...]:
    """Return the live processes, and those that died in the last ten minutes, sorted by kind, host and age.

    Raises:
      redis.RedisError: Redis does not answer.
      ValueError: SLUICE_REDIS_URL cannot be read.
    """
    with shared_quick_client(get_settings().redis_url).pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(_key("seen"), 0, -1, withscores=True)
        pipe.hgetall(_key())
        (seconds, microseconds), seen, entries = pipe.execute()
    now = clock.now().timestamp() if clock.current().moved else seconds + microseconds / 1e6
    found = (_process(entries.get(name, b""), at, now) for name, at in seen if at > now - REMEMBERED_SECONDS)
    order = list(get_args(Kind))
    return tuple(sorted(filter(None, found), key=lambda p: (order.index(p.kind), not p.alive, p.host, p.since, p.pid)))


def no_worker(found: Sequence[Process] | None = None) -> Trouble | None:
    """Return that no worker runs, and since when; None where one does, or where Redis does not answer.

    Parameters:
      found(Sequence[Process] | None): What `processes` returned; None: call it here.
    """
    try:
        workers = [process for process in (processes() if found is None else found) if process.kind == "worker"]
    except (redis.RedisError, ValueError):  # its text can hold a part of the password
        return None
    if any(process.alive for process in workers):
        return None
    last = max((process.seen for process in workers), default=None)
    return Trouble("no worker runs", "start `python -m workers worker`", since=last, cause=Cause.NO_WORKER)


def no_worker_knows(source: str, found: Sequence[Process] | None = None) -> bool:
    """Whether workers run, but none has a source: they were started before it was added, or it was removed.

    Parameters:
      source(str): The source's name.
      found(Sequence[Process] | None): What `processes` returned; None: call it here.

    Returns:
      bool: Also False if no worker runs, one does not name its sources, or Redis does not answer.
    """
    try:
        found = processes() if found is None else found
    except (redis.RedisError, ValueError):  # its text can hold a part of the password
        return False
    workers = [process for process in found if process.takes_messages]
    return bool(workers) and not any(process.knows(source) for process in workers)


@contextmanager
def present(
    kind: Kind, *, threads: int = 0, busy: Callable[[], int] | None = None, sources: Sequence[str] | None = None
) -> Iterator[None]:
    """Write the heartbeat of this process during the block, and delete its entry at the end.

    Parameters:
      kind(Kind): What the process is.
      threads(int): How many messages it can process at the same time.
      busy(Callable | None): Returns how many it processes now.
      sources(Sequence[str] | None): The names of its sources.
    """
    heartbeat = Heartbeat(kind, threads, busy, sources)
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.end()


class Heartbeat:
    """The entry of one process in Redis, and the thread that writes it."""

    def __init__(
        self,
        kind: Kind,
        threads: int = 0,
        busy: Callable[[], int] | None = None,
        sources: Sequence[str] | None = None,
    ) -> None:
        self._about: dict[str, Any] = {"kind": kind, "host": socket.gethostname(), "pid": os.getpid()}
        self._about |= {"version": VERSION, "threads": threads}
        if sources is not None and len(sources) <= _MOST_SOURCES:
            self._about["sources"] = list(sources)
        self._busy = busy
        self._id = uuid.uuid4().hex  # pids are reused
        self._since = ""
        self._began_at = clock.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join(_FAREWELL_SECONDS)

    def _keep(self) -> None:
        while True:
            _without_redis_errors(self.write)
            if self._waited():
                break
        _without_redis_errors(self.delete)

    def _waited(self) -> bool:
        """Wait for the next heartbeat, or until the process is asked to stop. Returns whether the block has ended."""
        reported = clock.stop_requested.is_set()
        for _ in range(round(BEAT_SECONDS / _LOOK_SECONDS)):
            if self._over.wait(_LOOK_SECONDS):  # never the moved clock, which belongs to one thread
                return True
            if clock.stop_requested.is_set() and not reported:
                break
        return False

    def write(self) -> None:
        """Write one heartbeat."""
        moved = clock.now().timestamp() if clock.current().moved else ""
        about = self._about | ({"busy": self._busy()} if self._busy else {})
        about |= {"stopping": True} if clock.stop_requested.is_set() else {}
        lived = clock.monotonic() - self._began_at
        client = shared_quick_client(get_settings().redis_url)
        script = client.register_script(_SCRIPT)
        arguments = [moved, self._id, json.dumps(about), self._since, lived, REMEMBERED_SECONDS, _MOST]
        since: Any = script(keys=[_key("seen"), _key()], args=arguments)
        self._since = since.decode()

    def delete(self) -> None:
        """Delete the entry."""
        with shared_quick_client(get_settings().redis_url).pipeline() as pipe:
            pipe.zrem(_key("seen"), self._id)
            pipe.hdel(_key(), self._id)
            pipe.execute()


def _process(text: bytes, seen: float, now: float) -> Process | None:
    """Return the process of an entry; None if the entry is not one that Sluice writes."""
    try:
        since, _, rest = text.decode().partition(" ")
        about = json.loads(rest)
        kind, busy = about["kind"], about.get("busy")
        if kind not in get_args(Kind):
            return None
        return Process(
            kind=kind,
            host=storable(str(about["host"]), 100),
            pid=int(about["pid"]),
            threads=int(about["threads"]),
            version=storable(str(about["version"]), 40),
            since=datetime.fromtimestamp(float(since), UTC),
            seen=datetime.fromtimestamp(seen, UTC),
            alive=now - seen <= GONE_SECONDS,
            busy_lanes=None if busy is None else int(busy),
            silent_seconds=max(0.0, now - seen),
            stopping=bool(about.get("stopping")),
            sources=_names(about.get("sources")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError):
        return None


def _names(value: Any) -> tuple[str, ...] | None:
    return tuple(str(name) for name in value) if isinstance(value, list) else None


def _key(part: str = "") -> str:
    return f"{get_settings().prefix}:processes{':' if part else ''}{part}"


def _without_redis_errors(do: Callable[[], None]) -> None:
    try:
        do()
    except (redis.RedisError, ValueError):  # its text can hold a part of the password
        return
