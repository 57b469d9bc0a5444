"""The rate limit: fixed windows, each starting at its caller's first hit, and what they saw."""

import math
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from mock_server.clock import Clock

NANOSECONDS = 1_000_000_000
MAX_LIMIT = 10_000_000
MAX_WINDOW_SECONDS = 30 * 86400
MAX_CALLERS = 10_000

_LIMIT = re.compile(r"([0-9]{1,8})/([0-9]{1,8}(?:\.[0-9]{1,6})?)")


@dataclass(frozen=True)
class Window:
    """At most `limit` requests in `seconds`.

    Parameters:
      limit: How many requests one window takes.
      seconds: How long it lasts from its first hit.

    Raises:
      ValueError: A number is out of range.
    """

    limit: int
    seconds: float

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise ValueError(f"a limit of {self.limit} requests: give 1 to {MAX_LIMIT:,}")
        if not math.isfinite(self.seconds) or not 0.001 <= self.seconds <= MAX_WINDOW_SECONDS:
            raise ValueError(f"a window of {self.seconds} s: give 0.001 to {MAX_WINDOW_SECONDS:,} seconds")

    @property
    def length_ns(self) -> int:
        """The window's length in nanoseconds: whole numbers, so that no rounding moves an edge."""
        return round(self.seconds * NANOSECONDS)

    def __str__(self) -> str:
        return f"{self.limit}/{self.seconds:g} s"


DEFAULT_LIMITS = (Window(500, 20), Window(2000, 100))


def parse_limits(text: str) -> tuple[Window, ...]:
    """Read limits as the command line writes them.

    Parameters:
      text: `50/2,200/10` (requests/seconds, any number of them), or `none`.

    Returns:
      The windows in the order given; empty for `none`.

    Raises:
      ValueError: The text is not of that form.
    """
    if text.strip().lower() == "none":
        return ()
    return tuple(_parse_limit(part.strip()) for part in text.split(","))


def _parse_limit(text: str) -> Window:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no limit: write REQUESTS/SECONDS, such as 50/2 or 50/2,200/10, or none")
    return Window(int(match[1]), float(match[2]))


@dataclass(frozen=True)
class Verdict:
    """What the windows said to one request.

    Parameters:
      accepted: Whether the request was let in, and so counted.
      at_ns: When it was judged, on the monotonic clock.
      tightest: The window with the least remaining; None when no limit is set.
      remaining: How many more requests that window takes.
      reset_epoch_seconds: When it ends, since 1970, rounded up.
      retry_after_seconds: How long until it ends, rounded up, at least 1.
    """

    accepted: bool
    at_ns: int
    tightest: Window | None = None
    remaining: int = 0
    reset_epoch_seconds: int = 0
    retry_after_seconds: int = 0


@dataclass
class _Count:
    """One caller's use of one window."""

    window: Window
    started_ns: int | None = None
    used: int = 0
    # Two fixed windows touch any interval of their length, so this never holds more than twice the limit.
    recent_ns: deque[int] = field(default_factory=deque)

    @property
    def remaining(self) -> int:
        return self.window.limit - self.used

    def ends_ns(self, now_ns: int) -> int:
        return (now_ns if self.started_ns is None else self.started_ns) + self.window.length_ns

    def close_if_over(self, now_ns: int) -> None:
        if self.started_ns is not None and now_ns >= self.ends_ns(now_ns):
            self.started_ns, self.used = None, 0

    def take(self, now_ns: int) -> None:
        if self.started_ns is None:
            self.started_ns = now_ns
        self.used += 1
        self.recent_ns.append(now_ns)
        while now_ns - self.recent_ns[0] >= self.window.length_ns:
            self.recent_ns.popleft()


class FixedWindows:
    """Every window for every caller, behind one lock, so that its counts are exact.

    A request is let in when every window has room, and is then counted in all of them. A refused one is counted
    in none. A window starts at its first hit after the last one ended, and lasts its whole length.

    Warning:
      A fixed window lets nearly twice its limit through around its edge. That is what such servers do.
    """

    def __init__(self, windows: tuple[Window, ...], clock: Clock) -> None:
        self._windows = windows
        self._clock = clock
        self._lock = threading.Lock()
        self._longest_ns = max((window.length_ns for window in windows), default=0)
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
            now_ns = self._clock.monotonic_ns()
            counts = self._counts_of(caller, now_ns)
            for count in counts:
                count.close_if_over(now_ns)
            accepted = all(count.remaining > 0 for count in counts)
            if accepted:
                self._take(counts, now_ns)
            return self._verdict(accepted, counts, now_ns)

    def seen(self) -> list[dict[str, Any]]:
        """Return, for each window, the most one caller had in it, and in any interval of its length at all."""
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
        """Forget every caller and every maximum: the next request opens new windows."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._callers: dict[str, tuple[_Count, ...]] = {}
        self._max_seen = [0] * len(self._windows)
        self._max_sliding = [0] * len(self._windows)

    def _take(self, counts: tuple[_Count, ...], now_ns: int) -> None:
        for index, count in enumerate(counts):
            count.take(now_ns)
            self._max_seen[index] = max(self._max_seen[index], count.used)
            self._max_sliding[index] = max(self._max_sliding[index], len(count.recent_ns))

    def _counts_of(self, caller: str, now_ns: int) -> tuple[_Count, ...]:
        if not self._windows:
            return ()
        if caller not in self._callers and len(self._callers) >= MAX_CALLERS:
            self._drop_idle_callers(now_ns)
            # Still full: newcomers share one count, so that made-up keys cannot fill the memory.
            caller = caller if len(self._callers) < MAX_CALLERS else ""
        if caller not in self._callers:
            self._callers[caller] = tuple(_Count(window) for window in self._windows)
        return self._callers[caller]

    def _drop_idle_callers(self, now_ns: int) -> None:
        self._callers = {
            caller: counts
            for caller, counts in self._callers.items()
            if counts[0].recent_ns and now_ns - counts[0].recent_ns[-1] < self._longest_ns
        }

    def _verdict(self, accepted: bool, counts: tuple[_Count, ...], now_ns: int) -> Verdict:
        if not counts:
            return Verdict(accepted, now_ns)
        # Of windows equally full the one that ends last decides: before that, no request gets in.
        tightest = min(counts, key=lambda count: (count.remaining, -count.ends_ns(now_ns)))
        wait_ns = tightest.ends_ns(now_ns) - now_ns
        return Verdict(
            accepted,
            now_ns,
            tightest=tightest.window,
            remaining=tightest.remaining,
            reset_epoch_seconds=_seconds_up(self._clock.epoch_ns() + wait_ns),
            retry_after_seconds=max(1, _seconds_up(wait_ns)),
        )


def _seconds_up(nanoseconds: int) -> int:
    return -(-nanoseconds // NANOSECONDS)
