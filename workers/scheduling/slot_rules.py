"""Rules of a schedule: decides which runs to start, cancel, create or move, as a pure function of rows and a clock.

1. A schedule that is not paused always has exactly one future run, for its next slot, however its last run was started.
   Runs that a person schedules, or moves to another time, are additional.
2. A run whose time has come starts, or waits until the active run of its source has ended.
3. If the times of several runs have come, the catch-up policy of the schedule decides which of them start: see
   `CatchUp`. Each other slot keeps a cancelled run with the reason.
4. Only one run of a source is active at a time: the database enforces that (`activation.activate`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.cron import CatchUp, Cron, read_catch_up
from workers.records.tables import OVERTAKEN, Run, RunStatus, Schedule

#: How many missed slots get a row each (the oldest row mentions those before it), and how many runs can be pending.
MOST_ROWS = 1_000
#: Slots that were missed longer ago are ignored.
_FORGOTTEN = timedelta(days=400)


@dataclass(frozen=True)
class Begin:
    """Make a scheduled run pending, because its time has come."""

    run_id: int


@dataclass(frozen=True)
class Cancel:
    """Cancel a run before it starts. If its slot is `free` afterwards, the slot can get another run."""

    run_id: int
    reason: str
    free: bool = False


@dataclass(frozen=True)
class Make:
    """Create the run of a slot: scheduled or, if it is `due`, pending."""

    slot: datetime
    due: bool = False


@dataclass(frozen=True)
class Skip:
    """Create a cancelled run for a slot that has passed, with the reason."""

    slot: datetime
    reason: str


@dataclass(frozen=True)
class Move:
    """Move the future run to the next slot, because the schedule or the clock was changed."""

    run_id: int
    slot: datetime


Action = Begin | Cancel | Make | Skip | Move


def decide(schedule: Schedule, runs: Sequence[Run], now: datetime, late_seconds: float) -> list[Action]:
    """Return the actions that a schedule needs now; an empty list if it needs none.

    Parameters:
      schedule(Schedule): The row.
      runs(Sequence[Run]): What `schedules.runs_to_decide` returns.
      now(datetime): UTC-aware.
      late_seconds(float): How long after its slot a run counts as missed, for `CatchUp.NONE`.

    Returns:
      list[Action]: Oldest slot first, the future run last.

    Raises:
      UsageError: The schedule cannot be read.
    """
    own = [run for run in runs if run.stands_for_its_slot]  # a run that a person has moved is not counted
    scheduled = sorted((run for run in own if run.status == RunStatus.SCHEDULED), key=_slot)
    if schedule.paused_at:
        return [Cancel(run.id, "its schedule is paused", free=True) for run in scheduled]
    cron = Cron(schedule.cron, schedule.timezone)
    waiting = [run for run in own if run.status == RunStatus.PENDING and run.started_at is None]
    due = [run for run in scheduled if run.slot_at <= now]
    future = [run for run in scheduled if run.slot_at > now]
    missed = _missed(cron, schedule, runs, now)
    begun = _catch_up(read_catch_up(schedule.catch_up), due, waiting, missed, now - timedelta(seconds=late_seconds))
    return begun + _future(cron, runs, future, now)


def _missed(cron: Cron, schedule: Schedule, runs: Sequence[Run], now: datetime) -> list[datetime]:
    """Return the slots that have passed and for which no run was created, oldest first."""
    known = {run.slot_at for run in runs}
    passed = [run for run in runs if run.slot_at <= now]
    covered = max(
        map(_slot, filter(_covered_its_slot, passed)), default=min(map(_slot, passed), default=schedule.since)
    )
    since = max(schedule.since, now - _FORGOTTEN, covered)
    return [slot for slot in cron.between(since, now, MOST_ROWS + 1) if slot not in known]


def _covered_its_slot(run: Run) -> bool:
    """Whether a run still belonged to its slot when the slot came: then all earlier slots have their rows.

    A run that a person moved or cancelled before its slot proves nothing, because the schedule can have changed since.
    """
    return run.stands_for_its_slot and (run.ended_at is None or run.ended_at >= run.slot_at)


def _catch_up(
    policy: CatchUp, due: Sequence[Run], waiting: Sequence[Run], missed: Sequence[datetime], on_time: datetime
) -> list[Action]:
    """Return the actions for the slots whose time has come, by the catch-up policy."""
    runs = {run.slot_at: run for run in due}
    slots = sorted([*runs, *missed])
    if policy is CatchUp.ALL:
        chosen = slots[-MOST_ROWS:]
    elif policy is CatchUp.NONE:
        chosen = [slot for slot in slots[-1:] if slot >= on_time]
    else:
        chosen = slots[-1:]
    actions = _pending_runs(policy, sorted(waiting, key=_slot), chosen)
    for slot in slots:
        run = runs.get(slot)
        if slot in chosen:
            actions.append(Begin(run.id) if run else Make(slot, due=True))
        else:
            reason = _overtaken(chosen[-1]) if chosen else "missed: no scheduler ran then, and none is made up for"
            if len(missed) > MOST_ROWS and slot == missed[0]:
                reason = f"{reason}; so were those before it, which have no row"
            actions.append(Cancel(run.id, reason) if run else Skip(slot, reason))
    return actions


def _pending_runs(policy: CatchUp, waiting: Sequence[Run], chosen: Sequence[datetime]) -> list[Action]:
    """Return the actions for the runs that are pending since an earlier slot, oldest first."""
    if not chosen:
        return []
    if policy is CatchUp.ALL:
        surplus = max(0, len(waiting) + len(chosen) - MOST_ROWS)
        return [Cancel(run.id, f"only the newest {MOST_ROWS:,} wait for their turn") for run in waiting[:surplus]]
    older = [run for run in waiting if run.slot_at < chosen[-1]]  # a clock that was set back can leave newer ones
    return [Cancel(run.id, _overtaken(chosen[-1])) for run in older]


def _future(cron: Cron, runs: Sequence[Run], future: Sequence[Run], now: datetime) -> list[Action]:
    """Return the actions after which exactly one future run exists, for the next slot."""
    kept = future[0] if future else None
    used = {run.slot_at for run in runs if run is not kept}
    slot = next((slot for slot in cron.after(now) if slot not in used), None)
    actions: list[Action] = [Cancel(run.id, "another run is scheduled already") for run in future[1:]]
    if slot is None:
        return actions
    if kept is None:
        return [*actions, Make(slot)]
    return [*actions, Move(kept.id, slot)] if kept.slot_at != slot else actions


def _overtaken(slot: datetime) -> str:
    return f"{OVERTAKEN} by the run of {slot:%Y-%m-%d %H:%M} UTC"


def _slot(run: Run) -> datetime:
    slot: datetime = run.slot_at
    return slot
