"""The calendar strip: what ran, was skipped and will run, in blocks of three hours of the viewer's days."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from peewee import chunked

from workers import clock
from workers.connections import database
from workers.control import runner
from workers.errors import UsageError
from workers.records import runs
from workers.records.tables import Run, RunEvent, RunStatus, Schedule
from workers.scheduling import calendar as strips
from workers.scheduling import last_run, preview, schedule_stats, schedules, timetable
from workers.scheduling.calendar import MOST_ROWS, Strip, calendar_strip
from workers.scheduling.slot_rules import Begin, Cancel, Make, Move

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
BY = {"who": "alice", "door": "cli"}
#: Nothing listens there: no run of these tests asks an API.
NOWHERE = "http://127.0.0.1:9"
PARIS = ZoneInfo("Europe/Paris")
MONDAY = date(2026, 11, 23)


def at(text: str) -> datetime:
    """An instant, of 2026 where no year is said, as in "11-23 09:00"."""
    return datetime.fromisoformat(f"{text if len(text) > 11 else f'2026-{text}'}:00+00:00")


@pytest.fixture
def moved(moved_clock: clock.MovedClock) -> clock.MovedClock:
    """A clock that stands at 10:00 of a Monday."""
    to(moved_clock, "11-23 10:00")
    return moved_clock


@pytest.fixture
def items(import_from: Callable[..., Any], moved: clock.MovedClock) -> Any:
    """A source with no schedule of its own."""
    return import_from(NOWHERE)


def to(moved: clock.MovedClock, text: str) -> None:
    moved.advance((at(text) - clock.now()).total_seconds())


def begun(text: str, status: RunStatus = RunStatus.COMPLETED, **values: Any) -> Run:
    """Write a run that was due then, and began."""
    its = {"source": "items", "lanes": 4, "created_by": "sluice", "scheduled_at": at(text), "started_at": at(text)}
    return Run.create(status=status, **its | values)


def skipped(text: str, reason: str | None = None, **values: Any) -> Run:
    """Write a run of a slot that never began."""
    its = {"started_at": None, "slot_at": at(text), "error_summary": reason}
    return begun(text, RunStatus.CANCELLED, **its | values)


def blocks_of(
    strip: Strip, day: date = MONDAY, source: str = "items", tenant: str | None = None
) -> dict[int, list[Any]]:
    """What a row says of a day: outcomes and how many, by block."""
    (row,) = (row for row in strip.rows if (row.source, row.tenant) == (source, tenant))
    return {n: [(p.outcome, p.runs) for p in parts] for (its_day, n), parts in row.blocks.items() if its_day == day}


def parts(strip: Strip) -> list[Any]:
    return [part for row in strip.rows for block in row.blocks.values() for part in block]


def week(zone: Any = UTC) -> Strip:
    return calendar_strip(zone, database.now())


# --- runs that are made -----------------------------------------------------------------------------------------------


def test_each_run_stands_in_the_block_of_its_time_with_what_became_of_it(items):
    # Given
    timetable.set_schedule("items", "0 12,15 * * *", **BY)
    begun("11-23 03:00")
    begun("11-23 00:30", failed_count=2)
    begun("11-22 21:00", RunStatus.FAILED, error_summary="the list cannot be read")
    skipped("11-22 06:00", "overtaken by the run of 2026-11-22 07:00 UTC")
    skipped("11-22 09:00", "missed: no scheduler ran then, and none is made up for")
    begun("11-23 09:30", RunStatus.RUNNING, scheduled_at=None, created_at=at("11-23 09:30"))  # a person's
    begun("11-18 12:00")  # too long ago

    # When
    strip = week()

    # Then
    assert strip.today == MONDAY and strip.days[0] == date(2026, 11, 20) and len(strip.days) == 7
    assert blocks_of(strip) == {
        0: [("completed with failures", 1)],
        1: [("completed", 1)],
        3: [("running", 1)],
        4: [("scheduled", 1)],
        5: [("scheduled", 1)],
    }
    assert blocks_of(strip, date(2026, 11, 22)) == {7: [("failed", 1)], 2: [("overtaken", 1)], 3: [("skipped", 1)]}
    reasons = {part.outcome: part.reason for part in parts(strip) if part.reason}
    assert reasons == {
        "failed": "the list cannot be read",
        "overtaken": "overtaken by the run of 2026-11-22 07:00 UTC",
        "skipped": "missed: no scheduler ran then, and none is made up for",
    }


def test_a_skipped_run_without_a_reason_says_who_called_it_off(items):
    # Given
    timetable.set_schedule("items", "0 12 * * *", **BY)
    run = Run.get()

    # When
    runner.cancel(run.id, who="bob", door="monitor")

    # Then
    (part,) = (part for part in parts(week()) if part.outcome == "skipped")
    assert (part.run_id, part.reason) == (run.id, "cancelled by bob (monitor)")


def test_runs_that_came_to_the_same_in_a_block_are_counted_the_gravest_first(items):
    # Given
    for minute in (0, 20, 40):
        begun(f"11-23 07:{minute:02}")
    bad = begun("11-23 08:59", RunStatus.FAILED)

    # Then
    assert blocks_of(week()) == {2: [("failed", 1), ("completed", 3)]}
    grave, well = parts(week())
    assert grave.run_id == bad.id
    assert (well.first, well.last) == (at("11-23 07:00"), at("11-23 07:40"))


def test_a_schedule_of_each_minute_is_as_many_marks_and_statements_as_one_of_each_hour(items, caplog):
    # Given
    rows = [
        {"source": "items", "lanes": 1, "created_by": "s", "status": "completed", "scheduled_at": due, "slot_at": due}
        for due in (at("11-21 00:00") + timedelta(minutes=n) for n in range(1440))
    ]
    with database.db.atomic():
        for some in chunked(rows, 500):
            Run.insert_many(some).execute()
    timetable.set_schedule("items", "* * * * *", **BY)

    # When
    with statements(caplog) as said:
        strip = week()

    # Then
    assert len(said) <= 8
    (row,) = strip.rows
    assert len(row.blocks) == 8 + 5 + 3 * 8
    assert blocks_of(strip, date(2026, 11, 21)) == {n: [("completed", 180)] for n in range(8)}
    assert blocks_of(strip)[3] == [("scheduled", 119)]
    assert blocks_of(strip, date(2026, 11, 26)) == {n: [("scheduled", 180)] for n in range(8)}


@ON_ONE_DATABASE
def test_of_many_tenants_those_with_runs_are_shown_and_the_others_counted(items):
    # Given
    for n in range(MOST_ROWS + 10):
        Schedule.create(
            source="items", tenant=f"t{n:03}", cron="0 1 * * *", timezone="UTC", created_by="", updated_by=""
        )
    begun("11-23 03:00", tenant="zz")

    # When
    strip = week()

    # Then
    assert len(strip.rows) == MOST_ROWS and strip.left_out == 12
    assert blocks_of(strip, tenant="zz") == {1: [("completed", 1)]}


# --- slots to come ----------------------------------------------------------------------------------------------------


@ON_ONE_DATABASE
def test_a_slot_whose_run_was_moved_or_called_off_is_not_promised_again(items):
    # Given
    timetable.set_schedule("items", "0 12,15 * * *", **BY)

    # When
    runner.reschedule("items", at=at("11-23 20:00"), **BY)
    timetable.keep()

    # Then: that of 12:00 is at 20:00 now
    assert blocks_of(week()) == {5: [("scheduled", 1)], 6: [("scheduled", 1)]}


@ON_ONE_DATABASE
def test_a_schedule_that_makes_no_runs_promises_none(items):
    # Given
    timetable.set_schedule("items", "0 12 * * *", **BY)
    Schedule.create(source="gone", cron="0 12 * * *", timezone="UTC", created_by="", updated_by="")
    Schedule.create(source="items", tenant="t", cron="at noon", timezone="UTC", created_by="", updated_by="")

    # When
    timetable.pause_schedule("items", **BY)

    # Then
    assert [part.outcome for part in parts(week())] == ["cancelled"]
    assert {(row.source, row.tenant) for row in week().rows} == {("gone", None), ("items", None), ("items", "t")}


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    ("day", "first_block", "slots"),
    [
        (date(2027, 10, 31), 4, 25),  # 02:00 comes twice
        (date(2027, 3, 28), 2, 23),  # 02:00 never comes
    ],
)
def test_a_day_on_which_the_clock_is_moved_has_its_hours(items, moved, day, first_block, slots):
    # Given
    to(moved, f"{day - timedelta(days=1)} 10:00")
    timetable.set_schedule("items", "30 * * * *", timezone="Europe/Paris", **BY)

    # Then
    of_the_day = blocks_of(week(PARIS), day)
    assert of_the_day[0] == [("scheduled", first_block)]
    assert sum(runs for block in of_the_day.values() for _, runs in block) == slots


@ON_ONE_DATABASE
def test_days_are_the_viewer_s(items, moved):
    # Given: 23:30 of the 30th in UTC is 01:30 of the 31st, the day on which summer time ends
    to(moved, "2027-10-31 12:00")
    begun("2027-10-30 23:30")
    begun("2027-10-31 23:30")  # by then it is winter: 00:30 of the 1st

    # Then
    assert blocks_of(week(PARIS), date(2027, 10, 31)) == {0: [("completed", 1)]}
    assert blocks_of(week(PARIS), date(2027, 11, 1)) == {0: [("completed", 1)]}
    kathmandu = week(ZoneInfo("Asia/Kathmandu"))  # whose midnight is at 18:15 UTC
    assert blocks_of(kathmandu, date(2027, 10, 31)) == {1: [("completed", 1)]}


# --- what is read -----------------------------------------------------------------------------------------------------


@contextmanager
def statements(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """The SELECTs that are sent meanwhile, with their values."""
    said: list[Any] = []
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="peewee"):
        yield said
    said += [record.msg for record in caplog.records if record.name == "peewee" and "sluice_" in str(record.msg)]


def plan_of(sql: str, values: Any) -> list[str]:
    """How the database would go about it, if it were large."""
    if database.is_sqlite():
        return [row[3] for row in database.db.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
    database.db.execute_sql("SET enable_seqscan = off")
    return [row[0].strip() for row in database.db.execute_sql(f"EXPLAIN {sql}", values)]


def test_what_the_page_reads_never_scans_the_runs(items, caplog):
    # Given
    timetable.set_schedule("items", "0 12 * * *", **BY)
    skipped("11-23 03:00")
    with statements(caplog) as said:
        week()
        last_run.last_runs(database.now())
        schedule_stats.all_schedules()

    # When
    plans = {sql: plan_of(sql, values) for sql, values in said if "sluice_schedules" not in sql}

    # Then
    assert len(plans) >= 7
    steps = [step for steps in plans.values() for step in steps]
    assert [step for step in steps if "Seq Scan" in step or step.startswith("SCAN")] == []
    indexes = " ".join(steps)
    for index in ("sluice_runs_status", "sluice_runs_created", "sluice_runs_slot", "sluice_runs_of_source"):
        assert index in indexes, plans


# --- the last run -----------------------------------------------------------------------------------------------------


@ON_ONE_DATABASE
def test_the_last_run_is_found_behind_many_of_other_tenants_and_slots_that_were_skipped(items):
    # Given
    timetable.set_schedule("items", "0 12 * * *", tenant="rare", **BY)
    schedule = schedules.find("items", "rare")
    last = begun("11-20 12:00", tenant="rare", schedule_id=schedule.id, slot_at=at("11-20 12:00"), failed_count=1)
    skipped("11-21 12:00", tenant="rare", schedule_id=schedule.id)
    for _ in range(101):
        busy = begun("11-22 12:00", tenant="busy")

    # When
    found = last_run.last_runs(database.now())

    # Then
    assert found["items", "rare"][:2] == (last.id, "completed with failures")
    assert found["items", "busy"].id == busy.id
    assert ("items", None) not in found


# --- what a change would do -------------------------------------------------------------------------------------------


def asked(cron: str = "0 12 * * *", timezone: str = "UTC", catch_up: str = "latest") -> preview.SchedulePlan:
    return preview.of_setting("items", None, cron, timezone, catch_up)


@ON_ONE_DATABASE
def test_what_a_change_would_do_is_what_it_does(items, moved):
    # Given none
    assert asked().actions == (Make(at("11-23 12:00")),)
    assert Run.select().count() == 0

    # When it is set
    timetable.set_schedule("items", "0 12 * * *", **BY)
    run = Run.get()

    # Then
    assert asked().same and asked().actions == ()
    other = asked("0 15 * * *")
    assert other.actions == (Move(run.id, at("11-23 15:00")),) and other.slots == {run.id: at("11-23 12:00")}
    assert Schedule.get().cron == "0 12 * * *"  # it was only asked

    # When it is changed
    timetable.set_schedule("items", "0 15 * * *", **BY)

    # Then
    assert runs.get(run.id).slot_at == at("11-23 15:00")
    found = schedules.find("items")
    assert preview.of_pausing(found).actions == (Cancel(run.id, "its schedule is paused", free=True),)
    assert preview.of_removing(found).actions == (Cancel(run.id, "its schedule was removed"),)

    # When its time has come, and no scheduler has run
    to(moved, "11-23 15:30")

    # Then
    assert asked("0 18 * * *").actions == (Begin(run.id), Make(at("11-23 18:00")))

    # When it was paused
    timetable.pause_schedule("items", **BY)

    # Then
    found = schedules.find("items")
    assert preview.of_resuming(found).actions == (Make(at("11-24 15:00")),)
    assert asked("0 18 * * *").paused and asked("0 18 * * *").next_at == ()


@ON_ONE_DATABASE
def test_removing_goes_back_to_what_the_source_declares_or_is_no_choice(import_from, moved):
    # Given
    import_from(NOWHERE, schedule="0 11 * * *")
    timetable.record_declared()

    # Then
    assert preview.of_removing(schedules.find("items")) is None

    # When
    timetable.set_schedule("items", "0 15 * * *", **BY)

    # Then
    plan = preview.of_removing(schedules.find("items"))
    assert plan.actions == (Move(Run.get().id, at("11-23 11:00")),)
    assert plan.in_words == "At 11:00 every day"


@ON_ONE_DATABASE
def test_what_cannot_be_set_is_refused_before(items):
    for wrong in (("0 12 * *", "UTC", "latest"), ("0 12 * * *", "Mars", "latest"), ("0 12 * * *", "UTC", "some")):
        with pytest.raises(UsageError):
            asked(*wrong)


@ON_ONE_DATABASE
def test_the_words_for_why_are_read_for_the_newest_only(items):
    # Given
    for n in range(strips.MOST_REASONS + 5):
        run = skipped("11-23 03:00", "because", tenant=str(n % 20))
        RunEvent.create(run_id=run.id, what="skipped", who="sluice", door="scheduler")

    # Then
    assert sum(part.reason == "because" for part in parts(week())) == 20
