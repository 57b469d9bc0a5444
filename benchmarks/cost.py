"""Measure the cost of a permit: acquire and complete, against bare round trips of a script that does nothing."""

import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import redis

from benchmarks.measure import Check
from benchmarks.peers import Place, limiter_of
from mock_server import Window
from workers.connections.redis_client import redis_client
from workers.limiter.permits import PermitClient
from workers.limiter.rate_limiter import RateLimiter

#: Budgets too large to be reached: one limit, and two as APIs have them.
BUDGETS = {
    "1,000,000 in 20 s": (Window(1_000_000, 20),),
    "50,000 in 1 s, 100,000 in 5 s": (Window(50_000, 1), Window(100_000, 5)),
}
BOUND = 1.5
ROUNDS = 60

#: The ways: a bare round trip, a permit a call, and as many a call as a lane with work left takes.
BARE, ONE, SEVERAL = "bare", "one at a time", "several at a time"
_EXPECTS = 16
#: Calls of one lane in a block: short, so that the machine's noise meets every way alike.
_BLOCK_CALLS = {1: 100, 16: 20}
_REQUEST_SECONDS = 30.0

#: Makes a number of calls in one thread.
Calls = Callable[[int], None]


@dataclass(frozen=True)
class Cost:
    """What one way of taking permits costs.

    Parameters:
      budget: What of.
      threads: How many at once, in one process.
      way: One at a time, or several.
      bare_us, permit_us: Median microseconds a call, over all threads.
      ratio: The median of one over the other, each taken between blocks that follow one another.
      low, high: The quartiles of that.
      rounds: How many ratios there are.
    """

    budget: str
    threads: int
    way: str
    bare_us: float
    permit_us: float
    ratio: float
    low: float
    high: float
    rounds: int

    def as_dict(self) -> dict[str, Any]:
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


def checks(costs: Sequence[Cost]) -> list[Check]:
    """Return the bounds: for each budget and number of threads, on what a lane does far from every limit."""
    return [
        Check(f"cost of {cost.budget}, {cost.threads} threads", round(cost.ratio, 3), "≤", BOUND)
        for cost in costs
        if cost.way == SEVERAL
    ]


def measure(redis_url: str, rounds: int = ROUNDS, say: Callable[[str], None] = lambda text: None) -> list[Cost]:
    """Measure every budget at every number of threads.

    Parameters:
      redis_url: The Redis, whose only client this should be.
      rounds: How often each way is gone; they take turns, so that the machine's noise meets them all.
      say: Called with the name of what is measured.
    """
    costs = []
    for threads in _BLOCK_CALLS:
        for budget, windows in BUDGETS.items():
            say(f"cost: {budget}, {threads} threads")
            costs += _costs(redis_url, budget, windows, threads, rounds)
    return costs


def _costs(redis_url: str, budget: str, windows: tuple[Window, ...], threads: int, rounds: int) -> list[Cost]:
    limiter = limiter_of(Place(redis_url, uuid.uuid4().hex[:8], windows))
    ways = _ways(limiter, redis_client(redis_url), threads)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with ThreadPoolExecutor(threads) as executor:
        for way in ways:
            _block(executor, ways[way])  # connections and scripts are there from now on
        for turn in range(rounds):
            for way in _rotated(list(ways), turn):
                seconds[way].append(_block(executor, ways[way]))
    bare = seconds.pop(BARE)
    return [_cost(budget, threads, way, bare, permits) for way, permits in seconds.items()]


def _cost(budget: str, threads: int, way: str, bare: list[float], permits: list[float]) -> Cost:
    ratios = [permit / empty for permit, empty in zip(permits, bare, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    calls = threads * _BLOCK_CALLS[threads]
    bare_us, permit_us = (statistics.median(blocks) / calls * 1e6 for blocks in (bare, permits))
    return Cost(budget, threads, way, bare_us, permit_us, median, low, high, len(ratios))


def _ways(limiter: RateLimiter, client: "redis.Redis", threads: int) -> dict[str, list[Calls]]:
    """Return, for each way, what each thread calls."""
    sha = str(client.script_load("return 1"))
    return {
        BARE: [lambda count: _bare(client, sha, count)] * threads,
        ONE: [_permits(limiter.permit_client(), 1) for _ in range(threads)],
        SEVERAL: [_permits(limiter.permit_client(), _EXPECTS) for _ in range(threads)],
    }


def _bare(client: "redis.Redis", sha: str, count: int) -> None:
    for _ in range(count):
        client.evalsha(sha, 0)


def _permits(caller: PermitClient, expects: int) -> Calls:
    def calls(count: int) -> None:
        for _ in range(count):
            caller.expects = expects
            caller.answered(caller.acquire(_REQUEST_SECONDS))

    return calls


def _block(executor: ThreadPoolExecutor, lanes: Sequence[Calls]) -> float:
    """Return the seconds that a block of calls takes, from the threads' common start to the last one's end."""
    barrier = threading.Barrier(len(lanes))
    share = _BLOCK_CALLS[len(lanes)]

    def lane(calls: Calls) -> tuple[float, float]:
        barrier.wait()
        began = time.perf_counter()
        calls(share)
        return began, time.perf_counter()

    times = list(executor.map(lane, lanes))
    return max(ended for _, ended in times) - min(began for began, _ in times)


def _rotated(ways: list[str], turn: int) -> Iterator[str]:
    """Yield the ways, beginning with another each time."""
    first = turn % len(ways)
    yield from ways[first:] + ways[:first]
