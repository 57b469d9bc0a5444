"""Why a run does not move: the only place that decides it, from the database, Redis and the processes that live.

A running run that has made no progress for ten seconds always has a reason. `why_words` says it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import redis

from workers.connections import outages
from workers.connections.redis_errors import AWAY, Trouble
from workers.limiter.state import BudgetState
from workers.messaging import presence, scheduler_heartbeat
from workers.messaging.presence import Process
from workers.records import activation, claims, cursor, items, lanes, old_rows, priority
from workers.records.samples import SLOT_SECONDS
from workers.records.tables import ENDED, IS_OPEN, ItemStatus, Lane, RemovalState, Run, RunItem, RunStatus
from workers.reports import budget_text
from workers.reports.intervals import Mark
from workers.reports.pauses import Held
from workers.reports.reasons import Reason
from workers.settings import get_settings
from workers.sources.registry import get_registry

#: A sample so young was taken by a process that works on the run, be it inline.
_FRESH = timedelta(seconds=10)
#: What stands still for less is not asked about: requests take some seconds.
_QUIET = timedelta(seconds=5)
_SLOT = timedelta(seconds=SLOT_SECONDS)


@dataclass(frozen=True)
class Why:
    """Why a run does not move.

    Attributes:
      code: For programs.
      what: What an API, Redis, a row said; or a name. For `why_words`.
      repair: What a person can do about it.
      until: Until when it lasts, or since when, where that is known.
      run_id: The run that is in its way.
      number: Of what there is more than one: items, threads, seconds.
    """

    code: Reason
    what: str = ""
    repair: str = ""
    until: datetime | None = None
    run_id: int = 0
    number: int = 0


@dataclass(frozen=True)
class Around:
    """What all running runs have in common at one time: asked once for all of them.

    Attributes:
      outage: What keeps every run from moving.
      processes: Those that live, or did lately; None where Redis cannot say.
    """

    outage: Why | None = None
    processes: Sequence[Process] | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a run.

    Attributes:
      run: As it was read.
      now: When that was, by the database's clock.
      budget: Its budget then; None where it could not be read.
      sampled: Its latest samples, the oldest first.
      still: When it stood still by a person's will.
    """

    run: Run
    now: datetime
    budget: BudgetState | None = None
    around: Around = field(default_factory=Around)
    sampled: Sequence[Mark] = ()
    still: Held = field(default_factory=Held)


def around() -> Around:
    """Look at Redis, the database and the processes. It asks nothing of a Redis that is away."""
    trouble = outages.redis_trouble()
    if trouble:
        return Around(_of_redis(trouble))
    if told := outages.reported():
        return Around(Why(Reason.DATABASE_AWAY, told))
    try:
        return Around(None, presence.processes())
    except (redis.RedisError, ValueError):
        return Around()


def why(facts: Facts) -> Why | None:
    """Return why a run does not move; None where it does, or has ended."""
    run = facts.run
    if run.status in ENDED:
        return None
    if run.status == RunStatus.SCHEDULED:
        return _ahead(facts)
    if run.status == RunStatus.PAUSED:
        return _paused(facts)
    if run.status == RunStatus.PENDING:
        ahead = activation.active(run.source, run.tenant)
        return Why(Reason.BEHIND, run_id=ahead.id) if ahead else Why(Reason.STARTING)
    looks: tuple[Callable[[Facts], Why | None], ...] = (
        standstill,
        _list_again,
        _crashed,
        _gives_way,
        _closed,
        _reading if run.discovered_at is None else _working,
        _quiet,
    )
    return next(filter(None, (look(facts) for look in looks)), None)


def standstill(facts: Facts) -> Why | None:
    """Return what keeps a running run from going on until a person has done something; its end is not foreseen."""
    if facts.around.outage:
        return facts.around.outage
    if facts.around.processes is None:
        return None
    taking = [process for process in facts.around.processes if process.takes_messages]
    if not taking:
        return None if _is_fresh(facts) else _no_worker(facts.around.processes)
    source = facts.run.source
    if any(process.knows(source) for process in taking) or _works_elsewhere(facts):
        return None
    # Where this process does not know it either, to restart the workers is of no use.
    return Why(Reason.SOURCE_NOT_ON_WORKERS if source in get_registry() else Reason.SOURCE_UNKNOWN, source)


def _no_worker(found: Sequence[Process]) -> Why:
    nobody = presence.no_worker(found)
    return Why(Reason.NO_WORKER, nobody) if nobody else Why(Reason.WORKERS_STOPPING)


def _works_elsewhere(facts: Facts) -> bool:
    """Whether a process works on the run that is none of the workers: an inline run moves, asks, or waits for its API.

    That it is sampled does not say it where workers live: these sample every run.
    """
    if not _is_fresh(facts):
        return False
    closed = facts.budget is not None and budget_text.closing(facts.budget) is not None
    return closed or facts.now - quiet_since(facts) < _QUIET or _asks(facts)


def _asks(facts: Facts) -> bool:
    run = facts.run
    if run.discovered_at is not None:
        return claims.has_any(run.id)
    return bool(run.discovery_attempts and run.discovery_due_at and run.discovery_due_at > facts.now)


def _of_redis(trouble: Trouble) -> Why:
    code = Reason.REDIS_AWAY if trouble.what == AWAY else Reason.REDIS_REFUSES
    return Why(code, trouble.what, trouble.repair)


def _is_fresh(facts: Facts) -> bool:
    """Whether a process takes samples, a worker or one that works inline: who does, samples every run."""
    return bool(facts.sampled) and facts.now - facts.sampled[-1].at < _FRESH


def silent_seconds(facts: Facts) -> float:
    """Return for how long a running run has had no sample since its last, where that is long: none works on it."""
    if not facts.sampled:
        return 0.0  # not known yet: who takes the first one books it
    since = max(facts.still.went_on_at or facts.sampled[-1].at, facts.sampled[-1].at + _SLOT)
    return (facts.now - since).total_seconds() if facts.now - since > _FRESH else 0.0


# --- not running ------------------------------------------------------------------------------------------------------


def _ahead(facts: Facts) -> Why:
    run = facts.run
    if run.scheduled_at > facts.now:
        return Why(Reason.SCHEDULED, until=run.scheduled_at)
    return Why(Reason.OVERDUE, scheduler_heartbeat.no_scheduler(), until=run.scheduled_at)


def _paused(facts: Facts) -> Why:
    """Say who paused it; and where its budget is paused, too, until when resuming is of no use."""
    closed = facts.budget.paused_for_seconds if facts.budget else 0.0
    until = facts.now + timedelta(seconds=closed) if closed else None
    if said := facts.run.error_summary:
        return Why(Reason.PAUSED_ITSELF, said, until=until)
    return Why(Reason.PAUSED, until=until)


# --- what is in its way -----------------------------------------------------------------------------------------------


def _list_again(facts: Facts) -> Why | None:
    run = facts.run
    if run.discovered_at is not None or not run.error_summary or cursor.sleeps(run):
        return None
    if run.discovery_due_at and run.discovery_due_at > facts.now:
        return Why(Reason.LIST_BACKS_OFF, run.error_summary, until=run.discovery_due_at)
    return None


def _crashed(facts: Facts) -> Why | None:
    """Return the error that every lane of a run has ended in that has not ended for good."""
    crash = lanes.last_crash(facts.run.id) if facts.run.discovered_at else None
    if crash is None or lanes.well(facts.run.id):
        return None
    return Why(Reason.LANES_BACK_OFF, crash.crash_reason or "", until=crash.due_at, number=crash.crashes)


def _gives_way(facts: Facts) -> Why | None:
    first = priority.first_on_its_budget(facts.run) if facts.run.discovered_at else None
    return Why(Reason.GIVES_WAY, run_id=first.id, number=first.priority) if first else None


def _closed(facts: Facts) -> Why | None:
    """Return what keeps a running run from its API; None where its budget is open, or cannot be told here."""
    if facts.run.source not in get_registry():
        return None if _is_known_to_a_worker(facts) else Why(Reason.SOURCE_UNKNOWN, facts.run.source)
    if facts.budget is None:
        return Why(Reason.BUDGET_UNKNOWN)
    code = budget_text.closing(facts.budget)
    return Why(Reason(code), budget_text.why_closed(facts.budget, facts.now)) if code else None


def _is_known_to_a_worker(facts: Facts) -> bool:
    """Whether a worker says that it knows the source, or the run moves: then this process is older than the source."""
    taking = [process for process in facts.around.processes or () if process.takes_messages]
    says_so = any(facts.run.source in (process.sources or ()) for process in taking)
    return says_so or (_is_fresh(facts) and facts.now - quiet_since(facts) < _QUIET)


def _reading(facts: Facts) -> Why | None:
    """Return what keeps a run, whose budget is open, from reading its list."""
    run = facts.run
    if run.discovery_due_at and run.discovery_due_at < _silent(facts.now):
        return _lost()
    removal = old_rows.get(run.id) if run.options.get("fresh") and run.total_count is None else None
    copying = removal is not None and removal.state == RemovalState.COPYING
    return Why(Reason.NOTES_ROWS) if copying else None


def _working(facts: Facts) -> Why | None:
    """Return what keeps a run, whose list is known and whose budget is open, from its items."""
    run = facts.run
    due = items.next_due(run.id)
    if due is None and run.options.get("fresh") and (removal := old_rows.get(run.id)):
        return Why(Reason.REMOVES_ROWS, number=removal.removed_count)
    if due and due > facts.now + timedelta(seconds=1) and not claims.has_any(run.id):
        return Why(Reason.ITEMS_BACK_OFF, items.last_reason(run.id), until=due)
    if Lane.select().where(Lane.run_id == run.id, Lane.due_at < _silent(facts.now)).exists():
        return _lost()
    return None


def _silent(now: datetime) -> datetime:
    """Return before when a message must have been expected that has surely been lost."""
    return now - timedelta(seconds=3 * get_settings().lane_lease_seconds)


def _lost() -> Why:
    missing = scheduler_heartbeat.no_scheduler()
    return Why(Reason.NO_SCHEDULER, missing) if missing else Why(Reason.LANES_SILENT)


# --- what is said only once nothing has moved for some seconds --------------------------------------------------------


def _quiet(facts: Facts) -> Why | None:
    """Return what a run waits for that has made no progress for some seconds, though nothing is in its way."""
    since = quiet_since(facts)
    if facts.now - since < _QUIET:
        return None
    found = _list_page(facts) if facts.run.discovered_at is None else _items(facts)
    return found or _queue(facts, since)


def quiet_since(facts: Facts) -> datetime:
    """Return since when a running run has made no progress, as far as its samples know, to two seconds."""
    run = facts.run
    began = facts.still.went_on_at or run.started_at or run.created_at
    since, counters = began, _counters(run)
    for mark in facts.sampled:
        if _counters_of(mark, run) != counters:
            since = max(began, min(facts.now, mark.at + _SLOT))
    return max(since, run.discovered_at) if run.discovered_at and run.discovered_at > since else since


def _counters(run: Run) -> tuple[float, ...]:
    ended = (run.succeeded_count, run.failed_count, run.skipped_count)
    return ended if run.discovered_at else (*ended, run.requests_count)


def _counters_of(mark: Mark, run: Run) -> tuple[float, ...]:
    ended = (mark.succeeded, mark.failed, mark.skipped)
    return ended if run.discovered_at else (*ended, mark.requests)


def _list_page(facts: Facts) -> Why | None:
    due = facts.run.discovery_due_at
    return Why(Reason.LIST_CLAIMED, until=due) if due and due > facts.now else None


def _items(facts: Facts) -> Why | None:
    run_id = facts.run.id
    if items.next_due(run_id) is None and _all_ended(facts.run):
        return Why(Reason.FINALIZING)
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
    leases: Any = RunItem.select(RunItem.due_at).where(claimed, RunItem.due_at > facts.now).order_by(RunItem.due_at)
    found = [due for (due,) in leases.limit(1_000).tuples()]
    return Why(Reason.ITEMS_CLAIMED, number=len(found), until=found[-1]) if found else None


def _all_ended(run: Run) -> bool:
    return run.succeeded_count + run.failed_count + run.skipped_count >= (run.total_count or 0)


def _queue(facts: Facts, since: datetime) -> Why:
    """Return why its messages do not reach a thread."""
    if trouble := outages.broker_trouble():
        return Why(Reason.BROKER_AWAY, trouble.what, trouble.repair)
    taking = [process for process in facts.around.processes or () if process.takes_messages]
    threads = sum(process.threads for process in taking)
    if threads and sum(process.busy_lanes or 0 for process in taking) >= threads:
        return Why(Reason.THREADS_BUSY, number=threads)
    if missing := scheduler_heartbeat.no_scheduler():  # what was lost stays lost
        return Why(Reason.NO_SCHEDULER, missing)
    waits = Lane.select().where(Lane.run_id == facts.run.id, Lane.due_at.is_null(False)).exists()
    if waits or facts.run.discovered_at is None:
        return Why(Reason.QUEUED)
    return Why(Reason.UNKNOWN, number=round((facts.now - since).total_seconds()))
