"""Admit or refuse a request by every window of its caller, and record the most that each window has held."""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from mock_server.algorithms import Count, count_in
from mock_server.clock import Clock
from mock_server.limits import NANOSECONDS, Window

MAX_CALLERS = 10_000


@dataclass(frozen=True)
class Reading:
    """Where one window stands for one caller.

    Parameters:
      window: The limit.
      capacity: How many requests it lets in at once: the limit, or a smaller burst.
      remaining: How many of them it would let in now.
      reset_ns: How long until all of them are free again, if no request comes; for a window, until it ends.
    """

    window: Window
    capacity: int
    remaining: int
    reset_ns: int

    @property
    def reset_seconds(self) -> int:
        """How long until the reset, rounded up."""
        return _seconds_up(self.reset_ns)


@dataclass(frozen=True)
class Verdict:
    """What the windows said to one request.

    Parameters:
      accepted: Whether the request was let in.
      at_ns: When it was judged, on the monotonic clock.
      epoch_ns: When that was, since 1970.
      readings: Where each window stands after this request.
      retry_ns: How long until a request is let in, if no other comes before; 0 where it would be now.
    """

    accepted: bool
    at_ns: int
    epoch_ns: int = 0
    readings: tuple[Reading, ...] = ()
    retry_ns: int = 0

    @property
    def tightest(self) -> Reading | None:
        """The window with the least remaining, and of equals the one that resets last; None when no limit is set."""
        return min(self.readings, key=lambda reading: (reading.remaining, -reading.reset_ns), default=None)

    @property
    def retry_after_seconds(self) -> int:
        """How long to wait, rounded up, at least 1."""
        return max(1, _seconds_up(self.retry_ns))

    def reset_epoch_seconds(self, reading: Reading) -> int:
        """Return when a window resets, since 1970, rounded up."""
        return _seconds_up(self.epoch_ns + reading.reset_ns)


@dataclass
class _Uses:
    """One caller's use of one window: as its algorithm counts it, and the requests it let in within one length."""

    count: Count
    # No algorithm lets in more than twice its limit in any interval of its length, so this never holds more.
    recent_ns: deque[int] = field(default_factory=deque)

    def remember(self, now_ns: int) -> None:
        self.recent_ns.append(now_ns)
        while now_ns - self.recent_ns[0] >= self.count.window.length_ns:
            self.recent_ns.popleft()


class Limiter:
    """Every window for every caller, behind one lock, so that its counts are exact.

    A request is let in when every window has room, and is then counted in all of them. A refused one is counted
    in none.

    Parameters:
      windows: The limits; nothing is refused when there is none.
      clock: The time it lives in. How the machine's date moves later on moves no window.
      algorithm: How each window counts: one of ALGORITHMS.
      burst: How many requests `gcra` lets in at once; the whole limit when None.
      recount_rejected: Count refused requests too, in every window: for `log` only.
    """

    def __init__(
        self,
        windows: tuple[Window, ...],
        clock: Clock,
        algorithm: str = "windows",
        burst: int | None = None,
        recount_rejected: bool = False,
    ) -> None:
        self._windows = windows
        self._clock = clock
        self._algorithm = algorithm
        self._burst = burst
        self._recount_rejected = recount_rejected
        self._lock = threading.Lock()
        self._longest_ns = max((window.length_ns for window in windows), default=0)
        self._epoch_offset_ns = clock.epoch_ns() - clock.monotonic_ns()
        self._forget()

    def admit(self, caller: str) -> Verdict:
        """Judge one request, and count it if it is let in.

        Parameters:
          caller: Whom the request is counted for.

        Returns:
          The verdict, with the numbers the headers need.
        """
        with self._lock:
            # Read under the lock: the instants must be in the order of the counts.
            at_ns = self._clock.monotonic_ns()
            now_ns = at_ns + self._epoch_offset_ns
            uses = self._uses_of(caller, now_ns)
            accepted = all(use.count.remaining(now_ns) > 0 for use in uses)
            if accepted or self._recount_rejected:
                for use in uses:
                    use.count.take(now_ns)
            if accepted:
                self._note(uses, now_ns)
            return Verdict(
                accepted,
                at_ns,
                self._clock.epoch_ns(),
                tuple(_reading(use.count, now_ns) for use in uses),
                max((use.count.retry_ns(now_ns) for use in uses), default=0),
            )

    def seen(self) -> list[dict[str, Any]]:
        """Return, for each window, the most one caller had in it, and in any interval of its length at all.

        What was in it is what was missing from its capacity: the count, or the tokens taken, or the estimate.
        """
        with self._lock:
            return [
                {
                    "limit": window.limit,
                    "seconds": window.seconds,
                    "max_seen": self._max_seen[index],
                    "max_in_any_window": self._max_sliding[index],
                }
                for index, window in enumerate(self._windows)
            ]

    def reset(self) -> None:
        """Forget every caller and every maximum: all windows are empty again."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._callers: dict[str, tuple[_Uses, ...]] = {}
        self._max_seen = [0] * len(self._windows)
        self._max_sliding = [0] * len(self._windows)

    def _note(self, uses: tuple[_Uses, ...], now_ns: int) -> None:
        """Remember a request that was let in, and what it made of the windows."""
        for index, use in enumerate(uses):
            use.remember(now_ns)
            used = use.count.capacity - use.count.remaining(now_ns)
            self._max_seen[index] = max(self._max_seen[index], used)
            self._max_sliding[index] = max(self._max_sliding[index], len(use.recent_ns))

    def _uses_of(self, caller: str, now_ns: int) -> tuple[_Uses, ...]:
        if not self._windows:
            return ()
        if caller not in self._callers and len(self._callers) >= MAX_CALLERS:
            self._drop_idle_callers(now_ns)
            # Still full: newcomers share one count, so that made-up keys cannot fill the memory.
            caller = caller if len(self._callers) < MAX_CALLERS else ""
        if caller not in self._callers:
            self._callers[caller] = tuple(_Uses(self._new_count(window)) for window in self._windows)
        return self._callers[caller]

    def _new_count(self, window: Window) -> Count:
        return count_in(window, self._algorithm, self._burst)

    def _drop_idle_callers(self, now_ns: int) -> None:
        self._callers = {caller: uses for caller, uses in self._callers.items() if not self._is_idle(uses, now_ns)}

    def _is_idle(self, uses: tuple[_Uses, ...], now_ns: int) -> bool:
        """Return whether a caller's counts are as good as new ones."""
        last_ns = uses[0].recent_ns[-1] if uses[0].recent_ns else 0
        if now_ns - last_ns < self._longest_ns:
            return False
        return all(use.count.remaining(now_ns) == use.count.capacity for use in uses)


def _reading(count: Count, now_ns: int) -> Reading:
    return Reading(count.window, count.capacity, count.remaining(now_ns), count.reset_ns(now_ns))


def _seconds_up(nanoseconds: int) -> int:
    return -(-nanoseconds // NANOSECONDS)
