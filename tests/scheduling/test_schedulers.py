"""Schedulers, several at once: each slot has one row and begins once, whatever dies; and a tick that fails in part."""

import logging
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from peewee import fn

from tests.helpers.machine import ROOT, wait_until
from tests.helpers.schedule_rows import at, row, seen
from workers import clock
from workers.connections import database
from workers.processes import scheduler as our_scheduler
from workers.records import runs, scheduled_runs
from workers.records.tables import Run, RunEvent, RunStatus, Schedule
from workers.scheduling import schedules, timetable
from workers.scheduling.slot_rules import decide

HOST = """
from sources import ItemSource

class Quiet(ItemSource):
    schedule = None

SOURCES = [type(name.title(), (Quiet,), {"name": name})() for name in ("one", "two", "three")]
"""
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
BY = {"who": "ann", "door": "script"}


@pytest.fixture
def place(house: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A host with three sources without a schedule of their own, and schedulers that tick often."""
    (tmp_path / "three.py").write_text(HOST)
    house.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    house.setenv("SLUICE_SOURCES", "three:SOURCES")
    house.setenv("SLUICE_TICK_SECONDS", "0.2")
    return house


@pytest.fixture
def start(place: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """start(name): a scheduler process, which logs to name.log; what is left of them is killed in the end."""
    with ExitStack() as undo:

        def start(name: str) -> subprocess.Popen[bytes]:
            with (tmp_path / f"{name}.log").open("ab") as log:
                line = [sys.executable, "-m", "workers", "scheduler"]
                process = subprocess.Popen(line, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            undo.callback(process.wait, 10)
            undo.callback(process.kill)
            return process

        yield start


def every_minute(source: str, catch_up: str, minutes: int, tenant: str | None = None) -> Schedule:
    """A schedule whose slots of the given minutes have passed without a tick."""
    made = schedules.create(
        source, cron="* * * * *", timezone="UTC", catch_up=catch_up, who="ann", tenant=tenant, edited=True
    )
    Schedule.update(since=database.now() - minutes * MINUTE).where(Schedule.id == made.id).execute()
    return Schedule.get_by_id(made.id)


def rows_of(schedule: Schedule) -> list[Run]:
    return list(Run.select().where(Run.schedule_id == schedule.id).order_by(Run.slot_at))


def is_kept(schedule: Schedule) -> bool:
    """Whether its next run is made."""
    return bool(Run.select().where(Run.schedule_id == schedule.id, Run.status == RunStatus.SCHEDULED).exists())


def check_slots(schedule: Schedule) -> list[Run]:
    """Each slot since the schedule was made has one row, the last of them alone is to come; return the others."""
    found = rows_of(schedule)
    assert found[0].slot_at - schedule.since <= MINUTE
    assert {b.slot_at - a.slot_at for a, b in pairwise(found)} == {MINUTE}
    *passed, future = found
    assert future.status == RunStatus.SCHEDULED and future.slot_at == future.scheduled_at
    assert RunStatus.SCHEDULED not in {run.status for run in passed}
    assert all(run.error_summary for run in passed if run.status == RunStatus.CANCELLED)
    return passed


def test_three_schedulers_begin_each_slot_once_and_one_is_killed_among_them(start, tmp_path):
    # Given three schedules of which many slots have passed, one for each way to catch up, and three schedulers
    began = database.now()
    three = [every_minute("one", "all", 300), every_minute("two", "latest", 300), every_minute("three", "none", 300)]
    processes = [start(f"scheduler-{number}") for number in range(3)]
    wait_until(lambda: all(map(is_kept, three)), 30, "the first tick")

    # When more come, one scheduler is killed in the middle and started again, and runs end all the while
    more: list[Schedule] = []
    log, said = tmp_path / "scheduler-0.log", 0

    def more_comes() -> None:
        more.append(every_minute("one", "all" if len(more) % 2 else "latest", 20, tenant=f"t{len(more)}"))
        for run in runs.running():
            runs.move(run.id, RunStatus.CANCELLED, detail="done", who="a worker", door="queue")
        clock.sleep(0.3)

    for _ in range(5):
        more_comes()
    processes[0].kill()
    processes[0].wait(10)
    said, processes[0] = log.stat().st_size, start("scheduler-0")
    wait_until(lambda: more_comes() or log.stat().st_size > said, 30, "the one that was started again does its part")
    wait_until(lambda: all(map(is_kept, more)), 30, "the last tick")
    wait_until(lambda: not Run.select().where(Run.status == RunStatus.SCHEDULED, Run.scheduled_at <= database.now()))
    for process in processes:
        process.terminate()
    assert [process.wait(10) for process in processes] == [0, 0, 0]

    # Then each slot has one row; all, the newest or none of them began, and those that came meanwhile
    came = 1 + (database.now() - began) // MINUTE
    for schedule in [*three, *more]:
        begun = [run for run in check_slots(schedule) if run.error_summary in (None, "done")]
        catch_up = {"all": len(rows_of(schedule)) - 1, "latest": 1, "none": 1}[schedule.catch_up]
        assert catch_up - (schedule.catch_up == "none") <= len(begun) <= catch_up + came, schedule.catch_up

    # And none was made or begun twice, and no process logged an error
    events = Counter(RunEvent.select(RunEvent.run_id, RunEvent.what).tuples())
    assert {what for _, what in events} == {"scheduled", "pending", "skipped", "started", "cancelled"}
    assert set(events.values()) == {1}
    logs = "".join(log.read_text() for log in tmp_path.glob("scheduler-*.log"))
    assert "Traceback" not in logs and "failed" not in logs and "locked" not in logs


def test_of_those_who_decide_at_once_one_alone_is_heard_and_a_person_is_never_undone(place):
    # Given a schedule, and moments an hour apart at which five look at it in the same instant
    made = schedules.create("one", cron="0 * * * *", timezone="UTC", catch_up="latest", who="ann", edited=True)
    now, all_threads = database.now() - 20 * HOUR, threading.Barrier(6)
    Schedule.update({Schedule.since: now - HOUR}).where(Schedule.id == made.id).execute()
    heard: list[bool] = []
    acts: list[str] = []

    def look_and_apply(at: datetime) -> None:
        with database.connection():
            schedule = Schedule.get_by_id(made.id)
            actions = decide(schedule, schedules.runs_to_decide(schedule, at), at, 60)
            all_threads.wait(10)
            heard.append(schedules.apply(schedule, actions, lanes=1, who="sluice", door="scheduler"))

    def act(number: int, at: datetime) -> None:
        with database.connection():
            future = schedules.future_run(made)
            all_threads.wait(10)
            if future and number % 3 == 1:
                acts.append(f"{future.id} moved")
                scheduled_runs.pull_forward("one", at + 2.5 * HOUR, **BY)
            elif future and number % 3 == 2 and scheduled_runs.call_off(future.id, "not today", **BY):
                acts.append(f"{future.id} cancelled")

    # When they apply what they decided, while a person moves or cancels the future run
    for number in range(12):
        at = now + number * HOUR
        threads = [threading.Thread(target=look_and_apply, args=[at]) for _ in range(5)]
        threads.append(threading.Thread(target=act, args=[number, at]))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        # Then one is heard each time
        assert heard.count(True) == 1 and len(heard) == 5
        heard.clear()

    # And in the end each slot has one row, and what the person cancelled stays so
    while actions := decide(made, schedules.runs_to_decide(made, at), at, 60):
        assert schedules.apply(Schedule.get_by_id(made.id), actions, lanes=1, who="sluice", door="scheduler")
    slots = [run.slot_at for run in rows_of(made)]
    assert len(slots) == len(set(slots)) >= 12 and {b - a for a, b in pairwise(slots)} == {HOUR}
    cancelled = [runs.get(int(word.split()[0])).status for word in acts if word.endswith("cancelled")]
    assert set(cancelled) <= {RunStatus.CANCELLED}


def test_what_was_decided_before_somebody_changed_the_schedule_is_not_done(place):
    # Given a decision
    made, now = every_minute("one", "latest", 5), database.now()
    actions = decide(made, [], now, 60)

    # When the schedule is changed before it is applied, then nothing is done
    changed = schedules.change(made, who="ann", cron="30 * * * *")
    assert not schedules.apply(made, actions, lanes=1, who="sluice", door="scheduler")
    assert rows_of(made) == []

    # And of two that need no new row, too, the first alone is heard
    paused = schedules.change(changed, who="ann", paused_at=now)
    assert schedules.apply(paused, [], lanes=1, who="sluice", door="scheduler")
    assert not schedules.apply(paused, [], lanes=1, who="sluice", door="scheduler")


def test_the_database_shows_decide_what_its_table_of_cases_does(place):
    # Given a schedule's runs of all kinds, in the words of that table
    made = every_minute("one", "latest", 5)
    Schedule.update(since=at("3 00:00")).where(Schedule.id == made.id).execute()
    texts = ["3 03:00 completed", "3 06:00 pending", "3 09:00 completed", "3 12:00 completed at 3 10:00"]
    texts += ["3 15:00 cancelled on 3 11:00", "3 18:00 cancelled on 3 18:00", "3 21:00 scheduled at 5 10:00"]
    texts += ["00:00 cancelled on 3 23:59", "03:00 scheduled", "06:00 cancelled on 2:00"]
    rows = [row(number, text) for number, text in enumerate(texts, 1)]
    for run in rows:
        kept = {"source": "one", "lanes": 1, "created_by": "ann", "schedule_id": made.id}
        Run.create(**run.__data__ | kept)
    made = Schedule.get_by_id(made.id)

    # When it looks at any time, then it sees the same ones
    for hour in range(72):
        now = at("3 00:00") + hour * HOUR
        assert {run.id for run in schedules.runs_to_decide(made, now)} == {run.id for run in seen(rows, now)}, now

    # And those to come also where the clock was set back before the schedule was changed
    made.since = at("6 00:00")
    assert len(schedules.runs_to_decide(made, at("3 00:00"))) == len(rows)


def test_one_tick_from_cron_does_it_all_though_one_schedule_cannot_be_read(place, tmp_path):
    # Given a schedule that was written into the table, one that has missed a night, and an overdue run of a person
    broken = every_minute("one", "latest", 5)
    Schedule.update(cron="every day").where(Schedule.id == broken.id).execute()
    night = every_minute("two", "latest", 9 * 60)
    overdue = runs.create("three", lanes=1, created_by="ann", door="cli", scheduled_at=database.now() - MINUTE)

    # When a scheduler ticks once, then it ends well, and says what is wrong and how to mend it
    line = [sys.executable, "-m", "workers", "scheduler", "--once"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "the schedule of one cannot be followed: 'every day' does not have five fields" in done.stderr
    assert "Traceback" not in done.stderr

    # And the person's run has started, and only the newest one of the night, and the others are logged
    assert runs.get(overdue.id).status == RunStatus.RUNNING
    *skipped, newest = check_slots(night)
    assert newest.status == RunStatus.RUNNING
    assert {run.error_summary for run in skipped} == {f"overtaken by the run of {newest.slot_at:%Y-%m-%d %H:%M} UTC"}
    assert rows_of(broken) == []


@pytest.fixture
def three(import_from, moved_clock):
    """Three sources, of which none has a schedule of its own; time is stopped at noon."""
    moved_clock.start = datetime(2026, 5, 4, 12, tzinfo=UTC)
    for name in ("one", "two", "three"):
        import_from("http://127.0.0.1:1", name=name, schedule=None)
    return moved_clock


def runs_of(source: str) -> list[str]:
    """The source's runs: its slot, if it has one, and what became of it."""
    found = Run.select().where(Run.source == source).order_by(fn.COALESCE(Run.slot_at, Run.scheduled_at))
    return [f"{run.slot_at or run.scheduled_at:%H:%M} {run.status}" for run in found]


def test_a_night_of_downtime_is_told_of_and_made_up_for_as_each_schedule_says(three):
    # Given schedules of every three hours, and a run that a person wants at midnight
    for source, catch_up in (("one", "latest"), ("two", "none"), ("three", "all")):
        timetable.set_schedule(source, "0 */3 * * *", catch_up=catch_up, **BY)
    runs.create("one", lanes=1, created_by="ann", door="cli", scheduled_at=clock.now() + 12 * HOUR)
    assert our_scheduler.tick()

    # When the next tick is half a day and ten minutes later
    three.advance(12 * 3600 + 600)
    assert our_scheduler.tick()

    # Then each followed its policy; of one source one run is active, and the other waits
    assert runs_of("two") == [f"{slot}:00 cancelled" for slot in ("15", "18", "21", "00")] + ["03:00 scheduled"]
    assert runs_of("three") == ["15:00 running", "18:00 pending", "21:00 pending", "00:00 pending", "03:00 scheduled"]
    found = runs_of("one")
    assert found[:3] == [f"{slot}:00 cancelled" for slot in ("15", "18", "21")] and found[-1] == "03:00 scheduled"
    assert sorted(found[3:5]) == ["00:00 pending", "00:00 running"]


def test_a_schedule_that_fails_in_any_way_keeps_no_other_from_being_kept(three, caplog):
    # Given three schedules, two of which were written into the table
    made = [timetable.set_schedule(source, "0 */3 * * *", **BY) for source in ("one", "two", "three")]
    Schedule.update(catch_up="sometimes").where(Schedule.id == made[0].id).execute()
    Schedule.update(timezone="Mars/Olympus").where(Schedule.id == made[1].id).execute()
    three.advance(3 * 3600)

    # When schedulers tick twice, then the third is followed, and each of the others is logged once
    with caplog.at_level(logging.WARNING):
        our_scheduler.tick()
        our_scheduler.tick()
    assert runs_of("three") == ["15:00 running", "18:00 scheduled"]
    assert Counter(record.message.partition(" cannot")[0] for record in caplog.records) == {
        "the schedule of one": 1,
        "the schedule of two": 1,
    }

    # And repaired, they continue
    Schedule.update(catch_up="latest", timezone="UTC").execute()
    assert our_scheduler.tick()
    assert runs_of("one") == runs_of("two") == ["15:00 running", "18:00 scheduled"]
