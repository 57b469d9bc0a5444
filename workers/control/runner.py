"""Starts, pauses, resumes, cancels, retries and adjusts runs: the only functions that do so, called by every door."""

import logging
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from workers import clock
from workers.connections import database
from workers.connections.fault_isolation import isolated
from workers.connections.redis_client import quick_client
from workers.control import forcing, new_run, retry_selection
from workers.engine import finalize, inline
from workers.engine.discovery import open_lanes
from workers.errors import UsageError
from workers.limiter.permits import Usage
from workers.limiter.rate_limiter import RateLimiter
from workers.limiter.run_signals import RunSignals
from workers.messaging import broadcast, broker
from workers.records import (
    activation,
    failed_items,
    old_rows,
    run_completion,
    run_connector,
    run_usage,
    runs,
    scheduled_runs,
)
from workers.records.lanes import end_all
from workers.records.tables import Run, RunStatus
from workers.settings import get_settings
from workers.sources.registry import get_registry
from workers.text.durations import duration

log = logging.getLogger(__name__)

#: How many lanes a run can have, and how far from 0 its priority can be.
MOST_LANES, MOST_PRIORITY = 1024, 100


def start(
    source_name: str | None = None,
    *,
    who: str,
    door: str,
    tenant: str | None = None,
    fresh: bool = False,
    even_if_empty: bool = False,
    send: bool = True,
) -> Run:
    """Start a run now, or queue it behind the active run of its source and tenant.

    Parameters:
      source_name(str | None): The source; None: the only one there is.
      who(str): Who acts: a person's or a program's name.
      door(str): From where: cli, script, code, monitor, scheduler.
      tenant(str | None): For which tenant, if the source has tenants.
      fresh(bool): At its end, delete the rows that are no longer in the list; only if the source declares
        `allow_fresh`.
      even_if_empty(bool): With `fresh`: also if the list was empty.
      send(bool): Wake the workers; False for a run that `run_inline` works on.

    Returns:
      Run: It is running, or pending (`behind` returns the run that it waits for).

    Raises:
      UnknownSource: No source has this name.
      ConfigurationError: The sources cannot be loaded, or `fresh` is not allowed, or needs `fresh_query`.
      UsageError: A fresh run is refused while another run of the same table is active.
    """
    if send:
        broker.get_broker()  # a broker URL that cannot be used must not leave a run behind
    run = new_run.create(
        source_name, who=who, door=door, tenant=tenant, fresh=fresh, even_if_empty=even_if_empty, at=None
    )
    if activation.activate(run.id) and send:
        broker.send("discover", run.id)
    return runs.get(run.id)


def start_inline(
    source_name: str | None = None,
    *,
    who: str,
    door: str,
    tenant: str | None = None,
    fresh: bool = False,
    even_if_empty: bool = False,
) -> Run:
    """Start a run that this process works on, or continue the active one, whose process may have been killed.

    Raises:
      UsageError: The active run is paused, or `fresh` is given while a run is active. Else as `start`.
    """
    source = new_run.source_named(source_name)
    running = activation.active(source.name, tenant)
    if running is None:
        return start(
            source.name, who=who, door=door, tenant=tenant, fresh=fresh, even_if_empty=even_if_empty, send=False
        )
    if fresh or running.status == RunStatus.PAUSED:
        raise UsageError(f"Run {running.id} of {source.name} is {running.status}: resume or cancel it first")
    return running


def run_inline(run: Run, on_progress: Callable[[Run], None] = lambda run: None) -> Run:
    """Do all the work of a run in this process, without broker and workers: the same code, message by message.

    Parameters:
      run(Run): An active run, from `start_inline`. Workers that run at the same time share the work.
      on_progress(Callable): Called after each step.
    """
    inline.work(run.id, on_progress)
    return runs.get(run.id)


def schedule(
    source_name: str,
    at: datetime,
    *,
    who: str,
    door: str,
    tenant: str | None = None,
    fresh: bool = False,
    even_if_empty: bool = False,
) -> Run:
    """Create a run that the scheduler starts at `at` (UTC-aware, in the future). Errors are those of `start`."""
    if at <= clock.now():
        raise UsageError(f"{at:%Y-%m-%d %H:%M:%S %Z} has passed: give a time in the future, or start the run now")
    return new_run.create(
        source_name, who=who, door=door, tenant=tenant, fresh=fresh, even_if_empty=even_if_empty, at=at
    )


def reschedule(source_name: str, *, who: str, door: str, at: datetime | None = None, tenant: str | None = None) -> Run:
    """Move the next scheduled run of a source to `at` (default: now); later ones keep their time.

    Parameters:
      at(datetime | None): UTC-aware.
      tenant(str | None): Whose run; None: one without a tenant.

    Raises:
      UnknownSource: No source has this name.
      UsageError: No run of this source and tenant is scheduled.
    """
    source = get_registry()[source_name]
    if at and at <= clock.now():
        raise UsageError(f"{at:%Y-%m-%d %H:%M:%S %Z} has passed: give a time in the future, or leave it out for now")
    run = scheduled_runs.pull_forward(source.name, at or database.now(), who=who, door=door, tenant=tenant)
    if run is None:
        whose = source.name + (f" for {tenant}" if tenant else "")
        raise UsageError(f"No run of {whose} is scheduled: start a new one, or schedule one with --at")
    if at is None:
        start_due()
    return runs.get(run.id)


def start_due() -> list[Run]:
    """Start or queue every scheduled run whose time has come. Any number of processes can call this at once.

    Returns:
      list[Run]: The runs that this call started or queued.
    """
    due = scheduled_runs.due(database.now())
    tried = [isolated(f"run {run_id} cannot be started", partial(_start_scheduled, run_id)) for run_id in due]
    return [run for run in tried if run]


def _start_scheduled(run_id: int) -> Run | None:
    """Make a scheduled run pending, and start it if no other run is active; None if another process was first."""
    run = runs.get(run_id)
    if not scheduled_runs.claim(run_id):
        return None
    finalize.start_next(run.source, run.tenant)
    return run


def pause(run_id: int, *, who: str, door: str) -> None:
    """Pause a running run; `resume` continues it.

    It returns when every worker process has acknowledged: from then on each lane sends at most one request, for the
    item that it is working on.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it is not running.

    *Warning:* it waits two seconds for the acknowledgements. A process that is slower stops with its next permit or
    commit.
    """
    runs.move(run_id, RunStatus.PAUSED, who=who, door=door)
    _signal_lanes(runs.get(run_id), stop=True)


def resume(run_id: int, *, who: str, door: str) -> None:
    """Continue a paused run. Errors are those of `pause`."""
    runs.resume(run_id, who=who, door=door)
    _signal_lanes(runs.get(run_id), stop=False)
    broker.send("discover", run_id)
    open_lanes(run_id)


def cancel(run_id: int, *, who: str, door: str, reason: str | None = None) -> None:
    """Cancel a run for good: its items stay as they are, its lanes stop as by `pause`, the next pending run starts.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it has ended.
    """
    begun = runs.get(run_id).started_at
    runs.move(run_id, RunStatus.CANCELLED, who=who, door=door, detail=reason)
    run = runs.get(run_id)
    if begun:
        _signal_lanes(run, stop=True)
    finalize.start_next(run.source, run.tenant)
    removal = old_rows.get(run_id)
    if removal and removal.removed_count:
        detail = f"{removal.removed_count:,} rows that were no longer in the list, before it was cancelled"
        runs.note(run_id, "removed", who=who, door=door, detail=detail)
    old_rows.give_up(run_id)


def retry_failed(
    run_id: int,
    *,
    who: str,
    door: str,
    failure_class: str | None = None,
    fingerprint: str | None = None,
    external_ids: Sequence[str] = (),
    from_start: bool = False,
) -> int:
    """Make failed items of an ended or running run pending again.

    A run that failed while it read its list continues with the list. A fresh run that failed to delete a row deletes
    again.

    Parameters:
      failure_class(str | None): Only items of this class: see `failures.FailureClass`.
      fingerprint(str | None): Only items whose failures share this fingerprint: `status` and `failure_groups` show it.
      external_ids(Sequence[str]): Only these items. An item must match everything that is given.
      from_start(bool): Whether an ended run also reads its list again from the first page, in case the API no longer
        knows the cursor at which it stopped. Its existing items stay as they are.

    Returns:
      int: How many items.

    Raises:
      UnknownRun: There is no such run.
      InvalidTransition: It was cancelled, or has not begun.
      UsageError: Nothing can be retried, or an id cannot be; the message names what can.
    """
    wanted = retry_selection.Wanted.of(failure_class, fingerprint, external_ids)
    with database.db.atomic():
        status = runs.lock(run_id)  # first, so that finalize does not complete the run meanwhile
        run = runs.get(run_id)
        retry_selection.refuse(run, wanted)
        count = failed_items.reopen(run_id, wanted.failure_class, wanted.fingerprint, wanted.external_ids)
        kept = status == RunStatus.FAILED and old_rows.has_failed(run_id)
        unfinished = run.discovered_at is None or run_completion.has_open_items(run_id) or kept
        if from_start:
            retry_selection.refuse_from_start(run)
            runs.read_list_again(run_id)
        elif not count and (wanted.described or not (status == RunStatus.FAILED and unfinished)):
            raise UsageError(retry_selection.why_none(run_id, wanted))
        left = "the rows it could not delete" if kept else "what it left open"
        detail = f"{count:,} failed {'item' if count == 1 else 'items'}{wanted.described}" if count else left
        detail += ", and its list from the first page" if from_start else ""
        if kept:
            old_rows.again(run_id)
        if status in (RunStatus.COMPLETED, RunStatus.FAILED):
            runs.move(run_id, RunStatus.PENDING, who=who, door=door, detail=detail, what="retry")
            end_all(run_id)
        else:
            runs.note(run_id, "retry", who=who, door=door, detail=detail)
    if runs.get(run_id).status == RunStatus.PENDING:
        finalize.start_next(run.source, run.tenant)
    open_lanes(run_id)
    return count


def set_lanes(run_id: int, lanes: int, *, who: str, door: str) -> Run:
    """Change the number of lanes of a run, even while it runs; surplus lanes stop as by `pause`.

    Parameters:
      lanes(int): 1 to 1,024.

    Raises:
      UnknownRun: There is no such run.
      UsageError: It has ended, or the number is out of range.
    """
    check_lanes(lanes)
    with database.db.atomic():
        was = runs.set_lanes(run_id, lanes, who=who, door=door)
        end_all(run_id, first=lanes)
    if lanes > was:
        open_lanes(run_id, first=was)
    elif lanes < was:
        broadcast.notify()
    return runs.get(run_id)


def set_priority(run_id: int, priority: int, *, who: str, door: str) -> Run:
    """Change the priority of a run, among the pending runs of its source and among the runs on a shared budget.

    Parameters:
      priority(int): -100 to 100; the higher goes first; a run starts with 0.

    Raises:
      UnknownRun: There is no such run.
      UsageError: It has ended, or the number is out of range.
    """
    check_priority(priority)
    runs.set_priority(run_id, priority, who=who, door=door)
    return runs.get(run_id)


def check_lanes(lanes: int) -> None:
    """Refuse a number of lanes that no run can have, by a UsageError."""
    if not 1 <= lanes <= MOST_LANES:
        raise UsageError(f"A run cannot have {lanes:,} lanes: give 1 to {MOST_LANES:,}")


def check_priority(priority: int) -> None:
    """Refuse a priority that no run can have, by a UsageError."""
    if abs(priority) > MOST_PRIORITY:
        raise UsageError(f"A run cannot have priority {priority:,}: give -{MOST_PRIORITY} to {MOST_PRIORITY}")


def force(run_id: int, *, who: str, door: str) -> str:
    """Unblock a run that has been stuck for five minutes: see `forcing.find_stuck`.

    Returns:
      str: What was done, in a sentence.

    Raises:
      UnknownRun: There is no such run.
      UsageError: The run is not stuck, or not yet for five minutes; the message says how long to wait.

    *Warning:* items taken from a worker that hangs are requested again; what that worker still brings is refused.
    """
    stuck = forcing.find_stuck(runs.get(run_id))
    left = forcing.FORCE_SECONDS - stuck.lasts_seconds
    if left > 0:
        lasts, until = duration(stuck.lasts_seconds), duration(math.ceil(left))
        raise UsageError(f"Run {run_id} {stuck.what}, for {lasts} now: it can be forced in {until}")
    with database.db.atomic():
        done = stuck.force()
        if not done:
            raise UsageError(f"Run {run_id} is no longer stuck: see its status")
        runs.note(run_id, "forced", who=who, door=door, detail=done)
    stuck.then()
    return done


def behind(run: Run) -> Run | None:
    """Return the active run that a pending one waits for; None if there is none."""
    return activation.active(run.source, run.tenant) if run.status == RunStatus.PENDING else None


def _signal_lanes(run: Run, *, stop: bool) -> None:
    """Stop or restart the lanes before their next request; without Redis they read the status at their next commit."""
    settings = get_settings()
    try:
        budget = run_connector.of(run).budget
        limiter = RateLimiter(budget, quick_client(settings.redis_url), prefix=settings.prefix)
        signals = RunSignals(limiter.ledger)
        if stop:
            run_usage.add(run.id, Usage(slept_seconds=signals.stop(run.id)))
        else:
            signals.resume(run.id)
        if stop and runs.get(run.id).status == RunStatus.RUNNING:  # a resume came in between
            signals.resume(run.id)
    except Exception as error:  # a user's get_connector may fail in any way
        log.info("run %d: its lanes were not signalled (%s)", run.id, type(error).__name__)
    if stop and not broadcast.notify():
        log.warning("run %d: not every process has acknowledged; its lanes stop at their next commit", run.id)
