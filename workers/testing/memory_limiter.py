"""A rate limiter in this process's memory, for unit tests of code that takes a `RateLimiter`. It needs no Redis."""

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from workers import clock
from workers.errors import BudgetClosed, Refused
from workers.limiter import number_checks
from workers.limiter.budget import Budget, our_part
from workers.limiter.permits import Permit, PermitClient
from workers.limiter.rate_limiter import RateLimiter
from workers.limiter.redis_ledger import FRESH_SECONDS
from workers.limiter.response import read_response
from workers.limiter.state import BudgetState, WindowState


@dataclass
class _Count:
    """A permit as the windows count it: in flight until `ends_at`, at the latest its deadline, then completed."""

    weight: int
    ends_at: float


class _Counts:
    """The permits of one budget: in flight, and completed within the longest window. Thread-safe."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.lock = threading.Lock()
        self.counts: dict[str, _Count] = {}
        self.paused_until, self.paused_why = 0.0, ""
        self.granted = self.hits = 0

    def grant(self, weight: int, ttl_seconds: float) -> tuple[str, float, str]:
        """Return the id of a permit; or "", how many seconds to wait, and why."""
        with self.lock:
            now = clock.monotonic()
            if now < self.paused_until:
                return "", self.paused_until - now, f"paused: {self.paused_why}"
            waits = [
                self._wait(limit.requests, limit.window_microseconds / 1e6, weight) for limit in self.budget.limits
            ]
            if max(waits) > 0:
                return "", max(waits), str(self.budget.limits[waits.index(max(waits))])
            id = uuid.uuid4().hex
            self.counts[id] = _Count(weight, now + ttl_seconds)
            self.granted += 1
            return id, 0.0, ""

    def used(self, window_seconds: float) -> int:
        """Return what counts within a window now. Call it with the lock held."""
        now = clock.monotonic()
        return sum(one.weight for one in self.counts.values() if one.ends_at > now - window_seconds)

    def complete(self, id: str) -> None:
        """The response has arrived: the permit counts for one window from now."""
        with self.lock:
            now = clock.monotonic()
            if id in self.counts:
                self.counts[id].ends_at = min(now, self.counts[id].ends_at)
            oldest = now - max(limit.window_microseconds for limit in self.budget.limits) / 1e6
            self.counts = {key: one for key, one in self.counts.items() if one.ends_at > oldest}

    def drop(self, id: str) -> None:
        """The request was never sent: the permit does not count."""
        with self.lock:
            self.counts.pop(id, None)

    def pause(self, seconds: float, why: str) -> None:
        """Give no permit for so long."""
        with self.lock:
            self.hits += clock.monotonic() >= self.paused_until
            self.paused_until = max(self.paused_until, clock.monotonic() + seconds)
            self.paused_why = why

    def _wait(self, requests: int, window_seconds: float, weight: int) -> float:
        """Return how long until a window has room; requests in flight are taken to last until their deadline."""
        now, over = clock.monotonic(), self.used(window_seconds) + weight - our_part(requests, self.budget.share)
        if over <= 0:
            return 0.0
        for one in sorted(self.counts.values(), key=lambda one: one.ends_at):
            if one.ends_at > now - window_seconds:
                over -= one.weight
                if over <= 0:
                    return one.ends_at + window_seconds - now
        return window_seconds


class _MemoryClient(PermitClient):
    """A `PermitClient` whose permits are counted in this process."""

    def __init__(self, limiter: "MemoryLimiter", run_id: int | None, name: str) -> None:
        super().__init__(
            None,  # type: ignore[arg-type]  # no ledger: every method that would use it is replaced
            run_id,
            name,
            limiter.max_wait_seconds,
            limiter.longest_pause_seconds,
        )
        self._limiter, self._counts = limiter, limiter.counts

    def reserve(self, timeout_seconds: float) -> None:
        """Raise where the wait is too long to be slept; a permit is taken by `acquire`."""
        id, wait, why = self._counts.grant(1, self._ttl(timeout_seconds))
        self._counts.drop(id)
        if wait > self.max_wait_seconds:
            raise BudgetClosed(wait, f"{self._counts.budget.name}: {why}")

    def acquire(self, timeout_seconds: float, weight: int = 1) -> Permit:
        """Take one permit, sleeping up to `max_wait_seconds`. Errors are those of `PermitClient.acquire`."""
        weight = number_checks.weight(weight, self._counts.budget.lowest)
        deadline = clock.monotonic() + self.max_wait_seconds
        while True:
            id, wait, why = self._counts.grant(weight, self._ttl(timeout_seconds))
            if id:
                self.usage.requests += 1
                return Permit(id, clock.monotonic(), weight, self)
            if clock.monotonic() + wait > deadline or clock.sleep(wait):
                raise BudgetClosed(wait, f"{self._counts.budget.name}: {why}")

    def answered(self, permit: Permit) -> None:
        """Say that the response has arrived."""
        self._counts.complete(permit.id)

    def report(self, permit: Permit, status: int, headers: Mapping[str, str]) -> None:
        """Say what the response says: a refusal pauses the budget. Headers that state limits are not read.

        Raises:
          Refused: The API refused.
        """
        reading = read_response(self._counts.budget, status, headers, clock.now())
        self.answered(permit)
        if reading.refused:
            pause = self._limiter.longest_window_seconds if reading.wait_seconds is None else reading.wait_seconds
            self._counts.pause(pause, reading.reason)
            self.usage.hits += 1
            raise Refused(pause, f"{self._counts.budget.name}: {reading.reason}")

    def ask_again(self) -> None:
        """Nothing: only a budget that waits for one request after a pause makes a difference."""

    def unsent(self, permit: Permit) -> None:
        """Give back a permit whose request never reached the API."""
        self.usage.requests -= 1
        self._counts.drop(permit.id)

    def flush(self) -> None:
        """Nothing: everything is counted at once."""

    def _ttl(self, timeout_seconds: float) -> float:
        timeout = number_checks.timeout(timeout_seconds, self._counts.budget.name)
        return FRESH_SECONDS + timeout + self._limiter.linger_seconds


class MemoryLimiter(RateLimiter):
    """A `RateLimiter` in memory: grants while, for every limit (L, W), in flight + completed within the last W < L.

    Parameters:
      budget(Budget): Whose permits.
      max_wait_seconds(float), linger_seconds(float), longest_pause_seconds(float): As `RateLimiter` takes them.

    *Warning:* it knows the requests of this process only. A restart forgets them. It does not learn: no profile
    `paced`, no limit that headers name, no single request after a pause. A refusal without Retry-After pauses for the
    longest window. It is not for production.
    """

    def __init__(
        self,
        budget: Budget,
        *,
        max_wait_seconds: float = 2.0,
        linger_seconds: float = 10.0,
        longest_pause_seconds: float = 3600.0,
    ) -> None:
        self.budget = budget
        self.max_wait_seconds = max_wait_seconds
        self.linger_seconds = linger_seconds
        self.longest_pause_seconds = longest_pause_seconds
        self.counts = _Counts(budget)

    @property
    def longest_window_seconds(self) -> float:
        """The longest of the budget's windows."""
        return max(limit.seconds for limit in self.budget.limits)

    def permit_client(self, run_id: int | None = None, name: str | None = None) -> PermitClient:
        """Return a client for one thread. `permit` works as that of `RateLimiter`."""
        return _MemoryClient(self, run_id, name or uuid.uuid4().hex)

    def snapshot(self, weight: int = 1) -> BudgetState:
        """Return the state of the budget: windows, in flight, pause, counts of permits and refusals."""
        id, wait, _ = self.counts.grant(weight, 1.0)
        self.counts.drop(id)
        with self.counts.lock:
            self.counts.granted -= bool(id)
            now = clock.monotonic()
            windows = tuple(
                WindowState(
                    limit,
                    limit.requests,
                    our_part(limit.requests, self.budget.share),
                    self.counts.used(limit.window_microseconds / 1e6),
                )
                for limit in self.budget.limits
            )
            paused = max(0.0, self.counts.paused_until - now)
            return BudgetState(
                name=self.budget.name,
                windows=windows,
                in_flight=sum(one.ends_at > now for one in self.counts.counts.values()),
                opens_in_seconds=wait,
                paused_for_seconds=paused,
                paused_why=self.counts.paused_why if paused else "",
                granted=self.counts.granted,
                hits=self.counts.hits,
                weight=weight,
            )

    def relearn(self, who: str) -> bool:
        """Return False: there is nothing learned to forget."""
        return False
