"""The sheet of a run: what its page shows, read at once. Counters and indexes only: it costs the same for any run."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from workers.connections import database
from workers.control import forcing
from workers.errors import UnknownRun, UsageError
from workers.limiter.state import BudgetState
from workers.monitor.readings.cache import EACH_TICK_SECONDS, shared
from workers.monitor.readings.database_reading import reading
from workers.records import activation, items, runs
from workers.records.tables import ACTIVE, ENDED, IS_OPEN, ItemStatus, Run, RunEvent, RunItem, RunStatus
from workers.reports import run_stats, snapshot
from workers.reports.run_stats import RunStats

#: What is stuck is so for minutes.
_STUCK_SECONDS = 5.0


#: So many items that wait for another attempt are counted.
MOST_AGAIN = 1_000
#: So many events of a timeline are shown.
MOST_EVENTS = 200


@dataclass(frozen=True)
class RunSheet:
    """One run.

    Attributes:
      now: When it was read.
      budget: What it uses, while it is active and Redis answers.
      in_hand: How many of its items are claimed.
      again: How many wait for another attempt, MOST_AGAIN at most, and why one of them failed.
      events: The newest of its timeline, the newest first.
      ahead, behind: The run that a pending one waits for; the pending one that waits for an active one.
    """

    now: datetime
    run: Run
    stats: RunStats
    budget: BudgetState | None
    in_hand: int
    again: tuple[int, str]
    events: tuple[RunEvent, ...]
    ahead: Run | None
    behind: Run | None


def run_sheet(run_id: int) -> RunSheet | None:
    """Return the sheet of a run; None where there is no such run."""
    return shared(("run", run_id), EACH_TICK_SECONDS, partial(reading, partial(_read, run_id)))


def is_stuck(run: Run) -> bool:
    """Whether something of a run may be forced."""
    return shared(("stuck", run.id), _STUCK_SECONDS, partial(reading, partial(_read_stuck, run.id)))


def _read(run_id: int) -> RunSheet | None:
    try:
        run = runs.get(run_id)
    except UnknownRun:
        return None
    now = database.now()
    facts = snapshot.take([run], now).facts(run)
    return RunSheet(
        now=now,
        run=run,
        stats=run_stats.of(facts),
        budget=facts.budget,
        in_hand=_in_hand(run_id) if run.status not in ENDED else 0,
        again=items.wait_again(run_id, now, MOST_AGAIN) if run.status == RunStatus.RUNNING else (0, ""),
        events=tuple(run_stats.events(run_id, MOST_EVENTS)),
        ahead=activation.active(run.source, run.tenant) if run.status == RunStatus.PENDING else None,
        behind=activation.next_pending(run.source, run.tenant) if run.status in ACTIVE else None,
    )


def _in_hand(run_id: int) -> int:
    """Return how many items are claimed: a few a lane, which an index of open items finds."""
    claimed = RunItem.select().where(RunItem.run_id == run_id, RunItem.status == ItemStatus.PROCESSING, IS_OPEN)
    count: int = claimed.count()
    return count


def _read_stuck(run_id: int) -> bool:
    try:
        return forcing.find_stuck(runs.get(run_id)).lasts_seconds >= forcing.FORCE_SECONDS
    except UsageError:
        return False
