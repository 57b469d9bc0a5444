"""The timetable: how a schedule is set, paused, resumed and removed, and how its slots become runs."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from workers import catch_up as policies
from workers import database, finalize, registry, runs, schedules
from workers.contracts import ImportSource
from workers.cron import Cron
from workers.decide import decide
from workers.errors import SluiceError, UsageError
from workers.settings import get_settings
from workers.tables import Schedule

log = logging.getLogger(__name__)

#: So often a change is tried again that a scheduler, or somebody else, was faster with.
_TRIES = 20
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

    def change(found: Schedule | None) -> Schedule | None:
        values = {
            "cron": cron,
            "timezone": timezone or (found.timezone if found else source.timezone),
            "catch_up": catch_up or (found.catch_up if found else source.catch_up),
        }
        values = check(**values)
        if found is None:
            return schedules.create(source.name, tenant=tenant, who=who, edited=True, **values)
        return schedules.change(found, who=who, edited=True, **values, **_since(found, values))

    changed = _change(source, tenant, change)
    _follow(changed, source, who, door, f"the schedule is now {changed.cron!r} in {changed.timezone}")
    return changed


def pause_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule:
    """Make no more runs by this schedule until it is resumed; its future run is cancelled, others go on.

    Raises:
      UnknownSource: No source has this name.
      UsageError: It has no schedule, or one that is paused.
    """

    def change(found: Schedule | None) -> Schedule | None:
        held = _known(found, source_name, tenant)
        if held.paused_at:
            since = f"{held.paused_at:%Y-%m-%d %H:%M} UTC"
            raise UsageError(f"The schedule of {_name(held)} is paused already, since {since}")
        return schedules.change(held, who=who, paused_at=database.now())

    source = registry.get_registry()[source_name]
    paused = _change(source, tenant, change)
    _follow(paused, source, who, door, None)
    return paused


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
    resumed = _change(source, tenant, change)
    _follow(resumed, source, who, door, "the schedule was resumed")
    return resumed


def remove_schedule(source_name: str, *, who: str, door: str, tenant: str | None = None) -> Schedule | None:
    """Take back what people have set: the schedule that the source declares holds again, or none.

    Returns:
      Schedule | None: What holds now.

    Raises:
      UnknownSource: No source has this name.
      UsageError: It has no schedule, or just the one that its source declares.
    """
    source = registry.get_registry()[source_name]
    declared = _declared(source) if tenant is None else None

    def change(found: Schedule | None) -> Schedule | None:
        held = _known(found, source_name, tenant)
        if declared and not held.edited:
            raise UsageError(f"{_name(held)} declares its schedule itself: pause it, or set another one")
        if declared:
            values = _values(source) | {"declared": declared, "edited": False, "paused_at": None}
            return schedules.change(held, who=who, **values, **_since(held, values))
        return _remove(held, who, door, "its schedule was removed")

    changed = _change(source, tenant, change)
    if not declared:
        return None
    _follow(changed, source, who, door, "the schedule is again what its source declares")
    return changed


def adopt() -> None:
    """Record what the sources declare. Where a person has changed a schedule, that is left alone."""
    for source in registry.get_registry().values():
        found, declared = schedules.find(source.name), _declared(source)
        if found is None and declared:
            schedules.create(source.name, who="its source", declared=declared, **_values(source))
        elif found and found.declared and not declared:
            _forget_declared(found)
        elif found and declared and found.declared != declared:
            values = {} if found.edited else _values(source)
            who = found.updated_by if found.edited else "its source"
            schedules.change(found, who=who, declared=declared, **values, **_since(found, values))


def keep() -> int:
    """Decide every schedule, and do what was decided: see `decide`. Any number of processes may do this at once.

    A schedule that cannot be kept keeps no other from its runs.

    Returns:
      int: How many things were done.
    """
    known, done = registry.get_registry(), 0
    for schedule in schedules.every():
        source = known.get(schedule.source) if schedule.source in known else None
        if source is None:
            continue  # another host's: it knows the source
        try:
            done += _keep(schedule, source, "sluice", "scheduler")
            _told.pop(schedule.id, None)
        except Exception as error:
            if database.is_away(error):
                raise
            _tell_once(schedule, error)
    return done


def check(cron: str, timezone: str, catch_up: str) -> dict[str, str]:
    """Return what can be stored of these.

    Raises:
      UsageError: One of them cannot be used; the message says the fix.
    """
    read = Cron(cron, timezone)
    return {"cron": read.expression, "timezone": read.timezone, "catch_up": str(policies.read(catch_up))}


def _keep(schedule: Schedule, source: ImportSource, who: str, door: str, detail: str | None = None) -> int:
    settings = get_settings()
    now = database.now()
    late = max(_LATE_SECONDS, 2 * settings.tick_seconds)
    actions = decide(schedule, schedules.runs_to_decide(schedule, now), now, late)
    if not actions:
        return 0
    lanes = settings.lanes or source.lanes
    if not schedules.apply(schedule, actions, lanes=lanes, who=who, door=door, detail=detail):
        return 0
    log.info("schedule of %s: %s", _name(schedule), ", ".join(type(action).__name__.lower() for action in actions[:20]))
    finalize.start_next(schedule.source, schedule.tenant)
    return len(actions)


def _follow(schedule: Schedule, source: ImportSource, who: str, door: str, detail: str | None) -> None:
    """After a person's change: do at once what it comes to, in that person's name. If not here, the next tick does."""
    _keep(schedule, source, who, door, detail)


def _change(source: ImportSource, tenant: str | None, change: Callable[[Schedule | None], Schedule | None]) -> Schedule:
    for _ in range(_TRIES):
        changed = change(schedules.find(source.name, tenant))
        if changed is not None:
            return changed
    raise UsageError(f"The schedule of {source.name} is being changed by others: look at it, and try again")


def _remove(schedule: Schedule, who: str, door: str, reason: str) -> Schedule | None:
    with database.db.atomic():
        if not schedules.remove(schedule):
            return None
        future = schedules.future_run(schedule)
        if future:
            runs.call_off(future.id, reason, who=who, door=door)
    return schedule


def _forget_declared(schedule: Schedule) -> None:
    if schedule.edited:
        schedules.change(schedule, who=schedule.updated_by, declared=None)
    else:
        _remove(schedule, "sluice", "scheduler", "its source declares no schedule any more")


def _known(found: Schedule | None, source_name: str, tenant: str | None) -> Schedule:
    if found is None:
        whose = source_name + (f" for {tenant}" if tenant else "")
        raise UsageError(f'{whose} has no schedule: set one first, like `schedule set {source_name} "0 */3 * * *"`')
    return found


def _declared(source: ImportSource) -> str | None:
    return " | ".join(_values(source).values()) if source.schedule else None


def _values(source: ImportSource) -> dict[str, Any]:
    return check(source.schedule or "", source.timezone, source.catch_up)


def _since(found: Schedule, values: Mapping[str, Any]) -> dict[str, datetime]:
    """Return from when on the slots are those of the changed schedule: nothing where they are the same ones."""
    same = all(values.get(name, getattr(found, name)) == getattr(found, name) for name in _OF_SLOTS)
    return {} if same else {"since": database.now()}


def _name(schedule: Schedule) -> str:
    return schedule.source + (f" for {schedule.tenant}" if schedule.tenant else "")


def _tell_once(schedule: Schedule, error: Exception) -> None:
    if _told.get(schedule.id) != str(error):
        _told[schedule.id] = str(error)
        expected = isinstance(error, SluiceError)
        log.warning(
            "the schedule of %s cannot be kept: %s", _name(schedule), error, exc_info=None if expected else error
        )
