"""Reference servers: how APIs count, as small models in virtual time. Instants are integer microseconds, and so exact.

Each takes at most `requests` in `window_us` in its own way; `accepts` counts a request only where it returns True.
Instants must not go back.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol


class Server(Protocol):
    """An API's limiter."""

    def accepts(self, instant_us: int) -> bool:
        """Judge one request, and count it if it is let in."""


class FixedWindows:
    """Windows that follow each other from `phase_us` on, whatever is asked."""

    def __init__(self, requests: int, window_us: int, phase_us: int = 0) -> None:
        self.requests, self.window_us, self.phase_us = requests, window_us, phase_us
        self.number, self.used = -1, 0

    def accepts(self, instant_us: int) -> bool:
        number = (instant_us - self.phase_us) // self.window_us
        if number != self.number:
            self.number, self.used = number, 0
        if self.used >= self.requests:
            return False
        self.used += 1
        return True


class FirstHitWindows:
    """A window starts with the first request after the last one ended (as the mock API does)."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.ends_us, self.used = 0, 0

    def accepts(self, instant_us: int) -> bool:
        if instant_us >= self.ends_us:
            self.ends_us, self.used = instant_us + self.window_us, 0
        if self.used >= self.requests:
            return False
        self.used += 1
        return True


class SlidingLog:
    """Remembers the instant of each request: never more than the limit in any interval at all."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.log: deque[int] = deque()

    def accepts(self, instant_us: int) -> bool:
        while self.log and self.log[0] <= instant_us - self.window_us:
            self.log.popleft()
        if len(self.log) >= self.requests:
            return False
        self.log.append(instant_us)
        return True


class TokenBucket:
    """A bucket of `requests` tokens, full at first, refilled evenly within the window; a token is `window_us` drops."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.drops, self.last_us = requests * window_us, 0

    def accepts(self, instant_us: int) -> bool:
        refill = (instant_us - self.last_us) * self.requests
        self.drops, self.last_us = min(self.requests * self.window_us, self.drops + refill), instant_us
        if self.drops < self.window_us:
            return False
        self.drops -= self.window_us
        return True


class Gcra:
    """The generic cell rate algorithm with a burst of the whole limit; instants are multiplied by `requests`."""

    def __init__(self, requests: int, window_us: int) -> None:
        self.requests, self.window_us = requests, window_us
        self.arrival = 0  # the theoretical one, of the next request

    def accepts(self, instant_us: int) -> bool:
        now = instant_us * self.requests
        if self.arrival - now > (self.requests - 1) * self.window_us:
            return False
        self.arrival = max(self.arrival, now) + self.window_us
        return True


def rejections(server: Server, instants_us: Sequence[int]) -> int:
    """Return how many of these requests the server refuses."""
    return sum(not server.accepts(instant) for instant in sorted(instants_us))


#: Each way of counting, by name: (requests, window_us) -> a server that has seen nothing yet.
KINDS: dict[str, Callable[[int, int], Server]] = {
    "fixed windows": FixedWindows,
    "fixed windows, a third later": lambda requests, window_us: FixedWindows(requests, window_us, window_us // 3),
    "fixed windows, just before": lambda requests, window_us: FixedWindows(requests, window_us, -1),
    "windows from the first hit": FirstHitWindows,
    "sliding log": SlidingLog,
    "token bucket": TokenBucket,
    "GCRA": Gcra,
}
