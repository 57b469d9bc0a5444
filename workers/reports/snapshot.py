"""Snapshot: reads, once per refresh, all that the figures of some runs are computed from; nothing is read after it.

`take` reads what the runs have in common: the fleet, the running runs with their samples, the pauses. `Snapshot.facts`
adds what only one run has: its budget's state, its last retry. Pace, ETA and `RunStats` are computed from these values.
Two modules read on, where a run is paused or makes no progress: `labels`, and `why`, which stops at the first reason.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import redis

from workers.connections import database, outages
from workers.connections.trouble import Cause, Trouble
from workers.limiter.state import BudgetState
from workers.messaging import process_heartbeat
from workers.messaging.process_heartbeat import Process
from workers.records import items
from workers.records.tables import ACTIVE, Run, RunItem, RunStatus
from workers.reports import pace, running_runs
from workers.reports.budget_states import budget_state_of
from workers.reports.eta import open_items
from workers.reports.intervals import Counters
from workers.reports.pauses import Pauses, pauses_of
from workers.reports.running_runs import RunningRuns


@dataclass(frozen=True)
class FleetState:
    """Redis, the database and the processes, as they are for every run.

    Attributes:
      outage: What stops every run: Redis or the database.
      processes: Those that are alive, or were lately; None where Redis does not answer.
    """

    outage: Trouble | None = None
    processes: Sequence[Process] | None = None

    @property
    def is_redis_away(self) -> bool:
        """Whether Redis does not answer: then budgets are not read, because each read would wait for it."""
        return self.outage is not None and self.outage.cause is Cause.REDIS_AWAY


@dataclass(frozen=True)
class RunFacts:
    """What was read about one run.

    Attributes:
      run: Its row.
      now: When it was read, by the database's clock.
      budget: Its budget then; None where it could not be read, or the run is not active.
      fleet: The fleet then.
      samples: Its latest samples, the oldest first; none where it is not running.
      pauses: Its pauses.
      running: The running runs, this one included.
      completed: How many items it has completed lately; None where its samples show that.
      last_retry_at: When its last waiting item is due.
    """

    run: Run
    now: datetime
    budget: BudgetState | None = None
    fleet: FleetState = field(default_factory=FleetState)
    samples: Sequence[Counters] = ()
    pauses: Pauses = field(default_factory=Pauses)
    running: RunningRuns = field(default_factory=RunningRuns)
    completed: int | None = None
    last_retry_at: datetime | None = None

    @property
    def is_running(self) -> bool:
        return bool(self.run.status == RunStatus.RUNNING)

    @property
    def sleeping_seconds(self) -> float:
        """The age of its budget's current sleep, which is booked to the run only when it is over."""
        return self.budget.sleeping_seconds if self.budget and self.is_running else 0.0


@dataclass(frozen=True)
class Snapshot:
    """What some runs have in common, read at one time.

    Attributes:
      now: That time, by the database's clock.
      fleet, running: Empty if none of the runs is running: then no figure needs them.
      pauses: The pauses of each run, by its id.
    """

    now: datetime
    fleet: FleetState
    running: RunningRuns
    pauses: Mapping[int, Pauses]

    def facts(self, run: Run) -> RunFacts:
        """Read what only one run has: its budget's state, and where they are needed, two values of its items.

        Parameters:
          run(Run): One of those that the snapshot was taken for.
        """
        wants_budget = run.status in ACTIVE and not self.fleet.is_redis_away
        facts = RunFacts(
            run,
            self.now,
            budget_state_of(run) if wants_budget else None,
            self.fleet,
            pauses=self.pauses.get(run.id, Pauses()),
            running=self.running,
        )
        if not facts.is_running:
            return facts
        samples = self.running.samples.get(run.id, ())
        since = pace.count_since(run, self.now, samples, facts.pauses)
        return replace(
            facts,
            samples=samples,
            completed=_completed_since(run, since) if since else None,
            last_retry_at=items.last_due(run.id) if facts.budget and _has_open_items(run, samples) else None,
        )


def take(runs: Iterable[Run], now: datetime | None = None) -> Snapshot:
    """Return a snapshot for some runs.

    Parameters:
      runs(Iterable[Run]): As they were read.
      now(datetime | None): When that was; None: now.
    """
    runs, now = list(runs), now or database.now()
    any_running = any(run.status == RunStatus.RUNNING for run in runs)
    return Snapshot(
        now,
        fleet_state() if any_running else FleetState(),
        running_runs.snapshot(now) if any_running else RunningRuns(),
        pauses_of(runs, now),
    )


def fleet_state() -> FleetState:
    """Read the state of Redis, the database and the processes. A Redis that does not answer is asked once."""
    if trouble := outages.redis_trouble() or outages.reported_trouble():
        return FleetState(trouble)
    try:
        return FleetState(None, process_heartbeat.processes())
    except (redis.RedisError, ValueError):
        return FleetState()


def _has_open_items(run: Run, samples: Sequence[Counters]) -> bool:
    """Whether an end can be computed for a run: its list is complete, some items have ended, and some have not.

    A retry opens failed items again: then only the samples show that they had ended.
    """
    of_run = (run.succeeded_count, run.failed_count, run.skipped_count)
    has_ended = any(of_run) or any(any((one.succeeded, one.failed, one.skipped)) for one in samples)
    return run.discovered_at is not None and has_ended and open_items(run) > 0


def _completed_since(run: Run, since: datetime) -> int:
    count: int = RunItem.select().where(RunItem.run_id == run.id, RunItem.completed_at >= since).count()
    return count
