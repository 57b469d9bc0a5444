"""Saves, pauses, resumes and removes a schedule from the page."""

from collections.abc import Callable
from functools import partial

from workers.control import tenants
from workers.monitor.actions import act
from workers.monitor.actions.act import Result
from workers.scheduling import timetable


def set_schedule(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str, *, key: str = "") -> Result:
    """Set a schedule. Parameters as for `timetable.set_schedule`; the key is the act's idempotency key."""
    return act.perform(partial(_set, source, tenant, cron, timezone, catch_up), key)


def pause(source: str, tenant: str | None, key: str = "") -> Result:
    """Pause a schedule: no runs are scheduled until it is resumed."""
    return _perform(timetable.pause_schedule, source, tenant, "Schedule paused", key)


def resume(source: str, tenant: str | None, key: str = "") -> Result:
    """Resume a paused schedule."""
    return _perform(timetable.resume_schedule, source, tenant, "Schedule resumed", key)


def remove(source: str, tenant: str | None, key: str = "") -> Result:
    """Remove what people have set; the schedule that the source's code declares applies again."""
    return _perform(timetable.remove_schedule, source, tenant, "Schedule removed", key)


def _perform(do: Callable[..., object], source: str, tenant: str | None, text: str, key: str) -> Result:
    def change() -> str:
        do(source, tenant=tenant, **act.origin())
        return text

    return act.perform(change, key)


def _set(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str) -> str:
    tenants.refuse(source, tenant)
    timetable.set_schedule(source, cron, timezone=timezone, catch_up=catch_up, tenant=tenant, **act.origin())
    return "Schedule saved"
