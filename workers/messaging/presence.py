"""Presence: each process leaves word in Redis, every few seconds, that it lives; who falls silent is soon missed.

Times are Redis's own, for hosts disagree about theirs.
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
from workers.settings import get_settings
from workers.version import VERSION

Kind = Literal["worker", "scheduler", "monitor"]

#: How often a process leaves word.
BEAT_SECONDS = 5.0
#: Silent for so long, it is taken for dead: three words were missed.
GONE_SECONDS = 16.0
#: For so long it is remembered that it was there.
REMEMBERED_SECONDS = 600.0
#: So many processes are remembered at most.
_MOST = 1_000
#: How often it looks whether it was asked to stop, which it says at once.
_LOOK_SECONDS = 0.5
#: The most sources that a process names.
_MOST_SOURCES = 1_000
#: How long a process that ends waits for its farewell to be heard.
_FAREWELL_SECONDS = 0.2
_SCRIPT = (Path(__file__).parent / "presence.lua").read_text()


@dataclass(frozen=True)
class Process:
    """A process of ours, on whichever host.

    Attributes:
      threads: How many messages it can work at a time; 0 where it works none.
      since: When it began.
      seen: When it was heard of last.
      alive: Whether that is not too long ago.
      busy_lanes: How many of its threads have a message in work, be it that they wait; None where it has none.
      silent_seconds: How long ago that was: by one clock, which `seen` and a clock of ours are not.
      stopping: Whether it was asked to stop: it takes no more messages.
      sources: The names of the sources it knows; None where it does not say: it works none, or is of an older version.
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
        """Whether it is a worker that lives, and was not asked to stop."""
        return self.kind == "worker" and self.alive and not self.stopping

    def knows(self, source: str) -> bool:
        """Whether it has a source of that name, as far as it says."""
        return self.sources is None or source in self.sources


def processes() -> tuple[Process, ...]:
    """Return the processes that live, and those that were missed lately: by kind, host and age.

    Raises:
      redis.RedisError: Redis does not answer.
      ValueError: SLUICE_REDIS_URL cannot be read.
    """
    with shared_quick_client(get_settings().redis_url).pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.zrange(_key("seen"), 0, -1, withscores=True)
        pipe.hgetall(_key())
        (seconds, microseconds), seen, said = pipe.execute()
    now = clock.now().timestamp() if clock.current().moved else seconds + microseconds / 1e6
    found = (_process(said.get(name, b""), at, now) for name, at in seen if at > now - REMEMBERED_SECONDS)
    order = list(get_args(Kind))
    return tuple(sorted(filter(None, found), key=lambda p: (order.index(p.kind), not p.alive, p.host, p.since, p.pid)))


def no_worker(found: Sequence[Process] | None = None) -> str:
    """Say that no worker runs; empty where one does, or where Redis cannot tell.

    Parameters:
      found(Sequence[Process] | None): What `processes` said; None: it is asked here.
    """
    try:
        workers = [process for process in (processes() if found is None else found) if process.kind == "worker"]
    except (redis.RedisError, ValueError):  # its text may hold a piece of the password
        return ""
    if any(process.alive for process in workers):
        return ""
    last = max((process.seen for process in workers), default=None)
    return f"no worker runs: the last was heard of at {last:%H:%M:%S} UTC" if last else "no worker runs"


def no_worker_knows(source: str, found: Sequence[Process] | None = None) -> bool:
    """Whether workers run, and none of them knows a source: they were started before it was added, or it was removed.

    Parameters:
      source(str): Its name.
      found(Sequence[Process] | None): What `processes` returned; None: it is asked here.

    Returns:
      bool: False, too, where no worker runs, one does not say what it knows, or Redis cannot tell.
    """
    try:
        found = processes() if found is None else found
    except (redis.RedisError, ValueError):  # its text may hold a piece of the password
        return False
    workers = [process for process in found if process.takes_messages]
    return bool(workers) and not any(process.knows(source) for process in workers)


@contextmanager
def present(
    kind: Kind, *, threads: int = 0, busy: Callable[[], int] | None = None, sources: Sequence[str] | None = None
) -> Iterator[None]:
    """Leave word within the block that this process lives, and at its end that it leaves.

    Parameters:
      kind(Kind): What it is.
      threads(int): How many messages it can work at a time.
      busy(Callable | None): Tells how many it has in work.
      sources(Sequence[str] | None): The names of the sources it knows.
    """
    word = _Word(kind, threads, busy, sources)
    word.start()
    try:
        yield
    finally:
        word.end()


class _Word:
    """What one process says of itself, and the thread that says it."""

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
        self._id = uuid.uuid4().hex  # a pid is used again
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
            _quietly(self.say)
            if self._waited():
                break
        _quietly(self.leave)

    def _waited(self) -> bool:
        """Wait for the next word's time, or until the process is asked to stop. Returns whether it has ended."""
        said = clock.stop_requested.is_set()
        for _ in range(round(BEAT_SECONDS / _LOOK_SECONDS)):
            if self._over.wait(_LOOK_SECONDS):  # never the moved clock, which is one thread's
                return True
            if clock.stop_requested.is_set() and not said:
                break
        return False

    def say(self) -> None:
        """Leave word once."""
        moved = clock.now().timestamp() if clock.current().moved else ""
        about = self._about | ({"busy": self._busy()} if self._busy else {})
        about |= {"stopping": True} if clock.stop_requested.is_set() else {}
        lived = clock.monotonic() - self._began_at
        client = shared_quick_client(get_settings().redis_url)
        script = client.register_script(_SCRIPT)
        arguments = [moved, self._id, json.dumps(about), self._since, lived, REMEMBERED_SECONDS, _MOST]
        since: Any = script(keys=[_key("seen"), _key()], args=arguments)
        self._since = since.decode()

    def leave(self) -> None:
        """Take the word back."""
        with shared_quick_client(get_settings().redis_url).pipeline() as pipe:
            pipe.zrem(_key("seen"), self._id)
            pipe.hdel(_key(), self._id)
            pipe.execute()


def _process(text: bytes, seen: float, now: float) -> Process | None:
    """Return the process that said this of itself; None where it is nothing that we write."""
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


def _names(said: Any) -> tuple[str, ...] | None:
    return tuple(str(name) for name in said) if isinstance(said, list) else None


def _key(part: str = "") -> str:
    return f"{get_settings().prefix}:processes{':' if part else ''}{part}"


def _quietly(do: Callable[[], None]) -> None:
    try:
        do()
    except (redis.RedisError, ValueError):  # its text may hold a piece of the password
        return
