"""The timetable: how a schedule is set, paused, resumed and removed, and how its slots become runs."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from workers.connections import database
from workers.connections.fault_isolation import is_for_all, isolated
from workers.control import runner
from workers.cron import Cron, read_catch_up
from workers.engine import finalize
from workers.errors import SluiceError, UnknownSource, UsageError
from workers.messaging import scheduler_heartbeat
from workers.records import scheduled_runs
from workers.records.tables import Run, RunStatus, Schedule
from workers.scheduling import schedules
from workers.scheduling.rules import Action, decide
from workers.settings import get_settings
from workers.sources import registry
from workers.sources.contracts import ImportSource
from workers.text.error_text import message_of

log = logging.getLogger(__name__)

#: So often a change is tried again that a scheduler, or somebody else, was faster with.
_TRIES = 20
#: So many things are done in one transaction, so that lanes need not wait long for it.
_AT_ONCE = 500
#: Who changes a schedule that only its source declares.
ITS_SOURCE = "its source"
#: The clocks of two hosts may differ by this much.
_CLOCK_ERROR = timedelta(seconds=60)
#: Up to so long after its slot a run is no late one: a tick may wait for a locked database.
_LATE_SECONDS = 60.0

#: The columns that say which slots a schedule has.
_OF_SLOTS = ("cron", "timezone", "paused_at")

#: What was last said of a schedule that cannot be decided, so that it is not said with each tick.
_told: dict[int, str] = {}


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
    """Let a source run by itself, or change when it does. Its future run moves to the next slot at once.

    Parameters:
      source_name(str): Which source.
      cron(str): Five fields, as in "0 */3 * * *"; see `Cron`.
      who(str), door(str): Who asked, and from where: cli, script, monitor.
      timezone(str | None): A name like Europe/Paris; None: as it was, else what the source says.
      catch_up(str | None): latest, none or all; None: as it was, else what the source says.
      tenant(str | None): For whom, where the source has tenants.

    Raises:
      UnknownSource: No source has this name.
      UsageError: A value cannot be used; the message says the fix.
    """
    source = registry.get_registry()[source_name]
    runner.check_tenant(tenant)

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
    """Make no more runs by this schedule until it is resumed; its future run is cancelled, others go on.

    Raises:
      UnknownSource: There is neither a source nor a schedule of this name.
      UsageError: It has no schedule, or one that is paused.
    """

    def change(found: Schedule | None) -> Schedule | None:
        held = _known(found, source_name, tenant)
        if held.paused_at:
            since = f"{held.paused_at:%Y-%m-%d %H:%M} UTC"
            raise UsageError(f"The schedule of {_name(held)} is paused already, since {since}")
        with database.db.atomic():
            paused = schedules.change(held, who=who, paused_at=database.now())
            if paused:
                _call_off_future(paused, "its schedule is paused", who, door, free=True)
        return paused

    return _change(source_name, tenant, change)


def resume_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule:
    """Let a paused schedule go on with its next slot; those that passed meanwhile are not made up for.

    Raises:
      UnknownSource: No source has this name.
      UsageError: It has no schedule, or one that is not paused.
    """

    def change(found: Schedule | None) -> Schedule | None:
        held = _known(found, source_name, tenant)
        if not held.paused_at:
            raise UsageError(f"The schedule of {_name(held)} is not paused")
        return schedules.change(held, who=who, paused_at=None, since=database.now())

    source = registry.get_registry()[source_name]
    resumed = _change(source_name, tenant, change)
    _keep(resumed, source, who, door, "the schedule was resumed")
    return resumed


def remove_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule | None:
    """Take back what people have set: the schedule that the source declares holds again, or none.

    Returns:
      Schedule | None: What holds now.

    Raises:
      UnknownSource: There is neither a source nor a schedule of this name.
      UsageError: It has no schedule, or just the one that its source declares.
    """
    source = _source(source_name)
    declared = _declared(source) if source and tenant is None else None

    def change(found: Schedule | None) -> Schedule | None:
        held = _known(found, source_name, tenant)
        if declared and not held.edited:
            raise UsageError(f"{_name(held)} declares its schedule itself: pause it, or set another one")
        if source and declared:
            values = _values(source) | {"declared": declared, "edited": False, "paused_at": None}
            return schedules.change(held, who=who, **values, **since(held, values))
        return _remove(held, who, door, "its schedule was removed")

    changed = _change(source_name, tenant, change)
    if not source or not declared:
        return None
    _keep(changed, source, who, door, "the schedule is again what its source declares")
    return changed


def record_declared() -> None:
    """Record the schedules that sources declare and that have no row yet."""
    _for_each_source(_record_declared)


def _record_declared(source: ImportSource) -> None:
    declared = _declared(source)
    if declared and schedules.find(source.name) is None:
        schedules.create(source.name, who=ITS_SOURCE, declared=declared, **_values(source))


def _for_each_source(do: Callable[[ImportSource], None]) -> None:
    for source in registry.get_registry().values():
        isolated(f"the schedule that {source.name} declares cannot be followed", partial(do, source))


def adopt() -> None:
    """Record what the sources declare, and follow what they declare now. What a person has changed is left alone.

    Where another scheduler's code says otherwise, what was first said is kept until that scheduler is gone.
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
    """Decide every schedule, and do what was decided: see `decide`. Any number of processes may do this at once.

    A schedule that cannot be kept keeps no other from its runs.

    Parameters:
      late_seconds(float): From how long after its slot on a run counts as missed, where none is made up for.

    Returns:
      int: How many things were done.
    """
    known, done = registry.get_registry(), 0
    for schedule in schedules.every():
        if schedule.source not in known:
            continue  # another host's: it knows the source
        try:
            done += _keep(schedule, known[schedule.source], "sluice", "scheduler", late_seconds=late_seconds)
            _told.pop(schedule.id, None)
        except Exception as error:
            if is_for_all(error):
                raise
            _tell_once(schedule, error)
    return done


def check(cron: str, timezone: str, catch_up: str) -> dict[str, str]:
    """Return what can be stored of these.

    Raises:
      UsageError: One of them cannot be used; the message says the fix.
    """
    read = Cron(cron, timezone)
    return {"cron": read.expression, "timezone": read.timezone, "catch_up": str(read_catch_up(catch_up))}


def late_after(at_least: float = 0.0) -> float:
    """Return from how many seconds after its slot on a run is a late one."""
    return max(at_least, _LATE_SECONDS, 2 * get_settings().tick_seconds)


def since(found: Schedule, values: Mapping[str, Any]) -> dict[str, datetime]:
    """Return from when on the slots are those of the changed schedule: nothing where they are the same ones."""
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
    """Decide a schedule, and do it, in short transactions. Where somebody else is faster, the next tick goes on."""
    settings = get_settings()
    late = late_after(late_seconds)
    lanes, done = settings.lanes or source.lanes, 0
    now = database.now()  # one for all of it: else the newest slot may be another one meanwhile
    current: Schedule | None = schedule
    while current is not None:
        actions = decide(current, _to_decide(current, now), now, late)
        some = actions[:_AT_ONCE]
        if not some or not schedules.apply(current, some, lanes=lanes, who=who, door=door, detail=detail):
            break
        done += len(some)
        log.info("schedule of %s: %s", _name(current), _in_words(some))
        finalize.start_next(current.source, current.tenant)
        current = schedules.find(current.source, current.tenant) if len(actions) > _AT_ONCE else None
    return done


def _to_decide(schedule: Schedule, now: datetime) -> Sequence[Run]:
    """Return the runs to decide on, the slots freed that were skipped by a clock that was ahead."""
    found = schedules.runs_to_decide(schedule, now)
    premature = [run.id for run in found if run.slot_at > now and run.created_at > now + _CLOCK_ERROR and _is_skip(run)]
    if not premature:
        return found
    scheduled_runs.free_slots(premature)
    return [run for run in found if run.id not in premature]


def _is_skip(run: Run) -> bool:
    return run.status == RunStatus.CANCELLED and run.started_at is None


def _in_words(actions: Sequence[Action]) -> str:
    """Say what was done, for the log."""
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
    raise UsageError(f"The schedule of {source_name} is being changed by others: look at it, and try again")


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
    """Take over what a source declares now, instead of what it declared before."""
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


def _tell_once(schedule: Schedule, error: Exception) -> None:
    said = message_of(error)
    if _told.get(schedule.id) != said:
        _told[schedule.id] = said
        expected = isinstance(error, SluiceError)
        log.warning(
            "the schedule of %s cannot be kept: %s", _name(schedule), said, exc_info=None if expected else error
        )
