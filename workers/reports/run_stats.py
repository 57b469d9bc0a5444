"""Run stats: the figures of a run as plain values, as every page, command and JSON answer shows them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.connections import database
from workers.records import claims
from workers.records.tables import Run, RunEvent
from workers.reports import budget_text, labels, runs_list, snapshot, why, why_text
from workers.reports.eta import Eta, eta
from workers.reports.pace import Pace, pace_of
from workers.reports.runs_list import Wanted
from workers.reports.snapshot import RunFacts

#: An end farther away than ten years is shown as a duration, and not as a date.
_FORESEEN_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True)
class RunStats:
    """One run, as people see it. Times in seconds, instants UTC-aware.

    Attributes:
      total: None until the first list page is in; final once `discovered`.
      percent: Ended items of all, rounded down: 999 of 1,000 is 99. None while the list is still being read.
      active_seconds, waiting_seconds, idle_seconds, held_seconds: The parts of `duration_seconds`: at work, waiting for
        its API, without a worker, Redis or a database, paused or between its end and a retry. They stop growing at the
        end.
      rows_created, rows_updated, rows_unchanged: What its list did to the rows of its model; details are not counted.
      requests: How many were sent for it, list pages and repeated ones included.
      efficiency: sleeps / (hits + sleeps), 0 to 1; None where nothing has waited yet.
      per_second: Items completed each second: over the last minute, or over all of a run that is not running.
      pace_seconds: Over how long that was measured; less than a minute for a run that has just started or resumed.
      eta_seconds, eta_at: When it will end; None where that is unknown, and `eta_why` is empty.
      eta_why: What decides that: a window of its budget, its own pace, a retry.
      eta_window, why_window: The title of the window that `eta_why`, or `why`, is about; empty where there is none.
      why: Why it makes no progress now; empty where it works or has ended.
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
    eta_window: str
    why: str
    why_code: str
    why_window: str
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


@dataclass(frozen=True)
class _Times:
    """How the time since a run's start was spent, in seconds; `moving` is what was not a pause."""

    duration: float
    moving: float
    waiting: float
    idle: float

    @classmethod
    def of(cls, facts: RunFacts) -> "_Times":
        run = facts.run
        duration = ((run.ended_at or facts.now) - run.started_at).total_seconds() if run.started_at else 0.0
        moving = max(0.0, duration - facts.pauses.seconds)
        idle = run.idle_seconds
        if facts.is_running and not facts.sleeping_seconds:  # an inline run takes no samples in its sleep
            idle += why.silent_seconds(facts)
        return cls(duration, moving, min(run.total_sleep_seconds + facts.sleeping_seconds, moving), idle)


def run_stats(run: Run) -> RunStats:
    """Return the figures of a run, as it was read."""
    return of(snapshot.take([run]).facts(run))


def all_stats(found: Sequence[Run]) -> list[RunStats]:
    """Return the figures of these runs, in this order; what they have in common is read once."""
    taken = snapshot.take(found)
    return [of(taken.facts(run)) for run in found]


def recent_runs(limit: int = 25, source: str = "", *, status: str = "", label: str = "") -> list[RunStats]:
    """Return the newest runs; where no status and no label is wanted, active runs first and few skipped slots.

    Parameters:
      limit(int): How many at most.
      source(str): Only runs of this source.
      status(str): Only runs in this status, whatever their label.
      label(str): Only runs with this label: one of `labels.LABELS`.
    """
    wanted, now = Wanted(source=source, status=status, label=label), database.now()
    query = runs_list.newest if status or label else runs_list.newest_active_first
    return all_stats(query(wanted, now, limit))


def of(facts: RunFacts) -> RunStats:
    """Return the figures of a run, computed from what was read about it."""
    run, now, times, reason = facts.run, facts.now, _Times.of(facts), why.why(facts)
    pace = _pace(facts, times)
    end = _end(facts, pace) if facts.is_running else None
    return RunStats(
        id=run.id,
        kind=run.kind,
        source=run.source,
        tenant=run.tenant,
        status=str(run.status),
        label=labels.label_of(run, now, claims.has_any),
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
        duration_seconds=max(0.0, times.duration),
        active_seconds=max(0.0, times.moving - times.waiting - times.idle),
        waiting_seconds=times.waiting,
        idle_seconds=min(times.idle, times.moving - times.waiting),
        held_seconds=max(0.0, times.duration - times.moving),
        per_second=pace.per_second,
        pace_seconds=pace.seconds,
        eta_seconds=end.seconds if end else None,
        eta_at=_at(now, end.seconds) if end else None,
        eta_why=end.why if end else "",
        eta_window=end.window if end else "",
        why=why_text.words(reason, now) if reason else "",
        why_code=str(reason.code) if reason else "",
        why_window=reason.window if reason else "",
        slowed=budget_text.slowed(facts.budget) if facts.budget else "",
        error_summary=run.error_summary,
        created_by=run.created_by,
        created_at=run.created_at,
    )


def _pace(facts: RunFacts, times: _Times) -> Pace:
    """Return the pace of a running run, or the average of any other."""
    run = facts.run
    if facts.is_running:
        return pace_of(
            run,
            facts.now,
            facts.samples,
            facts.pauses,
            sleeping_seconds=facts.sleeping_seconds,
            completed=facts.completed,
        )
    return Pace(run.succeeded_count / times.moving if times.moving > 0 else 0.0, seconds=times.moving)


def _end(facts: RunFacts, pace: Pace) -> Eta | None:
    """Return when a running run ends; None where its budget is unknown, or a person must act first."""
    if facts.budget is None or why.stopped_by(facts):
        return None
    return eta(facts.run, facts.now, facts.budget, pace, facts.running, last_retry_at=facts.last_retry_at)


def _at(now: datetime, in_seconds: float) -> datetime | None:
    """Return the instant; None where it is too far away to be foreseen."""
    return now + timedelta(seconds=in_seconds) if in_seconds < _FORESEEN_SECONDS else None


def events(run_id: int, limit: int = 50) -> Sequence[RunEvent]:
    """Return the run's timeline, the newest event first."""
    return list(RunEvent.select().where(RunEvent.run_id == run_id).order_by(RunEvent.id.desc()).limit(limit))
