"""Simulate callers that send to a server as fast as they get permits, in moved time."""

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.limiters import SECOND, Asleep, fall_asleep, move_to, now_us
from tests.helpers.reference_servers import Server
from workers import RateLimiter
from workers.errors import RateLimited
from workers.limiter.permits import Permit, PermitClient


def no_headers(remaining: Sequence[int]) -> dict[str, str]:
    return {}


@dataclass
class Traffic:
    """Callers that send to a server as fast as they get permits, in moved time.

    A request is counted somewhere between its sending and its answer; one that is never answered, until its timeout
    and the linger have passed. The server answers 200 or 429, and says what `headers` makes of what remains.

    Attributes:
      servers: One for each limit; each must accept a request, and all are asked.
      retry_after: Retry-After of a 429, which says nothing where it is None.
      counted: (instant, weight) of each request, as it was counted.
      refused: How many were.
      sent: (instant, run) of each request, in their order.
    """

    limiter: RateLimiter
    servers: Sequence[Server]
    callers: int = 4
    requests: int = 60
    latency_us: int = 0
    straggles: float = 0.0
    never_answered: float = 0.0
    heaviest: int = 1
    runs: Sequence[int | None] = (None,)
    timeout_us: int = 5 * SECOND
    headers: Callable[[Sequence[int]], Mapping[str, str]] = no_headers
    retry_after: int | None = 2
    until_us: int = 3600 * SECOND
    seed: int = 0
    counted: list[tuple[int, int]] = field(default_factory=list)
    refused: int = 0
    sent: list[tuple[int, int | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.linger_us = 3 * SECOND
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.granted = 0
        self.weights: dict[PermitClient, int] = {}

    def go(self) -> "Traffic":
        """Send them all."""
        for number in range(self.callers):
            caller = self.limiter.permit_client(self.runs[number % len(self.runs)])
            caller.before_sleep = fall_asleep
            self.at(now_us(), self.ask, caller)
        while self.events and self.events[0][0] < self.until_us:
            instant, _, happens, arguments = heapq.heappop(self.events)
            move_to(max(instant, now_us()))
            happens(*arguments)
        return self

    def at(self, instant: int, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (instant, next(self.order), happens, arguments))

    def ask(self, caller: PermitClient) -> None:
        if self.granted >= self.requests:
            caller.flush()
            return
        weight = self.weights.setdefault(caller, self.dice.randint(1, self.heaviest))
        try:
            permit = caller.acquire(self.timeout_us / SECOND, weight)
        except (RateLimited, Asleep) as closed:
            wait = closed.wait_seconds if isinstance(closed, RateLimited) else caller._refusal[0]
            self.at(now_us() + max(1, round(wait * SECOND)), self.ask, caller)
            return
        self.granted += 1
        del self.weights[caller]
        self.sent.append((now_us(), caller.run_id))
        if self.dice.random() < self.never_answered:
            late = self.dice.choice([0, self.dice.randint(0, self.timeout_us), self.timeout_us + self.linger_us])
            self.at(now_us() + late, self.count, caller, permit, None)
            self.at(now_us() + self.timeout_us, self.ask, caller)
            return
        slow = self.dice.random() < self.straggles
        latency = self.dice.randint(0, self.timeout_us if slow else self.latency_us)
        counted = self.dice.choice([0, self.dice.randint(0, latency), latency])
        self.at(now_us() + counted, self.count, caller, permit, now_us() + latency)

    def count(self, caller: PermitClient, permit: Permit, answered_at: int | None) -> None:
        verdicts = [server.accepts(now_us(), permit.weight) for server in self.servers]
        accepted = all(verdicts)
        self.counted.append((now_us(), permit.weight))
        self.refused += not accepted
        says = dict(self.headers([server.remaining(now_us()) for server in self.servers]))
        if not accepted and self.retry_after is not None:
            says["Retry-After"] = str(self.retry_after)
        if answered_at is not None:
            self.at(answered_at, self.answer, caller, permit, 200 if accepted else 429, says)

    def answer(self, caller: PermitClient, permit: Permit, status: int, says: Mapping[str, str]) -> None:
        with suppress(RateLimited):
            caller.report(permit, status, says)
        self.ask(caller)
