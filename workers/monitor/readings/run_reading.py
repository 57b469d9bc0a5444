"""Reads what a run's page shows, from counters and indexes only: the cost does not grow with the run."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from workers.connections import database
from workers.control import forcing
from workers.errors import UnknownRun, UsageError
from workers.limiter.state import BudgetState
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.readings.database_reading import read_database
from workers.records import activation, items, runs
from workers.records.tables import ACTIVE, ENDED, IS_OPEN, ItemStatus, Run, RunEvent, RunItem, RunStatus
from workers.reports import run_stats, snapshot
from workers.reports.run_stats import RunStats

#: How long the answer of `is_stuck` is reused: a run is stuck for minutes.
_STUCK_SECONDS = 5.0
#: Items that wait for a retry are counted up to this number.
MOST_RETRYING = 1_000
#: The timeline shows at most this number of events.
MOST_EVENTS = 200


@dataclass(frozen=True)
class RunReading:
    """What the page of a run shows.

    Attributes:
      now: When it was read.
      budget: The state of its budget, while it is active and Redis answers.
      claimed: How many of its items are being processed.
      retrying: How many items wait for a retry, MOST_RETRYING at most, and the last error of one of them.
      events: The newest events of its timeline, newest first.
      ahead, behind: The run that this one waits for; the pending run that waits for this one.
    """

    now: datetime
    run: Run
    stats: RunStats
    budget: BudgetState | None
    claimed: int
    retrying: tuple[int, str]
    events: tuple[RunEvent, ...]
    ahead: Run | None
    behind: Run | None


def read_run(run_id: int) -> RunReading | None:
    """Return what the page of a run shows; None where there is no such run."""
    return cached(("run", run_id), EACH_TICK_SECONDS, partial(read_database, partial(_read, run_id)))


def is_stuck(run: Run) -> bool:
    """Return whether a step of a run can be forced."""
    return cached(("stuck", run.id), _STUCK_SECONDS, partial(read_database, partial(_read_stuck, run.id)))


def _read(run_id: int) -> RunReading | None:
    try:
        run = runs.get(run_id)
    except UnknownRun:
        return None
    now = database.now()
    facts = snapshot.take([run], now).facts(run)
    return RunReading(
        now=now,
        run=run,
        stats=run_stats.of(facts),
        budget=facts.budget,
        claimed=_claimed(run_id) if run.status not in ENDED else 0,
        retrying=items.wait_again(run_id, now, MOST_RETRYING) if run.status == RunStatus.RUNNING else (0, ""),
        events=tuple(run_stats.events(run_id, MOST_EVENTS)),
        ahead=activation.active(run.source, run.tenant) if run.status == RunStatus.PENDING else None,
        behind=activation.next_pending(run.source, run.tenant) if run.status in ACTIVE else None,
    )


def _claimed(run_id: int) -> int:
    """Return how many items are claimed: a few for each lane, found by an index."""
    claimed = RunItem.select().where(RunItem.run_id == run_id, RunItem.status == ItemStatus.PROCESSING, IS_OPEN)
    count: int = claimed.count()
    return count


def _read_stuck(run_id: int) -> bool:
    try:
        return forcing.find_stuck(runs.get(run_id)).lasts_seconds >= forcing.FORCE_SECONDS
    except UsageError:
        return False
