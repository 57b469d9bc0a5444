"""Model how APIs count requests, in virtual time. Instants are integer microseconds, and so exact.

Each takes at most `requests` in `window_us` in its own way; `accepts` counts a request only where it returns True
(`CountsRejected` is the exception). Instants must not go back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

SECOND_US = 1_000_000


class Server(Protocol):
    """An API's limiter."""

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        """Judge one request, which counts as `weight` requests, and count it if it is let in: all of it, or nothing."""

    def remaining(self, instant_us: int) -> int:
        """Return how many more requests would be let in at this instant, as headers state; nothing is counted."""


class FixedWindows:
    """Windows that follow each other from `phase_us` on, whatever is asked."""

    def __init__(self, requests: int, window_us: int, phase_us: int = 0) -> None:
        self.requests, self.window_us, self.phase_us = requests, window_us, phase_us
        self.number, self.used = -1, 0

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        if self.remaining(instant_us) < weight:
            return False
        number = self._number(instant_us)
        if number != self.number:
            self.number, self.used = number, 0
        self.used += weight
        return True

    def remaining(self, instant_us: int) -> int:
        return self.requests - (self.used if self._number(instant_us) == self.number else 0)

    def _number(self, instant_us: int) -> int:
        return (instant_us - self.phase_us) // self.window_us


class FirstHitWindows:
    """A window starts with the first request after the last one ended (as the mock API does)."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.ends_us, self.used = 0, 0

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        if self.remaining(instant_us) < weight:
            return False
        if instant_us >= self.ends_us:
            self.ends_us, self.used = instant_us + self.window_us, 0
        self.used += weight
        return True

    def remaining(self, instant_us: int) -> int:
        return self.requests - (self.used if instant_us < self.ends_us else 0)


class SlidingLog:
    """Remembers the instant of each request: never more than the limit in any interval at all."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.log: deque[tuple[int, int]] = deque()  # instant and weight
        self.used = 0

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        self._forget(instant_us)
        if self.used + weight > self.requests:
            return False
        self._record(instant_us, weight)
        return True

    def remaining(self, instant_us: int) -> int:
        counted = sum(weight for then, weight in self.log if then > instant_us - self.window_us)
        return max(0, self.requests - counted)

    def _forget(self, instant_us: int) -> None:
        while self.log and self.log[0][0] <= instant_us - self.window_us:
            self.used -= self.log.popleft()[1]

    def _record(self, instant_us: int, weight: int) -> None:
        self.log.append((instant_us, weight))
        self.used += weight


class CountsRejected(SlidingLog):
    """A log that records refused requests too: a caller that repeats its request stays refused."""

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        self._forget(instant_us)
        self._record(instant_us, weight)
        return self.used <= self.requests


class OneSecondLog:
    """A log whose clock is cut to whole seconds and whose edge is inclusive: second s counts until s + W is over.

    So a request may count for up to a second longer than W: clients need `Limit(..., granularity_seconds=1)`. The
    server's seconds begin `phase_us` after ours.
    """

    def __init__(self, requests: int, window_us: int, phase_us: int = 0) -> None:
        self.phase_us = phase_us
        # In whole seconds, the first instant at which a request no longer counts is a microsecond after the edge.
        self.log = SlidingLog(requests, window_us + 1)

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        return self.log.accepts(self._cut(instant_us), weight)

    def remaining(self, instant_us: int) -> int:
        return self.log.remaining(self._cut(instant_us))

    def _cut(self, instant_us: int) -> int:
        return (instant_us - self.phase_us) // SECOND_US * SECOND_US


class TokenBucket:
    """A bucket of `requests` tokens, full at first, refilled evenly within the window; a token is `window_us` drops."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.drops, self.last_us = requests * window_us, 0

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        self.drops, self.last_us = self._refilled(instant_us), instant_us
        if self.drops < weight * self.window_us:
            return False
        self.drops -= weight * self.window_us
        return True

    def remaining(self, instant_us: int) -> int:
        return self._refilled(instant_us) // self.window_us

    def _refilled(self, instant_us: int) -> int:
        refill = (instant_us - self.last_us) * self.requests
        return min(self.requests * self.window_us, self.drops + refill)


class SmallBurstGcra:
    """The generic cell rate algorithm: `requests` in a window, evenly, of which `burst` may come at once.

    Instants are multiplied by `requests`, so that the interval between two requests is `window_us`.
    """

    def __init__(self, requests: int, window_us: int, burst: int) -> None:
        self.requests, self.window_us, self.burst = requests, window_us, burst
        self.arrival = 0  # the theoretical one, of the next request

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        now = instant_us * self.requests
        arrival = max(self.arrival, now) + weight * self.window_us
        if arrival - now > self.burst * self.window_us:
            return False
        self.arrival = arrival
        return True

    def remaining(self, instant_us: int) -> int:
        ahead = max(0, self.arrival - instant_us * self.requests)
        return (self.burst * self.window_us - ahead) // self.window_us


class Gcra(SmallBurstGcra):
    """The generic cell rate algorithm with a burst of the whole limit."""

    def __init__(self, requests: int, window_us: int) -> None:
        super().__init__(requests, window_us, burst=requests)


class SlidingCounter:
    """Two fixed windows, the last one weighed by how much of it the sliding one still covers: prev (1 - x/W) + cur.

    Refuses a request with which this estimate would exceed the limit. Multiplied by W, it is exact.
    """

    def __init__(self, requests: int, window_us: int, phase_us: int = 0) -> None:
        self.requests, self.window_us, self.phase_us = requests, window_us, phase_us
        self.number, self.previous, self.current = -1, 0, 0

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        number, previous, current, covered_us = self._at(instant_us)
        self.number, self.previous, self.current = number, previous, current
        if previous * covered_us + (current + weight) * self.window_us > self.requests * self.window_us:
            return False
        self.current += weight
        return True

    def remaining(self, instant_us: int) -> int:
        _, previous, current, covered_us = self._at(instant_us)
        return (self.requests * self.window_us - previous * covered_us) // self.window_us - current

    def _at(self, instant_us: int) -> tuple[int, int, int, int]:
        """Return the window's number, what the last one and this one counted, and how much of the last still counts."""
        number, into_us = divmod(instant_us - self.phase_us, self.window_us)
        previous, current = self.previous, self.current
        if number != self.number:
            previous, current = (current if number == self.number + 1 else 0), 0
        return number, previous, current, self.window_us - into_us


def rejections(server: Server, instants_us: Sequence[int]) -> int:
    """Return how many of these requests the server refuses."""
    return sum(not server.accepts(instant) for instant in sorted(instants_us))


Kinds = dict[str, Callable[[int, int], Server]]

#: Each way of counting of which LIMITER.md promises no refusal, by name: (requests, window_us) -> a server that has
#: seen nothing yet.
KINDS: Kinds = {
    "fixed windows": FixedWindows,
    "fixed windows, a third later": lambda requests, window_us: FixedWindows(requests, window_us, window_us // 3),
    "fixed windows, just before": lambda requests, window_us: FixedWindows(requests, window_us, -1),
    "windows from the first hit": FirstHitWindows,
    "sliding log": SlidingLog,
    "token bucket": TokenBucket,
    "GCRA": Gcra,
}

#: Those that keep time in whole seconds, of which it promises none to a client whose W is W + 1.
WHOLE_SECONDS: Kinds = {
    "log in whole seconds": OneSecondLog,
    "log in whole seconds, a third later": lambda requests, window_us: OneSecondLog(requests, window_us, 333_333),
    "log in whole seconds, just before": lambda requests, window_us: OneSecondLog(requests, window_us, -1),
}

#: Those that estimate, which refuse bursts that a log accepts: for a client that paces itself.
COUNTERS: Kinds = {
    "sliding counter": SlidingCounter,
    "sliding counter, a third later": lambda requests, window_us: SlidingCounter(requests, window_us, window_us // 3),
    "sliding counter, half later": lambda requests, window_us: SlidingCounter(requests, window_us, window_us // 2),
    "sliding counter, just before": lambda requests, window_us: SlidingCounter(requests, window_us, -1),
}

#: Those that take less at once than in a window: for a client that paces itself.
SMALL_BURST: Kinds = {
    "GCRA, burst 1": lambda requests, window_us: SmallBurstGcra(requests, window_us, 1),
    "GCRA, burst 4": lambda requests, window_us: SmallBurstGcra(requests, window_us, min(4, requests)),
    "GCRA, burst a tenth": lambda requests, window_us: SmallBurstGcra(requests, window_us, max(1, requests // 10)),
}
