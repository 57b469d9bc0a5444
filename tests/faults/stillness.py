"""Ask, each second that a run has not moved for ten seconds, why: `status` must answer with a reason code."""

import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from benchmarks.fleet import Fleet, FleetError, RunRow

#: How long a run may be stalled without a reason, and how often the reason is asked for then.
QUIET_SECONDS = 10.0
_EVERY_SECONDS = 1.0
#: The code where the run has ended meanwhile.
ENDED = "ended"


class Stillness:
    """Watches one run. It asks in a thread of its own: a command takes half a second on a busy machine.

    Parameters:
      ask(Callable): Returns the code of why the run does not move; empty where `status` gives none.
      now(Callable): Seconds since the run's start.
    """

    def __init__(self, ask: Callable[[], str], now: Callable[[], float]) -> None:
        self._ask, self._now = ask, now
        self._pool = ThreadPoolExecutor(1)
        self._asked: Future[str] | None = None
        self._counters: tuple[int, ...] = ()
        self._asked_at = self._moved_at = now()
        self.reasons: list[tuple[float, str]] = []
        self.unexplained: list[float] = []

    def look(self, row: RunRow | None) -> None:
        """Look whether the run moves.

        Parameters:
          row(RunRow | None): The run; None where the database is away.
        """
        self._read_answer()
        counters = (row.total, row.succeeded, row.failed, row.skipped) if row and row.status == "running" else ()
        if not counters or counters != self._counters:
            self._counters, self._moved_at = counters, self._now()
        elif self._asked is None and self._now() >= max(
            self._moved_at + QUIET_SECONDS, self._asked_at + _EVERY_SECONDS
        ):
            self._asked_at = self._now()
            self._asked = self._pool.submit(self._ask)

    def wait_for_answer(self) -> None:
        """Wait until the last question is answered, if one is open."""
        if self._asked is not None:
            wait([self._asked])

    def end(self) -> None:
        """Read the last answer."""
        self._pool.shutdown(wait=True)
        self._read_answer()

    def _read_answer(self) -> None:
        if self._asked is None or not self._asked.done():
            return
        code, self._asked = self._asked.result(), None
        moved_meanwhile = self._moved_at > self._asked_at
        if code and code != ENDED:
            self.reasons.append((round(self._asked_at, 1), code))
        elif not code and not moved_meanwhile:
            self.unexplained.append(round(self._asked_at, 1))


def code_of(fleet: Fleet, run_id: int) -> str:
    """Return the code of why a run does not move, as `status` answers; empty where it has none."""
    began = time.monotonic()
    try:
        status = json.loads(fleet.command("status", str(run_id), "--json"))
    except FleetError as error:
        return "database_away" if "ended with 3" in str(error) or time.monotonic() - began > 10 else ""
    return str(status["why_code"]) if status["status"] == "running" else ENDED
