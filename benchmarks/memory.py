"""Measure the memory of a budget in Redis: the same traffic through each limiter, and the bytes of all its keys."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import redis

from benchmarks import peers
from benchmarks.measure import Check
from benchmarks.peers import Place, Queue, Turn
from mock_server import Window, parse_limits

#: L = 2,000. The windows are shorter than the API's, because what is kept does not depend on their length.
LIMITS = "500/1,2000/4"
#: The default limiters. dramatiq's counts are a few hundred bytes, and 20,000 permits take it minutes.
PEERS = ("ours", "limits", "pyrate-limiter")
PERMITS = 20_000
LANES = 16
BOUND_BYTES = 20_000

_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Memory:
    """What one limiter took.

    Parameters:
      peer: Its name.
      permits: How many were taken.
      most_bytes: The most that all its keys had, of all looks.
      most_keys: The most keys it had.
      why: Why there are no figures; empty when there are.
    """

    peer: str
    permits: int = 0
    most_bytes: int = 0
    most_keys: int = 0
    why: str = ""

    @property
    def checks(self) -> list[Check]:
        """The bound ours must keep."""
        if not peers.PEERS[self.peer].ours:
            return []
        return [Check(f"memory of {self.peer}: bytes", self.most_bytes, "≤", BOUND_BYTES)]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_all(
    names: Sequence[str], redis_url: str, *, limits: str = LIMITS, permits: int = PERMITS, say: Callable[[str], None]
) -> list[Memory]:
    """Measure limiters, all at the same time: no clock decides here.

    Parameters:
      names: Which; one without a memory of its own is left out.
      redis_url: The Redis, without a database's number: each limiter has a database to itself.
      limits: What each keeps.
      permits: How many each grants.
      say: Called with the name of the limiter that is measured.
    """
    windows = parse_limits(limits)

    def one(number: int, peer: str) -> Memory:
        why = peers.PEERS[peer].cannot(windows)
        memory = Memory(peer, why=why) if why else measure(peer, f"{redis_url}/{number}", windows, permits)
        say(f"memory of {peer}: {memory.most_bytes:,} bytes {memory.why}")
        return memory

    wanted = [name for name in names if name != "retry"]
    with ThreadPoolExecutor(max(1, len(wanted))) as executor:
        return list(executor.map(one, count(), wanted))


def measure(peer: str, redis_url: str, windows: tuple[Window, ...], permits: int) -> Memory:
    """Take permits in 16 lanes, and look at what is kept, every half second and at the end."""
    queue = peers.PEERS[peer].queue(Place(redis_url, "bench", windows))
    most_bytes = most_keys = 0
    with redis.Redis.from_url(redis_url) as client, ThreadPoolExecutor(LANES) as executor:
        lanes: set[Future[None]] = {executor.submit(_take, queue, permits // LANES) for _ in range(LANES)}
        while lanes:
            ended, lanes = wait(lanes, _LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for lane in ended:
                lane.result()
            sizes = [int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter(count=1000)]
            most_bytes, most_keys = max(most_bytes, sum(sizes)), max(most_keys, len(sizes))
    return Memory(peer, permits, most_bytes, most_keys)


def _take(queue: Queue, permits: int) -> None:
    turn: Turn = queue()
    for _ in range(permits):
        turn.wait()
        time.sleep(0)  # a request of no length
        turn.report(200, {})
    turn.leave()
