"""The embedded Redis: a server of our own where SLUICE_REDIS_URL names this machine and nothing answers there."""

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
from workers.connections.redis_url import Address, answers, connect, look, taken, wait_for
from workers.errors import ConfigurationError, DependencyDown
from workers.limiter.ledger import vouch
from workers.processes import redis_data_folder
from workers.processes.parent_death import end_with_parent
from workers.processes.signals import name_of
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: How long after the first signal the server waits for its clients; honcho kills what is left at 5 s.
OUTLIVE_SECONDS = 4.2
#: How long the server may then take to write what it holds before it is killed.
STOP_SECONDS = 0.5
#: How long a Redis that is not ours may be gone before ours takes its place.
GONE_SECONDS = 10.0
#: How long an address that is taken but does not answer, or a data folder in use, may take to become free.
TAKEN_SECONDS = 2.0

_FIRST_RESTART_SECONDS, _LONGEST_RESTART_SECONDS = 0.5, 5.0
#: A server that ran this long was well: the next restart is quick again.
_WELL_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_LOG_BYTES = 5_000_000


# A server of our own


@dataclass(eq=False)
class _Server:
    """A running server of ours."""

    url: str
    binary: str
    process: "subprocess.Popen[bytes]"
    log_path: Path
    #: Where its part of the log begins.
    log_begin: int
    #: The one before it on the same data was stopped in order, so nothing was lost.
    follows_in_order: bool

    def wait_until_ready(self) -> str | None:
        """Return its name once it answers; None when it ended before, or a stop was asked for."""
        while not self.ended_within(_LOOK_SECONDS / 2) and not clock.stop_requested.is_set():
            if name := answers(self.url):
                if self.follows_in_order and redis_data_folder.same_files(name):
                    self._vouch()
                redis_data_folder.wrote(self.binary, name)
                return name
        return None

    def _vouch(self) -> None:
        """Tell the budgets, before their callers ask, that they need not be taken for lost."""
        self.follows_in_order = False
        with suppress(redis.RedisError), closing(connect(self.url, timeout=0.3)) as client:
            vouch(client)

    def ended_within(self, seconds: float) -> bool:
        # Not clock.sleep: this is also how time passes once a stop was asked for.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=seconds)
        return self.process.returncode is not None

    def outlive_clients(self, deadline: float) -> None:
        """Return when nobody else is connected, or at `deadline` (monotonic seconds)."""
        with closing(connect(self.url, timeout=0.3)) as client:
            while clock.monotonic() < deadline and _others_connected(client) and not self.ended_within(_LOOK_SECONDS):
                pass

    def stop(self, seconds: float) -> None:
        """Let it write what it holds and end; kill it, and a rewrite it may be at, after `seconds`."""
        self.process.terminate()
        if self.ended_within(seconds):
            if self.process.returncode == 0:
                redis_data_folder.in_order().touch()
        else:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def cannot_read(self) -> bool:
        """Whether it has ended because it cannot read the data: then another server is tried, or other data."""
        return bool(self.process.returncode) and redis_data_folder.refused(self.binary, self._said())

    def last_words(self) -> str:
        """How it ended, and the last line of its log."""
        code = self.process.returncode
        how = f"was killed by {name_of(-code)}" if code < 0 else f"ended with status {code}"
        lines = [line for line in self._said().splitlines() if line.strip()]
        return f"{how}; its last line: {lines[-1].strip() if lines else 'none'}"

    def _said(self) -> str:
        """Return the last of what it wrote to its log."""
        return self.log_path.read_bytes()[self.log_begin :].decode("utf-8", "replace")[-4000:]


def _others_connected(client: "redis.Redis") -> bool:
    try:
        return len(client.client_list()) > 1
    except redis.TimeoutError:  # a slow disk: that says nothing about its clients
        return True
    except redis.RedisError:
        return False


def _find_or_start(url: str) -> "_Server | str | None":
    """Return the name of the Redis that is there, or else a server of ours, just started; None when asked to stop.

    The data folder's lock decides between two that start at once; the loser finds the winner's server.

    Raises:
      ConfigurationError: The address or the folder is another's, the folder cannot be written, or there is no binary.
    """
    address = Address.of(url)
    deadline = clock.monotonic() + TAKEN_SECONDS
    while True:
        try:
            if name := look(url, timeout=1.0):
                return name
        except redis.exceptions.BusyLoadingError:
            deadline = clock.monotonic() + TAKEN_SECONDS
        occupied = address.listens()
        if not occupied and (lock := redis_data_folder.lock()):
            with lock:
                return _start(url, lock)
        if clock.monotonic() > deadline:
            raise taken(address) if occupied else redis_data_folder.in_use()
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
            process = subprocess.Popen(
                [binary, "-"],
                stdin=subprocess.PIPE,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[lock.fileno()],  # so that the lock lasts as long as the server, whatever becomes of us
                start_new_session=True,  # honcho's SIGTERM goes to our whole group, and Redis must outlive the others
                preexec_fn=end_with_parent(),
            )
        except OSError as error:
            raise ConfigurationError(f"{binary} cannot be started ({error.strerror}): repair or remove it") from error
    assert process.stdin is not None
    # By stdin, because a command line can be read by everyone on the machine.
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
    """Write a value so that nothing in it, a quote or a line end, can become a setting of its own."""
    plain = "".join(chr(b) if 32 < b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in os.fsencode(str(value)))
    return f'"{plain}"'


# The doors


@contextmanager
def embedded(url: str) -> Iterator[None]:
    """Have a Redis at `url` for the length of a `with` block: the one that is there, else one of ours.

    Parameters:
      url(str): The Redis.

    Raises:
      DependencyDown: Nothing answers and `url` is not on this machine, or our server does not start.
      ConfigurationError: As `answers`; or no server can be started, and the message says what to do.

    Warning:
      One that dies within the block is not started again. It ends with the thread that opened the block.
    """
    address = Address.of(url)
    if not address.local:
        if answers(url) is None:
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
    """Serve what SLUICE_REDIS_URL names until SIGTERM or SIGINT. Call it from the main thread.

    A Redis that is there is used as it is, and replaced by ours when it goes away. Ours is started again whenever it
    dies. After a signal it lives on until nobody else is connected, or `OUTLIVE_SECONDS` have passed: honcho stops all
    processes at once, and the others need Redis while they drain.

    Returns:
      int: The exit code, 0.

    Raises:
      ConfigurationError: No server can be started; the message says what to do.

    Warning:
      Clients still connected `OUTLIVE_SECONDS` after the signal lose their Redis.
    """
    url = get_settings().redis_url
    with _signals_noted() as signals:
        if not Address.of(url).local:
            _idle_elsewhere(url)
        pause = _FIRST_RESTART_SECONDS
        while not clock.stop_requested.is_set():
            server = _find_or_start(url)
            if isinstance(server, str):
                _idle_beside(url, server)
            elif server is not None:
                began = clock.monotonic()
                _run(server, signals)
                pause = _FIRST_RESTART_SECONDS if clock.monotonic() - began > _WELL_SECONDS else pause
                clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_RESTART_SECONDS)
    return 0


def _run(server: _Server, signals: list[float]) -> None:
    """Stay with a server of ours until it dies or has been stopped."""
    address = Address.of(server.url)
    try:
        name = server.wait_until_ready()
        if name:
            log.info("Redis-compatible server (%s) on %s, data in %s", name, address, redis_data_folder.directory())
        while not clock.stop_requested.is_set():
            if server.ended_within(0.0):
                why = server.last_words() if name else _why_not_ready(server)
                again = "starting another" if not name and server.cannot_read() else "starting it again"
                log.warning("the Redis at %s %s; %s", address, why, again)
                return
            clock.sleep(_LOOK_SECONDS)
        server.outlive_clients((signals[0] if signals else clock.monotonic()) + OUTLIVE_SECONDS)
    finally:
        server.stop(STOP_SECONDS)


def _why_not_ready(server: _Server) -> str:
    if not server.ended_within(0.0):
        return "was stopped before it answered"
    return server.last_words()


def _idle_elsewhere(url: str) -> None:
    if wait_for(url, say=log.info):
        log.info("using the Redis at %s (%s)", Address.of(url), answers(url) or "redis")
    while not clock.sleep(60.0):
        pass


def _idle_beside(url: str, name: str) -> None:
    """Return when the Redis that is not ours has been gone for `GONE_SECONDS`, or a stop was asked for."""
    address = Address.of(url)
    log.info("using the Redis at %s (%s)", address, name)
    seen = clock.monotonic()
    while not clock.sleep(0.5):
        # One that accepts but does not answer is busy or stopped: its address is taken, so ours could not stand there.
        if address.listens():
            seen = clock.monotonic()
        elif clock.monotonic() - seen > GONE_SECONDS:
            log.warning("the Redis at %s went away", address)
            return


@contextmanager
def _signals_noted() -> Iterator[list[float]]:
    """Turn SIGTERM and SIGINT into a requested stop; the list holds when the first came (monotonic seconds)."""
    times: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not times:
            times.append(clock.monotonic())
            # Not here: the interrupted code may hold the lock of this very event, in its wait().
            threading.Thread(target=clock.stop_requested.set).start()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield times
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
