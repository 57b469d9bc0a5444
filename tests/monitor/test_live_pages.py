"""The monitor in a real Chromium: a run is started from the form and watched, and nothing flickers or is lost."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.helpers.machine import ROOT
from tests.helpers.monitor_process import run_workers, served
from tests.helpers.own_redis import OwnRedis
from workers.monitor.access import password

PASSWORDS = {"SLUICE_MONITOR_PASSWORD": "correct horse battery", "SLUICE_MONITOR_VIEWER_PASSWORD": "only looking here"}


@dataclass
class Watched:
    """What was seen of the page during a run."""

    hosts: set[str] = field(default_factory=set)
    console: list[str] = field(default_factory=list)
    whole_runs: int = 0
    whole_runs_before: int = 0
    ticks: int = 0
    drawn: tuple[int, int] = (0, 0)
    counts: list[int] = field(default_factory=list)
    frames: dict[str, Any] = field(default_factory=dict)
    typed: str = ""
    toast: str = ""
    appeared: str = ""
    selected: list[Any] = field(default_factory=list)
    visited: dict[str, Any] = field(default_factory=dict)
    looking: str = ""

    def hear(self, message: Any) -> None:
        """Read what Streamlit sends to the browser: the end of a script run says whether it was a fragment's."""
        forwarded = ForwardMsg.FromString(message if isinstance(message, bytes) else message.encode())
        kind = forwarded.WhichOneof("type")
        if kind == "script_finished" and forwarded.script_finished == ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY:
            self.ticks += 1
        elif kind == "script_finished":
            self.whole_runs += 1


#: Looks at every frame that is painted: anything greyed, anything gone, the run's row drawn anew?
SAMPLER = """() => {
  const seen = window.seen = {frames: 0, lowest: 1, gone: 0, rows: new Set()};
  const look = () => {
    const parts = document.querySelectorAll('[data-testid="stElementContainer"], .sl-card, .sl-table');
    parts.forEach(part => seen.lowest = Math.min(seen.lowest, Number(getComputedStyle(part).opacity)));
    const row = document.querySelector('#run-1');
    if (!row || !document.querySelector('#now-1') || !document.querySelector('#source-items')) seen.gone += 1;
    seen.rows.add(row);
    seen.frames += 1;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""
#: Selects what a cell says, and scrolls the table.
SELECT = """() => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector('#run-1 .sl-badge'));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  document.querySelector('.sl-runs').scrollLeft = 60;
}"""
SELECTED = "() => [getSelection().toString().trim(), document.querySelector('.sl-runs').scrollLeft]"


@pytest.fixture(scope="module")
def watched(variables: dict[str, str], browser: Browser) -> Iterator[Watched]:
    """Start a run from the form, type into it, and watch the page for some seconds while a worker works."""
    run_workers(variables, "migrate", "--create-models").wait(30)
    worker = run_workers(variables, "worker")
    words = {name: password.make(word, log_n=4) for name, word in PASSWORDS.items()}
    try:
        with served(ROOT, **variables, **words) as (url, _, _):
            seen = watch(log_in(browser, url, "SLUICE_MONITOR_PASSWORD"), url, Watched())
            seen.looking = look_on(log_in(browser, url, "SLUICE_MONITOR_VIEWER_PASSWORD"))
            yield seen
    finally:
        worker.terminate()
        worker.wait(15)


def log_in(browser: Browser, url: str, variable: str) -> Page:
    page = browser.new_context(viewport={"width": 1000, "height": 900}).new_page()
    page.goto(url)
    page.get_by_label("Password").fill(PASSWORDS[variable])
    return page


def watch(page: Page, url: str, seen: Watched) -> Watched:
    page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname or "data"))
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text} {message.location}"))
    page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
    page.on("websocket", lambda socket: socket.on("framereceived", seen.hear))
    page.keyboard.press("Enter")
    expect(page.locator(".sl-empty")).to_be_visible(timeout=15_000)

    page.get_by_role("button", name="Import now").click()
    seen.toast = page.locator('[data-testid="stToast"]').inner_text(timeout=10_000)
    page.locator("#now-1 .sl-badge").wait_for(timeout=10_000)
    seen.appeared = page.locator("#now-1").inner_text()
    expect(page.locator(".sl-percent")).to_have_text(re.compile(r"\d+ %"), timeout=20_000)

    page.evaluate("window.loaded = 1")
    page.evaluate(SAMPLER)
    seen.whole_runs_before = seen.whole_runs
    seen.whole_runs = seen.ticks = 0
    page.evaluate(SELECT)
    count_for(3, page, seen)
    seen.selected = page.evaluate(SELECTED)
    page.get_by_role("button", name="Run import").click()
    field = page.locator('[data-testid="stSelectbox"] input')
    field.click()
    field.press_sequentially("ite")
    count_for(3, page, seen)
    seen.typed = field.input_value()
    seen.drawn = (seen.whole_runs, seen.ticks)
    seen.frames = page.evaluate("() => ({...window.seen, rows: window.seen.rows.size})")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    seen.visited = go_round(page)
    page.close()
    return seen


def count_for(seconds: int, page: Page, seen: Watched) -> None:
    for _ in range(seconds):
        page.wait_for_timeout(1000)
        counts = page.locator("#now-1 .sl-counts").inner_text()
        seen.counts.append(int(counts.split(" ")[0].replace(",", "")))


def go_round(page: Page) -> dict[str, Any]:
    """Filter, go back and forward, load the page anew, and open the run, all but the last by the keyboard."""
    seen = {}
    counted = page.locator(".sl-filters .sl-title span")
    menu = page.locator("summary", has_text="Status")
    menu.press("Enter")
    page.locator(".sl-pick[open] a").first.press("Escape")
    seen["closed"] = page.locator(".sl-pick[open]").count() == 0
    menu.press("Enter")
    page.locator(".sl-pick[open] a", has_text="failed").last.press("Enter")
    expect(counted).to_have_text("0 runs match")
    seen["filtered"] = urlsplit(page.url).query
    page.go_back()
    expect(counted).to_have_text("1 run")
    page.go_forward()
    expect(counted).to_have_text("0 runs match")
    seen["loaded once"] = page.evaluate("window.loaded")

    page.reload()
    expect(counted).to_have_text("0 runs match", timeout=15_000)
    page.get_by_role("link", name="Show all runs").press("Enter")
    page.evaluate("window.loaded = 2")
    page.locator(".sl-runs").focus()
    page.keyboard.press("Tab")
    seen["row"] = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("Run 1", timeout=10_000)
    seen["run"] = page.url.rpartition("/")[2]
    seen["loaded again"] = page.evaluate("window.loaded")
    seen["end"] = watch_to_its_end(page)

    page.goto(page.url.rpartition("/")[0] + "/schedule?new=1")
    close = page.get_by_role("link", name="Close the form")
    expect(close).to_be_focused(timeout=10_000)
    field = page.locator(".st-key-schedule_form").get_by_role("combobox").first
    field.focus()
    field.press("Escape")  # in a field it has its own meaning
    expect(close).to_be_visible()
    close.press("Escape")
    expect(close).to_have_count(0)
    return seen


def watch_to_its_end(page: Page) -> dict[str, Any]:
    """Watch the run until it has ended: how often its bar and its chart were seen to move, and what its page said."""
    chart = page.locator('[data-testid="stVegaLiteChart"]').first
    chart.wait_for(timeout=10_000)
    bars, charts = set(), set()
    for _ in range(60):
        bars.add(page.locator(".sl-part-ok").get_attribute("style"))
        charts.add(chart.screenshot())
        if page.locator(".sl-badge", has_text="completed").count():
            break
        page.wait_for_timeout(1000)
    toast = page.locator('[data-testid="stToast"]', has_text="of items completed").inner_text(timeout=10_000)
    duration = page.locator(".sl-run-tiles dd").nth(4)
    before = duration.inner_text()
    page.wait_for_timeout(2500)
    return {"bars": len(bars), "charts": len(charts), "toast": toast, "took": (before, duration.inner_text())}


def look_on(page: Page) -> str:
    """Return what a viewer sees in place of the form."""
    page.keyboard.press("Enter")
    shown = page.locator(".sl-viewer").inner_text(timeout=15_000)
    expect(page.get_by_role("button", name="Run import")).to_have_count(0)
    page.close()
    return shown


def test_a_run_started_from_the_form_appears(watched: Watched) -> None:
    assert "Run 1 is running" in watched.toast
    assert "running" in watched.appeared and "run 1" in watched.appeared


def test_the_numbers_move_without_a_full_rerun(watched: Watched) -> None:
    assert watched.counts == sorted(watched.counts)
    assert len(set(watched.counts)) >= 4, watched.counts
    assert watched.whole_runs_before >= 2  # to load the page and to press the button: so they are heard
    whole_runs, ticks = watched.drawn
    assert whole_runs == 1  # for the form, which was opened: a tick makes none
    assert 4 <= ticks <= 9


def test_nothing_is_greyed_gone_or_drawn_anew(watched: Watched) -> None:
    assert watched.frames["frames"] > 30
    assert watched.frames["lowest"] == 1
    assert watched.frames["gone"] == 0
    assert watched.frames["rows"] == 1


def test_what_is_typed_selected_and_scrolled_survives_the_ticks(watched: Watched) -> None:
    assert watched.typed == "ite"
    assert watched.selected == ["running", 60]


def test_filters_live_in_the_address_and_pages_open_without_loading_anew(watched: Watched) -> None:
    assert {name: value for name, value in watched.visited.items() if name != "end"} == {
        "closed": True,
        "filtered": "status=failed",
        "loaded once": 1,
        "row": "run 1 of items",
        "run": "run?id=1",
        "loaded again": 2,
    }


def test_the_run_is_watched_to_its_end(watched: Watched) -> None:
    end = watched.visited["end"]
    assert end["bars"] >= 3 and end["charts"] >= 3
    assert "Run 1 of items completed: 600 items" in end["toast"]
    before, after = end["took"]
    assert before == after and before.endswith(" s")


def test_who_may_only_look_finds_no_form(watched: Watched) -> None:
    assert watched.looking == "Read-only access. Operators can start imports."


def test_nothing_is_asked_of_another_host_and_nothing_is_complained_of(watched: Watched) -> None:
    assert watched.hosts <= {"127.0.0.1", "data"}
    assert [line for line in watched.console if "/run/_stcore/" not in line] == []  # Streamlit tries there first


def test_redis_stops_and_comes_back_under_an_open_page(
    variables: dict[str, str], browser: Browser, tmp_path: Path
) -> None:
    """Given an open page, and a Redis of its own."""
    its = variables | {"SLUICE_DATABASE_URL": f"sqlite:///{tmp_path}/sluice.db"}
    own = OwnRedis(tmp_path / "redis")
    its["SLUICE_REDIS_URL"] = f"redis://127.0.0.1:{own.port}/0"
    run_workers(its, "migrate", "--create-models").wait(30)
    try:
        with served(ROOT, **its) as (url, _, _):
            page, seen = browser.new_page(), Watched()
            page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
            page.goto(f"{url}/system")
            expect(page.locator(".sl-banner")).to_contain_text("No worker runs", timeout=15_000)
            page.evaluate("window.sameDocument = true")

            # When
            own.kill()

            # Then
            expect(page.locator(".sl-banner")).to_contain_text("Redis does not answer", timeout=10_000)
            expect(page.locator(".sl-banner")).to_contain_text("python -m workers redis")
            expect(page.locator("h1")).to_have_text("System")

            # When
            own.start()

            # Then
            expect(page.locator(".sl-banner")).not_to_contain_text("Redis does not answer", timeout=15_000)
            assert page.evaluate("window.sameDocument")
            assert seen.console == []
            page.close()
    finally:
        own.kill()
