"""Run one process of a crowd: threads that each wait for a permit and make a request, until all requests are made.

    python -m benchmarks.crowd PEER API_URL REDIS_URL PREFIX LIMITS REQUESTS THREADS

It says `ready`, and begins when it is answered.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import urllib3

from benchmarks.peers import PEERS, Place, Turn
from mock_server import parse_limits

_TIMEOUT_SECONDS = 15.0


def main() -> None:
    """Do what the command line says. Exit code 1, with a traceback, when an answer is neither 200 nor 429."""
    peer, api_url, redis_url, prefix, limits, requests, threads = sys.argv[1:]
    queue = PEERS[peer].queue(Place(redis_url, prefix, parse_limits(limits)))
    work: SimpleQueue[int] = SimpleQueue()
    for item in range(1, int(requests) + 1):
        work.put(item)
    pool = urllib3.PoolManager(maxsize=int(threads), retries=False, timeout=_TIMEOUT_SECONDS)
    with ThreadPoolExecutor(int(threads)) as executor:
        print("ready", flush=True)
        sys.stdin.readline()
        lanes = [executor.submit(walk, queue(), pool, api_url, work) for _ in range(int(threads))]
    for lane in lanes:
        lane.result()


def walk(turn: Turn, pool: urllib3.PoolManager, api_url: str, work: "SimpleQueue[int]") -> None:
    """Make one thread's requests, each as often as it takes to be accepted."""
    for item in taken_from(work):
        while not accepted(turn, pool, f"{api_url}/api/items/{item}"):
            pass
    turn.leave()


def accepted(turn: Turn, pool: urllib3.PoolManager, url: str) -> bool:
    """Make one request in its turn.

    Returns:
      False when it was refused, after what its turn does about that.

    Raises:
      RuntimeError: The answer is neither 200 nor 429.
    """
    turn.wait()
    response = pool.request("GET", url)
    if response.status not in (200, 429):
        raise RuntimeError(f"{url} answered {response.status}")
    turn.report(response.status, response.headers)
    return response.status == 200


def taken_from(work: "SimpleQueue[int]") -> Iterator[int]:
    """Yield what is left of the work."""
    while True:
        try:
            yield work.get_nowait()
        except Empty:
            return


if __name__ == "__main__":
    main()
