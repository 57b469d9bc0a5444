"""The page "schedule", drawn by Streamlit's own test double: what it says, and what can be done there."""

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.helpers.machine import ROOT
from tests.helpers.pages import again, draw, html, text
from workers import clock, settings
from workers.connections import database
from workers.messaging import scheduler_heartbeat
from workers.monitor.access import password
from workers.monitor.actions.schedule_form import address
from workers.monitor.sections.schedule_table import schedule_table
from workers.records.tables import Run, RunStatus, Schedule
from workers.scheduling import schedules, timetable
from workers.scheduling.schedule_stats import all_schedules

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

BY = {"who": "alice", "door": "cli"}
#: Nothing listens there: no run of these tests asks an API.
NOWHERE = "http://127.0.0.1:9"
HOSTILE = "<img src=x onerror=alert(1)>"


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}:00+00:00")


@pytest.fixture
def items(import_from: Callable[..., Any], moved_clock: clock.MovedClock) -> Any:
    """A source that declares a schedule, recorded at 10:00 of a Monday; its next run, 1, is for 12:00."""
    moved_clock.advance((at("23 10:00") - clock.now()).total_seconds())
    source = import_from(NOWHERE, schedule="0 */3 * * *")
    timetable.record_declared()
    timetable.keep()
    return source


def said_on(test: AppTest) -> str:
    """What a reader would read of the page, without a gap where bold type ends."""
    return re.sub(r" ([,.])", r"\1", text(test))


def form(test: AppTest) -> str:
    """What a reader would read of the form, which stands before the live part."""
    words = re.sub(r"<[^>]*>", " ", html(test).partition('<div class="sl-piece"')[0])
    return re.sub(r" ([,.])", r"\1", re.sub(r"\s+", " ", words))


def press(test: AppTest, label: str) -> AppTest:
    """Press a button, and draw the page again, as the next tick would."""
    next(button for button in test.button if button.label == label).click()
    return again(test)


def can_save(test: AppTest) -> bool:
    return not next(button for button in test.button if button.label == "Save").disabled


# --- what it says -----------------------------------------------------------------------------------------------------


def test_a_schedule_is_shown_with_its_times_and_its_last_run(items):
    # Given
    timetable.set_schedule("items", "30 2 * * *", timezone="Asia/Tokyo", catch_up="none", tenant="shop-7", **BY)
    done = {"status": RunStatus.COMPLETED, "started_at": at("22 17:30"), "ended_at": at("22 17:31")}
    last = Run.create(source="items", tenant="shop-7", lanes=1, created_by="s", scheduled_at=at("22 17:30"), **done)

    scheduler_heartbeat.beat()

    # When
    page = draw("schedule")

    # Then
    said = said_on(page)
    assert "next: items in 2 h 0 min" in said
    assert "At minute 0 past every third hour 0 */3 * * * UTC declared in code · missed slots: run the latest" in said
    assert "12:00 in 2 h 0 min then 15:00, 18:00, 21:00, Tue 00:00" in said
    assert "At 02:30 every day 30 2 * * * Asia/Tokyo set by alice · missed slots: skip" in said
    assert "17:30 in 7 h 30 min then Tue 17:30, Wed 17:30, Thu 17:30, Fri 17:30" in said
    assert "in Asia/Tokyo: Tue 02:30, Wed 02:30, Thu 02:30, Fri 02:30, Sat 02:30" in said
    assert f'href="run?id={last.id}" data-page' in html(page) and "completed" in said
    assert 'title="Mon 2026-11-23 12:00 UTC"' in html(page)


def test_without_a_scheduler_no_next_run_is_promised(items, moved_clock):
    # Given a scheduler whose heartbeat has stopped
    scheduler_heartbeat.beat()
    moved_clock.advance(31)

    # Then
    said = said_on(draw("schedule"))
    assert "scheduled runs do not start: no scheduler is running" in said and "next: " not in said


def test_what_keeps_a_schedule_from_being_kept_is_said(items):
    # Given
    wrong = {"timezone": "UTC", "created_by": "x", "updated_by": "x"}
    Schedule.create(source="gone", cron="0 1 * * *", **wrong)
    Schedule.create(source="items", tenant=HOSTILE, cron="every blue moon", **wrong)
    timetable.pause_schedule("items", **BY)

    # When
    page = draw("schedule")

    # Then
    said = said_on(page)
    assert "paused by alice, since" in said and "none while paused" in said
    assert "invalid" in said and "there is no source named gone here" in said
    assert "does not have five fields" in said
    assert "no active schedule" in said
    assert "<img" not in html(page)


def test_a_source_without_a_schedule_is_there_and_can_be_given_one(import_from):
    # Given
    import_from(NOWHERE)

    # Then
    page = draw("schedule")
    assert "no schedule" in said_on(page) and "manual start only" in said_on(page)
    assert 'href="schedule?source=items" data-page' in html(page)
    assert not page.text_input  # the form is not asked for


def test_what_a_source_declares_is_there_before_a_scheduler_has_ever_run(import_from):
    import_from(NOWHERE, schedule="0 */3 * * *")
    assert "declared 0 */3 * * * declared in code; active once a scheduler runs" in said_on(draw("schedule"))


@pytest.mark.parametrize(("number", "shown"), [(99, "<b>99</b>"), (100, "")])
def test_a_number_that_does_not_fit_in_a_mark_is_in_its_title(items, number, shown):
    # Given
    its = {"source": "items", "status": "completed", "lanes": 1, "created_by": "s", "ended_at": at("22 10:00")}
    Run.insert_many([its | {"scheduled_at": at("22 09:00"), "started_at": at("22 09:00")}] * number).execute()

    # When
    page = draw("schedule")

    # Then
    marks = re.findall(r'<a class="sl-strip-run.*?</a>', html(page), re.DOTALL)
    (mark,) = [mark for mark in marks if "Sun 09:00" in mark]
    assert f"</i>{shown}</a>" in mark and f"{number} completed" in mark
    assert ("sl-strip-many" in mark) == (not shown)


def test_the_strip_shows_the_outcome_of_each_run_and_the_reason(items):
    # Given
    slot = {"scheduled_at": at("22 09:00"), "slot_at": at("22 09:00"), "schedule_id": Schedule.get().id}
    why = f"overtaken by the run of 2026-11-22 12:00 UTC {HOSTILE}"
    run = Run.create(source="items", status="cancelled", error_summary=why, lanes=1, created_by="s", **slot)

    # When
    page = draw("schedule")

    # Then: for a mouse, for a keyboard, and in the list
    (mark,) = re.findall(r'<a class="sl-strip-run[^>]*grid-column:4[^>]*>', html(page))
    assert f'href="run?id={run.id}" data-page' in mark
    for attribute in ("title", "aria-label"):
        said = f'{attribute}="items: Sun 09:00, overtaken, run {run.id}, overtaken by the run of 22 Nov, 12:00'
        assert said in mark
    assert "What did not go as planned" in said_on(page)
    assert '<div title="overtaken by the run of 22 Nov, 12:00 &lt;img' in html(page)
    assert re.search(r">overtaken by the run of <time [^<>]*>22 Nov, 12:00</time> &lt;img", html(page))
    assert "<img" not in html(page)
    coming = re.findall(r'<span class="sl-strip-run[^>]*tabindex="0"[^>]*>', html(page))
    assert len(coming) == 3 + 3 * 8  # one each three hours, beside the run of 12:00 that is made


# --- the form ---------------------------------------------------------------------------------------------------------


def test_what_a_change_would_do_is_said_and_then_done(items):
    # Given
    page = draw("schedule", source="items")
    assert page.text_input(key="schedule_cron").value == "0 */3 * * *"
    assert "No changes." in form(page) and not can_save(page)

    # When
    page.text_input(key="schedule_cron").set_value("30 18 * * *")
    page.selectbox(key="schedule_timezone").set_value("Europe/Paris")
    page.selectbox(key="schedule_catch_up").set_value("all")
    again(page)

    # Then
    assert "At 18:30 every day, Europe/Paris. Next: 17:30, Tue 17:30" in form(page)
    assert "Run 1 will move from 12:00 to 17:30." in form(page)
    assert Schedule.get().cron == "0 */3 * * *"

    # When
    press(page, "Save")

    # Then
    found = schedules.find("items")
    assert (found.cron, found.timezone, found.catch_up) == ("30 18 * * *", "Europe/Paris", "all")
    assert found.updated_by == "monitor"
    assert Run.get_by_id(1).slot_at == at("23 17:30")
    assert not page.text_input and "At 18:30 every day" in said_on(page)


def test_what_cannot_be_read_is_refused_in_words_and_stays_as_it_was_typed(items):
    # Given
    page = draw("schedule", source="items")

    # When
    page.text_input(key="schedule_cron").set_value("0 25 * * *")
    again(page)

    # Then
    assert "cannot be read" in form(page) and "write minute, hour, day" in form(page)
    assert not can_save(page)
    assert again(page).text_input(key="schedule_cron").value == "0 25 * * *"


def test_a_schedule_is_made_for_a_tenant(items, monkeypatch):
    # Given a source that supports tenants
    monkeypatch.setattr(type(items), "get_connector", lambda self, run: self.connector)
    page = draw("schedule", new="1")
    assert "Enter a cron expression" in form(page) and not can_save(page)

    # When
    page.text_input(key="schedule_tenant").set_value("shop-7")
    page.text_input(key="schedule_cron").set_value("@daily")
    again(page)

    # Then
    assert "A run will be scheduled for Tue 00:00." in form(page)
    press(page, "Save")
    assert schedules.find("items", "shop-7").cron == "0 0 * * *"


def test_pausing_and_resuming_say_which_run_is_cancelled_and_scheduled(items):
    # Given
    page = draw("schedule", source="items")
    assert "Run 1, scheduled for 12:00, will be cancelled. No more runs are scheduled until" in form(page)

    # When
    press(page, "Pause the schedule")

    # Then
    assert Run.get_by_id(1).status == RunStatus.CANCELLED
    assert "paused by monitor" in said_on(page)

    # When
    page = draw("schedule", source="items")
    assert "A run will be scheduled for 12:00. Slots that were missed during the pause" in form(page)
    press(page, "Resume the schedule")

    # Then
    assert schedules.find("items").paused_at is None
    assert schedules.future_run(schedules.find("items")).slot_at == at("23 12:00")


def test_removing_says_what_holds_then(items):
    # Given: what the source declares cannot be removed, and what a person set can
    assert "Remove the schedule" not in [button.label for button in draw("schedule", source="items").button]
    timetable.set_schedule("items", "0 20 * * *", **BY)
    page = draw("schedule", source="items")
    assert "will move from 20:00 to 12:00. The schedule declared in code applies again: 0 */3 * * * in UTC." in form(
        page
    )

    # When
    press(page, "Remove the schedule")

    # Then
    assert not schedules.find("items").edited


def test_the_schedule_of_a_source_that_is_gone_can_be_removed_and_not_changed(items):
    # Given
    Schedule.create(source="gone", cron="0 1 * * *", timezone="UTC", created_by="x", updated_by="x")
    page = draw("schedule", source="gone")
    assert "There is no source named gone." in form(page) and not page.text_input

    # When
    press(page, "Remove the schedule")

    # Then
    assert schedules.find("gone") is None


def test_a_refusal_stays_on_the_page(items):
    # Given
    page = draw("schedule", source="items")

    # When another person pauses it first
    timetable.pause_schedule("items", **BY)
    press(page, "Pause the schedule")

    # Then
    assert "The schedule of items is paused already, since" in form(page)


@pytest.mark.parametrize("source", [HOSTILE, "x" * 5000, "a\x00b", ""])
def test_an_address_that_names_no_source_breaks_nothing(items, source):
    page = draw("schedule", source=source, tenant=HOSTILE)
    assert "This week" in said_on(page) and "<img" not in html(page)
    assert not page.text_input
    assert ("The address names no source" in form(page)) == ("\0" in source)  # no database need look for that one


def test_what_is_typed_stays_and_its_preview_follows_when_another_person_changes_the_schedule(items):
    # Given
    page = draw("schedule", source="items")
    page.text_input(key="schedule_cron").set_value("0 20 * * *")
    again(page)
    assert "will move from 12:00 to 20:00" in form(page)

    # When
    timetable.set_schedule("items", "0 14 * * *", **BY)
    again(page)

    # Then
    assert "will move from 14:00 to 20:00" in form(page)
    assert page.text_input(key="schedule_cron").value == "0 20 * * *"


# --- who may act ------------------------------------------------------------------------------------------------------


def test_a_viewer_sees_the_same_and_is_offered_nothing(items):
    found = all_schedules()
    drawn = schedule_table(found, {"other": ""}, {}, (UTC, clock.now()), acts=False)
    assert "At minute 0 past every third hour" in drawn
    assert "schedule?" not in drawn and "Change" not in drawn
    assert address("items", None) in schedule_table(found, {}, {}, (UTC, clock.now()), acts=True)


#: With the access checks, a password and no cookie, no act is allowed.
WITHOUT_SESSION = """
from workers.monitor.access.middleware import AccessMiddleware
from workers.monitor.actions import schedule_actions
AccessMiddleware(None)
for act in (schedule_actions.pause, schedule_actions.remove, schedule_actions.resume):
    print(act("items", None).outcome)
print(schedule_actions.set_schedule("items", None, "0 1 * * *", "UTC", "all").outcome)
"""


def test_an_act_that_was_not_offered_is_refused(items, house):
    # Given
    timetable.pause_schedule("items", **BY)
    house.setenv("SLUICE_MONITOR_VIEWER_PASSWORD", password.make("looking at it", log_n=4))

    # When
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_SESSION], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )

    # Then
    assert answer.stdout.splitlines() == ["not_allowed"] * 4, answer.stderr
    found = schedules.find("items")
    assert found.paused_at and found.cron == "0 */3 * * *"


def test_a_database_that_is_away_is_said_without_its_details(items, house):
    # Given
    page = draw("schedule", source="items")

    # When
    database.disconnect()
    house.setenv("SLUICE_DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:1/x")
    settings.get_settings.cache_clear()
    press(page, "Pause the schedule")

    # Then
    assert "The database does not answer" in form(page)
    assert "hunter2" not in html(page)
