"""The only way a run begins or changes course. Scripts, command line, page and API all come through here."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from workers import broker, clock, database, finalize, inline, items, lanes, runs, saving
from workers.contracts import ImportSource
from workers.discovery import open_lanes
from workers.errors import ConfigurationError, InvalidTransition, UsageError
from workers.limiter import RateLimiter, quick_client
from workers.registry import get_registry
from workers.settings import get_settings
from workers.tables import Run, RunStatus

log = logging.getLogger(__name__)


def start(
    source_name: str | None = None,
    *,
    who: str,
    door: str,
    tenant: str | None = None,
    fresh: bool = False,
    send: bool = True,
) -> Run:
    """Start a run now, or queue it behind the active run of its source and tenant.

    Parameters:
      source_name(str | None): Which source; None: the only one there is.
      who(str): Who asked.
      door(str): From where: cli, script, monitor, scheduler.
      tenant(str | None): For whom, where the source has tenants.
      fresh(bool): Empty the source's table first; only where it declares `allow_fresh`.
      send(bool): Wake the workers; False for a run that `run_inline` is to do.

    Returns:
      Run: It is running, or pending (`behind` tells behind what).

    Raises:
      UnknownSource: No source has this name.
      ConfigurationError: The sources cannot be loaded, or `fresh` is not allowed.
    """
    if send:
        broker.get_broker()  # a broker that cannot be must not leave a run behind
    run = _create(source_name, who=who, door=door, tenant=tenant, fresh=fresh, at=None)
    if runs.activate(run.id) and send:
        broker.send("discover", run.id)
    return runs.get(run.id)


def start_inline(
    source_name: str | None = None, *, who: str, door: str, tenant: str | None = None, fresh: bool = False
) -> Run:
    """Start a run that this process is to do, or take up the one that is active: its process may have been killed.

    Raises:
      UsageError: The active run is paused, or `fresh` was asked for while one is active. Else as `start`.
    """
    source = _source(source_name)
    running = runs.active(source.name, tenant)
    if running is None:
        return start(source.name, who=who, door=door, tenant=tenant, fresh=fresh, send=False)
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
    source_name: str, at: datetime, *, who: str, door: str, tenant: str | None = None, fresh: bool = False
) -> Run:
    """Record a run that the scheduler starts at `at` (UTC-aware). Errors are those of `start`."""
    if at <= clock.now():
        raise UsageError(f"{at:%Y-%m-%d %H:%M:%S %Z} has passed: give a time in the future, or start the run now")
    return _create(source_name, who=who, door=door, tenant=tenant, fresh=fresh, at=at)


def reschedule(source_name: str, *, who: str, door: str, at: datetime | None = None) -> Run:
    """Pull the next scheduled run of a source to `at` (default: now); the later ones keep their time.

    Raises:
      UnknownSource: No source has this name.
      UsageError: No run of this source is scheduled.
    """
    source = get_registry()[source_name]
    if at and at <= clock.now():
        raise UsageError(f"{at:%Y-%m-%d %H:%M:%S %Z} has passed: give a time in the future, or leave it out for now")
    run = runs.pull_forward(source.name, at or database.now(), who=who, door=door)
    if run is None:
        raise UsageError(f"No run of {source.name} is scheduled: start a new one, or schedule one with --at")
    if at is None:
        start_due()
    return runs.get(run.id)


def start_due() -> list[Run]:
    """Start every scheduled run whose time has come, or queue it. Any number of processes may call this.

    Returns:
      list[Run]: Those this call took out of the schedule.
    """
    taken = []
    for run in runs.due_scheduled(database.now()):
        if runs.claim_scheduled(run.id):
            taken.append(run)
            finalize.start_next(run.source, run.tenant)
    return taken


def pause(run_id: int, *, who: str, door: str) -> None:
    """Stop a running run after the item each lane has in hand; `resume` goes on.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it is not running.
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
    """Call a run off; its items stay as they are, the next pending run of its source starts. Errors as for `pause`."""
    runs.move(run_id, RunStatus.CANCELLED, who=who, door=door, detail=reason)
    run = runs.get(run_id)
    _tell_lanes(run, stop=True)
    finalize.start_next(run.source, run.tenant)


def retry_failed(run_id: int, *, who: str, door: str) -> int:
    """Make the failed items of an ended or running run pending again; a run that failed reading its list goes on there.

    Returns:
      int: How many items.

    Raises:
      UnknownRun: There is no such run.
      InvalidTransition: It was called off, or has not begun.
      UsageError: There is nothing to retry.
    """
    with database.db.atomic():
        status = runs.lock(run_id)  # first, so that finalize does not complete the run meanwhile
        if status in (RunStatus.CANCELLED, RunStatus.SCHEDULED, RunStatus.PENDING):
            raise InvalidTransition(run_id, status, "retried", "Start a new run instead.")
        run = runs.get(run_id)
        count = items.reopen_failed(run_id)
        unfinished = run.discovered_at is None or runs.has_open_items(run_id)
        if not count and not (status == RunStatus.FAILED and unfinished):
            raise UsageError(f"Run {run_id} has no failed item that can be tried again")
        if status in (RunStatus.COMPLETED, RunStatus.FAILED):
            runs.move(run_id, RunStatus.PENDING, who=who, door=door, detail=f"retry of {count} failed items")
            lanes.end_all(run_id)
        else:
            runs.note(run_id, "retry", who=who, door=door, detail=f"{count} failed items")
    if runs.get(run_id).status == RunStatus.PENDING:
        finalize.start_next(run.source, run.tenant)
    open_lanes(run_id)
    return count


def behind(run: Run) -> Run | None:
    """Return the active run a pending one waits for."""
    return runs.active(run.source, run.tenant) if run.status == RunStatus.PENDING else None


def _tell_lanes(run: Run, *, stop: bool) -> None:
    """Let the lanes hear it with their next permit. Where that cannot be, they hear it at their next commit."""
    settings = get_settings()
    try:
        budget = get_registry()[run.source].get_connector(run).budget
        limiter = RateLimiter(budget, quick_client(settings.redis_url), prefix=settings.prefix)
        (limiter.stop if stop else limiter.go_on)(run.id)
    except Exception as error:  # a user's get_connector may fail in any way
        log.info("run %d: its lanes were not told (%s)", run.id, type(error).__name__)


def _source(name: str | None) -> ImportSource:
    return get_registry()[name] if name else get_registry().only()


def _create(
    source_name: str | None, *, who: str, door: str, tenant: str | None, fresh: bool, at: datetime | None
) -> Run:
    source = _source(source_name)
    if fresh and not source.allow_fresh:
        raise ConfigurationError(
            f"The source {source.name} does not allow --fresh: set allow_fresh = True on {type(source).__name__} "
            f"if its table may be emptied"
        )
    with saving.connected(source.model):
        is_there = source.model.table_exists()
    if not is_there:
        raise ConfigurationError(
            f"The database has no table {source.model._meta.table_name!r} for {source.model.__name__}: create it, "
            f"or let `python -m workers migrate --create-models` do it"
        )
    options: dict[str, Any] = {"fresh": True} if fresh else {}
    lanes = get_settings().lanes or source.lanes
    return runs.create(
        source.name, lanes=lanes, created_by=who, door=door, tenant=tenant, scheduled_at=at, options=options
    )
