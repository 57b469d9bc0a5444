"""The page of one run: what it says, what it asks before an act, and how it behaves in a real Chromium."""

import asyncio
import csv
import io
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from peewee import chunked
from playwright.sync_api import Browser, Page, WebSocketRoute, expect
from starlette.applications import Starlette
from streamlit.testing.v1 import AppTest

from tests.helpers.machine import ROOT, forget, free_port
from tests.helpers.monitor_process import served
from tests.helpers.pages import again, draw, html, labels, press, text
from workers import clock
from workers.connections import database
from workers.control import forcing
from workers.failures import FailureClass, fingerprint
from workers.monitor.access import password
from workers.monitor.actions import act, lanes_dialog, run_buttons, run_questions
from workers.monitor.actions.act import Outcome, Result
from workers.monitor.html.markdown import plain
from workers.monitor.pages import run as run_page
from workers.monitor.readings.run_reading import MOST_RETRYING
from workers.monitor.sections import failed_items
from workers.monitor.serving.routes import ROUTES
from workers.records import runs
from workers.records.tables import ItemStatus, Run, RunEvent, RunItem, RunStatus
from workers.reports import run_stats
from workers.reports.failure_groups import failure_groups

HOSTILE = '<img src="https://evil.example/x.png" onerror="alert(1)">'
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def record(status: RunStatus, **values: Any) -> Run:
    """Write a run that has been at work for a while."""
    now = clock.now()
    started = now - timedelta(seconds=100)
    usual = {"source": "items", "lanes": 16, "created_by": "alice", "discovery_cursor": 1, "total_count": 1000}
    return Run.create(**usual | {"status": status, "started_at": started, "discovered_at": started} | values)


def fail(run: Run, count: int, kind: str = "transient", reason: str = "no answer within 30 s", **values: Any) -> str:
    """Write failed items of one group; return its fingerprint."""
    mark, now = fingerprint(kind, reason), clock.now()
    usual = {"run_id": run.id, "status": ItemStatus.FAILED, "due_at": now, "last_failed_at": now, "attempts": 5}
    usual |= {"item_type": "items", "failure_class": kind, "failure_reason": reason, "failure_fingerprint": mark}
    rows = [usual | {"external_id": f"{mark}{n}", "item_id": str(n)} | values for n in range(count)]
    for some in chunked(rows, 500):
        RunItem.insert_many(some).execute()
    Run.update(failed_count=Run.failed_count + count).where(Run.id == run.id).execute()
    return mark


class Sent:
    """The messages of a page to its server; they can be held back, to arrive together.

    Parameters:
      page(Page): Before it opens its address.
    """

    def __init__(self, page: Page) -> None:
        self._page, self._held, self._is_holding = page, list[bytes | str](), False
        page.route_web_socket(re.compile("."), self._pass_on)

    def hold(self, number: int) -> None:
        """Hold messages back from now on, and wait until there are `number` in all: a tick comes each second."""
        self._is_holding = True
        for _ in range(100):
            if len(self._held) >= number:
                return
            self._page.wait_for_timeout(50)
        raise TimeoutError(f"{len(self._held)} came, of {number}")

    def let_go(self) -> None:
        """Let it arrive in the order in which it was sent, with nothing between."""
        self._is_holding = False
        for message in self._held:
            self._server.send(message)
        self._held.clear()

    def _pass_on(self, socket: WebSocketRoute) -> None:
        self._server = socket.connect_to_server()
        socket.on_message(
            lambda message: self._held.append(message) if self._is_holding else self._server.send(message)
        )


# --- what it says -----------------------------------------------------------------------------------------------------


def test_a_running_run_answers_how_far_how_fast_and_who_asked_for_it(house: pytest.MonkeyPatch) -> None:
    # Given
    its = {"succeeded_count": 409, "failed_count": 0, "skipped_count": 3, "requests_count": 431}
    run = record(RunStatus.RUNNING, **its, total_sleep_seconds=60.0, rate_limit_sleeps_count=9)
    behind = record(RunStatus.PENDING, started_at=None)
    RunItem.create(run_id=run.id, external_id="1", status=ItemStatus.PROCESSING, due_at=clock.now())

    # When
    page = draw("run", id=str(run.id))

    # Then
    said = text(page)
    assert f"Run {run.id} · items running started by alice · since" in said
    assert "· 16 lanes ·" in said
    assert f"run {behind.id} waits behind it" in said
    assert "41 % 412 of 1,000" in said
    assert "succeeded 409 failed 0 skipped 3 processing 1 pending 587" in said
    assert re.search(r"active 4\d s · waiting 1 min 0 s", said)
    assert "Rate-limit hits (429) 0 9 planned waits; efficiency 100 % (excellent) · 431 requests" in said
    assert "its budget allows 20.0 requests/s (2000/100 s)" in said
    assert "0 of 500 · 500 left" in said
    assert 'href="./"' in html(page) and f'href="run?id={behind.id}"' in html(page)
    pace, progress = page.get("vega_lite_chart")
    assert {data.name for data in pace.proto.datasets} == {"pace", "pauses", "rule"}
    assert {data.name for data in progress.proto.datasets} == {"progress", "pauses"}


@SQLITE
def test_an_address_without_a_run_is_answered_kindly(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.COMPLETED, ended_at=clock.now())
    page = draw("run")
    for asked in ("", "x", "-1", "1.5", "٣", "9" * 30, "1 OR 1=1", "<i>"):
        page.query_params["id"] = asked
        again(page)
        assert "No run selected" in text(page) and "The newest runs: Run 1" in text(page)
        assert f'href="run?id={run.id}"' in html(page) and "<i>" not in html(page)
        assert labels(page) == []


@SQLITE
def test_a_run_that_is_not_there_is_said_and_the_newest_are_linked(house: pytest.MonkeyPatch) -> None:
    assert (
        "There is no run 7 It was possibly deleted after the retention period. Nothing has been imported yet."
        in text(draw("run", id="7"))
    )


@SQLITE
def test_where_the_browser_went_back_without_the_id_the_last_run_is_shown(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.COMPLETED, ended_at=clock.now())
    page = draw("run", id=str(run.id))
    del page.query_params["id"]

    again(page)

    assert f"Run {run.id} · items" in text(page)
    assert page.query_params["id"] == str(run.id)


@SQLITE
def test_a_run_that_has_not_begun_claims_nothing(house: pytest.MonkeyPatch) -> None:
    ahead = record(RunStatus.RUNNING)
    run = record(RunStatus.PENDING, started_at=None, discovered_at=None, total_count=None)
    page = draw("run", id=str(run.id))
    assert f"behind run {ahead.id}" in text(page) and "not started" in text(page)
    assert 'data-status="pending"' in html(page) and "The charts appear when the run starts." in text(page)
    assert "%" not in text(page)


@SQLITE
def test_items_that_were_removed_for_their_age_are_said_and_not_looked_for(house: pytest.MonkeyPatch) -> None:
    ended = clock.now() - timedelta(days=40)
    run = record(RunStatus.COMPLETED, ended_at=ended, failed_count=3, items_removed_at=clock.now())
    page = draw("run", id=str(run.id))
    assert "items removed after the retention period" in text(page)
    assert "Failed items" not in text(page) and labels(page) == []


@SQLITE
def test_what_others_wrote_is_shown_as_text(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.FAILED, ended_at=clock.now(), error_summary=HOSTILE, created_by="<b>eve", tenant="<i>t")
    fail(run, 1, "bad_data", HOSTILE, external_id="<u>1")
    runs.note(run.id, "failed", who="<b>eve", door="cli", detail=HOSTILE)

    # When
    page = draw("run", id=str(run.id))

    # Then
    for raw in ("<img", "<b>eve", "<i>t", "<u>"):
        assert raw not in html(page)
    assert html(page).count("&lt;img src=") >= 4  # the reason, the group, its item, the timeline


@SQLITE
def test_the_timeline_is_bounded_and_folds_what_is_old(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.RUNNING)
    RunEvent.insert_many(
        [{"run_id": run.id, "what": "priority", "who": "bob", "door": "cli", "detail": f"no {n}"} for n in range(230)]
    ).execute()
    page = draw("run", id=str(run.id))
    assert html(page).count('id="event-') == 200
    assert "Show 192 earlier ones; older ones are left out" in text(page)
    assert text(page).index("no 229") < text(page).index("no 228")


@SQLITE
def test_items_that_wait_for_a_retry_are_counted_while_others_are_processed(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.RUNNING)
    soon = {"run_id": run.id, "due_at": clock.now() + timedelta(seconds=30), "failure_reason": "GET /a answered <500>"}
    RunItem.create(external_id="1", **soon)
    RunItem.create(external_id="2", **soon)
    RunItem.create(run_id=run.id, external_id="3", due_at=clock.now())
    page = draw("run", id=str(run.id))
    assert "2 items wait for a retry; last error of the next one: GET /a answered &lt;500&gt;" in html(page)

    # When there are more than are counted
    RunItem.insert_many([soon | {"external_id": f"more {n}"} for n in range(MOST_RETRYING)]).execute()
    assert f"at least {MOST_RETRYING:,} items wait for a retry" in text(again(page))

    # When none waits any more
    RunItem.update(due_at=clock.now()).execute()
    assert "for a retry" not in text(again(page))


def test_no_tick_reads_past_an_index(house: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Given a run with failed and open items, each statement of a tick finds them by an index."""
    run = record(RunStatus.RUNNING)
    fail(run, 30)
    RunItem.create(run_id=run.id, external_id="1", due_at=clock.now())
    with caplog.at_level(logging.DEBUG, "peewee"):
        draw("run", id=str(run.id))

    asked = [entry.msg for entry in caplog.records if entry.name == "peewee" and isinstance(entry.msg, tuple)]
    selects = [(sql, values) for sql, values in asked if sql.startswith(("SELECT", "WITH"))]
    assert len([sql for sql, _ in selects if "sluice_run_items" in sql]) >= 3
    assert len(selects) < 60
    for sql, values in selects:
        if re.search("sluice_(run_items|samples|run_events)", sql):
            assert not re.search(r"SCAN (?!CONSTANT)|Seq Scan", plan(sql, values)), sql


def plan(sql: str, values: Any) -> str:
    if database.is_sqlite():
        rows = database.db.execute_sql(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    else:
        database.db.execute_sql("SET enable_seqscan = off")  # the tables are small
        rows = database.db.execute_sql(f"EXPLAIN {sql}", values).fetchall()
    return "\n".join(str(row) for row in rows)


# --- the acts ---------------------------------------------------------------------------------------------------------


@SQLITE
@pytest.mark.parametrize(
    ("status", "values", "buttons"),
    [
        (RunStatus.RUNNING, {}, ["Pause", "Lanes and priority", "Cancel"]),
        (RunStatus.RUNNING, {"failed_count": 1}, ["Pause", "Retry 1 failed item", "Lanes and priority", "Cancel"]),
        (RunStatus.PAUSED, {}, ["Resume", "Lanes and priority", "Cancel"]),
        (RunStatus.PENDING, {"started_at": None}, ["Lanes and priority", "Cancel"]),
        (RunStatus.SCHEDULED, {"started_at": None}, ["Lanes and priority", "Cancel"]),
        (RunStatus.COMPLETED, {}, []),
        (RunStatus.COMPLETED, {"failed_count": 37}, ["Retry 37 failed items"]),
        (RunStatus.FAILED, {"discovered_at": None}, ["Continue"]),
        (RunStatus.CANCELLED, {"failed_count": 37}, []),
    ],
)
def test_a_run_offers_what_its_status_allows(
    house: pytest.MonkeyPatch, status: RunStatus, values: dict[str, Any], buttons: list[str]
) -> None:
    now = clock.now()
    ended = {"ended_at": now} if status in ("completed", "failed", "cancelled") else {}
    run = record(status, scheduled_at=now + timedelta(hours=1), **values | ended)
    offered = run_buttons.acts_of(run_stats.run_stats(run), is_stuck=False, has_items=True)
    assert [act.label for act in offered] == buttons


@SQLITE
def test_what_is_stuck_may_be_forced(house: pytest.MonkeyPatch) -> None:
    long_ago = clock.now() - timedelta(minutes=10)
    run = record(RunStatus.PENDING, started_at=None, updated_at=long_ago)
    page = draw("run", id=str(run.id))
    assert "Force" in labels(page)

    press(page, "force")
    assert f"Run 1 {forcing.find_stuck(runs.get(run.id)).what}, for 10 min" in text(page)
    assert run_questions.force(runs.get(run.id)).do() == "Run 1: started it"
    assert runs.get(run.id).status == RunStatus.RUNNING


@SQLITE
def test_pressing_asks_first_and_names_what_will_happen(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.RUNNING, succeeded_count=412)
    page = draw("run", id=str(run.id))

    # When
    press(page, "pause")

    # Then
    assert page.button(key="confirm_yes").label == "Pause run 1"
    said = text(page)
    assert "items: its 16 lanes stop after the current item. About 588 open items stay open." in said
    assert "Other runs can use the API budget meanwhile." in said and "Resume continues from this point." in said
    assert runs.get(run.id).status == RunStatus.RUNNING


@SQLITE
@pytest.mark.parametrize(
    "name", ["resume", "retry bug 581b0a", "relearn items", "<img src=x>", "x" * 100_000, {"a": 1}]
)
def test_a_press_of_what_is_not_offered_does_nothing(house: pytest.MonkeyPatch, name: Any) -> None:
    run = record(RunStatus.RUNNING)
    page = press(draw("run", id=str(run.id)), name, forged=True)
    assert not page.exception and not page.button
    said = [run_page._OUTDATED] if isinstance(name, str) else []
    assert [toast.value for toast in page.toast] == said
    assert runs.get(run.id).status == RunStatus.RUNNING


#: A page whose button raises an error.
FAILING = """
from workers.monitor.html.button import button
from workers.monitor.html import panel
from workers.monitor.pages import live_page
from workers.monitor.readings.unreadable import Unreadable

def draw(zone):
    yield live_page.Piece("button", button("Press", "pressed", "play"))

def press(name):
    raise {error}

panel.prepare()
live_page.live("Test", draw, press)
"""


@SQLITE
@pytest.mark.parametrize("error", ["Unreadable('The database is down', 'start it')", "RuntimeError('a fault')"])
def test_a_press_that_fails_is_reported_without_details(house: pytest.MonkeyPatch, error: str) -> None:
    page = AppTest.from_string(FAILING.format(error=error), default_timeout=20).run()
    (toast,) = press(page, "pressed").toast
    assert toast.value == "Nothing was changed: the current state could not be read. Try again."


@SQLITE
def test_each_question_names_the_consequences(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.RUNNING, succeeded_count=412, tenant="north")
    behind = record(RunStatus.PENDING, started_at=None, tenant="north")

    # Then
    assert run_questions.cancel(run).sentences == (
        "items for north: about 588 open items will not be imported. Imported items stay.",
        f"Run {behind.id}, which waits behind it, will start.",
        "This cannot be undone.",
    )
    assert run_questions.cancel(behind).sentences[0].endswith("the run has not started. No request will be sent.")
    run.status = RunStatus.PAUSED
    assert run_questions.resume(run).sentences == ("items for north: 588 open items will be requested, on 16 lanes.",)

    # And of its failed items
    fail(run, 37)
    again_ = run_questions.retry_failed(runs.get(run.id))
    assert again_.title == "Retry 37 failed items of run 1?" and again_.yes == "Retry 37 items"
    assert again_.sentences == (
        "Each item is requested again: 37 requests, about 2 s of the API's budget.",
        "The run continues; these items are added to its open items.",
    )


def test_a_retry_is_of_its_group_alone_and_says_behind_what_it_waits(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.COMPLETED, ended_at=clock.now())
    fail(run, 3)
    wanted = fail(run, 2, "bug", "ZeroDivisionError: division by zero")
    fail(run, 1, "bad_data", "the list item has no name", item_id=None)
    busy = record(RunStatus.RUNNING)
    group = next(group for group in failure_groups(run.id) if group.fingerprint == wanted)

    # When
    question = run_questions.retry_failed(run, group)

    # Then
    assert question.sentences[1:] == (
        "All of them failed with: ZeroDivisionError: division by zero",
        f"The run becomes pending: it waits behind run {busy.id}, which is running.",
    )
    assert question.do() == "Run 1: 2 items will be retried"
    assert RunItem.select().where(RunItem.status == ItemStatus.PENDING).count() == 2
    assert runs.get(run.id).failed_count == 4


@SQLITE
def test_where_nothing_can_be_retried_it_is_said_and_no_button_does_it(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.COMPLETED, ended_at=clock.now())
    fail(run, 2, "bad_data", "the list item has no name", item_id=None)
    question = run_questions.retry_failed(runs.get(run.id))
    assert question.yes == "" and len(question.sentences) == 1
    assert "invalid list entries: the next run reads them again" in text(draw("run", id=str(run.id)))


@SQLITE
def test_a_run_whose_list_was_not_read_to_its_end_continues(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.FAILED, ended_at=clock.now(), discovered_at=None)
    question = run_questions.retry_failed(run)
    assert question.sentences == ("Reading the list continues where it stopped. The run is running again immediately.",)
    assert question.do() == "Run 1 continues"
    assert runs.get(run.id).status == RunStatus.RUNNING
    assert "what it left open" in [event.detail for event in run_stats.events(run.id)]


@SQLITE
def test_an_act_that_another_person_did_first_is_refused_with_the_reason(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.RUNNING)
    page = draw("run", id=str(run.id))
    question = run_questions.pause(run)
    runs.move(run.id, RunStatus.PAUSED, who="bob", door="cli")

    # When
    result = act.perform(question.do)
    page.session_state[act.LAST_RESULT] = result
    again(page)

    # Then
    assert result.outcome is Outcome.REFUSED
    assert page.toast[0].value == "Run 1 is already paused."


@SQLITE
def test_a_database_that_goes_away_meanwhile_is_said_without_its_details(house: pytest.MonkeyPatch) -> None:
    question = run_questions.cancel(record(RunStatus.RUNNING))
    forget()
    house.setenv("SLUICE_DATABASE_URL", f"postgresql://someone:hunter2@127.0.0.1:{free_port()}/x")
    assert act.perform(question.do) == Result(Outcome.UNAVAILABLE, act.UNAVAILABLE)


def test_a_toast_is_text_whatever_an_error_repeats() -> None:
    assert plain("Run 1 is already paused.") == "Run 1 is already paused."
    assert plain("![x](https://evil) :red[a]") == r"\!\[x\](https\://evil) \:red\[a\]"


@SQLITE
def test_lanes_and_priority_change_only_where_the_person_changed_them(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.RUNNING)
    assert lanes_dialog.change(run.id, 16, 4, 0, 0) == "Run 1 has 4 lanes"
    assert lanes_dialog.change(run.id, 4, 8, 0, 5) == "Run 1 has 8 lanes and priority 5"
    assert lanes_dialog.change(run.id, 16, 16, 0, 0) == "Run 1 is unchanged"  # another person set 8 meanwhile
    assert (runs.get(run.id).lanes, runs.get(run.id).priority) == (8, 5)


@pytest.mark.parametrize(
    ("lanes", "priority", "said"),
    [
        (1, -100, ""),
        (1024, 100, ""),
        (0, 0, "a run has 1 to 1,024 lanes, not 0."),
        (5000, 0, "a run has 1 to 1,024 lanes, not 5,000."),
        (8, -101, "a priority is -100 to 100, not -101."),
    ],
)
def test_lanes_and_priority_out_of_range_are_refused_in_words(lanes: int, priority: int, said: str) -> None:
    assert lanes_dialog.out_of_range(lanes, priority) == said


@SQLITE
def test_the_timeline_says_who_in_few_words(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.RUNNING)
    runs.note(run.id, "started", who="sluice", door="queue")
    runs.note(run.id, "paused", who="monitor", door="monitor")
    runs.note(run.id, "resumed", who="sluice", door="cli")  # a person of that name
    runs.note(run.id, "lanes", who="ann", door="cli", detail="16 -> 4")
    runs.note(run.id, "retry", who="ann", door="cli", detail="2 failed items with fingerprint 581b0a")

    # Then
    said = text(draw("run", id=str(run.id)))
    assert "started automatically" in said and "paused by monitor " in said and "resumed by sluice (cli)" in said
    assert "lanes by ann (cli) 16 → 4" in said
    assert "2 failed items, one group of failures" in said and "581b" not in said


# --- what failed ------------------------------------------------------------------------------------------------------


def test_failures_are_shown_by_kind_with_a_sample_and_what_to_do(house: pytest.MonkeyPatch) -> None:
    # Given
    run = record(RunStatus.COMPLETED, ended_at=clock.now())
    fail(run, 37, "not_found", "404 Not Found")
    fail(run, 2, "bug", "ZeroDivisionError")
    for n in range(10):
        fail(run, 1, "bad_data", f"no field {chr(97 + n)}")

    # When
    page = draw("run", id=str(run.id))

    # Then
    said = text(page)
    assert "Failed items 49 items in 12 groups" in said
    assert "37 404 Not Found not_found : The API has no such item." in said
    assert "and the first 10" in said and "and all 2" in said
    assert said.index("37 404 Not Found") < said.index("2 ZeroDivisionError bug :")
    assert "2 smaller groups" in said
    retries = [label for label in labels(page) if label.startswith("Retry th")]
    assert retries == ["Retry these 37", "Retry these 2", *["Retry this item"] * 8]
    press(page, f"retry bug {fingerprint('bug', 'ZeroDivisionError')}")
    assert page.button(key="confirm_yes").label == "Retry 2 items"


@SQLITE
def test_why_a_cancelled_run_offers_no_retry_is_said(house: pytest.MonkeyPatch) -> None:
    run = record(RunStatus.CANCELLED, ended_at=clock.now())
    fail(run, 2)
    page = draw("run", id=str(run.id))
    assert "They cannot be retried, because the run was cancelled." in text(page)
    assert labels(page) == []


def test_every_class_is_explained() -> None:
    assert all(failed_items.means(name) for name in FailureClass)
    assert failed_items.means("unknown") == ""


# --- the file ---------------------------------------------------------------------------------------------------------


def fetch(path: str) -> tuple[int, dict[bytes, bytes], bytes]:
    """Ask our routes for a path, as a server would; return the status, the headers and the body."""
    said: list[Any] = []

    async def hear() -> Any:
        await asyncio.Event().wait()  # a browser that stays

    async def say(message: Any) -> None:
        said.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    asyncio.run(Starlette(routes=ROUTES)(scope, hear, say))
    body = b"".join(message.get("body", b"") for message in said[1:])
    return said[0]["status"], dict(said[0]["headers"]), body


def test_the_file_has_every_failed_item_and_no_formula(house: pytest.MonkeyPatch) -> None:
    # Given more than are read at once
    run = record(RunStatus.COMPLETED, ended_at=clock.now())
    fail(run, 1203)
    fail(run, 1, "bad_data", '=HYPERLINK("https://evil.example"), "é"', external_id="@evil", item_id=None)
    fail(run, 1, external_id="old", failure_class=None, failure_fingerprint=None, failure_reason=None)
    fail(run, 1, status=ItemStatus.PENDING, external_id="again")  # it is being tried again
    fail(record(RunStatus.COMPLETED, source="others", ended_at=clock.now()), 1)

    # When
    status, headers, body = fetch(f"/runs/{run.id}/failed.csv")

    # Then
    assert status == 200 and headers[b"content-disposition"] == b'attachment; filename="run-1-failed.csv"'
    assert body.startswith(b"\xef\xbb\xbfexternal_id,failure_class,")
    rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"))))
    assert len(rows) == len({row["external_id"] for row in rows}) == 1205
    (evil,) = [row for row in rows if row["failure_class"] == "bad_data"]
    assert evil["external_id"] == "'@evil" and evil["can_be_retried"] == "no"
    assert evil["reason"] == '\'=HYPERLINK("https://evil.example"), "é"'


@SQLITE
@pytest.mark.parametrize("number", ["7", "9" * 30])
def test_the_file_of_no_run_is_refused(house: pytest.MonkeyPatch, number: str) -> None:
    status, _, body = fetch(f"/runs/{number}/failed.csv")
    assert (status, body) == (404, b"There is no such run.\n")


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def url(house: pytest.MonkeyPatch, redis_server: str, database_url: str, tmp_path: Path) -> Iterator[str]:
    """The page with its access checks and both passwords; no worker."""
    variables = {
        "SLUICE_DATA_DIR": str(tmp_path),
        "SLUICE_REDIS_URL": redis_server,
        "SLUICE_DATABASE_URL": database_url,
        "SLUICE_BROKER_URL": "stub://",
        "SLUICE_MONITOR_PASSWORD": password.make("correct horse battery", log_n=4),
        "SLUICE_MONITOR_VIEWER_PASSWORD": password.make("only looking here", log_n=4),
    }
    with served(ROOT, **variables) as (url, _, _):
        yield url


def log_in(page: Page, word: str, url: str) -> Page:
    page.goto(url)
    page.get_by_label("Password").fill(word)
    page.keyboard.press("Enter")
    return page


def forge(page: Page, name: str) -> None:
    """Send the press of a button, whether the page has one or not, as a person with the browser's console could."""
    page.locator(".sl-panel:has(.sl-as-of)").evaluate("(panel, name) => panel.sluiceSend('press', name)", name)


#: Keeps from the page, until `window.arrived`, what changes a panel in place: on a busy machine it may come late.
LATE = """let morph;
const set = (found) => { morph = found; };
Object.defineProperty(window, "sluiceMorph", {get: () => window.arrived && morph, set});"""


@SQLITE
def test_what_is_opened_before_the_page_has_all_its_code_stays_open(
    house: pytest.MonkeyPatch, url: str, browser: Browser
) -> None:
    # Given a page whose code is on its way
    run = record(RunStatus.RUNNING, succeeded_count=412)
    fail(run, 37)
    page = browser.new_page()
    page.add_init_script(LATE)
    log_in(page, "correct horse battery", f"{url}/run?id={run.id}")
    page.get_by_text("example: item").click(timeout=20_000)
    details, counts = page.locator(".sl-failure details"), page.locator(".sl-counts")
    expect(counts).to_contain_text("449 of 1,000")

    # When ticks bring something new, then what is open stays as it is
    Run.update(succeeded_count=500).where(Run.id == run.id).execute()
    page.wait_for_timeout(2_500)
    assert details.get_attribute("open") is not None

    # When the code has come, then it changes, and stays open
    page.evaluate("window.arrived = true")
    expect(counts).to_contain_text("537 of 1,000")
    assert details.get_attribute("open") is not None


@SQLITE
def test_a_run_is_paused_retried_and_resumed_from_its_page(
    house: pytest.MonkeyPatch, url: str, browser: Browser
) -> None:
    # Given
    run = record(RunStatus.RUNNING, succeeded_count=412)
    fail(run, 37)
    context = browser.new_context()
    page, noise = context.new_page(), []
    page.on("console", lambda message: noise.append(f"{message.type}: {message.text} {message.location['url']}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    ours = (url, f"blob:{url}", "data:")
    page.on("request", lambda asked: None if asked.url.startswith(ours) else noise.append(asked.url))
    sent = Sent(page)
    log_in(page, "correct horse battery", f"{url}/run?id={run.id}")
    dialog, toast = page.get_by_role("dialog"), page.locator('[data-testid="stToast"]')

    # When he asks to pause it, the question stays while the page behind it moves
    page.get_by_text("example: item").click(timeout=20_000)
    page.get_by_role("button", name="Pause").click()
    expect(dialog).to_contain_text("About 551 open items stay open")
    Run.update(succeeded_count=500).where(Run.id == run.id).execute()
    expect(page.locator(".sl-counts")).to_contain_text("537 of 1,000")
    dialog.get_by_role("button", name="Pause run 1").click()

    # Then
    expect(toast.first).to_contain_text("Run 1 is paused")
    expect(dialog).to_have_count(0)
    expect(page.locator(".sl-timeline")).to_contain_text("paused by operator (monitor)")
    assert runs.get(run.id).status == RunStatus.PAUSED
    assert page.locator(".sl-failure details").get_attribute("open") is not None

    # When he asks for too many lanes, the dialog says so and stays
    page.get_by_role("button", name="Lanes and priority").click()
    dialog.get_by_label("Lanes, 1 to 1,024").fill("5000")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog).to_contain_text("a run has 1 to 1,024 lanes, not 5,000")
    dialog.get_by_role("button", name="Leave unchanged").click()
    expect(dialog).to_have_count(0)
    assert runs.get(run.id).lanes == 16

    # When he changes his mind about one thing, in the very moment of a tick, and does another
    page.get_by_role("button", name="Cancel").click()
    expect(dialog).to_contain_text("This cannot be undone")
    sent.hold(2)
    dialog.get_by_role("button", name="Leave unchanged").click()
    sent.hold(3)
    sent.let_go()
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Retry these 37").click()
    dialog.get_by_role("button", name="Retry 37 items").click()

    # Then
    expect(toast.last).to_contain_text("Run 1: 37 items will be retried")
    expect(page.locator(".sl-failure")).to_have_count(0)
    assert runs.get(run.id).failed_count == 0

    # When he resumes it
    page.get_by_role("button", name="Resume").click()
    dialog.get_by_role("button", name="Resume run 1").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert [event.what for event in run_stats.events(run.id)][:1] == ["resumed"]

    # Then no other host was asked, and the console has no message
    assert noise == []

    # And a viewer sees all of it, has no button, and cannot forge a press
    looking = log_in(browser.new_context().new_page(), "only looking here", f"{url}/run?id={run.id}")
    expect(looking.locator(".sl-read-only")).to_be_visible(timeout=20_000)
    expect(looking.get_by_role("button", name=re.compile("Pause|Cancel|Retry"))).to_have_count(0)
    forge(looking, "pause")
    looking.wait_for_timeout(2_500)
    expect(looking.get_by_role("dialog")).to_have_count(0)
    forge(page, "pause")
    expect(dialog).to_contain_text("Pause run 1?")
    assert runs.get(run.id).status == RunStatus.RUNNING
    assert looking.request.get(f"{url}/runs/{run.id}/failed.csv").status == 200
    assert browser.new_context().request.get(f"{url}/runs/{run.id}/failed.csv").status == 401
