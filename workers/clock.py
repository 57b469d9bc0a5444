"""Reads the time and sleeps, for all of Sluice, so that a test can replace the clock."""

import threading
import time
from datetime import UTC, datetime, timedelta

#: Set when this process is asked to stop: every sleep then ends early.
stop_requested = threading.Event()

#: A clock that runs while the machine is suspended, where the system has one: a permit must become stale meanwhile.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock:
    """The machine's clock."""

    #: True for a clock that a test moves: Redis and the database then use its time instead of their own.
    moved = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.clock_gettime(_STEADY)

    def sleep(self, seconds: float) -> bool:
        return stop_requested.wait(seconds)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)


class MovedClock(Clock):
    """A clock that moves only by `advance` and by sleeping, which takes no real time. For tests, in one thread.

    Parameters:
      start(datetime): Its first instant, UTC-aware.
    """

    moved = True

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.start = start
        self.elapsed_seconds = 0.0

    def now(self) -> datetime:
        return self.start + timedelta(seconds=self.elapsed_seconds)

    def monotonic(self) -> float:
        return self.elapsed_seconds

    def sleep(self, seconds: float) -> bool:
        self.advance(seconds)
        return stop_requested.is_set()

    def pause(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self.elapsed_seconds += max(0.0, seconds)

    def step(self, seconds: float) -> None:
        """Set the time of day forward or back. Monotonic time does not change."""
        self.start += timedelta(seconds=seconds)


_clock = Clock()


def use(clock: Clock) -> None:
    """Use `clock` in this process from now on."""
    global _clock
    _clock = clock


def current() -> Clock:
    """Return the clock in use."""
    return _clock


def now() -> datetime:
    """Return the current instant, UTC-aware."""
    return _clock.now()


def monotonic() -> float:
    """Return seconds that never go backwards, from an arbitrary origin."""
    return _clock.monotonic()


def sleep(seconds: float) -> bool:
    """Sleep, or return early when the process is asked to stop.

    Returns:
      bool: True when the process was asked to stop.
    """
    return _clock.sleep(max(0.0, seconds))


def pause(seconds: float) -> None:
    """Sleep for the whole time, even while the process is stopping."""
    _clock.pause(max(0.0, seconds))
