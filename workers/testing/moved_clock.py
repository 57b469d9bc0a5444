"""Replace the clock by one that moves only when the code sleeps or the test advances it."""

from collections.abc import Iterator
from contextlib import contextmanager

from workers import clock
from workers.clock import MovedClock


@contextmanager
def moved_clock() -> Iterator[MovedClock]:
    """Use a moved clock within the block: a wait of an hour takes no time.

    Redis and the database get the moved time, too: windows, leases and backoffs pass with it.

    Returns:
      MovedClock: `advance(seconds)` moves it, `elapsed_seconds` says how far it has moved.

    *Warning:* it is the clock of the whole process, and made for one thread.
    """
    before, moved = clock.current(), MovedClock()
    clock.use(moved)
    try:
        yield moved
    finally:
        clock.use(before)
