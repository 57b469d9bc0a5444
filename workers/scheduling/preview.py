"""What a change of a schedule would come to, told before it is made, by the rules that will make it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from workers.connections import database
from workers.control import runner
from workers.cron import Cron
from workers.records.tables import Run, RunStatus, Schedule
from workers.scheduling import schedules, timetable
from workers.scheduling.rules import Action, Cancel, Make, Move, decide
from workers.scheduling.schedule_stats import PREVIEW
from workers.sources import registry
from workers.sources.contracts import ImportSource


@dataclass(frozen=True)
class SchedulePlan:
    """What would be done now, and when the source would come next.

    Attributes:
      now: When that was asked.
      actions: As `decide` has them: to be told, not to be done.
      slots: For which slot each run in them is, by id, as it is now.
      timezone, in_words: Of what would hold then; empty where there would be no schedule.
      paused: Whether it would make no runs.
      next_at: Its next slots then, in UTC; empty where it would make no runs.
      same: Whether what would hold is what holds already.
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
    """Return what `timetable.set_schedule` would do.

    Raises:
      UnknownSource, UsageError: As there.
    """
    registry.get_registry()[source_name]
    runner.check_tenant(tenant)
    runner.refuse_tenant(source_name, tenant)
    values = timetable.check(cron, timezone, catch_up)
    found = schedules.find(source_name, tenant)
    if found is None:
        read = Cron(values["cron"], values["timezone"])
        now = database.now()
        slots = tuple(read.next(PREVIEW, now))
        return SchedulePlan(now, tuple(map(Make, slots[:1])), {}, read.timezone, read.in_words, next_at=slots)
    return _changed(found, values)


def of_pausing(found: Schedule) -> SchedulePlan:
    """Return what `timetable.pause_schedule` would do."""
    return _changed(found, {"paused_at": database.now()})


def of_resuming(found: Schedule) -> SchedulePlan:
    """Return what `timetable.resume_schedule` would do."""
    return _changed(found, {"paused_at": None})


def of_removing(found: Schedule) -> SchedulePlan | None:
    """Return what `timetable.remove_schedule` would do; None where it refuses: its source declares just this one."""
    source = source_declaring(found)
    if source:
        values = timetable.check(source.schedule or "", source.timezone, source.catch_up)
        return _changed(found, {**values, "paused_at": None}) if found.edited else None
    future = schedules.future_run(found)
    actions = (Cancel(future.id, "its schedule was removed"),) if future else ()
    return SchedulePlan(database.now(), actions, {future.id: future.slot_at} if future else {})


def source_declaring(found: Schedule) -> ImportSource | None:
    """Return the source that declares a schedule where this one is; None where none does."""
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
    """Return the next slots: the first is that of the run that is made, or moved, or stays."""
    made = [action.slot for action in actions if isinstance(action, (Make, Move)) and action.slot > now]
    own = [run for run in seen if run.stands_for_its_slot and run.status == RunStatus.SCHEDULED]
    stays = [run.slot_at for run in own if run.slot_at > now]
    if not made + stays:
        return tuple(cron.next(PREVIEW, now))
    first = (made or stays)[-1]
    return (first, *cron.next(PREVIEW - 1, first))
