"""Embedded Redis: starts a server if SLUICE_REDIS_URL points at this machine and none answers, and keeps it running."""

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import redis

from workers import clock
from workers.connections.redis_client import probe_client
from workers.connections.redis_probe import probe, server_name, wait_for_redis
from workers.connections.redis_url import Address, in_use
from workers.errors import ConfigurationError, DependencyDown
from workers.limiter.redis_ledger import confirm_clean_stop
from workers.processes import redis_data_folder
from workers.processes.child import Backoff, ChildProcess
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: How long after the first signal the server waits for its clients; honcho kills what is left at 5 s.
OUTLIVE_SECONDS = 4.2
#: How long the server may then take to write what it holds before it is killed.
STOP_SECONDS = 0.5
#: How long a foreign Redis must be gone before the embedded one replaces it.
GONE_SECONDS = 10.0
#: How long to wait until an address that does not answer, or a data folder in use, becomes free.
TAKEN_SECONDS = 2.0

_BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 5.0)
#: A server that ran this long did not die of its start.
_STEADY_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_LOG_BYTES = 5_000_000


# The server


@dataclass(eq=False)
class _Server:
    """A running embedded server."""

    url: str
    binary: str
    process: ChildProcess
    log_path: Path
    #: The offset in the log file where its lines begin.
    log_begin: int
    #: Whether the previous server on this data was stopped in order, so that no write was lost.
    follows_in_order: bool

    def wait_until_ready(self) -> str | None:
        """Return its name when it answers; None if it ended before, or a stop was requested."""
        while not self.process.ended_within(_LOOK_SECONDS / 2) and not clock.stop_requested.is_set():
            if name := server_name(self.url):
                if self.follows_in_order and redis_data_folder.same_files(name):
                    self._vouch()
                redis_data_folder.wrote(self.binary, name)
                return name
        return None

    def _vouch(self) -> None:
        """Vouch for the budgets' state before a client asks, so that their windows do not count as full."""
        self.follows_in_order = False
        with suppress(redis.RedisError), closing(probe_client(self.url, 0.3)) as client:
            confirm_clean_stop(client)

    def outlive_clients(self, deadline: float) -> None:
        """Return when no other client is connected, or at `deadline` (monotonic seconds)."""
        with closing(probe_client(self.url, 0.3)) as client:
            while (
                clock.monotonic() < deadline
                and _others_connected(client)
                and not self.process.ended_within(_LOOK_SECONDS)
            ):
                pass

    def stop(self, seconds: float) -> None:
        """Let it write what is in its memory and end; after `seconds` kill it, and the rewrite that it may be doing."""
        self.process.stop(seconds)
        if self.process.returncode == 0:
            redis_data_folder.in_order().touch()

    def cannot_read(self) -> bool:
        """Whether it has ended because it cannot read the data: then another server, or an empty folder, is tried."""
        return bool(self.process.returncode) and redis_data_folder.refused(self.binary, self._log_end())

    def why_ended(self) -> str:
        """Return how it ended, and the last line of its log."""
        lines = [line for line in self._log_end().splitlines() if line.strip()]
        return f"{self.process.how_it_ended()}; its last line: {lines[-1].strip() if lines else 'none'}"

    def _log_end(self) -> str:
        """Return the end of what it logged."""
        return self.log_path.read_bytes()[self.log_begin :].decode("utf-8", "replace")[-4000:]


def _others_connected(client: "redis.Redis") -> bool:
    try:
        return len(client.client_list()) > 1
    except redis.TimeoutError:  # a slow disk: its clients are unknown
        return True
    except redis.RedisError:
        return False


def _find_or_start(url: str) -> "_Server | str | None":
    """Return the name of the Redis that answers, else an embedded server just started; None if a stop was requested.

    If two processes start at once, one gets the data folder's lock, and the other finds its server.

    Raises:
      ConfigurationError: Another program has the address or the folder, the folder cannot be written, or no server is
        installed.
    """
    address = Address.of(url)
    deadline = clock.monotonic() + TAKEN_SECONDS
    while True:
        try:
            if name := probe(url, 1.0):
                return name
        except redis.exceptions.BusyLoadingError:
            deadline = clock.monotonic() + TAKEN_SECONDS
        occupied = address.listens()
        if not occupied and (lock := redis_data_folder.lock()):
            with lock:
                return _start(url, lock)
        if clock.monotonic() > deadline:
            raise in_use(address) if occupied else redis_data_folder.in_use()
        if clock.sleep(_LOOK_SECONDS):
            return None


def _start(url: str, lock: BinaryIO) -> _Server:
    binary = redis_data_folder.choose()
    follows_in_order = redis_data_folder.in_order().exists()
    redis_data_folder.in_order().unlink(missing_ok=True)
    log_path = redis_data_folder.directory() / "redis.log"
    with redis_data_folder.open_private(log_path) as log_file:
        if os.fstat(log_file.fileno()).st_size > _LOG_BYTES:
            log_file.truncate(0)
        log_begin = os.fstat(log_file.fileno()).st_size
        try:
            process = ChildProcess(
                [binary, "-"],
                session=True,  # honcho sends SIGTERM to this process's whole group, and Redis must outlive the others
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[lock.fileno()],  # so that the lock lasts as long as the server, even if this process dies
            )
        except OSError as error:
            raise ConfigurationError(f"{binary} cannot be started ({error.strerror}): repair or remove it") from error
    assert process.stdin is not None
    # By stdin, because every user of the machine can read a command line.
    with suppress(BrokenPipeError), process.stdin as config:
        config.write(_config(Address.of(url)).encode())
    return _Server(url, binary, process, log_path, log_begin, follows_in_order)


def _config(address: Address) -> str:
    directory = redis_data_folder.directory()
    settings: dict[str, list[object]] = {
        "bind": ["127.0.0.1" if address.path or address.host == "localhost" else address.host],
        "port": [0 if address.path else address.port],
        "protected-mode": ["yes"],
        "daemonize": ["no"],
        "dir": [directory],
        "pidfile": [directory / "redis.pid"],
        "appendonly": ["yes"],
        "appendfsync": ["everysec"],
        "save": [""],
        "maxmemory-policy": ["noeviction"],
        "databases": [max(16, address.db + 1)],
    }
    if address.path:
        settings |= {"unixsocket": [address.path], "unixsocketperm": [700]}
    if address.password:
        settings["requirepass"] = [address.password]
        if address.username not in ("", "default"):
            settings["user"] = [address.username, "on", f">{address.password}", "allkeys", "allchannels", "allcommands"]
    return "".join(f"{name} {' '.join(map(_quoted, values))}\n" for name, values in settings.items())


def _quoted(value: object) -> str:
    """Quote a value so that no character in it, a quote or a line end, can begin another setting."""
    plain = "".join(chr(b) if 32 < b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in os.fsencode(str(value)))
    return f'"{plain}"'


# Serving


@contextmanager
def embedded(url: str) -> Iterator[None]:
    """Make sure that a Redis answers at `url` within the block: the one that is there, else an embedded one.

    Parameters:
      url(str): The address.

    Raises:
      DependencyDown: Nothing answers and `url` is not on this machine, or the embedded server does not start.
      ConfigurationError: As `answers`; or no server can be started, and the message says what to do.

    *Warning:* a server that dies within the block is not restarted. It ends with the thread that opened the block.
    """
    address = Address.of(url)
    if not address.local:
        if server_name(url) is None:
            raise DependencyDown(f"Redis does not answer at {address}")
        yield
        return
    server, ready = _find_or_start(url), None
    while isinstance(server, _Server) and not (ready := server.wait_until_ready()) and server.cannot_read():
        server = _find_or_start(url)
    if isinstance(server, str):
        yield
        return
    if server is None:
        raise DependencyDown(f"Redis does not answer at {address}, and the process is stopping")
    try:
        if not ready:
            raise DependencyDown(f"The Redis at {address} {_why_not_ready(server)}")
        yield
    finally:
        server.stop(seconds=5.0)


def serve() -> int:
    """Serve Redis at SLUICE_REDIS_URL until SIGTERM or SIGINT. Call it from the main thread.

    A Redis that answers there is used as it is, and replaced by an embedded one when it goes away. The embedded server
    is restarted whenever it dies. After a signal it runs until no other client is connected, or `OUTLIVE_SECONDS` have
    passed, because honcho stops all processes at once, and the others need Redis while they drain.

    Returns:
      int: The exit code, 0.

    Raises:
      ConfigurationError: No server can be started; the message says what to do.

    *Warning:* clients that are still connected `OUTLIVE_SECONDS` after the signal lose their Redis.
    """
    url = get_settings().redis_url
    with _signals_noted() as signals:
        if not Address.of(url).local:
            _wait_for_remote(url)
        backoff = Backoff(_BACKOFF_SECONDS, _STEADY_SECONDS)
        while not clock.stop_requested.is_set():
            server = _find_or_start(url)
            if isinstance(server, str):
                _wait_beside(url, server)
            elif server is not None:
                began = clock.monotonic()
                _run(server, signals)
                clock.sleep(backoff.wait_seconds(clock.monotonic() - began))
    return 0


def _run(server: _Server, signals: list[float]) -> None:
    """Watch an embedded server until it dies or has been stopped."""
    address = Address.of(server.url)
    try:
        name = server.wait_until_ready()
        if name:
            log.info("Redis-compatible server (%s) on %s, data in %s", name, address, redis_data_folder.directory())
        while not clock.stop_requested.is_set():
            if server.process.ended_within(0.0):
                why = server.why_ended() if name else _why_not_ready(server)
                again = "another one is started" if not name and server.cannot_read() else "it is started again"
                log.warning("the Redis at %s %s; %s", address, why, again)
                return
            clock.sleep(_LOOK_SECONDS)
        server.outlive_clients((signals[0] if signals else clock.monotonic()) + OUTLIVE_SECONDS)
    finally:
        server.stop(STOP_SECONDS)


def _why_not_ready(server: _Server) -> str:
    if not server.process.ended_within(0.0):
        return "was stopped before it answered"
    return server.why_ended()


def _wait_for_remote(url: str) -> None:
    if wait_for_redis(url, say=log.info):
        log.info("using the Redis at %s (%s)", Address.of(url), server_name(url) or "redis")
    while not clock.sleep(60.0):
        pass


def _wait_beside(url: str, name: str) -> None:
    """Return when a foreign Redis has been gone for `GONE_SECONDS`, or a stop was requested."""
    address = Address.of(url)
    log.info("using the Redis at %s (%s)", address, name)
    seen = clock.monotonic()
    while not clock.sleep(0.5):
        # One that accepts connections but does not answer is busy or stopped, and still has the address.
        if address.listens():
            seen = clock.monotonic()
        elif clock.monotonic() - seen > GONE_SECONDS:
            log.warning("the Redis at %s went away", address)
            return


@contextmanager
def _signals_noted() -> Iterator[list[float]]:
    """Turn SIGTERM and SIGINT into a requested stop; yield a list with the time of the first (monotonic seconds)."""
    times: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not times:
            times.append(clock.monotonic())
            # In a thread, because the interrupted code can hold the lock of this event, in its wait().
            threading.Thread(target=clock.stop_requested.set).start()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield times
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
