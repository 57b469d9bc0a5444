"""Rows of a schedule written as short text, and what the decided actions do to them, in memory.

Times are of May 2026, UTC: "12:00" is of the 4th, "5 12:00" of the 5th, "3-29 01:00" of March. A row is its slot and
its status, then what is odd about it: "at 13:30" (a person moved it), "on 11:00" (it was cancelled then), "retried" (it
had begun before).
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from workers.records.tables import Run, RunStatus, Schedule
from workers.scheduling.slot_rules import Action, Begin, Cancel, Make, Move, Skip

LATE_SECONDS = 60.0


def at(text: str) -> datetime:
    day, _, clock = text.rpartition(" ")
    month, _, day = (day or "4").rpartition("-")
    hour, minute, seconds = (clock + ":0").split(":")[:3]
    begin = datetime(2026, int(month or 5), int(day), int(hour), int(minute), tzinfo=UTC)
    return begin + timedelta(seconds=float(seconds))


def said(instant: datetime) -> str:
    """The way back."""
    day = "" if (instant.month, instant.day) == (5, 4) else f"{instant.day} "
    month = "" if instant.month == 5 else f"{instant.month}-"
    year = "" if instant.year == 2026 else f"{instant.year}-"
    return f"{year}{month}{day}{instant:%H:%M}"


def schedule(
    cron: str = "0 */3 * * *",
    zone: str = "UTC",
    catch_up: str = "latest",
    since: str = "09:30",
    paused: str | None = None,
) -> Schedule:
    times = {"since": at(since), "paused_at": at(paused) if paused else None}
    return Schedule(id=1, source="items", cron=cron, timezone=zone, catch_up=catch_up, **times)


def row(number: int, text: str) -> Run:
    match = re.fullmatch(r"((?:\S+ )?\d+:\d\d) (\w+) ?(.*)", text)
    assert match, text
    slot, status, odd = match.groups()
    moved = at(odd.removeprefix("at ")) if odd.startswith("at ") else at(slot)
    begun = at(slot) if odd == "retried" or status in ("running", "completed", "failed", "paused") else None
    ended = at(odd.removeprefix("on ")) if odd.startswith("on ") else None
    times = {"slot_at": at(slot), "scheduled_at": moved, "started_at": begun, "ended_at": ended}
    return Run(id=number, schedule_id=1, status=status, **times)


def short(reason: str) -> str:
    if found := re.match(r"overtaken by the run of 2026-(\d\d)-(\d\d) (\d\d:\d\d) UTC", reason):
        month, day, clock = found.groups()
        return f"overtaken by {said(at(f'{month}-{day} {clock}'))}"
    return reason.partition(":")[0]


def described(action: Action, rows: Sequence[Run]) -> str:
    """An action as the table writes it; a run is named by its slot."""
    slots = {run.id: said(run.slot_at) for run in rows}
    match action:
        case Begin(run_id):
            return f"begin {slots[run_id]}"
        case Cancel(run_id, reason):
            return f"cancel {slots[run_id]}: {short(reason)}"
        case Make(slot, due):
            return f"make {said(slot)}" + (" due" if due else "")
        case Skip(slot, reason):
            return f"skip {said(slot)}: {short(reason)}"
        case Move(run_id, slot):
            return f"move {slots[run_id]} to {said(slot)}"


def perform(schedule: Schedule, rows: list[Run], actions: Sequence[Action]) -> None:
    """What `schedules.apply` does to the rows, in memory, the unique indexes of the table included."""
    found = {run.id: run for run in rows}
    for action in actions:
        match action:
            case Begin(run_id):
                assert found[run_id].status == RunStatus.SCHEDULED
                found[run_id].status = RunStatus.PENDING
            case Cancel(run_id, reason, free):
                run = found[run_id]
                assert run.status in (RunStatus.SCHEDULED, RunStatus.PENDING) and run.started_at is None
                run.status, run.error_summary = RunStatus.CANCELLED, reason
                run.slot_at = None if free else run.slot_at
            case Move(run_id, slot):
                run = found[run_id]
                assert run.status == RunStatus.SCHEDULED and run.scheduled_at == run.slot_at
                run.slot_at = run.scheduled_at = slot
            case Make(slot, due):
                _add(schedule, rows, slot, RunStatus.PENDING if due else RunStatus.SCHEDULED)
            case Skip(slot, reason):
                _add(schedule, rows, slot, RunStatus.CANCELLED).error_summary = reason
        slots = [run.slot_at for run in rows if run.slot_at]
        assert len(slots) == len(set(slots)), f"{action}: a slot has two rows"
        own = [run for run in rows if run.status == RunStatus.SCHEDULED and run.scheduled_at == run.slot_at]
        assert len(own) < 2, f"{action}: the schedule has two future runs"


def _add(schedule: Schedule, rows: list[Run], slot: datetime, status: RunStatus) -> Run:
    number = max((run.id for run in rows), default=0) + 1
    rows.append(Run(id=number, schedule_id=schedule.id, slot_at=slot, scheduled_at=slot, status=status))
    return rows[-1]


def seen(rows: Sequence[Run], now: datetime) -> list[Run]:
    """What `schedules.runs_to_decide` finds of them."""
    slots = [run.slot_at for run in rows if run.slot_at and run.slot_at <= now and stood(run)]
    since = max(slots, default=min((run.slot_at for run in rows if run.slot_at), default=now))
    ahead = (RunStatus.SCHEDULED, RunStatus.PENDING)
    return [run for run in rows if run.status in ahead or (run.slot_at and run.slot_at >= since)]


def stood(run: Run) -> bool:
    """Whether a run had been neither moved nor cancelled when its slot came."""
    return run.scheduled_at == run.slot_at and (run.ended_at is None or run.ended_at >= run.slot_at)
