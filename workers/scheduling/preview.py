"""Preview of a change of a schedule: the actions and next slots that it would lead to, by the same rules."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from workers.connections import database
from workers.control import tenants
from workers.cron import Cron
from workers.records.tables import Run, RunStatus, Schedule
from workers.scheduling import schedules, timetable
from workers.scheduling.schedule_stats import PREVIEW
from workers.scheduling.slot_rules import Action, Cancel, Make, Move, decide
from workers.sources import registry
from workers.sources.contracts import ImportSource


@dataclass(frozen=True)
class SchedulePlan:
    """The effect of a change of a schedule.

    Attributes:
      now: The time of the preview.
      actions: The actions that `decide` returns; they are only shown.
      slots: The current slot of each run in `actions`, by its id.
      timezone, in_words: Of the changed schedule; empty if there would be none.
      paused: Whether it would create no runs.
      next_at: Its next slots, in UTC; empty if it would create no runs.
      same: Whether the change changes nothing.
    """

    now: datetime = field(compare=False)
    actions: tuple[Action, ...]
    slots: Mapping[int, datetime]
    timezone: str = ""
    in_words: str = ""
    paused: bool = False
    next_at: tuple[datetime, ...] = ()
    same: bool = False


def of_setting(source_name: str, tenant: str | None, cron: str, timezone: str, catch_up: str) -> SchedulePlan:
    """Return the effect of `timetable.set_schedule`.

    Raises:
      UnknownSource, UsageError: As there.
    """
    registry.get_registry()[source_name]
    tenants.check(tenant)
    tenants.refuse(source_name, tenant)
    values = timetable.check(cron, timezone, catch_up)
    found = schedules.find(source_name, tenant)
    if found is None:
        read = Cron(values["cron"], values["timezone"])
        now = database.now()
        slots = tuple(read.next(PREVIEW, now))
        return SchedulePlan(now, tuple(map(Make, slots[:1])), {}, read.timezone, read.in_words, next_at=slots)
    return _changed(found, values)


def of_pausing(found: Schedule) -> SchedulePlan:
    """Return the effect of `timetable.pause_schedule`."""
    return _changed(found, {"paused_at": database.now()})


def of_resuming(found: Schedule) -> SchedulePlan:
    """Return the effect of `timetable.resume_schedule`."""
    return _changed(found, {"paused_at": None})


def of_removing(found: Schedule) -> SchedulePlan | None:
    """Return the effect of `timetable.remove_schedule`; None if it would refuse, as the source declares it."""
    source = source_declaring(found)
    if source:
        values = timetable.check(source.schedule or "", source.timezone, source.catch_up)
        return _changed(found, {**values, "paused_at": None}) if found.edited else None
    future = schedules.future_run(found)
    actions = (Cancel(future.id, "its schedule was removed"),) if future else ()
    return SchedulePlan(database.now(), actions, {future.id: future.slot_at} if future else {})


def source_declaring(found: Schedule) -> ImportSource | None:
    """Return the source whose code declares a schedule in place of this one; None if none does."""
    known = registry.get_registry()
    source = known[found.source] if found.source in known and found.tenant is None else None
    return source if source and source.schedule else None


def _changed(found: Schedule, values: Mapping[str, Any]) -> SchedulePlan:
    now = database.now()
    changed = deepcopy(found)
    for name, value in {**values, **timetable.since(found, values)}.items():
        setattr(changed, name, value)
    seen = schedules.runs_to_decide(changed, now)
    actions = decide(changed, seen, now, timetable.late_after())
    cron = Cron(changed.cron, changed.timezone)
    return SchedulePlan(
        now=now,
        actions=tuple(actions),
        slots={run.id: run.slot_at for run in seen},
        timezone=cron.timezone,
        in_words=cron.in_words,
        paused=changed.paused_at is not None,
        next_at=() if changed.paused_at else _next(cron, actions, seen, now),
        same=all(getattr(found, name) == value for name, value in values.items()),
    )


def _next(cron: Cron, actions: Sequence[Action], seen: Sequence[Run], now: datetime) -> tuple[datetime, ...]:
    """Return the next slots; the first is that of the future run, which is created, moved or unchanged."""
    made = [action.slot for action in actions if isinstance(action, (Make, Move)) and action.slot > now]
    own = [run for run in seen if run.stands_for_its_slot and run.status == RunStatus.SCHEDULED]
    stays = [run.slot_at for run in own if run.slot_at > now]
    if not made + stays:
        return tuple(cron.next(PREVIEW, now))
    first = (made or stays)[-1]
    return (first, *cron.next(PREVIEW - 1, first))
