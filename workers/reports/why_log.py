"""The log's door to why: a line where a running run stops moving for a reason a person should know, and when it moves.

It is the scheduler's: one process of a fleet, usually.
"""

import logging

from workers import clock
from workers.records import runs
from workers.reports import run_stats
from workers.reports.reasons import NEEDS_A_PERSON, Reason

log = logging.getLogger(__name__)

#: How often it looks, and at so many running runs.
_EVERY_SECONDS, _MOST = 10.0, 50


class WhyLog:
    """Remembers what it has said of each run: a reason is said once, when two looks in a row have found it.

    At the start of a fleet the scheduler is there before the workers.
    """

    def __init__(self) -> None:
        self._said: dict[int, str] = {}
        self._found: dict[int, str] = {}
        self._next_at = 0.0

    def look_in_time(self) -> None:
        """Look at the running runs, where the last look is long enough ago."""
        if clock.monotonic() >= self._next_at:
            self._next_at = clock.monotonic() + _EVERY_SECONDS
            self.look()

    def look(self) -> None:
        """Say what is new. Within a connection to the database."""
        found = {one.id: one for one in run_stats.all_stats(runs.running()[:_MOST])}
        for run_id in self._said.keys() - found.keys():
            del self._said[run_id]
        for run_id, one in found.items():
            code = one.why_code if one.why_code and Reason(one.why_code) in NEEDS_A_PERSON else ""
            if code and self._found.get(run_id) != code:
                continue
            if code and self._said.get(run_id) != code:
                log.warning("run %d of %s does not move (%s): %s", run_id, one.source, code, one.why)
            elif self._said.get(run_id) and not one.why_code:
                log.info("run %d of %s moves again", run_id, one.source)
            if code or not one.why_code:
                self._said[run_id] = code
        self._found = {run_id: one.why_code for run_id, one in found.items()}
