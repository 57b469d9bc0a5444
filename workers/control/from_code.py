"""Starts, steers and reads runs from a program: `workers.start_run`, `pause`, `retry` and the others.

Each function opens a database connection as the settings say, asks `runner` to act, and closes it. The timeline records
who acted (`who`, default: the operating system's user) and from where (`door`, default: "code").

All of them raise:
  UsageError: An argument is of another type than its annotation says, or no database can store it.
  ConfigurationError: A setting cannot be used, the sources cannot be loaded, or the database lacks Sluice's tables.
  DependencyDown: The database does not answer. Without Redis they succeed: the change is saved, and workers apply it
    when Redis is back.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from workers.control import runner
from workers.control.argument_checks import checked
from workers.control.author import author
from workers.control.database_session import tables
from workers.errors import UsageError
from workers.failures import FailureClass
from workers.records import runs
from workers.records.tables import Run
from workers.reports import run_stats as reports
from workers.reports.run_stats import RunStats
from workers.sources.registry import get_registry

_DOOR = "code"


@checked
def start_run(
    source: str | None = None,
    *,
    at: datetime | None = None,
    tenant: str | None = None,
    fresh: bool = False,
    even_if_empty: bool = False,
    who: str | None = None,
    door: str = _DOOR,
) -> Run:
    """Start a run of a source, now or at a time. It returns at once: workers do the work.

    Parameters:
      source(str | None): The source's name; None: the only one there is.
      at(datetime | None): When the scheduler starts it, in UTC unless it has an offset; None: now.
      tenant(str | None): For whom, where the source has tenants.
      fresh(bool): At its end, remove the rows that are no longer in the list; only where the source allows it.
      even_if_empty(bool): With `fresh`: also where the list was empty.
      who(str | None): Who asks, 1 to 100 characters; None: the operating system's user.
      door(str): From where, 1 to 20 characters.

    Returns:
      Run: Its `status` is running; pending, behind the active run of its source and tenant; or scheduled.

    Raises:
      UnknownSource: No source has this name.
      UsageError: `at` has passed, `tenant` cannot be stored, or another run of the table forbids a fresh one now.
      ConfigurationError: The source does not allow `fresh`, or does not fit its model's table.

    *Warning:* not idempotent: two calls start two runs.
    """
    by = author(who, door)
    with tables():
        if at is None:
            return runner.start(source, tenant=tenant, fresh=fresh, even_if_empty=even_if_empty, **by)
        name = get_registry().only().name if source is None else source
        return runner.schedule(name, _utc(at), tenant=tenant, fresh=fresh, even_if_empty=even_if_empty, **by)


@checked
def reschedule(
    source: str,
    *,
    at: datetime | None = None,
    tenant: str | None = None,
    who: str | None = None,
    door: str = _DOOR,
) -> Run:
    """Move the next scheduled run of a source to another time; the later ones keep theirs.

    Parameters:
      source(str): The source's name.
      at(datetime | None): When, in UTC unless it has an offset; None: now.
      tenant(str | None): Whose run; None: one without a tenant.
      who(str | None), door(str): As for `start_run`.

    Returns:
      Run: The run that was moved.

    Raises:
      UnknownSource: No source has this name.
      UsageError: No run of this source and tenant is scheduled, or `at` has passed.
    """
    by = author(who, door)
    with tables():
        return runner.reschedule(source, at=_utc(at) if at else None, tenant=tenant, **by)


@checked
def pause(run_id: int, *, who: str | None = None, door: str = _DOOR) -> Run:
    """Pause a running run. Each lane still completes the item it is working on; `resume` continues the run.

    Parameters:
      run_id(int): The run.
      who(str | None), door(str): As for `start_run`.

    Returns:
      Run: As it is now.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it is not running.

    *Warning:* lanes may send one more request each. Where Redis is away, they stop at their next commit.
    """
    by = author(who, door)
    with tables():
        runner.pause(run_id, **by)
        return runs.get(run_id)


@checked
def resume(run_id: int, *, who: str | None = None, door: str = _DOOR) -> Run:
    """Continue a paused run. What was completed is not requested again. Parameters and errors are those of `pause`."""
    by = author(who, door)
    with tables():
        runner.resume(run_id, **by)
        return runs.get(run_id)


@checked
def cancel(run_id: int, *, reason: str | None = None, who: str | None = None, door: str = _DOOR) -> Run:
    """Cancel a run that has not ended, for good. The rows it has imported stay.

    Parameters:
      run_id(int): The run.
      reason(str | None): Why, for the timeline.
      who(str | None), door(str): As for `start_run`.

    Returns:
      Run: As it is now.

    Raises:
      UnknownRun, InvalidTransition: There is no such run, or it has ended.

    *Warning:* as for `pause`.
    """
    by = author(who, door)
    with tables():
        runner.cancel(run_id, reason=reason, **by)
        return runs.get(run_id)


@checked
def retry(
    run_id: int,
    *,
    failure_class: FailureClass | str | None = None,
    fingerprint: str | None = None,
    external_ids: Sequence[str] = (),
    from_start: bool = False,
    who: str | None = None,
    door: str = _DOOR,
) -> int:
    """Retry the failed items of a run. A run that failed while it read its list continues with the list.

    Parameters:
      run_id(int): The run.
      failure_class(FailureClass | str | None): Only items of this class.
      fingerprint(str | None): Only items whose failures share this fingerprint.
      external_ids(Sequence[str]): Only these items. An item must fit everything that is given.
      from_start(bool): Also read the list of an ended run again, from its first page.
      who(str | None), door(str): As for `start_run`.

    Returns:
      int: How many items are pending again.

    Raises:
      UnknownRun: There is no such run.
      InvalidTransition: It was cancelled, or has not begun.
      UsageError: Nothing can be retried, or an id cannot be; the message names what can.
    """
    by = author(who, door)
    with tables():
        return runner.retry_failed(
            run_id,
            failure_class=failure_class,
            fingerprint=fingerprint,
            external_ids=external_ids,
            from_start=from_start,
            **by,
        )


@checked
def adjust(
    run_id: int,
    *,
    lanes: int | None = None,
    priority: int | None = None,
    who: str | None = None,
    door: str = _DOOR,
) -> Run:
    """Change the lanes or the priority of a run that has not ended.

    Parameters:
      run_id(int): The run.
      lanes(int | None): How many items it works on at once, 1 to 1,024; None: as it is.
      priority(int | None): -100 to 100; the higher goes first, among pending runs and on a shared budget; None: as it
        is.
      who(str | None), door(str): As for `start_run`.

    Returns:
      Run: As it is now.

    Raises:
      UnknownRun: There is no such run.
      UsageError: It has ended, a number is out of range, or neither is given.
    """
    if lanes is None and priority is None:
        raise UsageError("Say what to change: lanes, priority, or both")
    if lanes is not None:
        runner.check_lanes(lanes)
    if priority is not None:
        runner.check_priority(priority)
    by = author(who, door)
    with tables():
        if lanes is not None:
            runner.set_lanes(run_id, lanes, **by)
        if priority is not None:
            runner.set_priority(run_id, priority, **by)
        return runs.get(run_id)


@checked
def force(run_id: int, *, who: str | None = None, door: str = _DOOR) -> str:
    """Complete a change of a run that has been stuck for five minutes: a pause, a start or an end that does not happen.

    Parameters:
      run_id(int): The run.
      who(str | None), door(str): As for `start_run`.

    Returns:
      str: What was done, in a sentence.

    Raises:
      UnknownRun: There is no such run.
      UsageError: Nothing of it is stuck, or not yet for five minutes; the message says for how much longer.

    *Warning:* items taken from a worker that hangs are requested again. What that worker still brings is refused.
    """
    by = author(who, door)
    with tables():
        return runner.force(run_id, **by)


@checked
def run_stats(run_id: int) -> RunStats:
    """Return how far a run is: its counts, its pace, when it ends, and why it waits. Nothing is changed by it.

    Parameters:
      run_id(int): The run.

    Raises:
      UnknownRun: There is no such run.
    """
    with tables():
        return reports.run_stats(runs.get(run_id))


def _utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError:
        raise UsageError(f"at cannot be {at}: in UTC it is beyond the last year, 9999, or before the first") from None
