"""Run signals: stop, resume or end a run in its budget, so that its lanes learn it with their next permit request."""

from workers.limiter.redis_ledger import Ledger


class RunSignals:
    """Signals about runs, sent to one budget in Redis. The database decides; a signal only saves time.

    Parameters:
      ledger(Ledger): The budget's permits, as `RateLimiter.ledger`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def stop(self, run_id: int) -> float:
        """Refuse permits to the lanes of a run for a minute: their next permit request is answered with the stop.

        Returns:
          float: Seconds that the run's planned wait had lasted. This signal ends it, and no lane counts it.

        Raises:
          DependencyDown: Redis does not answer. The lanes read the stop from the database at their next commit.
        """
        reply = self._ledger.send({"stop": (str(run_id), 1)})
        return reply.slept_seconds if reply else 0.0

    def resume(self, run_id: int) -> None:
        """Take `stop` back.

        Raises:
          DependencyDown: Redis does not answer. A stop expires after a minute.
        """
        self._ledger.send({"stop": (str(run_id), 0)})

    def ended(self, run_id: int) -> None:
        """Release what the budget reserves for a run: the run has ended.

        Raises:
          DependencyDown: Redis does not answer. A reserved permit goes to another run after 1.5 s.
        """
        self._ledger.send({"ended": str(run_id)})
