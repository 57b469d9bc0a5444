"""The only way a run begins or changes course. Scripts, command line, page and API all come through here."""

import logging
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from workers import clock
from workers.connections import database
from workers.connections.fault_isolation import isolated
from workers.connections.redis_client import quick_client
from workers.control import forcing, retry
from workers.engine import finalize, inline
from workers.engine.discovery import open_lanes
from workers.engine.fresh_runs import refuse, sources_of_table
from workers.errors import UsageError
from workers.limiter.permits import Usage
from workers.limiter.rate_limiter import RateLimiter
from workers.messaging import broadcast, broker
from workers.records import (
    activation,
    failed_items,
    model_database,
    old_rows,
    run_connector,
    run_end,
    run_usage,
    runs,
    scheduled_runs,
    table_check,
)
from workers.records.lanes import end_all
from workers.records.tables import Run, RunStatus
from workers.settings import get_settings
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.durations import duration

log = logging.getLogger(__name__)

#: The most lanes a run may have, how far from 0 its priority may be, and how long a tenant.
MOST_LANES, MOST_PRIORITY, MOST_TENANT = 1024, 100, 100


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
      source_name(str | None): Which source; None: the only one there is.
      who(str): Who asked.
      door(str): From where: cli, script, monitor, scheduler.
      tenant(str | None): For whom, where the source has tenants.
      fresh(bool): At its end, remove the rows that are no longer in the list; only where the source declares
        `allow_fresh`.
      even_if_empty(bool): With `fresh`: also where the list was empty.
      send(bool): Wake the workers; False for a run that `run_inline` is to do.

    Returns:
      Run: It is running, or pending (`behind` tells behind what).

    Raises:
      UnknownSource: No source has this name.
      ConfigurationError: The sources cannot be loaded, or `fresh` is not allowed, or needs `fresh_query`.
      UsageError: `fresh` was asked for while another run of that table is active.
    """
    if send:
        broker.get_broker()  # a broker that cannot be must not leave a run behind
    options = _options(fresh, even_if_empty)
    run = _create(source_name, who=who, door=door, tenant=tenant, options=options, at=None)
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
    """Start a run that this process is to do, or take up the one that is active: its process may have been killed.

    Raises:
      UsageError: The active run is paused, or `fresh` was asked for while one is active. Else as `start`.
    """
    source = _source(source_name)
    running = activation.active(source.name, tenant)
    if running is None:
        return start(
            source.name, who=who, door=door, tenant=tenant, fresh=fresh, even_if_empty=even_if_empty, send=False
        )
    if fresh or running.status == RunStatus.PAUSED:
        raise UsageError(f"Run {running.id} of {source.name} is {running.status}: resume or cancel it first")
    return running


def run_inline(run: Run, on_progress: Callable[[Run], None] = lambda run: None) -> Run:
    """Do all the work of a run in this process, with no broker and no workers: the same code, message by message.

    Parameters:
      run(Run): An active run, from `start_inline`. Where workers are up, they may share the work.
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
    """Record a run that the scheduler starts at `at` (UTC-aware). Errors are those of `start`."""
    if at <= clock.now():
        raise UsageError(f"{at:%Y-%m-%d %H:%M:%S %Z} has passed: give a time in the future, or start the run now")
    return _create(source_name, who=who, door=door, tenant=tenant, options=_options(fresh, even_if_empty), at=at)


def reschedule(source_name: str, *, who: str, door: str, at: datetime | None = None, tenant: str | None = None) -> Run:
    """Pull the next scheduled run of a source to `at` (default: now); the later ones keep their time.

    Parameters:
      tenant(str | None): Whose run; None: one that is for no tenant.

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
    """Start every scheduled run whose time has come, or queue it. Any number of processes may call this.

    Returns:
      list[Run]: Those this call took out of the schedule.
    """
    due = scheduled_runs.due(database.now())
    tried = [isolated(f"run {run_id} cannot be started", partial(_start_scheduled, run_id)) for run_id in due]
    return [run for run in tried if run]


def _start_scheduled(run_id: int) -> Run | None:
    """Take a run out of the schedule, and start it where it is its turn; None where another process did."""
    run = runs.get(run_id)
    if not scheduled_runs.claim(run_id):
        return None
    finalize.start_next(run.source, run.tenant)
    return run


def pause(run_id: int, *, who: str, door: str) -> None:
    """Stop a running run; `resume` goes on.

    It returns when every worker process has said that it heard: from then on each lane sends one request at most, that
    of the item it has in hand.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it is not running.

    *Warning:* a process that does not say so within two seconds is not waited for longer. It hears of it with its next
    permit, or commit.
    """
    runs.move(run_id, RunStatus.PAUSED, who=who, door=door)
    _tell_lanes(runs.get(run_id), stop=True)


def resume(run_id: int, *, who: str, door: str) -> None:
    """Go on with a paused run. Errors are those of `pause`."""
    runs.resume(run_id, who=who, door=door)
    _tell_lanes(runs.get(run_id), stop=False)
    broker.send("discover", run_id)
    open_lanes(run_id)


def cancel(run_id: int, *, who: str, door: str, reason: str | None = None) -> None:
    """Call a run off; its items stay as they are, the next pending run of its source starts. Lanes stop as by `pause`.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it has ended.
    """
    begun = runs.get(run_id).started_at
    runs.move(run_id, RunStatus.CANCELLED, who=who, door=door, detail=reason)
    run = runs.get(run_id)
    if begun:
        _tell_lanes(run, stop=True)
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
    """Make failed items of an ended or running run pending again; a run that failed reading its list goes on there.

    So does one that could not remove a row that is no longer in its list.

    Parameters:
      failure_class(str | None): Only those filed under this word: see `failures.FailureClass`.
      fingerprint(str | None): Only those that failed alike: `status` and `failure_groups` tell it.
      external_ids(Sequence[str]): Only these. What is given is combined: an item must fit all of it.
      from_start(bool): Whether an ended run reads its list anew, too, from the first page: the cursor it stopped at may
        be known to the API no more. The items that it has stay as they are.

    Returns:
      int: How many items.

    Raises:
      UnknownRun: There is no such run.
      InvalidTransition: It was called off, or has not begun.
      UsageError: There is nothing to retry, or an id cannot be; it names what there is.
    """
    wanted = retry.Wanted.of(failure_class, fingerprint, external_ids)
    with database.db.atomic():
        status = runs.lock(run_id)  # first, so that finalize does not complete the run meanwhile
        run = runs.get(run_id)
        retry.refuse(run, wanted)
        count = failed_items.reopen(run_id, wanted.failure_class, wanted.fingerprint, wanted.external_ids)
        kept = status == RunStatus.FAILED and old_rows.has_failed(run_id)
        unfinished = run.discovered_at is None or run_end.has_open_items(run_id) or kept
        if from_start:
            retry.refuse_from_start(run)
            runs.read_list_again(run_id)
        elif not count and (wanted.said or not (status == RunStatus.FAILED and unfinished)):
            raise UsageError(retry.why_none(run_id, wanted))
        left = "the rows it could not remove" if kept else "what it left open"
        detail = f"{count:,} failed {'item' if count == 1 else 'items'}{wanted.said}" if count else left
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
    """Give a run more or fewer lanes, also while it runs: those that are too many stop as by `pause`.

    Parameters:
      lanes(int): 1 to 1,024.

    Raises:
      UnknownRun: There is no such run.
      UsageError: It has ended, or the number is out of range.
    """
    if not 1 <= lanes <= MOST_LANES:
        raise UsageError(f"A run cannot have {lanes:,} lanes: give 1 to {MOST_LANES:,}")
    with database.db.atomic():
        was = runs.set_lanes(run_id, lanes, who=who, door=door)
        end_all(run_id, first=lanes)
    if lanes > was:
        open_lanes(run_id, first=was)
    elif lanes < was:
        broadcast.notify()
    return runs.get(run_id)


def set_priority(run_id: int, priority: int, *, who: str, door: str) -> Run:
    """Let a run go before others, or after them: in the line of its source, and on a budget that it shares.

    Parameters:
      priority(int): -100 to 100, 0 unless it was set; the higher goes first.

    Raises:
      UnknownRun: There is no such run.
      UsageError: It has ended, or the number is out of range.
    """
    if abs(priority) > MOST_PRIORITY:
        raise UsageError(f"A run cannot have priority {priority:,}: give -{MOST_PRIORITY} to {MOST_PRIORITY}")
    runs.set_priority(run_id, priority, who=who, door=door)
    return runs.get(run_id)


def force(run_id: int, *, who: str, door: str) -> str:
    """Make happen what has not happened by itself for five minutes: see `forcing.look`.

    Returns:
      str: What was done.

    Raises:
      UnknownRun: There is no such run.
      UsageError: It is too early, and the message says how long to wait; or nothing is stuck.

    *Warning:* items that are taken from a worker that hangs are asked for again; what it brings later is refused.
    """
    found = forcing.look(runs.get(run_id))
    left = forcing.FORCE_SECONDS - found.lasts_seconds
    if left > 0:
        lasts, until = duration(found.lasts_seconds), duration(math.ceil(left))
        raise UsageError(f"Run {run_id} {found.what}, for {lasts} now: it can be forced in {until}")
    with database.db.atomic():
        done = found.force()
        if not done:
            raise UsageError(f"Run {run_id} has gone on by itself meanwhile: look at it again")
        runs.note(run_id, "forced", who=who, door=door, detail=done)
    found.then()
    return done


def check_tenant(tenant: str | None) -> None:
    """Refuse what cannot be stored as a tenant.

    Raises:
      UsageError: It is empty, or too long, or has what cannot be printed.
    """
    if tenant is not None and not 1 <= len(tenant) <= MOST_TENANT:
        raise UsageError(f"A tenant has 1 to {MOST_TENANT} characters, not {len(tenant):,}")
    if tenant is not None and not tenant.isprintable():
        raise UsageError(f"A tenant has only characters that can be printed, not {tenant!r}")


def has_tenants(source: ImportSource) -> bool:
    """Whether a source makes a difference between tenants: it gives each its API, or knows which rows are whose."""
    kind = type(source)
    return kind.get_connector is not ImportSource.get_connector or kind.fresh_query is not ImportSource.fresh_query


def refuse_tenant(source_name: str | None, tenant: str | None) -> None:
    """Refuse a tenant of a source that has none, for a person's door: its run would not wait behind the other one.

    Both would import the same rows at the same time. Code that means it may still ask `start` for one; then people may.

    Raises:
      UnknownSource: No source has this name.
      UsageError: The source has no tenants.
    """
    source = _source(source_name) if tenant is not None else None
    if source is not None and not has_tenants(source) and not runs.is_any_for(source.name, tenant):
        raise UsageError(
            f"{source.name} has no tenants: every run of it imports the same. Leave the tenant out; "
            f"or let its get_connector give each tenant its own API"
        )


def behind(run: Run) -> Run | None:
    """Return the active run a pending one waits for."""
    return activation.active(run.source, run.tenant) if run.status == RunStatus.PENDING else None


def _tell_lanes(run: Run, *, stop: bool) -> None:
    """Let the lanes hear it before their next request. Where that cannot be, they hear it at their next commit."""
    settings = get_settings()
    try:
        budget = run_connector.of(run).budget
        limiter = RateLimiter(budget, quick_client(settings.redis_url), prefix=settings.prefix)
        if stop:
            run_usage.add(run.id, Usage(slept_seconds=limiter.stop(run.id)))
        else:
            limiter.go_on(run.id)
        if stop and runs.get(run.id).status == RunStatus.RUNNING:  # somebody has resumed it meanwhile
            limiter.go_on(run.id)
    except Exception as error:  # a user's get_connector may fail in any way
        log.info("run %d: its lanes were not told (%s)", run.id, type(error).__name__)
    if stop and not broadcast.notify():
        log.warning("run %d: not every process has said that it heard; its lanes hear it at their next commit", run.id)


def _source(name: str | None) -> ImportSource:
    return get_registry()[name] if name else get_registry().only()


def _options(fresh: bool, even_if_empty: bool) -> dict[str, Any]:
    """Return a run's options.

    Raises:
      UsageError: `even_if_empty` means nothing without `fresh`.
    """
    if even_if_empty and not fresh:
        raise UsageError("--even-if-empty is for --fresh: give both, or neither")
    return ({"fresh": True} if fresh else {}) | ({"even_if_empty": True} if even_if_empty else {})


def _create(
    source_name: str | None,
    *,
    who: str,
    door: str,
    tenant: str | None,
    options: dict[str, Any],
    at: datetime | None,
) -> Run:
    source = _source(source_name)
    check_tenant(tenant)
    if options.get("fresh"):
        _refuse_fresh(source, tenant, at)
    table_check.check_named(type(source).__name__, source.model)
    with model_database.connected(source.model):
        table_check.check(type(source).__name__, source.model, source.unique_by)
    lanes = get_settings().lanes or source.lanes
    return runs.create(
        source.name, lanes=lanes, created_by=who, door=door, tenant=tenant, scheduled_at=at, options=options
    )


def _refuse_fresh(source: ImportSource, tenant: str | None, at: datetime | None) -> None:
    """Refuse a fresh run that could remove rows which another run writes, or rows of others.

    One for later is not refused for what is active now: that is looked at when it begins, and when it removes.
    """
    if source.allow_fresh and at is None:
        for run in activation.active_of(sources_of_table(source)):
            if (run.source, run.tenant) != (source.name, tenant):  # behind that one it waits
                whose = f"{run.source} for {run.tenant}" if run.tenant else run.source
                raise UsageError(
                    f"Run {run.id} of {whose} is {run.status}, and writes to the same table: "
                    f"start the fresh run when it has ended, or cancel it first"
                )
    refuse(source, tenant)
