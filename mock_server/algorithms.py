"""Count the requests of one caller in a window: fixed windows, sliding logs, token buckets and others.

Instants are nanoseconds since 1970 by a clock that never steps back, whole numbers, so that no rounding moves an edge.
"""

from abc import ABC, abstractmethod
from collections import deque

from mock_server.limits import Window

ALGORITHMS = {
    "windows": "windows that start at the caller's first hit after the last one ended",
    "fixed": "windows that follow each other from 1970 on",
    "log": "never more than the limit in any interval of the window's length",
    "token-bucket": "a bucket of the whole limit, full at first, refilled evenly within the window",
    "gcra": "evenly spaced; --burst of them, or else the whole limit, may come at once",
    "counter": "fixed windows, and what is left of the last one's count, falling evenly: prev (1 - x/W) + cur",
}


class Count(ABC):
    """One caller's use of one window. Calls must come in the order of their instants.

    Attributes:
      window: The limit.
      capacity: How many requests it lets in at once, when it has seen none yet.
    """

    def __init__(self, window: Window, capacity: int | None = None) -> None:
        self.window = window
        self.capacity = window.limit if capacity is None else capacity

    @abstractmethod
    def remaining(self, now_ns: int) -> int:
        """Return how many requests would be let in at this instant."""

    @abstractmethod
    def take(self, now_ns: int) -> None:
        """Count a request. A refused one is counted by a log only, and only where it is configured to."""

    @abstractmethod
    def reset_ns(self, now_ns: int) -> int:
        """Return how long until all of the capacity is free again, if no request comes; for a window, until it ends."""

    @abstractmethod
    def retry_ns(self, now_ns: int) -> int:
        """Return how long until the next request is let in, if no other comes before; 0 where it would be now."""


class FirstHitWindows(Count):
    """A window starts at the first hit after the last one ended, and lasts its whole length.

    Warning:
      It lets nearly twice its limit through around its edge. That is what such servers do.
    """

    started_ns: int | None = None
    used = 0

    def remaining(self, now_ns: int) -> int:
        self._close_if_over(now_ns)
        return self.capacity - self.used

    def take(self, now_ns: int) -> None:
        self._close_if_over(now_ns)
        if self.started_ns is None:
            self.started_ns = now_ns
        self.used += 1

    def reset_ns(self, now_ns: int) -> int:
        self._close_if_over(now_ns)
        return self.window.length_ns - (0 if self.started_ns is None else now_ns - self.started_ns)

    def retry_ns(self, now_ns: int) -> int:
        return 0 if self.remaining(now_ns) else self.reset_ns(now_ns)

    def _close_if_over(self, now_ns: int) -> None:
        if self.started_ns is not None and now_ns - self.started_ns >= self.window.length_ns:
            self.started_ns, self.used = None, 0


class FixedWindows(Count):
    """Windows follow each other from 1970 on: those of a minute start with the minute.

    Warning:
      Around an edge, twice the limit gets through.
    """

    number = -1
    used = 0

    def remaining(self, now_ns: int) -> int:
        self._turn(now_ns)
        return self.capacity - self.used

    def take(self, now_ns: int) -> None:
        self._turn(now_ns)
        self.used += 1

    def reset_ns(self, now_ns: int) -> int:
        return self.window.length_ns - now_ns % self.window.length_ns

    def retry_ns(self, now_ns: int) -> int:
        return 0 if self.remaining(now_ns) else self.reset_ns(now_ns)

    def _turn(self, now_ns: int) -> None:
        number = now_ns // self.window.length_ns
        if number != self.number:
            self.number, self.used = number, 0


class SlidingLog(Count):
    """Every request counts for exactly the window's length."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        # Of requests that were refused and counted all the same, the last ones alone decide when there is room again.
        self._taken_ns: deque[int] = deque(maxlen=self.capacity)

    def remaining(self, now_ns: int) -> int:
        self._forget(now_ns)
        return self.capacity - len(self._taken_ns)

    def take(self, now_ns: int) -> None:
        self._forget(now_ns)
        self._taken_ns.append(now_ns)

    def reset_ns(self, now_ns: int) -> int:
        self._forget(now_ns)
        return self._taken_ns[-1] + self.window.length_ns - now_ns if self._taken_ns else 0

    def retry_ns(self, now_ns: int) -> int:
        return 0 if self.remaining(now_ns) else self._taken_ns[0] + self.window.length_ns - now_ns

    def _forget(self, now_ns: int) -> None:
        while self._taken_ns and now_ns - self._taken_ns[0] >= self.window.length_ns:
            self._taken_ns.popleft()


class TokenBucket(Count):
    """A request takes a token, and the window brings as many as the limit. A token is as many drops as the window's ns.

    Warning:
      Within one length, up to twice the limit gets through: a full bucket, and what is refilled meanwhile.
    """

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self._full = self._drops = self.capacity * window.length_ns
        self._filled_ns = 0

    def remaining(self, now_ns: int) -> int:
        self._fill(now_ns)
        return self._drops // self.window.length_ns

    def take(self, now_ns: int) -> None:
        self._fill(now_ns)
        self._drops -= self.window.length_ns

    def reset_ns(self, now_ns: int) -> int:
        self._fill(now_ns)
        return -(-(self._full - self._drops) // self.window.limit)

    def retry_ns(self, now_ns: int) -> int:
        self._fill(now_ns)
        return max(0, -(-(self.window.length_ns - self._drops) // self.window.limit))

    def _fill(self, now_ns: int) -> None:
        self._drops = min(self._full, self._drops + (now_ns - self._filled_ns) * self.window.limit)
        self._filled_ns = now_ns


class Gcra(Count):
    """The generic cell rate algorithm: each request moves the next one's theoretical arrival by W / limit.

    It may come up to `burst` such intervals, less one, before its time. The arrival is kept in `limit`-ths of a ns.
    """

    def __init__(self, window: Window, burst: int | None = None) -> None:
        super().__init__(window, burst)
        self._arrival = 0

    def remaining(self, now_ns: int) -> int:
        return self.capacity - -(-self._ahead(now_ns) // self.window.length_ns)

    def take(self, now_ns: int) -> None:
        self._arrival = now_ns * self.window.limit + self._ahead(now_ns) + self.window.length_ns

    def reset_ns(self, now_ns: int) -> int:
        return -(-self._ahead(now_ns) // self.window.limit)

    def retry_ns(self, now_ns: int) -> int:
        too_early = self._ahead(now_ns) - (self.capacity - 1) * self.window.length_ns
        return max(0, -(-too_early // self.window.limit))

    def _ahead(self, now_ns: int) -> int:
        return max(0, self._arrival - now_ns * self.window.limit)


class SlidingCounter(Count):
    """The count of this fixed window, and of the last one's what a sliding window would still cover of it.

    It refuses what would bring this estimate above the limit. The estimate is kept times W, and so exact.
    """

    number = -1
    previous = 0
    current = 0

    def remaining(self, now_ns: int) -> int:
        into_ns = self._turn(now_ns)
        covered = self.previous * (self.window.length_ns - into_ns)
        return self.capacity - self.current - -(-covered // self.window.length_ns)

    def take(self, now_ns: int) -> None:
        self._turn(now_ns)
        self.current += 1

    def reset_ns(self, now_ns: int) -> int:
        left_ns = self.window.length_ns - self._turn(now_ns)
        if self.current:
            return left_ns + self.window.length_ns
        return left_ns if self.previous else 0

    def retry_ns(self, now_ns: int) -> int:
        into_ns = self._turn(now_ns)
        starts_ns = -into_ns
        # This window, the next, and the one after it, of which nothing is left.
        for previous, current in ((self.previous, self.current), (self.current, 0), (0, 0)):
            opens_ns = self._opens_ns(previous, current)
            if opens_ns < self.window.length_ns:
                break
            starts_ns += self.window.length_ns
        return max(0, starts_ns + opens_ns)

    def _turn(self, now_ns: int) -> int:
        """Pass on to the window of this instant, and return how far into it that is."""
        number, into_ns = divmod(now_ns, self.window.length_ns)
        if number != self.number:
            self.previous = self.current if number == self.number + 1 else 0
            self.number, self.current = number, 0
        return into_ns

    def _opens_ns(self, previous: int, current: int) -> int:
        """Return how far into a window with these counts it takes one more; its length or more where it never does."""
        room = (self.capacity - current - 1) * self.window.length_ns
        if room < 0:
            return self.window.length_ns
        return max(0, self.window.length_ns - room // previous) if previous else 0


def count_in(window: Window, algorithm: str, burst: int | None = None) -> Count:
    """Return an empty count.

    Parameters:
      window: The limit to count against.
      algorithm: One of ALGORITHMS.
      burst: How many may come at once, for `gcra`; the whole limit when None.
    """
    match algorithm:
        case "windows":
            return FirstHitWindows(window)
        case "fixed":
            return FixedWindows(window)
        case "log":
            return SlidingLog(window)
        case "token-bucket":
            return TokenBucket(window)
        case "gcra":
            return Gcra(window, burst)
        case "counter":
            return SlidingCounter(window)
    raise ValueError(f"no algorithm is called {algorithm!r}: choose from {', '.join(ALGORITHMS)}")
