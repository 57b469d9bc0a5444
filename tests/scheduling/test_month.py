"""A month of a schedule, minute by minute: schedulers that are down, persons who act, clocks that are set.

What must hold is said here in the words of the rules, over slots that are counted here: nothing of `decide` or `cron`
is used to judge them. A scheduler that is up looks in each minute in which something has come or was done, and in a few
others, in which nothing must happen.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.helpers.schedule_rows import LATE_SECONDS, perform, seen
from workers.records.tables import ACTIVE, Run, RunStatus, Schedule
from workers.scheduling.slot_rules import decide

MINUTE = timedelta(minutes=1)
MINUTES = 31 * 24 * 60
UNBEGUN = (RunStatus.SCHEDULED, RunStatus.PENDING)


def calendar(cron: str, zone: str, first: datetime, days: int) -> list[datetime]:
    """The slots, by a look at each time of each day."""
    minute, hour, *_ = cron.split()
    steady = minute.startswith("*") or hour.startswith("*")
    slots: set[datetime] = set()
    begin = first.replace(tzinfo=None)
    for day, h, m in product(range(-2, days + 2), numbers(hour, 24), numbers(minute, 60)):
        slots.update(instants(begin + timedelta(days=day, hours=h, minutes=m), ZoneInfo(zone), steady))
    return sorted(slots)


def numbers(field: str, most: int) -> set[int]:
    words, _, step = field.partition("/")
    first, _, last = words.replace("*", f"0-{most - 1}").partition("-")
    if "," in field:
        return set(map(int, field.split(",")))
    return set(range(int(first), int(last or first) + 1, int(step or 1)))


def instants(wall: datetime, zone: ZoneInfo, steady: bool) -> list[datetime]:
    """When a clock on the wall shows a time; one that it leaps over, is over with the leap unless times are steady."""
    both = sorted({wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)})
    real = [at for at in both if at.astimezone(zone).replace(tzinfo=None) == wall]
    if steady or real:
        return real if steady else real[:1]
    return instants(wall + MINUTE, zone, steady)


class Month:
    """A schedule, its runs and those of persons, one source, schedulers that come and go."""

    def __init__(self, crons: tuple[str, str], zone: str, catch_up: str, begin: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.begin = datetime.fromisoformat(begin).replace(tzinfo=UTC)
        self.slots = {cron: calendar(cron, zone, self.begin, 36) for cron in crons}
        self.minute, self.set_by = 0, timedelta(seconds=20)
        self.schedule = Schedule(
            id=1, source="items", cron=crons[0], timezone=zone, catch_up=catch_up, since=self.now, paused_at=None
        )
        self.runs: list[Run] = []
        self.active: Run | None = None
        self.up_at = self.ends_at = self.most_missed = 0
        #: When a tick last looked, and what comes next then; None: something was done since.
        self.looked_at: datetime | None = None
        self.comes_next: list[datetime] = []
        self.ticks = self.acts = 0

    @property
    def up(self) -> bool:
        """Whether a scheduler runs."""
        return self.minute >= self.up_at

    @property
    def now(self) -> datetime:
        """What the clock shows, which a person may have set."""
        return self.begin + self.minute * MINUTE + self.set_by

    def live(self) -> None:
        acts = [
            self.run_now,
            self.pull_to_now,
            self.put_off,
            self.schedule_one,
            self.cancel_the_next,
            self.cancel_the_active,
            self.retry,
            self.pause_or_resume,
            self.edit,
        ]
        for self.minute in range(MINUTES):
            self.weather()
            self.work()
            if self.chance.random() < 1 / 250:
                self.acts += 1
                self.chance.choice(acts)()
            if self.up and self.something_may_be_due():
                self.tick()
            elif self.up and self.chance.random() < 1 / 200:
                self.look_in_vain()

    def weather(self) -> None:
        """Schedulers die and come back; clocks are set."""
        if self.up and self.chance.random() < 1 / 1_500:
            self.up_at = self.minute + self.chance.choice([3, 60, 600, 2_880])
            self.most_missed = max(self.most_missed, self.up_at - self.minute)
        if self.chance.random() < 1 / 3_000:
            self.set_by += self.chance.randint(-90, 90) * MINUTE
            self.looked_at = None

    def something_may_be_due(self) -> bool:
        return self.looked_at is None or any(at <= self.now for at in self.comes_next)

    # --- what workers and persons do

    def work(self) -> None:
        if self.active and self.minute >= self.ends_at:
            self.end_active(self.chance.choice([RunStatus.COMPLETED, RunStatus.COMPLETED, RunStatus.FAILED]))

    def end_active(self, status: RunStatus) -> None:
        self.active.status, self.active = status, None
        self.start_next()

    def start_next(self) -> None:
        waiting = [run for run in self.runs if run.status == RunStatus.PENDING]
        if waiting and not self.active:
            self.active = run = min(waiting, key=lambda run: run.id)
            run.status, run.started_at = RunStatus.RUNNING, run.started_at or self.now
            self.ends_at = self.minute + self.chance.choice([1, 5, 30, 200, 700])

    def person_s(self, status: RunStatus, at: datetime | None) -> None:
        number = max((run.id for run in self.runs), default=0) + 1
        self.runs.append(Run(id=number, status=status, scheduled_at=at))
        self.looked_at = None

    def run_now(self) -> None:
        self.person_s(RunStatus.PENDING, None)
        self.start_next()

    def schedule_one(self) -> None:
        self.person_s(RunStatus.SCHEDULED, self.some_time())

    def some_time(self) -> datetime:
        slots = self.slots[self.schedule.cron]
        a_slot = slots[bisect_right(slots, self.now) + self.chance.randint(0, 3)]
        return self.chance.choice([a_slot, self.now + self.chance.randint(1, 600) * MINUTE])

    def next_scheduled(self) -> Run | None:
        scheduled = [run for run in self.runs if run.status == RunStatus.SCHEDULED]
        return min(scheduled, key=lambda run: (run.scheduled_at, run.id), default=None)

    def move_the_next(self, at: datetime) -> None:
        if run := self.next_scheduled():
            run.scheduled_at = at + timedelta(microseconds=at == run.slot_at)
            self.looked_at = None

    def pull_to_now(self) -> None:
        self.move_the_next(self.now)
        self.start_due()

    def put_off(self) -> None:
        self.move_the_next(self.some_time())

    def cancel_the_next(self) -> None:
        if run := self.next_scheduled():
            run.status, run.error_summary, run.ended_at = RunStatus.CANCELLED, "by a person", self.now
            self.looked_at = None

    def cancel_the_active(self) -> None:
        if self.active:
            self.active.error_summary = "by a person"
            self.end_active(RunStatus.CANCELLED)

    def retry(self) -> None:
        if failed := [run for run in self.runs if run.status == RunStatus.FAILED]:
            failed[-1].status = RunStatus.PENDING
            self.start_next()

    def pause_or_resume(self) -> None:
        if self.schedule.paused_at:
            self.schedule.paused_at, self.schedule.since = None, self.now
        else:
            self.schedule.paused_at = self.now
        self.keep()

    def edit(self) -> None:
        self.schedule.cron = self.chance.choice(list(self.slots))
        self.schedule.catch_up = self.chance.choice([self.schedule.catch_up, "latest", "none", "all"])
        self.schedule.since = self.now
        self.keep()

    # --- what schedulers do, and what must hold then

    def tick(self) -> None:
        self.ticks += 1
        self.keep()
        self.start_due()
        overdue = [run for run in self.runs if run.status == RunStatus.SCHEDULED and run.scheduled_at <= self.now]
        assert not overdue, "a run is overdue after a tick"
        assert sum(run.status in ACTIVE for run in self.runs) < 2, "two runs of a source are active"

    def look_in_vain(self) -> None:
        own = [run for run in self.runs if run.schedule_id]
        assert decide(self.schedule, seen(own, self.now), self.now, LATE_SECONDS) == [], "done, and done again"

    def start_due(self) -> None:
        for run in self.runs:
            if run.status == RunStatus.SCHEDULED and run.scheduled_at <= self.now and run.scheduled_at != run.slot_at:
                run.status = RunStatus.PENDING
        self.start_next()

    def keep(self) -> None:
        own = [run for run in self.runs if run.schedule_id]
        before = {run.id: (run.status, run.slot_at, run.scheduled_at) for run in own if run.status in UNBEGUN}
        rowless = set(self.passed()) - {run.slot_at for run in own}
        actions = decide(self.schedule, seen(own, self.now), self.now, LATE_SECONDS)
        perform(self.schedule, self.runs, actions)
        self.check(before, rowless)
        self.start_next()
        self.looked_at = self.now
        slots = self.slots[self.schedule.cron]
        ahead = bisect_right(slots, self.now)
        scheduled = [run.scheduled_at for run in self.runs if run.status == RunStatus.SCHEDULED]
        self.comes_next = [slots[ahead], *scheduled]

    def passed(self) -> list[datetime]:
        """The slots that have passed since the schedule was made, changed or resumed."""
        slots = self.slots[self.schedule.cron]
        return slots[bisect_right(slots, self.schedule.since) : bisect_right(slots, self.now)]

    def check(self, before: dict, rowless: set[datetime]) -> None:
        own = {run.slot_at: run for run in self.runs if run.schedule_id and run.slot_at}
        assert len(own) == sum(1 for run in self.runs if run.slot_at), "a slot has two rows"
        future = [r for r in own.values() if r.status == RunStatus.SCHEDULED and r.scheduled_at == r.slot_at]
        for run in own.values():
            assert run.status != RunStatus.CANCELLED or run.error_summary, "a slot was skipped, without a reason"
        if self.schedule.paused_at:
            assert not future, "a paused schedule has a future run"
            freed = [slot for status, slot, at in before.values() if status == RunStatus.SCHEDULED and slot == at]
            assert not set(freed) & set(own), "a pause takes a slot away"
            return
        missing = [slot for slot in self.passed() if slot not in own]
        assert not missing, "a slot has passed and left no row"
        assert len(future) == 1, "there is not exactly one future run"
        slots = self.slots[self.schedule.cron]
        unused = (s for s in slots[bisect_right(slots, self.now) :] if s not in own or own[s] is future[0])
        assert future[0].slot_at == next(unused), "the future run is not for the next slot"
        self.check_what_was_due(before, rowless, own, future[0])

    def check_what_was_due(self, before: dict, rowless: set[datetime], own: dict, future: Run) -> None:
        by_schedule = {number: slot for number, (_, slot, at) in before.items() if slot == at}
        scheduled = [s for n, s in by_schedule.items() if before[n][0] == RunStatus.SCHEDULED and s <= self.now]
        due = sorted(rowless | set(scheduled))
        begun = [slot for slot in due if own[slot].status == RunStatus.PENDING]
        wanted = due[-1:]
        if self.schedule.catch_up == "all":
            wanted = due
        elif self.schedule.catch_up == "none" and due and (self.now - due[-1]).total_seconds() > LATE_SECONDS:
            wanted = []
        assert begun == wanted, "not those were begun that the schedule wants of the overdue ones"
        assert all(own[slot].status == RunStatus.CANCELLED for slot in due if slot not in begun)
        for run in self.runs:
            if run.id not in before or run.slot_at in due or run is future:
                continue
            overtaken = wanted and self.schedule.catch_up != "all" and run.started_at is None
            if overtaken and by_schedule.get(run.id, wanted[-1]) < wanted[-1]:
                assert run.status == RunStatus.CANCELLED, "one that waits was not overtaken by a newer one"
            else:
                assert before[run.id][0] == run.status, "a run was touched that is none of the schedule's business"


def months() -> Iterator[tuple[Any, ...]]:
    yield ("0 */3 * * *", "*/20 8-18 * * *"), "Europe/Paris", "latest", "2026-03-14", 101
    yield ("0 * * * *", "30 1,2 * * *"), "America/New_York", "all", "2026-10-20", 101
    yield ("15,45 1-3 * * *", "0 */2 * * *"), "Australia/Lord_Howe", "none", "2026-03-20", 101
    yield ("*/30 * * * *", "0 2 * * *"), "Australia/Adelaide", "latest", "2026-09-15", 101
    yield ("0 */3 * * *", "0 0 * * *"), "UTC", "all", "2026-02-01", 8


@pytest.mark.parametrize(("crons", "zone", "catch_up", "begin", "seed"), list(months()))
def test_the_rules_hold_at_each_minute_of_a_month(crons, zone, catch_up, begin, seed):
    month = Month(crons, zone, catch_up, begin, seed)
    month.live()

    # It was a month worth the name
    assert month.ticks > 150 and month.acts > 100 and month.most_missed == 2_880
    for status in (RunStatus.CANCELLED, RunStatus.COMPLETED):
        assert [run for run in month.runs if run.schedule_id and run.status == status]
