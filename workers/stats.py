"""The read side: what a person asks of a run, as plain values. Nothing here writes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import redis
from peewee import InterfaceError, OperationalError

from workers import (
    beside,
    budget_words,
    database,
    heartbeat,
    items,
    old_rows,
    outages,
    precedence,
    presence,
    run_connector,
    runs,
)
from workers.beside import Beside
from workers.budget import Budget
from workers.errors import DependencyDown
from workers.eta import eta
from workers.held import Held, held
from workers.limiter import BudgetState, RateLimiter, quick_client
from workers.pace import Pace, pace_of
from workers.redis_words import AWAY, Trouble
from workers.registry import get_registry
from workers.settings import get_settings
from workers.tables import ACTIVE, ENDED, Lane, RemovalState, Run, RunEvent, RunStatus

#: A run that was made for a slot and never began: its slot was overtaken or missed, or somebody called it off.
_SKIPPED = (Run.status == RunStatus.CANCELLED) & Run.slot_at.is_null(False) & Run.started_at.is_null()
_FEW = 5
#: An end that is farther than ten years is told as a length of time, and not as a date.
_FORESEEN_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class RunStats:
    """One run, as people see it. Times in seconds, instants UTC-aware.

    Attributes:
      total: None until the first list page is in; final once `discovered`.
      percent: Ended items of all, rounded down: 999 of 1,000 is 99. None while the list is still being read.
      active_seconds, waiting_seconds, held_seconds: The parts of `duration_seconds`: at work, kept waiting by its API,
        held by a person or between its end and a retry. They stop growing at the end.
      rows_created, rows_updated, rows_unchanged: What its list did to the rows of its model; details are not counted.
      requests: What was sent for it, list pages and repeated ones included.
      efficiency: sleeps / (hits + sleeps), 0 to 1; None where nothing has waited yet.
      per_second: Items completed each second: over the last minute, or over all of a run that is not running.
      pace_seconds: Over how long that is; less than a minute of a run that has just begun, or gone on.
      eta_seconds, eta_at: When it will end; None where that cannot be told, and `eta_why` is empty.
      eta_why: What decides that: a window of its budget, its own pace, a retry.
      why: Why nothing, or nothing more, happens now; empty where it simply works or has ended.
      slowed: What makes its budget slower than configured: paced, longer windows, a limit the API named; and why.
    """

    id: int
    kind: str
    source: str
    tenant: str | None
    status: str
    label: str
    priority: int
    lanes: int
    scheduled_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    discovered: bool
    total: int | None
    succeeded: int
    failed: int
    skipped: int
    rows_created: int
    rows_updated: int
    rows_unchanged: int
    requests: int
    hits: int
    sleeps: int
    duration_seconds: float
    active_seconds: float
    waiting_seconds: float
    held_seconds: float
    per_second: float
    pace_seconds: float
    eta_seconds: float | None
    eta_at: datetime | None
    eta_why: str
    why: str
    slowed: str
    error_summary: str | None
    created_by: str
    created_at: datetime

    @property
    def done(self) -> int:
        """Items that have ended, however."""
        return self.succeeded + self.failed + self.skipped

    @property
    def percent(self) -> int | None:
        if not self.discovered:
            return None
        return math.floor(100 * self.done / self.total) if self.total else 100

    @property
    def efficiency(self) -> float | None:
        return self.sleeps / (self.hits + self.sleeps) if self.hits + self.sleeps else None


def run_stats(
    run: Run,
    now: datetime | None = None,
    in_the_way: str | None = None,
    stood: Mapping[int, Held] | None = None,
    others: Beside | None = None,
) -> RunStats:
    """Return the figures of a run as it was read.

    Parameters:
      now(datetime | None): When that was.
      in_the_way(str | None): What `outage` said then; None: it is asked here.
      stood(Mapping[int, Held] | None): What `held` said then; None: it is asked here.
      others(Beside | None): What `beside.look` said then; None: it is asked here, where the run is running.
    """
    now = now or database.now()
    if in_the_way is None:
        in_the_way = outage() if run.status == RunStatus.RUNNING else ""
    budget = budget_of(run) if run.status in ACTIVE and not in_the_way.startswith(AWAY) else None
    duration = ((run.ended_at or now) - run.started_at).total_seconds() if run.started_at else 0.0
    running = run.status == RunStatus.RUNNING
    sleeping = budget.sleeping_seconds if budget and running else 0.0  # a sleep is booked to the run only when it ends
    stood_still = (held([run], now) if stood is None else stood).get(run.id, Held())
    moving = max(0.0, duration - stood_still.seconds)
    waiting = min(run.total_sleep_seconds + sleeping, moving)
    pace, ends = Pace(_average(run, moving), seconds=moving), None
    if running:
        others = _look(now, in_the_way) if others is None else others
        in_the_way = in_the_way or _nobody_on(run, now, others)
        pace = pace_of(run, now, others.sampled.get(run.id, ()), stood_still, sleeping)
        ends = eta(run, now, budget, pace, others) if budget and not in_the_way else None  # it does not go on
    return RunStats(
        id=run.id,
        kind=run.kind,
        source=run.source,
        tenant=run.tenant,
        status=str(run.status),
        label=_label(run, now),
        priority=run.priority,
        lanes=run.lanes,
        scheduled_at=run.scheduled_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        discovered=run.discovered_at is not None,
        total=run.total_count,
        succeeded=run.succeeded_count,
        failed=run.failed_count,
        skipped=run.skipped_count,
        rows_created=run.rows_created,
        rows_updated=run.rows_updated,
        rows_unchanged=run.rows_unchanged,
        requests=run.requests_count,
        hits=run.rate_limit_hits_count,
        sleeps=run.rate_limit_sleeps_count,
        duration_seconds=max(0.0, duration),
        active_seconds=moving - waiting,
        waiting_seconds=waiting,
        held_seconds=max(0.0, duration - moving),
        per_second=pace.per_second,
        pace_seconds=pace.seconds,
        eta_seconds=ends.seconds if ends else None,
        eta_at=_at(now, ends.seconds) if ends else None,
        eta_why=ends.why if ends else "",
        why=_why(run, now, budget, in_the_way),
        slowed=budget_words.slowed(budget) if budget else "",
        error_summary=run.error_summary,
        created_by=run.created_by,
        created_at=run.created_at,
    )


def recent_runs(limit: int = 25, source: str | None = None, status: str | None = None) -> list[RunStats]:
    """Return the newest runs, active ones first.

    Parameters:
      limit(int): How many at most.
      source(str | None): Only those of this source.
      status(str | None): Only those in this status; None: in any, and of skipped slots only the newest few, for a night
        without a scheduler leaves many.
    """
    wanted = Run.select().where(Run.source == source) if source else Run.select()
    if status:
        found = list(wanted.where(Run.status == status).order_by(Run.id.desc()).limit(limit))
    else:
        found = _newest(wanted.where(~_SKIPPED), limit) + _newest(wanted.where(_SKIPPED), _FEW)
        found = sorted(found, key=_newest_first)[:limit]
    return all_stats(found)


def all_stats(found: Sequence[Run]) -> list[RunStats]:
    """Return the figures of these runs, in this order; what they have in common is asked once."""
    now = database.now()
    any_running = any(run.status == RunStatus.RUNNING for run in found)
    in_the_way = outage() if any_running else ""
    others = _look(now, in_the_way) if any_running else Beside()
    stood = held(found, now)
    return [run_stats(run, now, in_the_way, stood, others) for run in found]


def _newest(query: Any, limit: int) -> list[Run]:
    return list(query.order_by(Run.status.in_(ACTIVE).desc(), Run.id.desc()).limit(limit))


def _newest_first(run: Run) -> tuple[bool, int]:
    return run.status not in ACTIVE, -run.id


def _look(now: datetime, in_the_way: str) -> Beside:
    """Look at the running runs, and whether a worker runs; where an outage is known, that is not asked."""
    found = beside.look(now)
    return found if in_the_way else replace(found, no_worker=presence.no_worker())


def outage() -> str:
    """Return what keeps every running run from going on: Redis or the database, and the repair; empty where neither."""
    trouble = outages.redis_trouble()
    return _in_words(trouble) if trouble else outages.told()


def _in_words(trouble: Trouble) -> str:
    return f"{trouble.what}: no permit without it. To do: {trouble.repair}"


def events(run_id: int, limit: int = 50) -> Sequence[RunEvent]:
    """Return the run's timeline, the newest first."""
    return list(RunEvent.select().where(RunEvent.run_id == run_id).order_by(RunEvent.id.desc()).limit(limit))


def budget_of(run: Run) -> BudgetState | None:
    """Return the state of the budget a run uses; None where Redis, or the source, is away."""
    try:
        return look(run_connector.of(run).budget)
    except Exception:  # a user's get_connector may fail in any way; that must not hide the other runs
        return None


def budgets() -> tuple[dict[str, Budget], list[str]]:
    """Return the budgets there are, and which ones cannot be told.

    Returns:
      tuple[dict[str, Budget], list[str]]: By name, those of the sources' connectors, then those that active runs use
        instead (tenants); and a sentence for each thing that is in the way of naming them all, or of any permit.
    """
    found = {source.connector.budget.name: source.connector.budget for source in get_registry().values()}
    troubles = []
    try:
        with database.connection():
            for run in _active_runs():
                try:
                    budget = run_connector.of(run).budget
                    found.setdefault(budget.name, budget)
                except Exception as error:  # a user's get_connector may fail in any way
                    troubles.append(f"run {run.id}: which budget it uses cannot be told ({type(error).__name__})")
    except (DependencyDown, OperationalError, InterfaceError):
        troubles.append("the database does not answer: only the budgets that sources name are known")
    in_the_way = outage()
    if in_the_way and not in_the_way.startswith(AWAY):  # who looks at a Redis that is away is told so
        troubles.append(in_the_way)
    return found, troubles


def look(budget: Budget) -> BudgetState:
    """Return the state of a budget.

    Raises:
      DependencyDown: Redis does not answer.
    """
    settings = get_settings()
    return _looker(budget, settings.redis_url, settings.prefix).snapshot()


@lru_cache(maxsize=1024)
def _looker(budget: Budget, redis_url: str, prefix: str) -> RateLimiter:
    """Return a limiter that only looks, and quickly: who asks each second must not hang where Redis does."""
    return RateLimiter(budget, _client(redis_url), prefix=prefix)


@lru_cache(maxsize=4)
def _client(redis_url: str) -> "redis.Redis":
    """Return the one client of all who look: a connection for each budget would be many."""
    return quick_client(redis_url)


def _active_runs() -> list[Run]:
    active = Run.select().where(Run.status.in_(ACTIVE)).order_by(Run.id)
    return list(active) if database.is_migrated() else []


def _at(now: datetime, in_seconds: float) -> datetime | None:
    """Return when that is; None where it is beyond what can be foreseen."""
    return now + timedelta(seconds=in_seconds) if in_seconds < _FORESEEN_SECONDS else None


def _average(run: Run, duration: float) -> float:
    return run.succeeded_count / duration if duration > 0 else 0.0


def _label(run: Run, now: datetime) -> str:
    if run.status == RunStatus.SCHEDULED and run.scheduled_at <= now:
        return "overdue"
    if run.status == RunStatus.CANCELLED and run.slot_at and run.started_at is None:
        return "skipped"
    if run.status == RunStatus.COMPLETED and run.failed_count:
        return "completed with failures"
    if run.status == RunStatus.PAUSED and items.in_hand(run.id):
        return "pausing"
    return str(run.status)


def _why(run: Run, now: datetime, budget: BudgetState | None, in_the_way: str) -> str:
    if run.status in ENDED:
        return ""
    if run.status == RunStatus.SCHEDULED:
        return _ahead(run, now)
    if run.status == RunStatus.PAUSED:
        return _held(run, now, budget)
    if run.status == RunStatus.PENDING:
        ahead = runs.active(run.source, run.tenant)
        return f"behind run {ahead.id}" if ahead else "about to start"
    return in_the_way or _list_again(run, now) or _gives_way(run) or _closed(run, now, budget) or _quiet(run, now)


def _gives_way(run: Run) -> str:
    """Say which run goes before this one on their budget; empty where none does."""
    first = precedence.first_on_its_budget(run) if run.discovered_at else None
    return f"gives way to run {first.id} (priority {first.priority}); one lane goes on" if first else ""


def _ahead(run: Run, now: datetime) -> str:
    """Say when a scheduled run starts, or why it has not."""
    at = f"{run.scheduled_at:%Y-%m-%d %H:%M:%S} UTC"
    late = (now - run.scheduled_at).total_seconds()
    if late < 0:
        return f"scheduled for {at}"
    return f"overdue since {at}: {heartbeat.no_scheduler() or 'it starts with the next look of the scheduler'}"


def _list_again(run: Run, now: datetime) -> str:
    """Say why a list page is to be tried again, and when; empty where none is."""
    if run.discovered_at is None and run.error_summary and run.discovery_due_at and run.discovery_due_at > now:
        return f"{run.error_summary}; again in {(run.discovery_due_at - now).total_seconds():.0f} s"
    return ""


def _held(run: Run, now: datetime, state: BudgetState | None) -> str:
    """Say why a run is paused; and where its budget is, too, until when resuming is of no use."""
    why = f"paused: {run.error_summary}" if run.error_summary else "paused; resume to go on"
    closed = state is not None and state.paused_for_seconds
    return f"{why}; its API is not asked until {budget_words.instant(now, closed)}" if closed else why


def _closed(run: Run, now: datetime, state: BudgetState | None) -> str:
    """Say what keeps a running run from its API; empty where its budget is open."""
    if run.source not in get_registry():
        return f"there is no source named {run.source} here any more: add it to SLUICE_SOURCES again, or cancel the run"
    if state is None:
        return "its budget cannot be told: does get_connector of its source fail?"
    return budget_words.why_closed(state, now)


def _quiet(run: Run, now: datetime) -> str:
    """Say why a running run with an open budget makes no progress."""
    silent = now - timedelta(seconds=3 * get_settings().lane_lease_seconds)
    if run.discovered_at is None:
        return _nobody() if run.discovery_due_at and run.discovery_due_at < silent else _copying(run)
    due = items.next_due(run.id)
    if due is None and run.options.get("fresh") and (removal := old_rows.get(run.id)):
        return f"removes the rows that are no longer in its list: {removal.removed_count:,} so far"
    if due and due > now + timedelta(seconds=1) and not items.in_hand(run.id):
        last = items.last_reason(run.id)
        said = f"; the last one failed: {last}" if last else ""
        return f"all open items wait for another attempt; the next in {(due - now).total_seconds():.0f} s{said}"
    if Lane.select().where(Lane.run_id == run.id, Lane.due_at < silent).exists():
        return _nobody()
    return ""


def _copying(run: Run) -> str:
    """Say that a fresh run does not ask for its list yet; empty where it does."""
    removal = old_rows.get(run.id) if run.options.get("fresh") and run.total_count is None else None
    copying = removal is not None and removal.state == RemovalState.COPYING
    return "notes which rows are there, before it asks for its list" if copying else ""


def _nobody_on(run: Run, now: datetime, others: Beside) -> str:
    """Say that no worker runs, and the fix; empty where somebody works on this run."""
    missing = others.nobody_on(run, now)
    return f"{missing}; start `python -m workers worker`" if missing else ""


def _nobody() -> str:
    """Say that a run has not been heard of, and who is missing."""
    missing = heartbeat.no_scheduler()
    if missing:
        return f"it has not been heard of for a while, and {missing}"
    return "nobody works on it: is `python -m workers worker` running?"
