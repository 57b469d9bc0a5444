"""Kill or flush parts of a fleet in the middle of a run, and measure how soon requests are sent again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.fleet import Fleet
from benchmarks.onlooker import RequestWatch

_START_SECONDS = 30.0
_LOOK_SECONDS = 0.02
#: A permit that was granted before may still be used for so long.
FRESH_SECONDS = 1.0


class Mishap(StrEnum):
    """What may happen."""

    WORKER_KILLED = "kill -9 of a worker process"
    REDIS_KILLED = "kill -9 of Redis"
    REDIS_FLUSHED = "FLUSHALL"


@dataclass
class Met:
    """One mishap. Seconds count from it.

    Attributes:
      after_requests: How many requests had been accepted.
      process: Whom it killed.
      back_seconds: When Redis answered again.
      first_request_seconds: When the first request was accepted that no permit of before can explain.
    """

    mishap: Mishap
    at: float
    after_requests: int
    process: int | None = None
    back_seconds: float = 0.0
    first_request_seconds: float | None = None


def meet(mishap: Mishap, after_requests: int, fleet: Fleet, seconds: float, say: Callable[[str], None]) -> Met | None:
    """Wait until `requests` requests have been accepted, and let it happen.

    Returns:
      What happened; None where fewer were accepted within `seconds`.

    Raises:
      FleetError: Redis did not come back.
    """
    ends_at = time.monotonic() + seconds
    # The marks are not where windows end: one has opened, and requests are in flight.
    while (accepted := fleet.mock_stats()["accepted"]) < after_requests:
        if time.monotonic() > ends_at:
            return None
        say(f"{accepted:,} requests; {mishap} after {after_requests:,}")
        time.sleep(_LOOK_SECONDS)
    met = Met(mishap, time.monotonic(), accepted)
    match mishap:
        case Mishap.WORKER_KILLED:
            met.process = fleet.kill_worker_child()
        case Mishap.REDIS_KILLED:
            met.process = fleet.kill_redis()
        case Mishap.REDIS_FLUSHED:
            fleet.flush_redis()
    fleet.wait_until(fleet.redis_answers, _START_SECONDS, "Redis answers again")
    met.back_seconds = time.monotonic() - met.at
    return met


def look_back(met: Met, watch: RequestWatch) -> None:
    """Find when the first request after it was sent, in what an onlooker noted."""
    first = watch.accepted_after(met.at + FRESH_SECONDS)
    met.first_request_seconds = first and first - met.at
