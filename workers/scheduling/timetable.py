"""Timetable: sets, pauses, resumes and removes schedules, and turns their slots into runs with every tick."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from workers.connections import database
from workers.connections.fault_isolation import is_for_all, isolated
from workers.control import tenants
from workers.cron import Cron, read_catch_up
from workers.engine import finalize
from workers.errors import SluiceError, UnknownSource, UsageError
from workers.messaging import scheduler_heartbeat
from workers.records import scheduled_runs
from workers.records.tables import Run, RunStatus, Schedule
from workers.scheduling import schedules
from workers.scheduling.slot_rules import Action, decide
from workers.settings import get_settings
from workers.sources import registry
from workers.sources.contracts import ImportSource
from workers.text.error_text import message_of

log = logging.getLogger(__name__)

#: How often a change is retried if another process has changed the schedule in between.
_TRIES = 20
#: How many actions one transaction applies, so that lanes do not wait long for it.
_AT_ONCE = 500
#: The author of a schedule that its source declares.
ITS_SOURCE = "its source"
#: How much the clocks of two hosts can differ.
_CLOCK_ERROR = timedelta(seconds=60)
#: How late a run can start without counting as late: a tick can wait for a locked database.
_LATE_SECONDS = 60.0

#: The columns that determine the slots of a schedule.
_OF_SLOTS = ("cron", "timezone", "paused_at")

#: The error last logged of each schedule that cannot be followed, so that not every tick logs it.
_logged: dict[int, str] = {}


def set_schedule(
    source_name: str,
    cron: str,
    *,
    who: str,
    door: str,
    timezone: str | None = None,
    catch_up: str | None = None,
    tenant: str | None = None,
) -> Schedule:
    """Set or change the schedule of a source. Its future run moves to the next slot at once.

    Parameters:
      source_name(str): The source.
      cron(str): Five fields, as in "0 */3 * * *"; see `Cron`.
      who(str), door(str): Who acts, and from where: cli, script, monitor.
      timezone(str | None): A name like Europe/Paris; None: unchanged, else the source's.
      catch_up(str | None): latest, none or all; None: unchanged, else the source's.
      tenant(str | None): For which tenant, if the source has tenants.

    Raises:
      UnknownSource: No source has this name.
      UsageError: A value cannot be used; the message says the fix.
    """
    source = registry.get_registry()[source_name]
    tenants.check(tenant)

    def change(found: Schedule | None) -> Schedule | None:
        values = {
            "cron": cron,
            "timezone": timezone or (found.timezone if found else source.timezone),
            "catch_up": catch_up or (found.catch_up if found else source.catch_up),
        }
        values = check(**values)
        if found is None:
            return schedules.create(source.name, tenant=tenant, who=who, edited=True, **values)
        return schedules.change(found, who=who, edited=True, **values, **since(found, values))

    changed = _change(source.name, tenant, change)
    _keep(changed, source, who, door, f"the schedule is now {changed.cron!r} in {changed.timezone}")
    return changed


def pause_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule:
    """Pause a schedule: it creates no runs until it is resumed. Its future run is cancelled, other runs continue.

    Raises:
      UnknownSource: There is neither a source nor a schedule of this name.
      UsageError: It has no schedule, or one that is paused.
    """

    def change(found: Schedule | None) -> Schedule | None:
        current = _known(found, source_name, tenant)
        if current.paused_at:
            since = f"{current.paused_at:%Y-%m-%d %H:%M} UTC"
            raise UsageError(f"The schedule of {_name(current)} is paused already, since {since}")
        with database.db.atomic():
            paused = schedules.change(current, who=who, paused_at=database.now())
            if paused:
                _call_off_future(paused, "its schedule is paused", who, door, free=True)
        return paused

    return _change(source_name, tenant, change)


def resume_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule:
    """Resume a paused schedule from its next slot on; slots that passed during the pause get no run.

    Raises:
      UnknownSource: No source has this name.
      UsageError: It has no schedule, or one that is not paused.
    """

    def change(found: Schedule | None) -> Schedule | None:
        current = _known(found, source_name, tenant)
        if not current.paused_at:
            raise UsageError(f"The schedule of {_name(current)} is not paused")
        return schedules.change(current, who=who, paused_at=None, since=database.now())

    source = registry.get_registry()[source_name]
    resumed = _change(source_name, tenant, change)
    _keep(resumed, source, who, door, "the schedule was resumed")
    return resumed


def remove_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule | None:
    """Remove the schedule that a person has set: the one that the source declares applies again, or none.

    Returns:
      Schedule | None: The schedule that applies now.

    Raises:
      UnknownSource: There is neither a source nor a schedule of this name.
      UsageError: It has no schedule, or only the one that its source declares.
    """
    source = _source(source_name)
    declared = _declared(source) if source and tenant is None else None

    def change(found: Schedule | None) -> Schedule | None:
        current = _known(found, source_name, tenant)
        if declared and not current.edited:
            raise UsageError(f"{_name(current)} declares its schedule itself: pause it, or set another one")
        if source and declared:
            values = _values(source) | {"declared": declared, "edited": False, "paused_at": None}
            return schedules.change(current, who=who, **values, **since(current, values))
        return _remove(current, who, door, "its schedule was removed")

    changed = _change(source_name, tenant, change)
    if not source or not declared:
        return None
    _keep(changed, source, who, door, "the schedule is again what its source declares")
    return changed


def record_declared() -> None:
    """Create the rows of schedules that sources declare and that have none yet."""
    _for_each_source(_record_declared)


def _record_declared(source: ImportSource) -> None:
    declared = _declared(source)
    if declared and schedules.find(source.name) is None:
        schedules.create(source.name, who=ITS_SOURCE, declared=declared, **_values(source))


def _for_each_source(do: Callable[[ImportSource], None]) -> None:
    for source in registry.get_registry().values():
        isolated(f"the schedule that {source.name} declares cannot be followed", partial(do, source))


def adopt() -> None:
    """Create and update schedules as the sources' code declares them, except those that a person has changed.

    If another running scheduler has different code, the schedule stays as first declared until that scheduler is gone.
    """
    record_declared()
    _for_each_source(_adopt)


def _adopt(source: ImportSource) -> None:
    found, declared = schedules.find(source.name), _declared(source)
    if found is None or not (found.declared or declared):
        return
    if found.declared == declared:
        scheduler_heartbeat.declare(source.name, declared or "")
    elif not found.declared or not scheduler_heartbeat.is_declared(source.name, found.declared):
        _follow(found, source, declared)


def keep(late_seconds: float = 0.0) -> int:
    """Decide on every schedule and apply the actions: see `slot_rules.decide`. Several processes can do this at once.

    A schedule with an error does not affect the others.

    Parameters:
      late_seconds(float): How long after its slot a run counts as missed, for the catch-up policy `none`.

    Returns:
      int: How many actions were applied.
    """
    known, done = registry.get_registry(), 0
    for schedule in schedules.every():
        if schedule.source not in known:
            continue  # the scheduler of another host has this source
        try:
            done += _keep(schedule, known[schedule.source], "sluice", "scheduler", late_seconds=late_seconds)
            _logged.pop(schedule.id, None)
        except Exception as error:
            if is_for_all(error):
                raise
            _log_once(schedule, error)
    return done


def check(cron: str, timezone: str, catch_up: str) -> dict[str, str]:
    """Return these values as they are stored.

    Raises:
      UsageError: One of them cannot be used; the message says the fix.
    """
    read = Cron(cron, timezone)
    return {"cron": read.expression, "timezone": read.timezone, "catch_up": str(read_catch_up(catch_up))}


def late_after(at_least: float = 0.0) -> float:
    """Return how many seconds after its slot a run counts as late."""
    return max(at_least, _LATE_SECONDS, 2 * get_settings().tick_seconds)


def since(found: Schedule, values: Mapping[str, Any]) -> dict[str, datetime]:
    """Return the column `since`, from which on the changed slots apply; empty if the slots are unchanged."""
    same = all(values.get(name, getattr(found, name)) == getattr(found, name) for name in _OF_SLOTS)
    return {} if same else {"since": database.now()}


def _keep(
    schedule: Schedule,
    source: ImportSource,
    who: str,
    door: str,
    detail: str | None = None,
    *,
    late_seconds: float = 0.0,
) -> int:
    """Decide on a schedule and apply the actions in short transactions, or leave them to the next tick."""
    settings = get_settings()
    late = late_after(late_seconds)
    lanes, done = settings.lanes or source.lanes, 0
    now = database.now()  # read once, because the newest slot could change in between
    current: Schedule | None = schedule
    while current is not None:
        actions = decide(current, _to_decide(current, now), now, late)
        batch = actions[:_AT_ONCE]
        if not batch or not schedules.apply(current, batch, lanes=lanes, who=who, door=door, detail=detail):
            break
        done += len(batch)
        log.info("schedule of %s: %s", _name(current), _in_words(batch))
        finalize.start_next(current.source, current.tenant)
        current = schedules.find(current.source, current.tenant) if len(actions) > _AT_ONCE else None
    return done


def _to_decide(schedule: Schedule, now: datetime) -> Sequence[Run]:
    """Return the runs to decide on, after freeing slots that a process with a fast clock has skipped."""
    found = schedules.runs_to_decide(schedule, now)
    premature = [run.id for run in found if run.slot_at > now and run.created_at > now + _CLOCK_ERROR and _is_skip(run)]
    if not premature:
        return found
    scheduled_runs.free_slots(premature)
    return [run for run in found if run.id not in premature]


def _is_skip(run: Run) -> bool:
    return run.status == RunStatus.CANCELLED and run.started_at is None


def _in_words(actions: Sequence[Action]) -> str:
    """Return what was done, for the log."""
    kinds = Counter(type(action).__name__.lower() for action in actions)
    return ", ".join(f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.items())


def _source(name: str) -> ImportSource | None:
    with suppress(UnknownSource):
        return registry.get_registry()[name]
    return None


def _change(source_name: str, tenant: str | None, change: Callable[[Schedule | None], Schedule | None]) -> Schedule:
    for _ in range(_TRIES):
        changed = change(schedules.find(source_name, tenant))
        if changed is not None:
            return changed
    raise UsageError(f"The schedule of {source_name} is being changed by another process: check it, and try again")


def _remove(schedule: Schedule, who: str, door: str, reason: str) -> Schedule | None:
    with database.db.atomic():
        if not schedules.remove(schedule):
            return None
        _call_off_future(schedule, reason, who, door, free=False)
    return schedule


def _call_off_future(schedule: Schedule, reason: str, who: str, door: str, *, free: bool) -> None:
    future = schedules.future_run(schedule)
    if future:
        scheduled_runs.call_off(future.id, reason, who=who, door=door, free=free)


def _follow(schedule: Schedule, source: ImportSource, declared: str | None) -> None:
    """Update a schedule to what its source declares now."""
    if schedule.edited:
        schedules.change(schedule, who=schedule.updated_by, declared=declared)
    elif declared:
        values = _values(source)
        schedules.change(schedule, who=ITS_SOURCE, declared=declared, **values, **since(schedule, values))
    else:
        _remove(schedule, "sluice", "scheduler", "its source declares no schedule any more")


def _known(found: Schedule | None, source_name: str, tenant: str | None) -> Schedule:
    if found is None:
        registry.get_registry()[source_name]  # which names the sources there are
        whose = source_name + (f" for {tenant}" if tenant else "")
        raise UsageError(f'{whose} has no schedule: set one first, like `schedule set {source_name} "0 */3 * * *"`')
    return found


def _declared(source: ImportSource) -> str | None:
    return " | ".join(_values(source).values()) if source.schedule else None


def _values(source: ImportSource) -> dict[str, Any]:
    return check(source.schedule or "", source.timezone, source.catch_up)


def _name(schedule: Schedule) -> str:
    return schedule.source + (f" for {schedule.tenant}" if schedule.tenant else "")


def _log_once(schedule: Schedule, error: Exception) -> None:
    message = message_of(error)
    if _logged.get(schedule.id) != message:
        _logged[schedule.id] = message
        expected = isinstance(error, SluiceError)
        log.warning(
            "the schedule of %s cannot be followed: %s", _name(schedule), message, exc_info=None if expected else error
        )
