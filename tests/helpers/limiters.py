"""Limiters that never sleep, a clock moved to the microsecond, and shortcuts to take permits and report responses."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
import redis

from workers import Budget, Limit, RateLimiter, clock
from workers.errors import RateLimited
from workers.limiter.permits import Permit, PermitClient

SECOND = 1_000_000
BUDGET_OPTIONS = {"profile", "share", "trust_server"}


def limiter_on(client: redis.Redis, *limits: Limit, name: str = "api", prefix: str = "", **options: Any) -> RateLimiter:
    """A limiter that never sleeps: every refusal is a RateLimited, unless the test says otherwise."""
    chosen: dict[str, Any] = {"max_wait_seconds": 0.0, "profile": "burst"} | options
    budget = Budget(name, limits, **{key: chosen.pop(key) for key in BUDGET_OPTIONS & chosen.keys()})
    return RateLimiter(budget, client, prefix=prefix or f"t{uuid.uuid4().hex[:12]}", **chosen)


def beside(limiter: RateLimiter, *limits: Limit, **options: Any) -> RateLimiter:
    """Another process's limiter of the same budget, which may know other limits."""
    prefix = limiter.ledger.keys[0].split(":")[0]
    options = {"profile": limiter.budget.profile} | options
    return limiter_on(limiter.ledger.client, *(limits or limiter.budget.limits), prefix=prefix, **options)


def now_us() -> int:
    return round(clock.monotonic() * SECOND)


def move_to(instant_us: int) -> None:
    """Set the moved clock to an exact microsecond, where advancing would add up rounding errors."""
    moved = clock.current()
    assert isinstance(moved, clock.MovedClock)
    moved.elapsed_seconds = instant_us / SECOND


def move_by(us: int) -> None:
    move_to(now_us() + us)


class Asleep(Exception):
    """Raised where a caller would now sleep: a simulation has others to attend to meanwhile."""


def fall_asleep() -> None:
    raise Asleep


def refusal(caller: PermitClient, timeout_seconds: float = 5.0, weight: int = 1) -> RateLimited:
    """Ask for a permit; return the refusal. A client with `before_sleep = fall_asleep` stays in the line."""
    with pytest.raises((RateLimited, Asleep)) as caught:
        caller.acquire(timeout_seconds, weight)
    return caught.value if isinstance(caught.value, RateLimited) else RateLimited(*caller._refusal)


def hear(caller: PermitClient, permit: Permit, status: int, headers: Mapping[str, str]) -> RateLimited | None:
    """Report the response to this permit's request, and flush; return the refusal that it is, or None."""
    try:
        caller.report(permit, status, headers)
    except RateLimited as wait:
        return wait
    caller.flush()
    return None


def ask(limiter: RateLimiter, status: int, headers: Mapping[str, str], run_id: int | None = None) -> RateLimited | None:
    """Send one request, which is answered at once."""
    caller = limiter.permit_client(run_id)
    return hear(caller, caller.acquire(5.0), status, headers)


def use(caller: PermitClient, count: int = 1) -> None:
    """Take that many permits and answer each at once."""
    for _ in range(count):
        caller.answered(caller.acquire(5.0))
    caller.flush()


def granted(limiter: RateLimiter, at_most: int = 1000) -> int:
    """How many permits there are to be had now; they are given back."""
    caller = limiter.permit_client()
    permits: list[Permit] = []
    with suppress(RateLimited):
        while len(permits) < at_most:
            permits.append(caller.acquire(5.0))
    for permit in permits:
        caller.unsent(permit)
    return len(permits)


def notes(limiter: RateLimiter) -> list[str]:
    """What was decided, the newest first."""
    return [note.text for note in limiter.snapshot().notes]
