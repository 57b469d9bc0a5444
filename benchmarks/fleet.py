"""Start a whole fleet of real processes in a temporary folder, on free ports: Redis, mock API, workers, scheduler.

    with Fleet(items=100, limits="50/2") as fleet:
        run_id = fleet.start_run()
        fleet.wait_for_run(run_id, seconds=60)
        print(fleet.mock_stats()["rejected"])

It works as a deployment does, through `python -m workers ...` and the environment, and imports nothing of `workers`.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import redis

from benchmarks import databases

ROOT = Path(__file__).resolve().parent.parent

START_SECONDS = 30.0
COMMAND_SECONDS = 60.0
#: More than SLUICE_DRAIN_SECONDS, 10 s, after which a worker kills what is left of itself.
STOP_SECONDS = 15.0
LOOK_SECONDS = 0.1

ENDED = ("completed", "failed", "cancelled")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class FleetError(Exception):
    """The fleet did not come up, lost a process it should not have lost, or did not go away. Says which log to read."""


@dataclass(frozen=True)
class RunRow:
    """What the database says of a run."""

    status: str
    total: int
    succeeded: int
    failed: int
    skipped: int
    hits: int
    sleeps: int
    slept_seconds: float

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Fleet:
    """A fleet, up within the `with` block; `start` and `stop` do the same for callers that need them apart.

    Parameters:
      items: How many items the mock API has.
      limits: What the mock API enforces: REQUESTS/SECONDS, separated by commas.
      client_limits: What the importer is configured with instead; empty: the same.
      mock_options: More of `python -m mock_server --help`, as `["--latency", "0.05"]`.
      processes: Worker processes.
      threads: Threads of each.
      settings: More SLUICE_* variables.
      database: As `databases.fresh` takes it.
      keep: Leave the folder, with its logs, behind.

    Attributes:
      folder: Where everything is, the logs too (`redis.log`, `mock.log`, `worker.log`, `scheduler.log`).
      environment: The variables of its processes.
      api_url, redis_url, database_url: Where its parts answer.
    """

    def __init__(
        self,
        *,
        items: int = 1000,
        limits: str = "50/2,200/10",
        client_limits: str = "",
        mock_options: Sequence[str] = (),
        processes: int = 2,
        threads: int = 8,
        settings: Mapping[str, str] | None = None,
        database: str = "",
        keep: bool = False,
    ) -> None:
        self.keep = keep
        self._mock_arguments = ["--items", str(items), "--limits", limits, *mock_options]
        self._client_limits = client_limits or limits
        self._processes = processes
        self._threads = threads
        self._settings = dict(settings or {})
        self._database = database
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._arguments: dict[str, tuple[str, ...]] = {}
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep |= isinstance(error, Exception)  # which names a log
        try:
            self.stop()
        except FleetError as left:
            if error is None:
                raise
            error.add_note(str(left))

    # --- up and down

    def start(self) -> None:
        """Start every process, and return once all of them answer.

        Raises:
          FleetError: One did not come up; the others are stopped again.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-fleet-"))
        try:
            self._bring_up()
        except BaseException:
            self.keep |= bool(self._started)  # for there are logs
            self.stop()
            raise

    def stop(self) -> None:
        """Ask every process to end (SIGTERM, by its id), and see that none is left. Stopping twice does nothing.

        Raises:
          FleetError: A process had to be killed, or one that was started by another is still there.
        """
        asked_too_long = []
        # Redis last: the others need it while they drain.
        for names in (("worker", "scheduler"), ("mock", "redis")):
            ending = {name: self._started.pop(name) for name in names if name in self._started}
            for process in ending.values():
                process.terminate()
            ends_at = time.monotonic() + STOP_SECONDS
            asked_too_long += [name for name, process in ending.items() if not _ended(process, ends_at)]
        left = self._processes_left()
        self._undo.close()
        if not self.keep and not asked_too_long and not left:
            shutil.rmtree(self.folder, ignore_errors=True)
        if asked_too_long or left:
            raise FleetError(
                f"killed because they did not end in {STOP_SECONDS:g} s: {', '.join(asked_too_long) or 'none'}; "
                f"process ids still in {self.folder}: {left or 'none'}"
            )

    def _bring_up(self) -> None:
        api_port, redis_port = _free_ports(2)
        self.api_url = f"http://127.0.0.1:{api_port}"
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"
        try:
            self.database_url = self._undo.enter_context(databases.fresh(self._database, self.folder))
        except psycopg.Error as error:
            raise FleetError(f"the database server of --database: {error}") from error
        self.environment = self._environment()
        self._spawn("redis", "workers", "redis")
        self._spawn("mock", "mock_server", "--port", str(api_port), *self._mock_arguments)
        self.wait_until(self.redis_answers, START_SECONDS, "Redis answers")
        self.wait_until(self._mock_answers, START_SECONDS, "the mock API answers")
        self.command("migrate", "--create-models")
        self._spawn("worker", "workers", "worker")
        self._spawn("scheduler", "workers", "scheduler")
        self.wait_until(self._all_consume, START_SECONDS, "every worker process asks for messages")

    def _environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "HONCHO_", "dramatiq_"))}
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "DEMO_API_URL": self.api_url,
            "BENCH_LIMITS": self._client_limits,
            "SLUICE_SOURCES": "benchmarks.sources:SOURCES",
            "SLUICE_REDIS_URL": self.redis_url,
            "SLUICE_DATABASE_URL": self.database_url,
            "SLUICE_DATA_DIR": str(self.folder / "data"),
            "SLUICE_WORKER_PROCESSES": str(self._processes),
            "SLUICE_WORKER_THREADS": str(self._threads),
            **self._settings,
        }

    def start_again(self, name: str) -> None:
        """Start a process of the fleet that has ended once more, as it was started; it appends to its log."""
        self._spawn(name, *self._arguments[name])

    def _spawn(self, name: str, *arguments: str) -> None:
        self._arguments[name] = arguments
        with (self.folder / f"{name}.log").open("ab") as log:
            self._started[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=self.folder,  # no .env is read here, and the fleet's processes are found by it
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we stop the others in their order
                preexec_fn=_die_with_parent,
            )

    # --- waiting

    def wait_until(self, true: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something to happen, as long as every process is alive.

        Raises:
          FleetError: It did not happen in time, or a process ended meanwhile.
        """
        ends_at = time.monotonic() + seconds
        while not true():
            self.check_alive()
            if time.monotonic() > ends_at:
                raise FleetError(f"not within {seconds:g} s: {what}; the logs are in {self.folder}")
            time.sleep(LOOK_SECONDS)

    def check_alive(self) -> None:
        """See that no process has ended unasked.

        Raises:
          FleetError: One has; its last words are in the message.
        """
        for name, process in self._started.items():
            if process.poll() is not None:
                raise FleetError(f"{name} ended with status {process.returncode}: {self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """Return the last line of a process's log, and where it is."""
        path = self.folder / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} ({path})"

    def _mock_answers(self) -> bool:
        with suppress(OSError):
            return bool(_get(f"{self.api_url}/health"))
        return False

    def _all_consume(self) -> bool:
        # dramatiq's register of the processes that asked for messages; before the first run it has no other process.
        prefix = self.environment.get("SLUICE_PREFIX", "sluice")
        with redis.Redis.from_url(self.redis_url, socket_timeout=2) as client:
            return int(client.zcard(f"{prefix}:queue:__heartbeats__")) >= self._processes

    # --- commands and queries

    def command(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Return what `python -m workers ARGUMENTS` prints.

        Raises:
          FleetError: It did not end with 0 in time.
        """
        line = [sys.executable, "-m", "workers", *arguments]
        try:
            done = subprocess.run(
                line, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=seconds, check=True
            )
        except subprocess.TimeoutExpired:
            raise FleetError(f"`{' '.join(arguments)}` did not end in {seconds:g} s") from None
        except subprocess.CalledProcessError as failed:
            raise FleetError(
                f"`{' '.join(arguments)}` ended with {failed.returncode}: {failed.stderr[-500:]}"
            ) from None
        return done.stdout

    def start_run(self, source: str = "items") -> int:
        """Start a run of one of the fleet's sources; return its id."""
        return int(self.command("run", source))

    def run_row(self, run_id: int) -> RunRow:
        """Return the run as the database has it now."""
        columns = (
            "status, coalesce(total_count, 0), succeeded_count, failed_count, skipped_count, "
            "rate_limit_hits_count, rate_limit_sleeps_count, total_sleep_seconds"
        )
        return RunRow(*self.query(f"SELECT {columns} FROM sluice_runs WHERE id = {run_id:d}")[0])

    def wait_for_run(
        self, run_id: int, seconds: float, look: Callable[[RunRow], None] = lambda row: None, every: float = 0.5
    ) -> RunRow:
        """Wait until a run has ended.

        Parameters:
          run_id: Which one.
          seconds: How long at most.
          look: Called with each look at it.
          every: Seconds between two looks.

        Returns:
          Its last state: not an ended one where the time was over first.

        Raises:
          FleetError: A process ended unasked meanwhile.
        """
        ends_at = time.monotonic() + seconds
        while True:
            row = self.run_row(run_id)
            look(row)
            if row.ended or time.monotonic() > ends_at:
                return row
            self.check_alive()
            time.sleep(every)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows a SELECT finds in the fleet's database."""
        return databases.query(self.database_url, sql)

    def mock_stats(self) -> dict[str, Any]:
        """Return what the mock API counted."""
        stats: dict[str, Any] = json.loads(_get(f"{self.api_url}/stats"))
        return stats

    def worker_children(self) -> list[int]:
        """Return the ids of the worker processes, which the supervisor keeps alive."""
        return self._children("worker")

    def kill_worker_child(self) -> int:
        """Kill (SIGKILL) the first worker process; return its id."""
        victim = self.worker_children()[0]
        os.kill(victim, signal.SIGKILL)
        return victim

    def kill_redis(self) -> int:
        """Kill (SIGKILL) the Redis server; return its id. `workers redis` starts another on the same port and data."""
        (victim,) = self._children("redis")
        os.kill(victim, signal.SIGKILL)
        return victim

    def flush_redis(self) -> None:
        """Delete all that Redis holds: the budget's state, and every message."""
        with redis.Redis.from_url(self.redis_url, socket_timeout=2) as client:
            client.flushall()

    def redis_answers(self) -> bool:
        """Return whether Redis answers."""
        with suppress(redis.RedisError), redis.Redis.from_url(self.redis_url, socket_timeout=2) as client:
            return bool(client.ping())
        return False

    def _children(self, name: str) -> list[int]:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=10, check=True
        )
        pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
        return sorted(pid for pid, parent in pairs if parent == self._started[name].pid)

    def _processes_left(self) -> list[int]:
        """Return the ids of processes that still stand in our folder: any of the fleet, orphans too (Linux)."""
        left = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "cwd").readlink().is_relative_to(self.folder):
                    left.append(int(entry.name))
        return left


def _ended(process: "subprocess.Popen[bytes]", ends_at: float) -> bool:
    """Wait for a process to end; kill it, and return False, where it does not in time."""
    try:
        process.wait(max(0.1, ends_at - time.monotonic()))
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _die_with_parent() -> None:
    """A benchmark that is killed leaves nothing behind (Linux)."""
    if _libc:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        return bytes(response.read())
