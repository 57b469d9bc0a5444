"""The timetable sets, pauses, resumes, removes and follows schedules, in the database, for each caller."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from peewee import fn

from workers import clock
from workers.connections import database
from workers.control import runner
from workers.errors import ConfigurationError, UnknownSource, UsageError
from workers.processes import scheduler
from workers.records import runs
from workers.records.tables import Run, RunEvent, RunStatus, Schedule
from workers.reports import run_stats
from workers.scheduling import schedule_stats, schedules, slot_rules, timetable
from workers.sources.registry import Registry

#: What both databases do alike by every other test: Python decides it.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ALICE = {"who": "alice", "door": "cli"}
#: Nothing listens there: a schedule is kept without its API.
NOWHERE = "http://127.0.0.1:9"


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-23T{text}:00+00:00")


@pytest.fixture
def moved(moved_clock: clock.MovedClock) -> clock.MovedClock:
    """A clock that stands at 01:00 of a Monday."""
    moved_clock.advance((at("01:00") - clock.now()).total_seconds())
    return moved_clock


@pytest.fixture
def items(import_from: Callable[..., Any], moved: clock.MovedClock) -> Any:
    """A source that runs every three hours."""
    return import_from(NOWHERE, schedule="0 */3 * * *")


def to(moved: clock.MovedClock, text: str) -> None:
    moved.advance((at(text) - clock.now()).total_seconds())


def tick() -> None:
    assert scheduler.tick()


def listed() -> list[tuple[str, str]]:
    """The runs of schedules: slot and status, by slot."""
    of_slots = (
        Run.select().where(Run.schedule_id.is_null(False)).order_by(fn.COALESCE(Run.slot_at, Run.scheduled_at), Run.id)
    )
    return [(f"{run.slot_at or run.scheduled_at:%H:%M}", str(run.status)) for run in of_slots]


def events(run_id: int) -> list[tuple[str, str, str]]:
    found = RunEvent.select().where(RunEvent.run_id == run_id).order_by(RunEvent.id)
    return [(event.what, event.who, event.door) for event in found]


def end(run: Run) -> None:
    runs.move(run.id, RunStatus.CANCELLED, who="test", door="test")


# --- what a source declares -------------------------------------------------------------------------------------------


def test_a_source_s_schedule_has_its_future_run_after_one_tick(items):
    tick()

    assert listed() == [("03:00", "scheduled")]
    found = schedule_stats.schedule_stats("items")
    assert (found.declared, found.edited, found.updated_by) == (True, False, "its source")
    assert [f"{slot:%H:%M}" for slot in found.next_at] == ["03:00", "06:00", "09:00", "12:00", "15:00"]
    assert found.in_words == "At minute 0 past every third hour"


@ON_ONE_DATABASE
def test_a_tick_with_nothing_to_do_writes_nothing(items):
    # Given
    tick()
    before = [(s.version, s.updated_at) for s in Schedule.select()]

    # When
    tick()

    # Then
    assert [(s.version, s.updated_at) for s in Schedule.select()] == before
    assert RunEvent.select().count() == 1


@ON_ONE_DATABASE
def test_a_new_declaration_is_followed_until_a_person_has_changed_the_schedule(items, moved):
    # Given
    tick()

    # When: a deployment says something else, and the scheduler from before is gone
    type(items).schedule = "30 * * * *"
    moved.advance(31)
    tick()

    # Then
    assert listed() == [("01:30", "scheduled")]

    # Given a person's
    timetable.set_schedule("items", "0 5 * * *", **ALICE)

    # When
    type(items).schedule = "45 * * * *"
    moved.advance(31)
    tick()

    # Then
    assert listed() == [("05:00", "scheduled")]
    assert schedules.find("items").declared == "45 * * * * | UTC | latest"


@ON_ONE_DATABASE
def test_a_declaration_that_is_gone_takes_its_future_run_with_it(items, moved):
    # Given
    tick()

    # When
    type(items).schedule = None
    moved.advance(31)
    tick()

    # Then
    assert schedules.every() == []
    assert listed() == [("03:00", "cancelled")]
    assert Run.get().error_summary == "its source declares no schedule any more"


@ON_ONE_DATABASE
def test_a_person_s_schedule_outlives_a_declaration_that_is_gone(items, moved):
    # Given
    tick()
    timetable.set_schedule("items", "0 5 * * *", **ALICE)

    # When
    type(items).schedule = None
    moved.advance(31)
    tick()

    # Then
    assert listed() == [("05:00", "scheduled")]
    assert not schedule_stats.schedule_stats("items").declared


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ({"schedule": "every day"}, "does not have five fields"),
        ({"schedule": 3}, "five cron fields in a string"),
        ({"schedule": "@daily", "timezone": "Paris"}, "no timezone 'Paris'"),
        ({"timezone": ZoneInfo("Europe/Paris")}, 'timezone must be a string, as in timezone = "Europe/Paris"'),
        ({"schedule": "@daily", "catch_up": "newest"}, "use latest, none, all"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused_with_the_source(environment, attributes, complaint):
    from sources import ItemSource

    with pytest.raises(ConfigurationError, match=complaint) as refused:
        Registry([type("Wrong", (ItemSource,), attributes)()])

    assert str(refused.value).startswith("Wrong: ")


# --- its runs ---------------------------------------------------------------------------------------------------------


def test_an_overdue_run_starts_with_the_next_tick_and_the_one_after_it_is_scheduled(items, moved):
    # Given
    tick()

    # When
    to(moved, "03:00")
    tick()

    # Then
    assert listed() == [("03:00", "running"), ("06:00", "scheduled")]
    assert events(Run.get(Run.status == RunStatus.RUNNING).id) == [
        ("scheduled", "sluice", "scheduler"),
        ("started", "sluice", "queue"),
    ]


@ON_ONE_DATABASE
def test_a_night_of_downtime_runs_the_newest_slot_and_says_what_became_of_the_others(items, moved):
    # Given
    tick()

    # When
    to(moved, "13:10")
    tick()

    # Then
    assert listed() == [
        ("03:00", "cancelled"),
        ("06:00", "cancelled"),
        ("09:00", "cancelled"),
        ("12:00", "running"),
        ("15:00", "scheduled"),
    ]
    reasons = {run.error_summary for run in Run.select().where(Run.status == RunStatus.CANCELLED)}
    assert reasons == {"overtaken by the run of 2026-11-23 12:00 UTC"}


def test_a_second_run_waits_behind_the_first_and_a_third_overtakes_it(items, moved):
    # Given a run that takes longer than its schedule's period
    tick()
    to(moved, "03:00")
    tick()

    # When
    to(moved, "06:00")
    tick()

    # Then
    assert listed() == [("03:00", "running"), ("06:00", "pending"), ("09:00", "scheduled")]
    waiting = Run.get(Run.status == RunStatus.PENDING)
    assert runner.behind(waiting).slot_at == at("03:00")

    # When
    to(moved, "09:00")
    tick()

    # Then
    assert listed()[:3] == [("03:00", "running"), ("06:00", "cancelled"), ("09:00", "pending")]
    assert runs.get(waiting.id).error_summary == "overtaken by the run of 2026-11-23 09:00 UTC"

    # When the first one ends
    first = Run.get(Run.status == RunStatus.RUNNING)
    runner.cancel(first.id, **ALICE)

    # Then
    assert ("09:00", "running") in listed()


@ON_ONE_DATABASE
def test_all_missed_slots_run_one_after_the_other_where_the_schedule_wants_them_all(items, moved):
    # Given
    timetable.set_schedule("items", "0 */3 * * *", catch_up="all", **ALICE)

    # When
    to(moved, "13:10")
    tick()

    # Then
    waits = [("06:00", "pending"), ("09:00", "pending"), ("12:00", "pending")]
    assert listed() == [("03:00", "running"), *waits, ("15:00", "scheduled")]


@ON_ONE_DATABASE
def test_a_run_now_is_extra_and_the_schedule_keeps_its_slot(items, moved):
    # Given
    tick()

    # When
    extra = runner.start("items", **ALICE)
    tick()

    # Then
    assert extra.schedule_id is None
    assert listed() == [("03:00", "scheduled")]


def test_the_next_run_pulled_to_now_uses_its_slot_up_and_the_later_ones_keep_theirs(items, moved):
    # Given
    tick()

    # When
    pulled = runner.reschedule("items", **ALICE)
    tick()

    # Then
    assert (pulled.status, pulled.slot_at) == (RunStatus.RUNNING, at("03:00"))
    assert listed() == [("03:00", "running"), ("06:00", "scheduled")]

    # When its slot's time comes
    to(moved, "03:00")
    end(pulled)
    tick()

    # Then
    assert listed() == [("03:00", "cancelled"), ("06:00", "scheduled")]


@ON_ONE_DATABASE
def test_the_next_run_moved_beyond_the_one_after_it_does_not_hold_that_one_back(items, moved):
    # Given
    tick()

    # When
    runner.reschedule("items", at=at("07:00"), **ALICE)
    tick()

    # Then: the schedule continues beside it
    assert listed() == [("03:00", "scheduled"), ("06:00", "scheduled")]

    # When
    to(moved, "06:00")
    tick()
    to(moved, "07:00")
    tick()

    # Then
    assert listed() == [("03:00", "pending"), ("06:00", "running"), ("09:00", "scheduled")]


@ON_ONE_DATABASE
def test_a_future_run_that_a_person_cancels_is_skipped_and_the_next_slot_is_scheduled(items):
    # Given
    tick()

    # When
    runner.cancel(Run.get().id, **ALICE)
    tick()

    # Then
    assert listed() == [("03:00", "cancelled"), ("06:00", "scheduled")]


# --- what a person changes --------------------------------------------------------------------------------------------


def test_a_changed_schedule_moves_its_future_run_at_once_in_the_name_of_who_changed_it(items):
    # Given
    tick()

    # When
    changed = timetable.set_schedule("items", "30 2 * * *", timezone="Europe/Paris", **ALICE)

    # Then: 02:30 in Paris
    assert (changed.cron, changed.timezone, changed.catch_up, changed.edited) == (
        "30 2 * * *",
        "Europe/Paris",
        "latest",
        True,
    )
    assert listed() == [("01:30", "scheduled")]
    assert events(Run.get().id)[1:] == [("rescheduled", "alice", "cli")]
    assert "Europe/Paris" in RunEvent.select().order_by(RunEvent.id.desc()).get().detail


@ON_ONE_DATABASE
def test_what_is_not_given_stays_as_it_was(items):
    # Given
    timetable.set_schedule("items", "30 2 * * *", timezone="Europe/Paris", catch_up="all", **ALICE)

    # When
    changed = timetable.set_schedule("items", "@daily", **ALICE)

    # Then
    assert (changed.cron, changed.timezone, changed.catch_up) == ("0 0 * * *", "Europe/Paris", "all")


def test_a_source_with_no_schedule_is_given_one_also_for_a_tenant(import_from, moved):
    # Given
    import_from(NOWHERE)

    # When
    timetable.set_schedule("items", "0 * * * *", tenant="acme", **ALICE)
    timetable.set_schedule("items", "0 * * * *", tenant="umbrella", **ALICE)
    to(moved, "02:00")
    tick()

    # Then: one run of each tenant may be active
    assert sorted(run.tenant for run in Run.select().where(Run.status == RunStatus.RUNNING)) == ["acme", "umbrella"]
    assert schedules.find("items") is None


def test_a_paused_schedule_makes_no_run_and_a_resumed_one_makes_up_for_none(items, moved):
    # Given
    tick()

    # When
    timetable.pause_schedule("items", **ALICE)
    to(moved, "07:00")
    tick()

    # Then
    assert listed() == [("03:00", "cancelled")]
    assert events(Run.get().id)[1:] == [("cancelled", "alice", "cli")]
    assert schedule_stats.schedule_stats("items").next_at == ()

    # When
    timetable.resume_schedule("items", **ALICE)
    tick()

    # Then
    assert listed() == [("03:00", "cancelled"), ("09:00", "scheduled")]
    assert events(Run.get(Run.status == RunStatus.SCHEDULED).id) == [("scheduled", "alice", "cli")]


@ON_ONE_DATABASE
def test_a_schedule_paused_and_resumed_before_its_slot_keeps_the_slot(items):
    # Given
    tick()

    # When
    timetable.pause_schedule("items", **ALICE)
    timetable.resume_schedule("items", **ALICE)
    tick()

    # Then
    assert listed() == [("03:00", "cancelled"), ("03:00", "scheduled")]


@ON_ONE_DATABASE
def test_pausing_a_schedule_leaves_what_runs(items, moved):
    # Given
    tick()
    to(moved, "03:00")
    tick()

    # When
    timetable.pause_schedule("items", **ALICE)

    # Then
    assert listed() == [("03:00", "running"), ("06:00", "cancelled")]


@ON_ONE_DATABASE
def test_a_removed_schedule_is_again_what_its_source_declares(items):
    # Given
    timetable.set_schedule("items", "0 5 * * *", timezone="Asia/Kolkata", **ALICE)
    timetable.pause_schedule("items", **ALICE)

    # When
    left = timetable.remove_schedule("items", **ALICE)

    # Then
    assert (left.cron, left.timezone, left.edited, left.paused_at) == ("0 */3 * * *", "UTC", False, None)
    assert ("03:00", "scheduled") in listed()


def test_a_removed_schedule_that_no_source_declares_is_gone_with_its_future_run(import_from, moved):
    # Given
    import_from(NOWHERE)
    timetable.set_schedule("items", "0 5 * * *", **ALICE)

    # When
    left = timetable.remove_schedule("items", **ALICE)
    tick()

    # Then
    assert left is None
    assert listed() == [("05:00", "cancelled")]
    assert events(Run.get().id)[1:] == [("cancelled", "alice", "cli")]


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    ("act", "complaint"),
    [
        (lambda: timetable.set_schedule("items", "0 25 * * *", **ALICE), "cannot be read .Bad hour."),
        (lambda: timetable.set_schedule("items", "@daily", timezone="../x", **ALICE), "no timezone"),
        (lambda: timetable.set_schedule("items", "@daily", catch_up="some", **ALICE), "latest, none, all"),
        (lambda: timetable.resume_schedule("items", **ALICE), "is not paused"),
        (lambda: timetable.remove_schedule("items", **ALICE), "declares its schedule itself: pause it"),
        (lambda: timetable.pause_schedule("items", tenant="acme", **ALICE), "items for acme has no schedule: set one"),
    ],
    ids=["cron", "timezone", "catch-up", "resume", "remove", "none"],
)
def test_a_change_that_cannot_be_is_refused_with_the_fix(items, act, complaint):
    # Given
    tick()

    # When, Then
    with pytest.raises(UsageError, match=complaint):
        act()
    assert listed() == [("03:00", "scheduled")]


@ON_ONE_DATABASE
def test_a_second_pause_and_an_unknown_source_are_refused(items):
    timetable.adopt()
    timetable.pause_schedule("items", **ALICE)

    with pytest.raises(UsageError, match="paused already, since 2026-11-23 01:00 UTC"):
        timetable.pause_schedule("items", **ALICE)
    with pytest.raises(UnknownSource, match="Known sources: items"):
        timetable.set_schedule("itmes", "@daily", **ALICE)


@ON_ONE_DATABASE
def test_the_slots_of_a_night_do_not_crowd_the_other_runs_out_of_the_list(items, moved):
    # Given a run of a person's, and then a hundred slots that no scheduler saw
    mine = runner.start("items", **ALICE)
    timetable.set_schedule("items", "* * * * *", **ALICE)
    to(moved, "02:40")
    tick()

    # Then
    shown = [(run.id == mine.id, run.label) for run in run_stats.recent_runs(10)]
    skipped = [(False, "skipped")] * 5
    assert shown == [(True, "running"), (False, "scheduled"), (False, "pending"), *skipped]
    assert len(run_stats.recent_runs(1000, status="cancelled")) == 99


@ON_ONE_DATABASE
def test_another_catch_up_holds_for_the_slots_that_were_missed_already(items, moved):
    # Given a night without a scheduler
    tick()
    to(moved, "10:00")

    # When
    timetable.set_schedule("items", "0 */3 * * *", catch_up="all", **ALICE)

    # Then
    assert [slot for slot, _ in listed()] == ["03:00", "06:00", "09:00", "12:00"]
    assert "cancelled" not in dict(listed()).values()


# --- a schedule that cannot be followed  -----------------------------------------------------------------------------


@ON_ONE_DATABASE
def test_a_row_that_cannot_be_read_keeps_no_other_schedule_from_its_runs(items, import_from, moved, caplog):
    # Given a row that was written by hand, before the others
    import_from(NOWHERE, name="broken", schedule="@daily")
    timetable._logged.clear()
    timetable.adopt()
    Schedule.update({Schedule.cron: "what?"}).where(Schedule.source == "broken").execute()

    # When
    tick()
    tick()

    # Then
    assert listed() == [("03:00", "scheduled")]
    assert caplog.text.count("the schedule of broken cannot be followed: 'what?' does not have five fields") == 1
    assert "does not have five fields" in schedule_stats.schedule_stats("broken").trouble


@ON_ONE_DATABASE
def test_the_schedule_of_a_source_that_is_not_here_is_left_to_who_knows_it(items, import_from, moved):
    # Given a schedule of another host's source
    tick()
    Schedule.update({Schedule.source: "elsewhere"}).execute()

    # When
    to(moved, "04:00")
    timetable.keep()

    # Then
    assert listed() == [("03:00", "scheduled")]
    assert "no source named elsewhere here" in schedule_stats.schedule_stats("elsewhere").trouble


def test_of_two_schedulers_that_decided_at_once_one_gives_up(items, moved):
    # Given both have read the schedule
    timetable.adopt()
    first, second = schedules.find("items"), schedules.find("items")
    make = timetable.decide(first, [], database.now(), 60.0)

    # When
    by = {"lanes": 2, "who": "sluice", "door": "scheduler"}
    outcomes = [schedules.apply(schedule, make, **by) for schedule in (first, second)]

    # Then
    assert outcomes == [True, False]
    assert listed() == [("03:00", "scheduled")]


def test_the_database_gives_a_slot_one_run_and_a_schedule_one_future_whoever_asks(items):
    # Given
    tick()
    schedule = schedules.find("items")
    by = {"lanes": 2, "who": "sluice", "door": "scheduler"}

    # Then
    again, later = ([timetable.decide(schedule, [], at(text), 60.0)[-1]] for text in ("02:00", "03:00"))
    assert not schedules.apply(schedule, again, **by)
    assert not schedules.apply(schedule, later, **by)
    assert listed() == [("03:00", "scheduled")]


@ON_ONE_DATABASE
def test_a_step_that_fails_keeps_no_other_step_of_the_tick_from_its_work(items, moved, caplog):
    # Given a run of a person's, and a declaration that cannot be recorded
    runner.schedule("items", at("02:00"), **ALICE)
    to(moved, "02:00")
    type(items).schedule = 7

    # When
    went_well = scheduler.tick()

    # Then
    assert not went_well
    assert "the schedule that items declares cannot be followed: AttributeError" in caplog.text
    assert Run.get().status == RunStatus.RUNNING


@ON_ONE_DATABASE
def test_a_clock_that_was_a_month_ahead_for_a_tick_does_not_silence_the_schedule(items, moved):
    # Given
    tick()
    moved.step(timedelta(days=31).total_seconds())
    tick()

    # When it is set right
    moved.step(-timedelta(days=31).total_seconds())
    runner.cancel(Run.get(Run.status == RunStatus.RUNNING).id, **ALICE)
    tick()

    # Then the slots that were taken for missed are free again; that of the run that had been made before is not
    future = Run.get(Run.status == RunStatus.SCHEDULED)
    assert future.slot_at == at("06:00")


@ON_ONE_DATABASE
def test_schedulers_of_two_versions_do_not_undo_each_other_s_schedule(items, moved):
    # Given a scheduler of the old code, and a pause
    tick()
    timetable.pause_schedule("items", **ALICE)
    made = schedules.find("items").id

    # When one of the new code, which declares none, ticks between its ticks
    for _ in range(5):
        type(items).schedule = None
        tick()
        type(items).schedule = "0 */3 * * *"
        moved.advance(20)
        tick()

    # Then
    assert (schedules.find("items").id, bool(schedules.find("items").paused_at)) == (made, True)
    assert Run.select().count() == 1


@ON_ONE_DATABASE
def test_looking_at_the_schedules_from_another_checkout_changes_none(items, moved):
    # Given
    tick()
    moved.advance(60)

    # When
    type(items).schedule = None
    timetable.record_declared()

    # Then
    assert listed() == [("03:00", "scheduled")]


def test_what_a_person_has_moved_meanwhile_is_not_begun_or_cancelled_by_an_older_decision(items, moved):
    # Given a decision on an overdue run, and a person who is faster than its deed
    tick()
    schedule, run = schedules.find("items"), Run.get()
    to(moved, "10:00")
    decided = timetable.decide(schedule, [run], database.now(), 60.0)
    runner.reschedule("items", at=at("20:00"), **ALICE)

    # When
    by = {"lanes": 2, "who": "sluice", "door": "scheduler"}
    assert schedules.apply(schedule, [slot_rules.Begin(run.id), *decided[:1]], **by)

    # Then
    assert (runs.get(run.id).status, runs.get(run.id).scheduled_at) == (RunStatus.SCHEDULED, at("20:00"))


@ON_ONE_DATABASE
def test_more_than_one_transaction_holds_is_done_in_several(items, moved):
    # Given
    timetable.set_schedule("items", "* * * * *", **ALICE)

    # When
    to(moved, "13:00")
    timetable.keep()

    # Then 719 slots have passed: each has its row, and the newest one runs
    assert (len(listed()), listed()[-2:]) == (721, [("13:00", "running"), ("13:01", "scheduled")])


@ON_ONE_DATABASE
def test_the_schedule_of_a_source_that_is_gone_can_be_paused_and_removed(items, moved):
    # Given a source that was renamed
    tick()
    Schedule.update({Schedule.source: "old-name"}).execute()

    # When
    timetable.pause_schedule("old-name", **ALICE)
    assert timetable.remove_schedule("old-name", **ALICE) is None

    # Then
    assert schedules.find("old-name") is None
    assert listed() == [("03:00", "cancelled")]


@ON_ONE_DATABASE
def test_what_is_left_of_a_schedule_that_somebody_deleted_by_hand_starts_at_its_time(items, moved):
    # Given
    tick()
    type(items).schedule = None
    Schedule.delete().execute()

    # When
    to(moved, "03:00")
    tick()

    # Then
    assert listed() == [("03:00", "running")]


@ON_ONE_DATABASE
def test_a_cron_of_one_s_own_is_not_too_late_for_a_schedule_that_makes_up_for_none(items, moved):
    # Given a scheduler that looks every five minutes
    timetable.set_schedule("items", "0 */3 * * *", catch_up="none", **ALICE)
    to(moved, "03:04")

    # When
    assert scheduler.once()

    # Then
    assert listed() == [("03:00", "running"), ("06:00", "scheduled")]
