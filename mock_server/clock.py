"""Read time and sleep, for the whole mock API, so that tests can move its clock."""

import threading
import time


class Clock:
    """The machine's time, and sleeps that end early when the server stops."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def monotonic_ns(self) -> int:
        """Return nanoseconds that never step back, from an arbitrary start."""
        return time.monotonic_ns()

    def epoch_ns(self) -> int:
        """Return nanoseconds since 1970, as the machine believes them."""
        return time.time_ns()

    def sleep(self, seconds: float) -> bool:
        """Sleep, unless the server is stopping.

        Parameters:
          seconds: How long to sleep. Zero returns at once.

        Returns:
          Whether the whole time was slept.
        """
        if seconds <= 0:
            return not self._stopping.is_set()
        return not self._stopping.wait(seconds)

    def stop(self) -> None:
        """Wake every sleeping thread; later sleeps return at once."""
        self._stopping.set()
