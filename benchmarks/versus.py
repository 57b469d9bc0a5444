"""Compare limiters: the same requests, by the same crowd, to the same server, one cell after the other."""

import json
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.floor import closings, floor_seconds
from benchmarks.loopback import LoopbackError, end, own_mock, python
from benchmarks.measure import Check
from benchmarks.peers import PEERS
from mock_server import Window, parse_limits

ALGORITHMS = ("log", "fixed", "token-bucket", "gcra", "counter")
#: The one that may refuse what keeps every window: there no bound holds.
COUNTER = "counter"
#: Ours in the profiles that spend a window as soon as it opens.
BURSTING = ("ours", "ours-auto")

PROCESSES, THREADS = 2, 8
LATENCY_SECONDS = 0.005
_OVER_FLOOR = 1.01
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Cell:
    """One limiter against one server.

    Parameters:
      peer: The limiter's name.
      algorithm: How the server counts.
      jitter_seconds: The most that is added to the server's latency.
      limits: What the server allows, and the limiter is configured with.
      requests: How many are made in all.
    """

    peer: str
    algorithm: str
    jitter_seconds: float
    limits: str = "50/2,200/10"
    requests: int = 1010

    @property
    def windows(self) -> tuple[Window, ...]:
        return parse_limits(self.limits)

    @property
    def floor_seconds(self) -> float:
        return floor_seconds(self.windows, self.requests)

    @property
    def bound_seconds(self) -> float:
        """The longest span allowed: 1.01 of the floor, and one longest response for each window that opens."""
        opened = sum(count for _, count in closings(self.windows, self.requests))
        return _OVER_FLOOR * self.floor_seconds + opened * (LATENCY_SECONDS + self.jitter_seconds)

    @property
    def longest_seconds(self) -> float:
        return 60.0 + 3 * self.floor_seconds

    @property
    def mock_arguments(self) -> list[str]:
        delays = ["--latency", str(LATENCY_SECONDS), "--jitter", str(self.jitter_seconds)]
        return ["--algorithm", self.algorithm, "--limits", self.limits, "--items", str(self.requests), *delays]

    def __str__(self) -> str:
        return f"{self.peer}, {self.algorithm}, jitter {self.jitter_seconds * 1000:g} ms"


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    Parameters:
      accepted, rejected: Requests by the server's own count.
      span_seconds: From the first accepted request to the last.
      why: Why there are no figures; empty when there are.
    """

    cell: Cell
    accepted: int = 0
    rejected: int = 0
    span_seconds: float = 0.0
    why: str = ""

    @property
    def over_floor(self) -> float | None:
        """The span as a multiple of the floor; None where the floor is 0."""
        return self.span_seconds / self.cell.floor_seconds if self.cell.floor_seconds else None

    @property
    def checks(self) -> list[Check]:
        """The bounds ours must keep; none for others, and none where they do not hold by right."""
        cell = self.cell
        if not PEERS[cell.peer].ours:
            return []
        made = Check(f"{cell}: requests", self.accepted, "=", cell.requests)
        if cell.peer not in BURSTING or cell.algorithm == COUNTER:
            return [made]
        span = Check(f"{cell}: span", round(self.span_seconds, 3), "≤", round(cell.bound_seconds, 3))
        return [made, Check(f"{cell}: 429s", self.rejected, "=", 0), span]

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self.cell),
            "accepted": self.accepted,
            "rejected": self.rejected,
            "span_seconds": round(self.span_seconds, 4),
            "floor_seconds": self.cell.floor_seconds,
            "over_floor": self.over_floor and round(self.over_floor, 5),
            "seconds_over_floor": round(self.span_seconds - self.cell.floor_seconds, 4),
            "why": self.why,
        }


#: Called with how many requests of a cell have been accepted.
Look = Callable[[Cell, int], None]


def cells(peers: Sequence[str], algorithms: Sequence[str], jitters: Sequence[float], **more: Any) -> list[Cell]:
    """Return the cells of a table: every limiter against every server.

    Parameters:
      peers: Names of limiters.
      algorithms: How servers count.
      jitters: Seconds.
      more: As `Cell` takes it.
    """
    return [Cell(peer, algorithm, jitter, **more) for jitter in jitters for algorithm in algorithms for peer in peers]


def measure_all(
    wanted: Sequence[Cell], redis_url: str, *, parallel: int = 1, look: Look, done: Callable[[Result], None]
) -> list[Result]:
    """Measure cells, some at a time: a client that waits takes next to no processor time.

    Parameters:
      wanted: Which.
      redis_url: Where the limiters count; each cell has a prefix of its own.
      parallel: How many at a time.
      look: Called every half second with how many requests a cell has made.
      done: Called with the result of each.

    Returns:
      The results, in the order of the cells.
    """
    stop = threading.Event()

    def one(cell: Cell) -> Result:
        result = Result(cell, why="stopped") if stop.is_set() else measure(cell, redis_url, look, stop)
        done(result)
        return result

    with ThreadPoolExecutor(parallel) as executor:
        try:
            return list(executor.map(one, wanted))
        except BaseException:  # Ctrl-C: the cells under way end at their next look
            stop.set()
            raise


def measure(
    cell: Cell, redis_url: str, look: Look = lambda cell, made: None, stop: threading.Event | None = None
) -> Result:
    """Run one cell: a mock API and a crowd of processes of its own."""
    if why := PEERS[cell.peer].cannot(cell.windows):
        return Result(cell, why=why)
    try:
        with own_mock(cell.mock_arguments) as api_url:
            _run(cell, api_url, redis_url, look, stop or threading.Event())
            stats = _stats(api_url)
    except LoopbackError as error:
        return Result(cell, why=str(error))
    return Result(cell, stats["accepted"], stats["rejected"], stats["span_seconds"])


def _run(cell: Cell, api_url: str, redis_url: str, look: Look, stop: threading.Event) -> None:
    with tempfile.TemporaryFile("w+") as complaints, _crowd(cell, api_url, redis_url, complaints) as crowd:
        ends_at = time.monotonic() + cell.longest_seconds
        while any(process.poll() is None for process in crowd):
            if stop.wait(_LOOK_SECONDS) or time.monotonic() > ends_at:
                raise LoopbackError("stopped" if stop.is_set() else f"not done in {cell.longest_seconds:g} s")
            look(cell, _stats(api_url)["accepted"])
        if any(process.returncode for process in crowd):
            complaints.seek(0)
            raise LoopbackError(f"a process failed: {complaints.read().strip()[-300:]}")


@contextmanager
def _crowd(cell: Cell, api_url: str, redis_url: str, complaints: Any) -> "Iterator[list[subprocess.Popen[str]]]":
    """Start the processes, and let them begin together once each is ready."""
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    crowd: list[subprocess.Popen[str]] = []
    try:
        for index in range(PROCESSES):
            share = len(range(index, cell.requests, PROCESSES))
            words = (cell.peer, api_url, redis_url, prefix, cell.limits, str(share), str(THREADS))
            crowd.append(
                python(
                    *("-m", "benchmarks.crowd", *words),
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                )
            )  # fmt: skip
        for process in crowd:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                complaints.seek(0)
                raise LoopbackError(f"a process did not start: {complaints.read().strip()[-300:]}")
        for process in crowd:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield crowd
    finally:
        for process in crowd:
            end(process)


def _stats(api_url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{api_url}/stats", timeout=10) as response:
        stats: dict[str, Any] = json.load(response)
        return stats
