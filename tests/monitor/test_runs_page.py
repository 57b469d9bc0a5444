"""The first page: what it says, its filters and its form, drawn by Streamlit's own test double."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from streamlit.testing.v1 import AppTest

from tests.helpers.machine import ROOT, free_port, wait_until
from tests.helpers.pages import again, draw, html, text
from workers import RateLimiter, clock
from workers.connections import database
from workers.control import runner
from workers.errors import RateLimited
from workers.messaging import process_heartbeat
from workers.monitor.readings import cache
from workers.monitor.readings.unreadable import Unreadable
from workers.monitor.sections.active_card import active_card
from workers.monitor.sections.run_card import run_card
from workers.monitor.sections.runs_table import runs_table
from workers.records import runs, samples, schema
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus
from workers.reports.labels import LABELS
from workers.reports.run_stats import recent_runs, run_stats
from workers.scheduling import schedule_stats, timetable
from workers.sources.registry import get_registry

#: As the page says one; of another day, before midnight.
INSTANT = r"\s*(\d\d \w{3}, )?\d\d:\d\d"
HOSTILE = (
    '<img src="https://evil.example/x.png" onerror="alert(1)"><script>alert(2)</script> ![x](https://evil.example/y)'
)


# --- what the page says -----------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(environment: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty, migrated SQLite database, the demo's source, and a Redis that is not there."""
    from models import Item

    environment.setenv("SLUICE_DATABASE_URL", f"sqlite:///{tmp_path}/sluice.db")
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    environment.setenv("SLUICE_BROKER_URL", "stub://")
    schema.migrate([Item])
    with database.connection():
        yield environment


def choose(page: AppTest, how: str) -> AppTest:
    return page.button_group(key="form_how").set_value(how).run()


def look() -> AppTest:
    """Draw the page for another visitor, with the readings that are cached."""
    return AppTest.from_file(str(ROOT / "monitor_app.py"), default_timeout=20).run()


def part(page: AppTest, name: str) -> str:
    """Return what a reader would read of the row, or the card, with this id."""
    (found,) = re.findall(rf'<(tr|article) [^>]*id="{name}"(.*?)</\1>', html(page), re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found[1]))


def record(status: RunStatus, **values: Any) -> Run:
    """Write a run that has been at work for a while."""
    now = clock.now()
    started = now - timedelta(seconds=100)
    usual = {"source": "items", "lanes": 4, "created_by": "me", "discovery_cursor": 1}
    return Run.create(**usual | {"status": status, "started_at": started, "discovered_at": started} | values)


def test_the_first_page_says_how_to_start(sqlite: pytest.MonkeyPatch) -> None:
    page = draw()
    assert "Nothing has been imported yet" in text(page)
    assert "python -m workers run" in text(page)
    assert "ready for the first import" in text(page)


def test_a_running_run_shows_all_that_is_asked_of_it(house: pytest.MonkeyPatch) -> None:
    now = clock.now()
    process_heartbeat.Heartbeat("worker").write()
    run = record(
        RunStatus.RUNNING,
        total_count=1000,
        succeeded_count=409,
        failed_count=3,
        total_sleep_seconds=60.0,
        rate_limit_sleeps_count=9,
        rate_limit_hits_count=1,
    )
    item = {"run_id": run.id, "status": ItemStatus.COMPLETED, "due_at": now}
    for number in range(120):
        RunItem.create(external_id=str(number), completed_at=now - timedelta(seconds=number % 20 + 2), **item)

    page = draw()

    card, table = part(page, "now-1"), part(page, "run-1")
    assert "1 run active" in text(page)
    for said in (card, table):
        assert "running" in said and "items" in said
        assert "41 %" in said
        assert "412 of 1,000 · 3 failed" in said
        assert re.search(r"4\d s active · 1 min 0 s waiting", said)
        assert "its own pace decides: " in said
    assert re.search(r"[12]\.\d+ items/s", card)
    assert re.search(r"Ends in (1 min )?\d+ s at \d\d:", card)
    assert re.search(r"in (1 min )?\d+ s its own", table)
    assert "1 9 planned waits efficiency 90 % (fair)" in table
    assert '<a href="run?id=1" data-page aria-label="run 1 of items">' in html(page)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_where_no_worker_runs_no_end_is_promised(house: pytest.MonkeyPatch) -> None:
    # Given a run that a worker has started, and no worker runs any more
    run = record(RunStatus.RUNNING, total_count=1000, succeeded_count=400)

    # Then
    page = draw()
    card, row = part(page, f"now-{run.id}"), part(page, f"run-{run.id}")
    for said in (card, row, text(draw("run", id=str(run.id)))):
        assert "no worker runs; start python -m workers worker" in said
        assert "running normally" not in said and "decides" not in said
    assert "Ends in – no estimate while stalled" in card
    assert "no estimate while stalled" in text(draw("run", id=str(run.id)))

    # When a process takes a sample, then the run is processed inline
    samples.take(database.now())
    assert "no worker runs;" not in text(again(page))
    assert "its own pace decides" in text(page)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_pace_says_over_what_time_it_is_and_a_paused_run_has_none(house: pytest.MonkeyPatch) -> None:
    # Given a run that began 2.5 s ago, and one that is paused
    began = {"started_at": clock.now() - timedelta(seconds=2.5), "discovered_at": clock.now() - timedelta(seconds=2.5)}
    new = record(RunStatus.RUNNING, total_count=1000, succeeded_count=5, **began)
    still = record(RunStatus.PAUSED, source="others", total_count=1000, succeeded_count=500)
    page = draw()

    # Then
    assert re.search(r"items/s over the last [34] s", part(page, f"now-{new.id}"))
    assert re.search(r"[\d.] last [34] s", part(page, f"run-{new.id}"))
    assert re.search(r"items/s over the last \d s;", text(draw("run", id=str(new.id))))
    assert re.search(r"paused \d\.\d items/s before", part(page, f"now-{still.id}"))
    assert re.search(r"paused \d\.\d before", part(page, f"run-{still.id}"))
    assert re.search(r"Rate paused \d\.\d items/s before", text(draw("run", id=str(still.id))))


@pytest.mark.parametrize(
    ("window", "why_window", "said"),
    [
        ("500/20 s", "500/20 s", False),
        ("2000/100 s", "500/20 s", True),
        ("", "500/20 s", True),
        ("", "", True),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_row_does_not_name_a_window_twice(
    house: pytest.MonkeyPatch, window: str, why_window: str, said: bool
) -> None:
    decides, why = "what decides", "why it waits"
    windows = {"eta_window": window, "why_window": why_window}
    run = replace(run_stats(record(RunStatus.RUNNING)), eta_why=decides, why=why, **windows)
    shown = runs_table([run], UTC, clock.now())
    assert (decides in shown, why in shown) == (said, True)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_end_beyond_all_foresight_has_no_date(house: pytest.MonkeyPatch) -> None:
    found = run_stats(record(RunStatus.RUNNING))
    run = replace(found, eta_seconds=4e8, eta_at=None, eta_why="its own pace decides")
    for shown in (run_card(run, UTC, clock.now()), active_card(run, UTC, clock.now())):
        assert "its own pace decides" in shown and "no estimate" not in shown and "at <span" not in shown


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_run_whose_requests_were_not_counted_claims_none(house: pytest.MonkeyPatch) -> None:
    found = run_stats(record(RunStatus.COMPLETED, ended_at=clock.now(), succeeded_count=7, total_count=7))
    assert "0 requests" not in run_card(found, UTC, clock.now())
    assert "8 requests" in run_card(replace(found, requests=8), UTC, clock.now())


def test_of_many_active_runs_three_are_large_and_the_others_counted(sqlite: pytest.MonkeyPatch) -> None:
    for number in range(23):
        record(RunStatus.PAUSED if number == 0 else RunStatus.RUNNING, source=f"s{number}", total_count=10)
    page = draw()
    assert "23 runs active" in text(page)
    assert re.findall(r'id="now-(\d+)"', html(page)) == ["2", "3", "4"]  # the paused one comes last
    assert "and 20 more" in text(page)


def test_a_cancelled_run_is_a_run_that_started(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.CANCELLED, ended_at=clock.now())
    assert "No run matches" in text(draw(status="running"))


def test_without_active_runs_the_last_run_and_the_next_are_shown(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.FAILED, ended_at=clock.now() - timedelta(minutes=5), total_count=10)
    record(RunStatus.SCHEDULED, started_at=None, scheduled_at=clock.now() + timedelta(hours=1))
    said = text(draw())
    assert re.search(r"No active runs Last: failed run 1 of items, .* Next: items,", said)


def test_while_the_list_is_read_no_percentage_is_claimed(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.RUNNING, total_count=300, discovered_at=None)
    said = text(draw())
    assert "reading the list: 300 found so far" in said
    assert "%" not in said
    assert "no waits yet" in said


def test_999_of_1000_is_not_100_percent(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.RUNNING, total_count=1000, succeeded_count=999)
    said = text(draw())
    assert "99 %" in said
    assert "100 %" not in said


@pytest.fixture
def budget(house: pytest.MonkeyPatch, redis_server: str) -> Iterator[RateLimiter]:
    """The budget of a running run, from within; a worker runs."""
    process_heartbeat.Heartbeat("worker").write()
    record(RunStatus.RUNNING, total_count=1000, succeeded_count=5)
    with redis.Redis.from_url(redis_server) as client:
        prefix = os.environ["SLUICE_PREFIX"]
        yield RateLimiter(get_registry()["items"].connector.budget, client, prefix=prefix, max_wait_seconds=0.0)


def be_refused(budget: RateLimiter, retry_after: str) -> None:
    caller = budget.permit_client()
    with pytest.raises(RateLimited):
        caller.report(caller.acquire(5), 429, {"Retry-After": retry_after})
    caller.flush()


def test_a_paused_budget_says_why_and_until_when(budget: RateLimiter) -> None:
    be_refused(budget, "1800")
    said = text(draw())
    assert re.search(rf"the API answered 429, Retry-After 1800: paused for (29|30) min \d+ s, until {INSTANT}", said)


def test_a_paced_budget_says_so_and_why_even_where_nothing_waits(budget: RateLimiter) -> None:
    for _ in range(5):
        be_refused(budget, "0")
        wait_until(lambda: not budget.snapshot().paused_for_seconds, what="the end of the pause")
        caller = budget.permit_client()
        caller.answered(caller.acquire(5))
        caller.flush()
        if budget.snapshot().profile == "paced":
            break
        clock.sleep(1.1)
    wait_until(lambda: budget.snapshot().opens_in_seconds < 0.5, what="its opening")
    Run.update({Run.discovered_at: clock.now()}).execute()  # it has not been stalled for long

    page = draw()

    paced = "paced: the API refused a request though every window had room"
    assert f"running, but slower than its limits: {paced}" in part(page, "now-1")
    assert paced in part(page, "run-1")


def test_a_limit_that_the_api_lowered_is_shown(budget: RateLimiter) -> None:
    caller = budget.permit_client()
    caller.report(caller.acquire(5), 200, {"RateLimit-Policy": '"a";q=400;w=20', "RateLimit": '"a";r=380;t=10'})
    caller.flush()
    assert "window 500/20 s is 400 now, says the API" in text(draw())


def test_a_budget_whose_state_was_lost_says_how_and_when_it_opens(budget: RateLimiter) -> None:
    caller = budget.permit_client()
    caller.acquire(5)
    budget.ledger.client.delete(budget.ledger.keys[1])
    with pytest.raises(RateLimited):
        caller.acquire(5)
    said = text(draw())
    assert re.search(r"window 2000/100 s taken as full: a part of its state is gone; opens in (1|2) min \d+ s", said)


def test_a_run_that_was_paused_for_a_long_wait_says_until_when_its_api_is_not_asked(budget: RateLimiter) -> None:
    be_refused(budget, "3000")
    runs.pause_because(1, "rate-test: the API answered 429, Retry-After 86400")
    said = text(draw())
    why = "paused: rate-test: the API answered 429, Retry-After 86400; no request is sent to its API until"
    assert re.search(f"{why} {INSTANT}", said)


def test_a_hostile_failure_is_shown_as_text(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.FAILED, ended_at=clock.now(), total_count=10, error_summary=HOSTILE, created_by="<b>eve</b>")
    page = draw()
    assert "failed" in text(page)
    for raw in ("<img", "<script", "<b>eve"):
        assert raw not in html(page)
    assert "&lt;img src=&quot;https://evil.example/x.png&quot;" in html(page)
    assert "by &lt;b&gt;eve&lt;/b&gt;" in html(page)


@pytest.fixture
def asked(sqlite: pytest.MonkeyPatch, moved_clock: clock.MovedClock) -> Iterator[list[str]]:
    """The statements that the database gets, with a stopped clock: all drawings are within the same second."""
    statements: list[str] = []
    hook = lambda event: statements.append(event.sql)  # noqa: E731
    database.db.query_hooks.append(hook)
    yield statements
    database.db.query_hooks.remove(hook)


def test_ten_browsers_ask_the_database_no_more_than_one(asked: list[str], moved_clock: clock.MovedClock) -> None:
    # Given
    record(RunStatus.RUNNING, total_count=9000, succeeded_count=5000)
    pages = [draw(), *(look() for _ in range(9))]

    # When
    asked.clear()
    moved_clock.advance(1.0)
    pages[0].run()
    by_one = len(asked)
    for page in pages[1:]:
        page.run()

    # Then
    assert 0 < by_one < 40, asked
    assert len(asked) == by_one


def test_a_tick_asks_the_database_as_often_however_many_runs_there_were(
    asked: list[str], moved_clock: clock.MovedClock
) -> None:
    def ask() -> int:
        page = draw()
        asked.clear()
        moved_clock.advance(1.0)
        page.run()
        return len(asked)

    # Given
    past = {"ended_at": clock.now(), "total_count": 10, "succeeded_count": 10}
    record(RunStatus.COMPLETED, **past)
    few = ask()

    # When
    for _ in range(120):
        record(RunStatus.COMPLETED, **past)

    # Then
    assert ask() == few < 20, asked


def test_every_label_has_a_badge_with_a_word_and_a_shape(sqlite: pytest.MonkeyPatch) -> None:
    now = clock.now()
    record(RunStatus.COMPLETED, ended_at=now, total_count=1, succeeded_count=1)
    record(RunStatus.COMPLETED, ended_at=now, total_count=1, failed_count=1)
    record(RunStatus.CANCELLED, ended_at=now)
    record(RunStatus.FAILED, ended_at=now)
    record(RunStatus.PENDING, started_at=None)
    record(RunStatus.SCHEDULED, started_at=None, scheduled_at=now + timedelta(hours=1))
    record(RunStatus.SCHEDULED, started_at=None, scheduled_at=now - timedelta(hours=1))
    record(RunStatus.PAUSED, source="paused")
    record(RunStatus.RUNNING)
    record(RunStatus.CANCELLED, started_at=None, schedule_id=1, slot_at=now, ended_at=now)
    pausing = record(RunStatus.PAUSED, source="pausing")
    RunItem.create(run_id=pausing.id, external_id="1", status=ItemStatus.PROCESSING, due_at=now + timedelta(hours=1))

    shown = re.findall(r'sl-i-(\w+)"></i>([a-z ]+)</span>', html(draw()))

    labels = {run.label for run in recent_runs()}
    assert len(labels) == 11 and labels == set(LABELS)
    assert {word for _, word in shown} == labels
    styles = (ROOT / "workers" / "monitor" / "css" / "base.css").read_text()
    assert all(f".sl-i-{shape}" in styles for shape, _ in shown)


def test_a_missing_redis_is_named_with_its_repair(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.RUNNING, total_count=10)
    said = text(draw())
    assert "Redis does not answer" in said
    assert "python -m workers redis" in said


def test_tables_that_are_not_there_yet_are_waited_for(environment: pytest.MonkeyPatch, database_url: str) -> None:
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    page = draw()
    assert "Waiting for migrations" in text(page)
    assert page.button(key="form_go").disabled

    schema.migrate()
    again(page)
    assert "Nothing has been imported yet" in text(page)


def test_a_database_that_is_away_is_said_without_its_details(sqlite: pytest.MonkeyPatch) -> None:
    database.disconnect()
    sqlite.setenv("SLUICE_DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:1/x")
    from workers.settings import get_settings

    get_settings.cache_clear()
    page = draw()
    assert "The database does not answer" in text(page)
    assert "No run can be started" in text(page)
    assert "hunter2" not in html(page) and "refused" not in html(page)


# --- the filters ------------------------------------------------------------------------------------------------------


def rows(page: AppTest) -> list[int]:
    return [int(run_id) for run_id in re.findall(r'<tr id="run-(\d+)"', html(page))]


def past(status: RunStatus = RunStatus.COMPLETED, **values: Any) -> Run:
    return record(status, **{"ended_at": clock.now(), "total_count": 1, "succeeded_count": 1} | values)


def test_an_address_says_which_runs_are_shown(sqlite: pytest.MonkeyPatch) -> None:
    # Given
    past()
    past(source="other", tenant="acme")
    past(source="other", status=RunStatus.FAILED)
    past(source="other", ended_at=clock.now() - timedelta(hours=25), started_at=clock.now() - timedelta(hours=26))

    # Then
    assert rows(draw()) == [4, 3, 2, 1]
    assert "4 runs " in text(draw())
    page = draw(source="other", hours="24")
    assert rows(page) == [3, 2]
    assert "2 runs match" in text(page) and "Source other" in text(page)
    assert '<a href="./?status=failed&amp;source=other&amp;hours=24" data-page>failed</a>' in html(page)
    assert rows(draw(status="failed")) == [3]
    assert rows(draw(tenant="acme", kind="import")) == [2]


@pytest.mark.parametrize(
    "hostile",
    [{"status": "<b>"}, {"kind": "x"}, {"hours": "1"}, {"before": "-1"}, {"before": "9" * 99}, {"tenant": "a\x00b"}],
)
def test_an_invalid_filter_is_ignored(sqlite: pytest.MonkeyPatch, hostile: dict[str, str]) -> None:
    past()
    page = draw(**hostile)
    assert rows(page) == [1]
    assert "1 run " in text(page) and "match" not in text(page)


def test_an_unknown_filter_is_reported(sqlite: pytest.MonkeyPatch) -> None:
    past()
    page = draw(status="<b>lost", kind="x")
    assert "Unknown status &#x27;&lt;b&gt;lost&#x27;" in html(page).replace("&#39;", "&#x27;")
    assert "Unknown kind" in text(page) and "<b>lost" not in html(page)
    assert "Unknown" not in text(draw(status="with failures", kind="import"))
    assert ">with failures</a>" in html(page)


def test_a_filter_that_leaves_nothing_says_so_and_leads_back(sqlite: pytest.MonkeyPatch) -> None:
    past()
    page = draw(source="<script>", status="failed")
    assert re.search("No run matches +status failed · source &lt;script&gt;", text(page))
    assert "0 runs match" in text(page) and "Show all runs" in text(page)
    assert "<script" not in html(page)


def test_older_runs_are_a_page_further(sqlite: pytest.MonkeyPatch) -> None:
    for _ in range(60):
        past()
    page = draw()
    assert rows(page) == list(range(60, 10, -1))
    assert 'rel="next" href="./?before=11"' in html(page)
    older = draw(before="11")
    assert rows(older) == list(range(10, 0, -1))
    assert "60 runs " in text(older) and 'rel="next"' not in html(older) and "Newest" in text(older)


def test_many_tenants_are_asked_for_by_name(sqlite: pytest.MonkeyPatch) -> None:
    for number in range(101):
        past(tenant=f"shop-{number}")
    page = draw(status="completed")
    assert "Tenant all" not in text(page)
    assert '<input type="hidden" name="status" value="completed">' in html(page)
    assert 'value="shop-7"' in html(draw(tenant="shop-7"))


# --- the form ---------------------------------------------------------------------------------------------------------


def test_new_starts_a_run_now_and_the_next_one_waits(sqlite: pytest.MonkeyPatch) -> None:
    page = draw()
    assert "A new run of items starts now" in text(page)

    page.button(key="form_go").click().run()
    assert [run.status for run in runs.running()] == ["running"]
    assert page.toast[0].value == "Run 1 is running"
    assert "Run 1 is running. The new run waits behind it" in text(page)

    page.session_state["form_door"] = True  # as if its button was pressed
    page.button(key="form_go 1").click().run()
    assert page.toast[0].value == "Run 2 waits behind run 1"
    assert not page.session_state["form_door"]  # a second click starts no third one
    assert runs.get(2).created_by == "monitor"


def test_the_form_says_when_the_source_runs_by_itself(sqlite: pytest.MonkeyPatch) -> None:
    # Given
    timetable.set_schedule("items", "0 */3 * * *", who="alice", door="cli")

    # Then
    first = schedule_stats.schedule_stats("items").next_at[0]
    said = text(draw())
    assert f"Schedule: At minute 0 past every third hour (UTC). Next: {first:%a %d %H:%M}," in said

    # When
    timetable.pause_schedule("items", who="alice", door="cli")

    # Then
    assert "Its schedule was paused by alice" in text(draw())


def test_reschedule_is_off_where_nothing_is_scheduled(sqlite: pytest.MonkeyPatch) -> None:
    page = choose(draw(), "RESCHEDULE")
    assert "No run of items is scheduled" in text(page)
    assert page.button(key="form_go").disabled


def test_reschedule_pulls_the_next_run_to_now(sqlite: pytest.MonkeyPatch) -> None:
    at = datetime(2099, 1, 1, 10, tzinfo=UTC)
    run = runner.schedule("items", at, who="me", door="test")
    later = runner.schedule("items", at + timedelta(days=1), who="me", door="test")

    page = choose(draw(), "RESCHEDULE")
    assert f"run {run.id}, 2099-01-01 10:00 UTC → now. It starts now" in text(page)
    assert page.button(key="form_go").label == "Start the next run now"
    page.button(key="form_go").click().run()

    assert runs.get(run.id).status == RunStatus.RUNNING
    assert runs.get(later.id).scheduled_at == at + timedelta(days=1)


def test_reschedule_is_refused_when_another_person_cancelled_the_run(
    sqlite: pytest.MonkeyPatch,
) -> None:
    run = runner.schedule("items", datetime(2099, 1, 1, tzinfo=UTC), who="me", door="test")
    page = choose(draw(), "RESCHEDULE")
    runner.cancel(run.id, who="me", door="test")
    page.button(key="form_go").click().run()
    assert "No run of items is scheduled: start a new one" in text(page)
    assert "start a new one" not in text(choose(page, "NEW"))


def test_fresh_says_which_rows_it_will_delete(sqlite: pytest.MonkeyPatch) -> None:
    page = draw()
    page.checkbox[0].check().run()
    assert "every row of the table items that is no longer in the list is deleted" in re.sub(r" +", " ", text(page))
    assert page.button(key="form_go").label == "Import and remove rows"
    page.button(key="form_go").click().run()
    assert runs.get(1).options == {"fresh": True}
    assert not page.checkbox[0].value


def test_the_form_says_how_long_it_took_lately(sqlite: pytest.MonkeyPatch) -> None:
    for seconds in (60, 120):
        past(started_at=clock.now() - timedelta(seconds=seconds))
    assert "Usual duration: about 1 min 30 s (average of the last 2 completed runs)." in text(draw())


def test_a_source_with_tenants_is_run_for_one(sqlite: pytest.MonkeyPatch) -> None:
    # Given
    assert not [box for box in draw().selectbox if box.key == "form_tenant"]
    past(tenant="acme")
    running = runner.start("items", who="me", door="test")

    # When
    page = draw()
    page.selectbox(key="form_tenant").set_value("acme").run()
    assert "A new run of items for acme starts now" in text(page)
    page.button(key="form_go").click().run()

    # Then
    new = runs.get(running.id + 1)
    assert (new.tenant, new.status, new.created_by) == ("acme", RunStatus.RUNNING, "monitor")


#: The pages, with the number of times that they were drawn.
COUNTING = """
import streamlit
from workers.monitor import app

streamlit.session_state.drawn = streamlit.session_state.get("drawn", 0) + 1
app.show()
"""


def test_a_tenant_with_a_blank_does_not_redraw_the_page_for_ever(
    sqlite: pytest.MonkeyPatch, moved_clock: clock.MovedClock
) -> None:
    past(tenant=" acme")
    cache.forget()
    page = AppTest.from_string(COUNTING, default_timeout=20).run()
    page.session_state.drawn = 0
    page.selectbox(key="form_tenant").set_value(" acme").run()
    again(page)
    assert "A new run of items for acme starts now" in text(page)
    assert page.session_state.drawn == 2


def test_the_form_leaves_no_connection_open(sqlite: pytest.MonkeyPatch, moved_clock: clock.MovedClock) -> None:
    past(started_at=clock.now() - timedelta(seconds=9))
    page = draw()
    open_before = len(database.db.obj._in_use)
    for _ in range(3):
        moved_clock.advance(60)
        again(page)
    assert len(database.db.obj._in_use) == open_before


def test_a_form_that_cannot_be_read_leaves_the_page_as_it_is(
    sqlite: pytest.MonkeyPatch, moved_clock: clock.MovedClock
) -> None:
    # Given a database that does not answer to the query for tenants
    past(tenant="acme")
    cache.forget()
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        with suppress(Unreadable):
            cache.cached(("form tenants", "items"), 60.0, lambda: [begun.set(), end.wait(20)])

    hanging = threading.Thread(target=hang)
    hanging.start()
    begun.wait(5)
    moved_clock.advance(2.9)  # nearly all of its patience

    # Then
    page = look()
    assert "No run can be started now. Reading takes too long" in text(page)
    assert rows(page) == [1]
    end.set()
    hanging.join(5)


#: A page that fails after its first piece.
FAILING = """
from workers.monitor.html.markup import fill
from workers.monitor.html import panel
from workers.monitor.pages import live_page
from workers.monitor.readings.unreadable import Unreadable

def draw(zone):
    yield live_page.Piece("first", fill("the first piece"))
    raise {error}

panel.prepare()
live_page.live("Test", draw)
"""


@pytest.mark.parametrize(
    "error", ["Unreadable('Reading takes too long', 'Check it.')", "ZeroDivisionError('division')"]
)
def test_an_error_after_the_first_piece_is_reported_without_details(sqlite: pytest.MonkeyPatch, error: str) -> None:
    page = AppTest.from_string(FAILING.format(error=error), default_timeout=20).run()
    assert "the first piece" in text(page)
    assert "not available" in text(page) and "division" not in html(page)
    assert ("Reading takes too long" in text(page)) == error.startswith("Unreadable")


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("nowhere:SOURCES", "names a module that is not here"),
        ("broken_sources:SOURCES", "broken_sources cannot be imported"),
    ],
)
def test_sources_that_cannot_be_loaded_are_reported_in_the_form(
    sqlite: pytest.MonkeyPatch, tmp_path: Path, sources: str, said: str
) -> None:
    (tmp_path / "broken_sources.py").write_text("1 / 0")
    sqlite.syspath_prepend(tmp_path)
    sqlite.setenv("SLUICE_SOURCES", sources)
    from workers.settings import get_settings

    get_settings.cache_clear()
    record(RunStatus.COMPLETED, ended_at=clock.now(), total_count=1, succeeded_count=1)
    page = draw()
    assert said in text(page)
    assert "1 of 1" in part(page, "run-1")
    assert "ZeroDivisionError" not in html(page)
