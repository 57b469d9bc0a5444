"""The read side: what a person asks of a run, as plain values. Nothing here writes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from peewee import InterfaceError, OperationalError

from workers.connections import database
from workers.connections.redis_client import shared_quick_client
from workers.errors import DependencyDown
from workers.limiter.budget import Budget
from workers.limiter.rate_limiter import RateLimiter
from workers.limiter.state import BudgetState
from workers.records import claims, request_weights, run_connector, schema
from workers.records.tables import ACTIVE, Run, RunEvent, RunStatus
from workers.reports import budget_text, running_runs, why, why_text
from workers.reports.eta import eta
from workers.reports.pace import Pace, pace_of
from workers.reports.pauses import Held, held
from workers.reports.reasons import Reason
from workers.reports.running_runs import Beside
from workers.reports.why import Around, Facts
from workers.settings import get_settings
from workers.sources.registry import get_registry

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
      active_seconds, waiting_seconds, idle_seconds, held_seconds: The parts of `duration_seconds`: at work, kept
        waiting by its API, without a worker, Redis or a database, held by a person or between its end and a retry. They
        stop growing at the end.
      rows_created, rows_updated, rows_unchanged: What its list did to the rows of its model; details are not counted.
      requests: What was sent for it, list pages and repeated ones included.
      efficiency: sleeps / (hits + sleeps), 0 to 1; None where nothing has waited yet.
      per_second: Items completed each second: over the last minute, or over all of a run that is not running.
      pace_seconds: Over how long that is; less than a minute of a run that has just begun, or gone on.
      eta_seconds, eta_at: When it will end; None where that cannot be told, and `eta_why` is empty.
      eta_why: What decides that: a window of its budget, its own pace, a retry.
      why: Why nothing, or nothing more, happens now; empty where it simply works or has ended.
      why_code: The same as a code: one of `reasons.Reason`, or empty.
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
    idle_seconds: float
    held_seconds: float
    per_second: float
    pace_seconds: float
    eta_seconds: float | None
    eta_at: datetime | None
    eta_why: str
    why: str
    why_code: str
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
    around: Around | None = None,
    stood: Mapping[int, Held] | None = None,
    others: Beside | None = None,
) -> RunStats:
    """Return the figures of a run as it was read.

    Parameters:
      now(datetime | None): When that was.
      around(Around | None): What `why.around` said then; None: it is asked here.
      stood(Mapping[int, Held] | None): What `held` said then; None: it is asked here.
      others(Beside | None): What `beside.look` said then; None: it is asked here, where the run is running.
    """
    now = now or database.now()
    running = run.status == RunStatus.RUNNING
    if around is None:
        around = why.around() if running else Around()
    budget = budget_of(run) if run.status in ACTIVE and not is_redis_away(around) else None
    duration = ((run.ended_at or now) - run.started_at).total_seconds() if run.started_at else 0.0
    sleeping = budget.sleeping_seconds if budget and running else 0.0  # a sleep is booked to the run only when it ends
    stood_still = (held([run], now) if stood is None else stood).get(run.id, Held())
    moving = max(0.0, duration - stood_still.seconds)
    waiting = min(run.total_sleep_seconds + sleeping, moving)
    idle = run.idle_seconds
    facts = Facts(run, now, budget, around, still=stood_still)
    pace, ends = Pace(_average(run, moving), seconds=moving), None
    if running:
        others = running_runs.look(now) if others is None else others
        facts = replace(facts, sampled=others.sampled.get(run.id, ()))
        idle += 0.0 if sleeping else why.silent_seconds(facts)  # an inline run takes no samples in its sleep
        pace = pace_of(run, now, facts.sampled, stood_still, sleeping)
        ends = eta(run, now, budget, pace, others) if budget and not why.standstill(facts) else None
    reason = why.why(facts)
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
        active_seconds=max(0.0, moving - waiting - idle),
        waiting_seconds=waiting,
        idle_seconds=min(idle, moving - waiting),
        held_seconds=max(0.0, duration - moving),
        per_second=pace.per_second,
        pace_seconds=pace.seconds,
        eta_seconds=ends.seconds if ends else None,
        eta_at=_at(now, ends.seconds) if ends else None,
        eta_why=ends.why if ends else "",
        why=why_text.words(reason, now) if reason else "",
        why_code=str(reason.code) if reason else "",
        slowed=budget_text.slowed(budget) if budget else "",
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
    around = why.around() if any_running else Around()
    others = running_runs.look(now) if any_running else Beside()
    stood = held(found, now)
    return [run_stats(run, now, around, stood, others) for run in found]


def _newest(query: Any, limit: int) -> list[Run]:
    return list(query.order_by(Run.status.in_(ACTIVE).desc(), Run.id.desc()).limit(limit))


def _newest_first(run: Run) -> tuple[bool, int]:
    return run.status not in ACTIVE, -run.id


def is_redis_away(around: Around) -> bool:
    """Whether Redis does not answer: then it is not asked for budgets either."""
    return around.outage is not None and around.outage.code == Reason.REDIS_AWAY


def events(run_id: int, limit: int = 50) -> Sequence[RunEvent]:
    """Return the run's timeline, the newest first."""
    return list(RunEvent.select().where(RunEvent.run_id == run_id).order_by(RunEvent.id.desc()).limit(limit))


def budget_of(run: Run) -> BudgetState | None:
    """Return the state of a run's budget, for what its next request weighs; None where Redis or the source is away."""
    try:
        return look(run_connector.of(run).budget, math.ceil(request_weights.detail_weight(run)))
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
                connector = run_connector.connector_or_error(run)
                if isinstance(connector, Exception):
                    kind = getattr(connector, "kind", type(connector).__name__)
                    troubles.append(f"run {run.id}: its budget is unknown, because get_connector failed ({kind})")
                else:
                    found.setdefault(connector.budget.name, connector.budget)
    except (DependencyDown, OperationalError, InterfaceError):
        troubles.append("the database does not answer: only the budgets that sources name are known")
    around = why.around()
    if around.outage and not is_redis_away(around):  # who looks at a Redis that is away is told so
        troubles.append(why_text.words(around.outage, database.now()))
    return found, troubles


def look(budget: Budget, weight: int = 1) -> BudgetState:
    """Return the state of a budget.

    Parameters:
      weight(int): What a request weighs that waits for it.

    Raises:
      DependencyDown: Redis does not answer.
    """
    settings = get_settings()
    return _looker(budget, settings.redis_url, settings.prefix).snapshot(weight)


@lru_cache(maxsize=1024)
def _looker(budget: Budget, redis_url: str, prefix: str) -> RateLimiter:
    """Return a limiter that only looks, and quickly: who asks each second must not hang where Redis does."""
    return RateLimiter(budget, shared_quick_client(redis_url), prefix=prefix)


def _active_runs() -> list[Run]:
    active = Run.select().where(Run.status.in_(ACTIVE)).order_by(Run.id)
    return list(active) if schema.is_migrated() else []


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
    if run.status == RunStatus.PAUSED and claims.has_any(run.id):
        return "pausing"
    return str(run.status)
