"""Finds a change of a run that is stuck, though nothing prevents it, and the act that forces it after five minutes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from workers.connections import database
from workers.engine import finalize
from workers.engine.discovery import open_lanes
from workers.errors import UsageError
from workers.messaging import broker
from workers.records import activation, claims, items, lanes, run_completion, scheduled_runs
from workers.records.tables import ENDED, Run, RunStatus
from workers.reports import run_stats

#: How long a run must be stuck before it can be forced: by then schedulers and workers would have done the change.
FORCE_SECONDS = 300.0


@dataclass(frozen=True)
class Stuck:
    """A change of a run that does not happen.

    Attributes:
      what: What the run is, as a predicate: "is overdue".
      since: Since when it is stuck.
      force: Makes the change within a transaction; returns what was done, or "" if it has happened in between.
      then: To be called after that transaction.
    """

    what: str
    since: datetime
    force: Callable[[], str]
    then: Callable[[], object] = lambda: None

    @property
    def lasts_seconds(self) -> float:
        return max(0.0, (database.now() - self.since).total_seconds())


_SENT = "sent its finalize message again: a worker deletes the rows that are no longer in the list, and completes it"


def find_stuck(run: Run) -> Stuck:
    """Return the change of a run that is stuck.

    Raises:
      UsageError: Nothing is stuck; the message says what the run is doing, and what can be done instead.
    """
    since = max([run.updated_at, *(event.at for event in run_stats.events(run.id, limit=1))])
    if run.status in (RunStatus.PAUSED, RunStatus.CANCELLED) and claims.has_any(run.id):
        return Stuck(f"is {run.status} and its lanes have not stopped", since, lambda: _take_back(run))
    if run.status == RunStatus.PENDING and activation.active(run.source, run.tenant) is None:
        return Stuck("is pending though no other run is active", since, lambda: _start(run), lambda: _wake(run))
    if run.status == RunStatus.SCHEDULED and run.scheduled_at <= database.now():
        return Stuck("is overdue", run.scheduled_at, lambda: _begin(run), lambda: _next_of(run))
    if run.status == RunStatus.RUNNING and run.discovered_at and items.next_due(run.id) is None:
        if run.options.get("fresh"):  # a worker deletes rows that are no longer in the list, in several transactions
            return Stuck("has nothing left to do", since, lambda: _SENT, lambda: broker.send("finalize", run.id))
        return Stuck("has nothing left to do", since, lambda: _end(run), lambda: finalize.tidy_up(run))
    raise UsageError(f"Run {run.id} {_why_not_stuck(run)}")


def _take_back(run: Run) -> str:
    taken = claims.take_back(run.id)
    lanes.end_all(run.id)
    count = "1 item" if taken == 1 else f"{taken:,} items"
    return f"took {count} back from lanes that had not stopped" if taken else ""


def _start(run: Run) -> str:
    return "started it" if activation.activate(run.id) else ""


def _wake(run: Run) -> None:
    broker.send("discover", run.id)
    open_lanes(run.id)


def _begin(run: Run) -> str:
    return "made it pending: its time had come" if scheduled_runs.claim(run.id) else ""


def _next_of(run: Run) -> None:
    finalize.start_next(run.source, run.tenant)


def _end(run: Run) -> str:
    return "completed it: nothing was left to do" if run_completion.complete_if_done(run.id) else ""


def _why_not_stuck(run: Run) -> str:
    """Return why nothing of a run can be forced, as a predicate."""
    if run.status in ENDED:
        return f"is {run.status}, and not stuck"
    if run.status == RunStatus.PAUSED:
        return "is paused, and its lanes have stopped: resume or cancel it"
    if run.status == RunStatus.SCHEDULED:
        return f"is scheduled for {run.scheduled_at:%Y-%m-%d %H:%M:%S} UTC: `reschedule` moves it"
    if run.status == RunStatus.PENDING:
        ahead = activation.active(run.source, run.tenant)
        return f"waits for run {ahead.id if ahead else '?'}: cancel that one, or let it end"
    return "is running, and cannot be forced: if a worker hangs, pause or cancel the run first"
