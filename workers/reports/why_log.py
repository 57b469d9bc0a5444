"""Why log: logs, once, when a running run stops making progress for a reason that a person must mend, and its end.

The scheduler does it: usually one process of a fleet.
"""

import logging

from workers import clock
from workers.records import runs
from workers.reports import run_stats
from workers.reports.reasons import NEEDS_A_PERSON, Reason

log = logging.getLogger(__name__)

#: How often the running runs are checked, and how many of them.
_EVERY_SECONDS, _MOST = 10.0, 50


class WhyLog:
    """Remembers which reason it has logged for each run: a reason is logged once, when two checks in a row found it.

    One check is not enough: at the start of a fleet the scheduler runs before the workers.
    """

    def __init__(self) -> None:
        self._logged: dict[int, str] = {}
        self._found: dict[int, str] = {}
        self._next_at = 0.0

    def check_in_time(self) -> None:
        """Check the running runs, unless the last check was less than ten seconds ago."""
        if clock.monotonic() >= self._next_at:
            self._next_at = clock.monotonic() + _EVERY_SECONDS
            self.check()

    def check(self) -> None:
        """Log what is new. Call it within a connection to the database."""
        found = {one.id: one for one in run_stats.all_stats(runs.running()[:_MOST])}
        for run_id in self._logged.keys() - found.keys():
            del self._logged[run_id]
        for run_id, one in found.items():
            code = one.why_code if one.why_code and Reason(one.why_code) in NEEDS_A_PERSON else ""
            if code and self._found.get(run_id) != code:
                continue
            if code and self._logged.get(run_id) != code:
                log.warning("run %d of %s makes no progress (%s): %s", run_id, one.source, code, one.why)
            elif self._logged.get(run_id) and not one.why_code:
                log.info("run %d of %s makes progress again", run_id, one.source)
            if code or not one.why_code:
                self._logged[run_id] = code
        self._found = {run_id: one.why_code for run_id, one in found.items()}
