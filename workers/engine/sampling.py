"""Sampling: takes the samples, every two seconds, in each process that works on runs. It never hurts the work."""

import logging

from workers import clock
from workers.connections import database
from workers.engine import idle_time
from workers.records import samples

log = logging.getLogger(__name__)


class Sampler:
    """Takes samples, and complains once of what keeps it from that.

    Parameters:
      books(bool): Whether it books idle time, too: not where it looks only between the steps of an inline run.
    """

    def __init__(self, *, books: bool = False) -> None:
        self._books = books
        self._complained = False
        self._next_at = 0.0

    def look(self) -> None:
        """Take the samples that are due."""
        try:
            with database.connection():
                now = database.now()
                silent = idle_time.silent_since(now) if self._books else {}
                taken = samples.take_each(now)
                if self._books:
                    idle_time.book(taken, silent, now)
        except Exception as error:  # charts may have gaps; the runs go on
            self._complain(error)
        else:
            self._complained = False

    def look_in_time(self) -> None:
        """As `look`, but only where the last one is long enough ago: for a loop that turns more often."""
        if clock.monotonic() >= self._next_at:
            self._next_at = clock.monotonic() + samples.SLOT_SECONDS
            self.look()

    def _complain(self, error: Exception) -> None:
        if not self._complained and not database.is_away(error):  # of which those at work tell
            log.warning("samples for the charts are not taken: %s", database.explain(error))
        self._complained = True


def keep_sampling() -> None:
    """Take samples until a stop is asked for: a thread's work."""
    sampler = Sampler(books=True)
    while not clock.sleep(samples.SLOT_SECONDS):
        sampler.look()
