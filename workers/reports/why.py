"""Why: decides why a run makes no progress, as a reason code with its values; `why_text` words it.

A running run that has made no progress for ten seconds always has a reason. No other module decides one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from workers.connections import outages
from workers.connections.trouble import Cause, Trouble
from workers.messaging import process_heartbeat, scheduler_heartbeat
from workers.messaging.process_heartbeat import Process
from workers.records import activation, claims, cursor, items, lanes, old_rows, priority
from workers.records.samples import SLOT_SECONDS
from workers.records.tables import ENDED, IS_OPEN, ItemStatus, Lane, RemovalState, Run, RunItem, RunStatus
from workers.reports import budget_text
from workers.reports.budget_text import Closing
from workers.reports.intervals import Counters
from workers.reports.reasons import Reason
from workers.reports.snapshot import RunFacts
from workers.settings import get_settings
from workers.sources.registry import get_registry

#: A sample younger than this was taken by a process that works on the run, an inline one included.
_FRESH = timedelta(seconds=10)
#: A run that made progress within this time needs no reason: requests take some seconds.
_QUIET = timedelta(seconds=5)
_SLOT = timedelta(seconds=SLOT_SECONDS)


@dataclass(frozen=True)
class Why:
    """Why a run makes no progress.

    Attributes:
      code: For programs.
      what: The detail that `why_text` puts into the reason's sentence: an error, a name.
      repair: What a person can do about it.
      until: Until when it lasts, or since when, where that is known.
      run_id: The other run that it waits for.
      number: A count for the sentence: items, threads, seconds.
      window: The title of the window that is full, `2000/100 s`; empty where it is about no window.
    """

    code: Reason
    what: str = ""
    repair: str = ""
    until: datetime | None = None
    run_id: int = 0
    number: int = 0
    window: str = ""


def why(facts: RunFacts) -> Why | None:
    """Return why a run makes no progress; None where it makes some, or has ended."""
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
    checks: tuple[Callable[[RunFacts], Why | None], ...] = (
        stopped_by,
        _list_again,
        _crashed,
        _gives_way,
        _closed,
        _reading if run.discovered_at is None else _working,
        _quiet,
    )
    return next(filter(None, (check(facts) for check in checks)), None)


def stopped_by(facts: RunFacts) -> Why | None:
    """Return what stops a running run until a person acts: its end cannot be foreseen."""
    if facts.fleet.outage:
        return _of_outage(facts.fleet.outage)
    if facts.fleet.processes is None:
        return None
    taking = [process for process in facts.fleet.processes if process.takes_messages]
    if not taking:
        return None if _is_fresh(facts) else _no_worker(facts.fleet.processes)
    source = facts.run.source
    if any(process.knows(source) for process in taking) or _works_elsewhere(facts):
        return None
    # Where this process does not know the source either, restarting the workers does not help.
    return Why(Reason.SOURCE_NOT_ON_WORKERS if source in get_registry() else Reason.SOURCE_UNKNOWN, source)


def _no_worker(found: Sequence[Process]) -> Why:
    missing = process_heartbeat.no_worker(found)
    return Why(Reason.NO_WORKER, missing.headline, missing.repair) if missing else Why(Reason.WORKERS_STOPPING)


def _works_elsewhere(facts: RunFacts) -> bool:
    """Whether a process that is no worker works on the run: an inline run makes progress, or waits for its API.

    Where workers are alive, fresh samples do not prove it: workers sample every run.
    """
    if not _is_fresh(facts):
        return False
    closed = facts.budget is not None and budget_text.closing(facts.budget) is not None
    return closed or facts.now - quiet_since(facts) < _QUIET or _asks(facts)


def _asks(facts: RunFacts) -> bool:
    run = facts.run
    if run.discovered_at is not None:
        return claims.has_any(run.id)
    return bool(run.discovery_attempts and run.discovery_due_at and run.discovery_due_at > facts.now)


def _of_outage(trouble: Trouble) -> Why:
    redis = {Cause.REDIS_AWAY: Reason.REDIS_AWAY, Cause.REDIS_REFUSES: Reason.REDIS_REFUSES}
    code = redis.get(trouble.cause, Reason.DATABASE_AWAY) if trouble.cause else Reason.DATABASE_AWAY
    return Why(code, trouble.headline, trouble.repair, trouble.since)


def _is_fresh(facts: RunFacts) -> bool:
    """Whether a process takes samples now: a worker, or an inline run. Each of them samples every run."""
    return bool(facts.samples) and facts.now - facts.samples[-1].at < _FRESH


def silent_seconds(facts: RunFacts) -> float:
    """Return how long a running run has had no sample, in seconds; 0 where that is short: a process works on it."""
    if not facts.samples:
        return 0.0  # not known yet: the process that takes the first sample books it
    since = max(facts.pauses.resumed_at or facts.samples[-1].at, facts.samples[-1].at + _SLOT)
    return (facts.now - since).total_seconds() if facts.now - since > _FRESH else 0.0


# --- not running ------------------------------------------------------------------------------------------------------


def _ahead(facts: RunFacts) -> Why:
    run = facts.run
    if run.scheduled_at > facts.now:
        return Why(Reason.SCHEDULED, until=run.scheduled_at)
    missing = scheduler_heartbeat.no_scheduler()
    return Why(Reason.OVERDUE, missing.sentence if missing else "", until=run.scheduled_at)


def _paused(facts: RunFacts) -> Why:
    """Return who paused it; and where its budget is paused, too, until when resuming has no effect."""
    closed = facts.budget.paused_for_seconds if facts.budget else 0.0
    until = facts.now + timedelta(seconds=closed) if closed else None
    if summary := facts.run.error_summary:
        return Why(Reason.PAUSED_ITSELF, summary, until=until)
    return Why(Reason.PAUSED, until=until)


# --- what it waits for -----------------------------------------------------------------------------------------------


def _list_again(facts: RunFacts) -> Why | None:
    run = facts.run
    if run.discovered_at is not None or not run.error_summary or cursor.sleeps(run):
        return None
    if run.discovery_due_at and run.discovery_due_at > facts.now:
        return Why(Reason.LIST_BACKS_OFF, run.error_summary, until=run.discovery_due_at)
    return None


def _crashed(facts: RunFacts) -> Why | None:
    """Return the error in which every open lane of a run has crashed."""
    crash = lanes.last_crash(facts.run.id) if facts.run.discovered_at else None
    if crash is None or lanes.well(facts.run.id):
        return None
    return Why(Reason.LANES_BACK_OFF, crash.crash_reason or "", until=crash.due_at, number=crash.crashes)


def _gives_way(facts: RunFacts) -> Why | None:
    first = priority.first_on_its_budget(facts.run) if facts.run.discovered_at else None
    return Why(Reason.GIVES_WAY, run_id=first.id, number=first.priority) if first else None


def _closed(facts: RunFacts) -> Why | None:
    """Return why a running run sends no request; None where its budget is open, or its source is not known here."""
    if facts.run.source not in get_registry():
        return None if _is_known_to_a_worker(facts) else Why(Reason.SOURCE_UNKNOWN, facts.run.source)
    if facts.budget is None:
        return Why(Reason.BUDGET_UNKNOWN)
    code, window = budget_text.closing(facts.budget), budget_text.fullest(facts.budget)
    if code is None:
        return None
    title = window.title if window and code in (Closing.WINDOW_FULL, Closing.WINDOW_TAKEN_AS_FULL) else ""
    return Why(Reason(code), budget_text.why_closed(facts.budget, facts.now), window=title)


def _is_known_to_a_worker(facts: RunFacts) -> bool:
    """Whether a worker knows the source, or the run makes progress: then this process is older than the source."""
    taking = [process for process in facts.fleet.processes or () if process.takes_messages]
    is_known = any(facts.run.source in (process.sources or ()) for process in taking)
    return is_known or (_is_fresh(facts) and facts.now - quiet_since(facts) < _QUIET)


def _reading(facts: RunFacts) -> Why | None:
    """Return why a run whose budget is open does not read its list."""
    run = facts.run
    if run.discovery_due_at and run.discovery_due_at < _silent(facts.now):
        return _lost()
    removal = old_rows.get(run.id) if run.options.get("fresh") and run.total_count is None else None
    copying = removal is not None and removal.state == RemovalState.COPYING
    return Why(Reason.NOTES_ROWS) if copying else None


def _working(facts: RunFacts) -> Why | None:
    """Return why a run whose list is complete and whose budget is open does not work on its items."""
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
    """Return the instant before which a due message is certainly lost."""
    return now - timedelta(seconds=3 * get_settings().lane_lease_seconds)


def _lost() -> Why:
    missing = scheduler_heartbeat.no_scheduler()
    return Why(Reason.NO_SCHEDULER, missing.headline, missing.repair) if missing else Why(Reason.LANES_SILENT)


# --- reasons that need some seconds without progress ------------------------------------------------------------------


def _quiet(facts: RunFacts) -> Why | None:
    """Return what a run waits for that has made no progress for some seconds, though it could work."""
    since = quiet_since(facts)
    if facts.now - since < _QUIET:
        return None
    found = _list_page(facts) if facts.run.discovered_at is None else _items(facts)
    return found or _queue(facts, since)


def quiet_since(facts: RunFacts) -> datetime:
    """Return since when a running run has made no progress, to two seconds, according to its samples."""
    run = facts.run
    began = facts.pauses.resumed_at or run.started_at or run.created_at
    since, counters = began, _counters(run)
    for sample in facts.samples:
        if _counters_of(sample, run) != counters:
            since = max(began, min(facts.now, sample.at + _SLOT))
    return max(since, run.discovered_at) if run.discovered_at and run.discovered_at > since else since


def _counters(run: Run) -> tuple[float, ...]:
    ended = (run.succeeded_count, run.failed_count, run.skipped_count)
    return ended if run.discovered_at else (*ended, run.requests_count)


def _counters_of(sample: Counters, run: Run) -> tuple[float, ...]:
    ended = (sample.succeeded, sample.failed, sample.skipped)
    return ended if run.discovered_at else (*ended, sample.requests)


def _list_page(facts: RunFacts) -> Why | None:
    due = facts.run.discovery_due_at
    return Why(Reason.LIST_CLAIMED, until=due) if due and due > facts.now else None


def _items(facts: RunFacts) -> Why | None:
    run_id = facts.run.id
    if items.next_due(run_id) is None and _all_ended(facts.run):
        return Why(Reason.FINALIZING)
    claimed = (RunItem.run_id == run_id) & (RunItem.status == ItemStatus.PROCESSING) & IS_OPEN
    leases: Any = RunItem.select(RunItem.due_at).where(claimed, RunItem.due_at > facts.now).order_by(RunItem.due_at)
    found = [due for (due,) in leases.limit(1_000).tuples()]
    return Why(Reason.ITEMS_CLAIMED, number=len(found), until=found[-1]) if found else None


def _all_ended(run: Run) -> bool:
    return run.succeeded_count + run.failed_count + run.skipped_count >= (run.total_count or 0)


def _queue(facts: RunFacts, since: datetime) -> Why:
    """Return why no worker thread gets its messages."""
    if trouble := outages.broker_trouble():
        return Why(Reason.BROKER_AWAY, trouble.what, trouble.repair)
    taking = [process for process in facts.fleet.processes or () if process.takes_messages]
    threads = sum(process.threads for process in taking)
    if threads and sum(process.busy_lanes or 0 for process in taking) >= threads:
        return Why(Reason.THREADS_BUSY, number=threads)
    if missing := scheduler_heartbeat.no_scheduler():  # lost messages are not sent again
        return Why(Reason.NO_SCHEDULER, missing.headline, missing.repair)
    waits = Lane.select().where(Lane.run_id == facts.run.id, Lane.due_at.is_null(False)).exists()
    if waits or facts.run.discovered_at is None:
        return Why(Reason.QUEUED)
    return Why(Reason.UNKNOWN, number=round((facts.now - since).total_seconds()))
