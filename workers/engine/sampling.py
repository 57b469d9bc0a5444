"""Takes samples of the running runs every two seconds, for the charts; an error here never stops a run."""

import logging

from workers import clock
from workers.connections import database
from workers.engine import idle_time
from workers.records import samples

log = logging.getLogger(__name__)


class Sampler:
    """Takes samples, and logs an error once, until it has passed.

    Parameters:
      adds_idle_time(bool): Whether it adds idle time, too: not between the steps of an inline run.
    """

    def __init__(self, *, adds_idle_time: bool = False) -> None:
        self._adds_idle_time = adds_idle_time
        self._logged = False
        self._next_at = 0.0

    def take(self) -> None:
        """Take the samples that are due."""
        try:
            with database.connection():
                now = database.now()
                silent = idle_time.silent_since(now) if self._adds_idle_time else {}
                taken = samples.take_each(now)
                if self._adds_idle_time:
                    idle_time.add(taken, silent, now)
        except Exception as error:  # charts have a gap; the runs continue
            self._log(error)
        else:
            self._logged = False

    def take_if_due(self) -> None:
        """Take the samples that are due, if the last ones are two seconds old: for a loop that runs more often."""
        if clock.monotonic() >= self._next_at:
            self._next_at = clock.monotonic() + samples.SLOT_SECONDS
            self.take()

    def _log(self, error: Exception) -> None:
        if not self._logged and not database.is_away(error):  # the lanes log an outage
            log.warning("samples for the charts are not taken: %s", database.explain(error))
        self._logged = True


def keep_sampling() -> None:
    """Take samples until a stop is asked for. It blocks: start it in a thread."""
    sampler = Sampler(adds_idle_time=True)
    while not clock.sleep(samples.SLOT_SECONDS):
        sampler.take()
