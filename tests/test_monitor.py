"""The monitor: what the page says, drawn by Streamlit's own test double; and how it behaves, in a real Chromium."""

import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from conftest import ROOT, free_port, missing, wait_until
from peewee import chunked
from playwright.sync_api import Browser, Page, expect, sync_playwright
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.testing.v1 import AppTest

from mock_server import MockConfig, parse_limits, serve_in_thread
from workers import RateLimiter, clock, database, runner, runs, schedule_stats, timetable
from workers.errors import ConfigurationError, RateLimited
from workers.monitor import markup, serve, words
from workers.registry import get_registry
from workers.stats import RunStats, finished_per_second, recent_runs
from workers.tables import ItemStatus, Run, RunItem, RunStatus

CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
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
    database.migrate([Item])
    with database.connection():
        yield environment


def draw() -> AppTest:
    page = AppTest.from_file(str(ROOT / "monitor_app.py"), default_timeout=20).run()
    assert not page.exception
    return page


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.get("html") if "<style>" not in element.proto.body)


def text(page: AppTest) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html(page)))


def choose(page: AppTest, how: str) -> AppTest:
    return page.button_group(key="form_how").set_value(how).run()


def record(status: RunStatus, **values: Any) -> Run:
    """Write a run as it would stand after a while."""
    now = clock.now()
    started = now - timedelta(seconds=100)
    usual = {"source": "items", "lanes": 4, "created_by": "me", "discovery_cursor": 1}
    return Run.create(**usual | {"status": status, "started_at": started, "discovered_at": started} | values)


def test_the_first_visitor_is_told_what_to_do(sqlite: pytest.MonkeyPatch) -> None:
    page = draw()
    assert "Nothing has been imported yet" in text(page)
    assert "python -m workers run" in text(page)
    assert "ready for the first import" in text(page)


def test_a_running_run_shows_all_that_is_asked_of_it(house: pytest.MonkeyPatch) -> None:
    now = clock.now()
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

    said = text(page)
    assert "running items" in said
    assert "41 %" in said
    assert "412 of 1,000 · 3 failed · 0 skipped" in said
    assert re.search(r"active 4\d s", said) and "waiting 1 min 0 s" in said
    assert "1 hit · 9 sleeps" in said and "fair, 90 % of waits in time" in said
    assert re.search(r"[12]\.\d+ items/s", said)
    assert re.search(r"about \d min \d+ s left", said)
    assert "1 run active" in said
    (chart,) = page.get("vega_lite_chart")
    assert chart.proto.datasets[0].name == "pace"


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
    """The budget of a running run, from within."""
    record(RunStatus.RUNNING, total_count=1000, succeeded_count=5)
    with redis.Redis.from_url(redis_server) as client:
        prefix = os.environ["SLUICE_PREFIX"]
        yield RateLimiter(get_registry()["items"].connector.budget, client, prefix=prefix, max_wait_seconds=0.0)


def be_refused(budget: RateLimiter, retry_after: str) -> None:
    caller = budget.caller()
    with pytest.raises(RateLimited):
        caller.heard(caller.take(5), 429, {"Retry-After": retry_after})
    caller.settle()


def test_a_paused_budget_says_why_and_until_when(budget: RateLimiter) -> None:
    be_refused(budget, "1800")
    said = text(draw())
    assert re.search(r"the API answered 429, Retry-After 1800: paused for 1,[78]\d\d s, until [\d: -]+ UTC", said)


def test_a_paced_budget_says_so_and_why_even_where_nothing_waits(budget: RateLimiter) -> None:
    for _ in range(5):
        be_refused(budget, "0")
        wait_until(lambda: not budget.snapshot().paused_for_seconds, what="the end of the pause")
        caller = budget.caller()
        caller.answered(caller.take(5))
        caller.settle()
        if budget.snapshot().profile == "paced":
            break
        clock.sleep(1.1)
    wait_until(lambda: budget.snapshot().opens_in_seconds < 0.5, what="its opening")

    page = draw()

    assert text(page).count("paced: the API refused a request though every window had room") == 2  # the card, the table
    assert "at work, but slower than its limits" in text(page)
    assert 'class="sl-slowed"' in html(page)


def test_a_limit_that_the_api_lowered_is_said_beside_what_goes_on(budget: RateLimiter) -> None:
    caller = budget.caller()
    caller.heard(caller.take(5), 200, {"RateLimit-Policy": '"a";q=400;w=20', "RateLimit": '"a";r=380;t=10'})
    caller.settle()
    assert "window 500/20 s is 400 now, says the API" in text(draw())


def test_a_budget_whose_state_was_lost_says_how_and_when_it_opens(budget: RateLimiter) -> None:
    caller = budget.caller()
    caller.take(5)
    budget.ledger.client.delete(budget.ledger.keys[1])
    with pytest.raises(RateLimited):
        caller.take(5)
    said = text(draw())
    assert re.search(r"window 2000/100 s taken as full: a part of its state is gone; opens in 1[012]\d s", said)


def test_a_run_that_was_paused_for_a_long_wait_says_until_when_its_api_is_not_asked(budget: RateLimiter) -> None:
    be_refused(budget, "3000")
    runs.pause_because(1, "rate-test: the API answered 429, Retry-After 86400")
    said = text(draw())
    assert re.search(
        r"paused: rate-test: the API answered 429, Retry-After 86400; its API is not asked until [\d: -]+ UTC", said
    )


def test_a_hostile_failure_is_shown_as_text(sqlite: pytest.MonkeyPatch) -> None:
    record(RunStatus.FAILED, ended_at=clock.now(), total_count=10, error_summary=HOSTILE, created_by="<b>eve</b>")
    page = draw()
    assert "failed" in text(page)
    for raw in ("<img", "<script", "<b>eve"):
        assert raw not in html(page)
    assert html(page).count("&lt;img src=&quot;https://evil.example/x.png&quot;") >= 2  # the card and the table


def test_the_whole_page_is_drawn_in_a_tenth_of_a_second(sqlite: pytest.MonkeyPatch) -> None:
    """Given 25 runs, one of them active, with 5,000 items; the part that is drawn each second is less than the page."""
    now = clock.now()
    for _ in range(24):
        record(RunStatus.COMPLETED, ended_at=now, total_count=10, succeeded_count=10)
    run = record(RunStatus.RUNNING, total_count=9000, succeeded_count=5000)
    done = {"run_id": run.id, "status": ItemStatus.COMPLETED, "due_at": now}
    rows = [done | {"external_id": str(n), "completed_at": now - timedelta(seconds=n / 50)} for n in range(5000)]
    for chunk in chunked(rows, 1000):
        RunItem.insert_many(chunk).execute()
    page = draw()

    took = []
    for _ in range(9):
        began = time.perf_counter()
        page.run()
        took.append(time.perf_counter() - began)

    assert statistics.median(took) < 0.1, took


def test_the_chart_knows_what_time_it_is_in_any_zone(sqlite: pytest.MonkeyPatch) -> None:
    sqlite.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        run = record(RunStatus.RUNNING, total_count=9)
        done = {"run_id": run.id, "status": ItemStatus.COMPLETED, "due_at": clock.now()}
        RunItem.create(external_id="1", completed_at=clock.now() - timedelta(seconds=5), **done)
        assert sum(count for _, count in finished_per_second(run)) == 1
    finally:
        sqlite.delenv("TZ")
        time.tzset()


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
    assert len(labels) == 11
    assert {word for _, word in shown} == labels
    styles = (ROOT / "workers" / "monitor" / "style.css").read_text()
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
    assert page.button[0].disabled

    database.migrate()
    page.run()
    assert "Nothing has been imported yet" in text(page)


def test_a_database_that_is_away_is_said_without_its_details(sqlite: pytest.MonkeyPatch) -> None:
    database.disconnect()
    sqlite.setenv("SLUICE_DATABASE_URL", "postgresql://someone:hunter2@127.0.0.1:1/x")
    from workers.settings import get_settings

    get_settings.cache_clear()
    page = draw()
    assert "The database does not answer" in text(page)
    assert "Nothing can be started" in text(page)
    assert "hunter2" not in html(page) and "refused" not in html(page)


# --- the form ---------------------------------------------------------------------------------------------------------


def test_new_starts_a_run_now_and_the_next_one_waits(sqlite: pytest.MonkeyPatch) -> None:
    page = draw()
    assert "A new run of items starts now" in text(page)

    page.button[0].click().run()
    assert [run.status for run in runs.running()] == ["running"]
    assert page.toast[0].value == "Run 1 is running"
    assert "Run 1 is running: the new run waits behind it" in text(page)

    page.button[0].click().run()
    assert page.toast[0].value == "Run 2 waits behind run 1"
    assert runs.get(2).created_by == "monitor"


def test_the_form_says_when_the_source_runs_by_itself(sqlite: pytest.MonkeyPatch) -> None:
    # Given
    timetable.set_schedule("items", "0 */3 * * *", who="alice", door="cli")

    # Then
    first = schedule_stats.schedule_stats("items").next_at[0]
    said = text(draw())
    assert f"By itself: At minute 0 past every third hour (UTC). Next: {first:%a %d %H:%M}," in said

    # When
    timetable.pause_schedule("items", who="alice", door="cli")

    # Then
    assert "Its schedule is paused, by alice" in text(draw())


def test_reschedule_is_off_where_nothing_is_scheduled(sqlite: pytest.MonkeyPatch) -> None:
    page = choose(draw(), "RESCHEDULE")
    assert "No run of items is scheduled" in text(page)
    assert page.button[0].disabled


def test_reschedule_pulls_the_next_run_to_now(sqlite: pytest.MonkeyPatch) -> None:
    at = datetime(2099, 1, 1, 10, tzinfo=UTC)
    run = runner.schedule("items", at, who="me", door="test")
    later = runner.schedule("items", at + timedelta(days=1), who="me", door="test")

    page = choose(draw(), "RESCHEDULE")
    assert f"run {run.id}, 2099-01-01 10:00 UTC → now. It starts now" in text(page)
    page.button[0].click().run()

    assert runs.get(run.id).status == RunStatus.RUNNING
    assert runs.get(later.id).scheduled_at == at + timedelta(days=1)


def test_reschedule_refuses_in_words_when_somebody_was_faster(sqlite: pytest.MonkeyPatch) -> None:
    run = runner.schedule("items", datetime(2099, 1, 1, tzinfo=UTC), who="me", door="test")
    page = choose(draw(), "RESCHEDULE")
    runner.cancel(run.id, who="me", door="test")
    page.button[0].click().run()
    assert "No run of items is scheduled: start a new one" in text(page)


def test_fresh_warns_before_it_empties_a_table(sqlite: pytest.MonkeyPatch) -> None:
    page = draw()
    page.checkbox[0].check().run()
    assert "Every row of the table items is deleted" in re.sub(r" +", " ", text(page))
    assert page.button[0].label == "Empty and import"
    page.button[0].click().run()
    assert runs.get(1).options == {"fresh": True}
    assert not page.checkbox[0].value


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("nowhere:SOURCES", "names a module that is not here"),
        ("broken_sources:SOURCES", "broken_sources cannot be imported"),
    ],
)
def test_sources_that_cannot_be_loaded_spoil_only_the_form(
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
    assert "every item is in" in text(page)
    assert "ZeroDivisionError" not in html(page)


# --- the words --------------------------------------------------------------------------------------------------------


def waited(hits: int, sleeps: int) -> RunStats:
    return RunStats(**(dict.fromkeys(RunStats.__dataclass_fields__) | {"hits": hits, "sleeps": sleeps}))


@pytest.mark.parametrize(
    ("hits", "sleeps", "said"),
    [(0, 0, "no waits yet"), (0, 5, "excellent, 100"), (1, 9, "fair, 90"), (1, 1, "fair, 50"), (2, 1, "poor, 33")],
)
def test_efficiency_has_a_word(hits: int, sleeps: int, said: str) -> None:
    assert words.efficiency(waited(hits, sleeps)).startswith(said)


def test_values_are_escaped_and_our_own_markup_is_not() -> None:
    assert markup.fill("<b>{x}</b>", x='<&">') == "<b>&lt;&amp;&quot;&gt;</b>"
    assert markup.fill("<b>{x}</b>", x=markup.fill("<i>{y}</i>", y="<")) == "<b><i>&lt;</i></b>"
    assert markup.prose("run `a<b`") == "run <code>a&lt;b</code>"
    assert markup.prose("it`s <") == "it`s &lt;"


# --- serving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_that_others_can_reach_is_refused(environment: pytest.MonkeyPatch, host: str) -> None:
    environment.setenv("SLUICE_MONITOR_HOST", host)
    with pytest.raises(ConfigurationError, match="proxy with authentication"):
        serve.serve()


def test_a_port_in_use_is_named_with_its_variable(environment: pytest.MonkeyPatch) -> None:
    with serve_in_thread(MockConfig()) as taken:
        environment.setenv("SLUICE_MONITOR_PORT", str(urlsplit(taken.url).port))
        with pytest.raises(ConfigurationError, match="SLUICE_MONITOR_PORT"):
            serve.serve()


@contextmanager
def served(folder: Path, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]", Path]]:
    """Serve the page from a folder, in a process of its own; yields its URL, the process and its log."""
    port = free_port()
    log = Path(variables["SLUICE_DATA_DIR"]) / f"monitor-{port}.log"
    code = (
        "import sys; from workers import log; from workers.monitor.serve import serve; log.set_up(); sys.exit(serve())"
    )
    environment = os.environ | variables | {"SLUICE_MONITOR_PORT": str(port), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: f"Sluice is ready: {url}" in log.read_text(), 20, "the page")
        yield url, process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def child_of(process: "subprocess.Popen[bytes]") -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = next((path for path in CHROMIUM if Path(path).exists()), None)
    if binary is None:
        missing("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def variables(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a whole installation: SQLite, Redis and a mock API with small windows."""
    folder = tmp_path_factory.mktemp("monitor")
    with serve_in_thread(MockConfig(items=600, limits=parse_limits("500/20"), latency_seconds=0.2)) as api:
        yield {
            "SLUICE_DATA_DIR": str(folder),
            "SLUICE_REDIS_URL": redis_server,
            "SLUICE_PREFIX": folder.name,
            "SLUICE_WORKER_PROCESSES": "1",
            "SLUICE_WORKER_THREADS": "4",
            "DEMO_API_URL": api.url,
        }


def run_workers(variables: dict[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "workers", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stderr=subprocess.DEVNULL)


@dataclass
class Watched:
    """What was seen of the page while a run went on."""

    hosts: set[str] = field(default_factory=set)
    console: list[str] = field(default_factory=list)
    whole_runs: int = 0
    whole_runs_before: int = 0
    ticks: int = 0
    counts: list[int] = field(default_factory=list)
    frames: dict[str, Any] = field(default_factory=dict)
    typed: str = ""
    toast: str = ""
    appeared: str = ""

    def hear(self, message: Any) -> None:
        """Read what Streamlit sends to the browser: the end of a script run says whether it was a fragment's."""
        told = ForwardMsg.FromString(message if isinstance(message, bytes) else message.encode())
        kind = told.WhichOneof("type")
        if kind == "script_finished" and told.script_finished == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            self.ticks += 1
        elif kind == "script_finished":
            self.whole_runs += 1


#: Looks at every frame that is painted: anything greyed, anything gone, the chart drawn anew?
SAMPLER = """() => {
  const seen = window.seen = {frames: 0, lowest: 1, gone: 0, charts: new Set()};
  const look = () => {
    const parts = document.querySelectorAll('[data-testid="stElementContainer"], .sl-card, .sl-table, .st-key-pace');
    parts.forEach(part => seen.lowest = Math.min(seen.lowest, Number(getComputedStyle(part).opacity)));
    const chart = document.querySelector('.st-key-pace canvas, .st-key-pace svg.marks');
    if (!chart || !document.querySelector('.sl-card') || !document.querySelector('.sl-table')) seen.gone += 1;
    seen.charts.add(chart);
    seen.frames += 1;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


@pytest.fixture(scope="module")
def watched(variables: dict[str, str], browser: Browser) -> Iterator[Watched]:
    """Start a run from the form, type into it, and watch the page for some seconds while a worker works."""
    run_workers(variables, "migrate", "--create-models").wait(30)
    worker = run_workers(variables, "worker")
    try:
        with served(ROOT, **variables) as (url, _, _):
            yield watch(browser.new_page(), url)
    finally:
        worker.terminate()
        worker.wait(15)


def watch(page: Page, url: str) -> Watched:
    seen = Watched()
    page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname or "data"))
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
    page.on("websocket", lambda socket: socket.on("framereceived", seen.hear))
    page.goto(url)
    expect(page.locator(".sl-empty")).to_be_visible(timeout=15_000)

    page.get_by_role("button", name="Import now").click()
    seen.toast = page.locator('[data-testid="stToast"]').inner_text(timeout=10_000)
    page.locator(".sl-card .sl-badge").wait_for(timeout=10_000)
    seen.appeared = page.locator(".sl-card").inner_text()
    expect(page.locator(".sl-percent")).to_have_text(re.compile(r"\d+ %"), timeout=20_000)

    field = page.locator('[data-testid="stSelectbox"] input')
    field.click()
    field.press_sequentially("ite")
    page.wait_for_timeout(1500)
    page.evaluate(SAMPLER)
    seen.whole_runs_before = seen.whole_runs
    seen.whole_runs = seen.ticks = 0
    for _ in range(6):
        page.wait_for_timeout(1000)
        counts = page.locator(".sl-counts span").first.inner_text()
        seen.counts.append(int(counts.split(" ")[0].replace(",", "")))
    seen.typed = field.input_value()
    seen.frames = page.evaluate("() => ({...window.seen, charts: window.seen.charts.size})")
    page.close()
    return seen


def test_a_run_started_from_the_form_appears(watched: Watched) -> None:
    assert "Run 1 is running" in watched.toast
    assert "running" in watched.appeared and "run 1 · by monitor" in watched.appeared


def test_the_numbers_move_without_a_full_rerun(watched: Watched) -> None:
    assert watched.counts == sorted(watched.counts)
    assert len(set(watched.counts)) >= 4, watched.counts
    assert watched.whole_runs_before >= 2  # to load the page and to press the button: so they are heard
    assert watched.whole_runs == 0
    assert 5 <= watched.ticks <= 8


def test_nothing_is_greyed_gone_or_drawn_anew(watched: Watched) -> None:
    assert watched.frames["frames"] > 30
    assert watched.frames["lowest"] == 1
    assert watched.frames["gone"] == 0
    assert watched.frames["charts"] == 1


def test_what_is_being_typed_survives_the_ticks(watched: Watched) -> None:
    assert watched.typed == "ite"


def test_nothing_is_asked_of_another_host_and_nothing_is_complained_of(watched: Watched) -> None:
    assert watched.hosts <= {"127.0.0.1", "data"}
    assert watched.console == []


def test_a_page_that_is_killed_comes_back_and_a_stop_is_quick(variables: dict[str, str]) -> None:
    with served(ROOT, **variables) as (url, process, log):
        os.kill(child_of(process), signal.SIGKILL)
        wait_until(lambda: log.read_text().count(f"Sluice is ready: {url}") == 2, 20, "its return")
        assert "ended with status -9; it is started again in 1 s" in log.read_text()

        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(6) == 0
        assert time.monotonic() - began < 4


def test_another_project_s_page_recovers_by_itself(
    variables: dict[str, str], browser: Browser, tmp_path: Path, theme_of: Callable[[Page], str]
) -> None:
    """Given a project without a monitor_app.py or a config.toml, and a database that cannot be used yet."""
    (tmp_path / "shop.py").write_text("from sources import SOURCES\n")
    way = tmp_path / "way"
    way.write_text("a file where a folder must be")
    url_of_database = f"sqlite:///{way}/sluice.db"
    its = variables | {"SLUICE_DATABASE_URL": url_of_database, "SLUICE_SOURCES": "shop:SOURCES"}

    with served(tmp_path, **its) as (url, _, _):
        page = browser.new_page(color_scheme="dark")
        page.goto(url)
        expect(page.locator(".sl-notice")).to_contain_text("The database cannot be used", timeout=15_000)
        assert theme_of(page) == "dark"

        way.unlink()
        expect(page.locator(".sl-notice")).to_contain_text("Waiting for migrations", timeout=10_000)

        run_workers(its | {"SLUICE_SOURCES": "sources:SOURCES"}, "migrate").wait(30)
        expect(page.locator(".sl-empty")).to_be_visible(timeout=10_000)
        expect(page.get_by_role("button", name="Import now")).to_be_enabled(timeout=10_000)
        page.close()


@pytest.fixture
def theme_of() -> Callable[[Page], str]:
    def theme(page: Page) -> str:
        colour = page.locator('[data-testid="stApp"]').evaluate("part => getComputedStyle(part).backgroundColor")
        return "dark" if sum(map(int, re.findall(r"\d+", colour)[:3])) < 200 else "light"

    return theme
