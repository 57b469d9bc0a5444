"""The monitor: its words and its markup; and how it is served."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from mock_server import MockConfig, serve_in_thread
from tests.helpers.machine import ROOT, wait_until
from tests.helpers.monitor_process import child_of, run_workers, served
from workers.errors import ConfigurationError
from workers.monitor.html import formatting, markup
from workers.monitor.serving import server
from workers.reports.run_stats import RunStats

# --- the words --------------------------------------------------------------------------------------------------------


def waited(hits: int, sleeps: int) -> RunStats:
    return RunStats(**(dict.fromkeys(RunStats.__dataclass_fields__) | {"hits": hits, "sleeps": sleeps}))


@pytest.mark.parametrize(
    ("hits", "sleeps", "text"),
    [
        (0, 0, "no waits yet"),
        (0, 5, "efficiency 100 % (excellent)"),
        (1, 9, "efficiency 90 % (fair)"),
        (1, 1, "efficiency 50 % (fair)"),
        (2, 1, "efficiency 33 % (poor)"),
    ],
)
def test_efficiency_has_a_rating(hits: int, sleeps: int, text: str) -> None:
    assert formatting.efficiency(waited(hits, sleeps)) == text


def test_values_are_escaped_and_our_own_markup_is_not() -> None:
    assert markup.fill("<b>{x}</b>", x='<&">') == "<b>&lt;&amp;&quot;&gt;</b>"
    assert markup.fill("<b>{x}</b>", x=markup.fill("<i>{y}</i>", y="<")) == "<b><i>&lt;</i></b>"
    assert markup.prose("run `a<b`") == "run <code>a&lt;b</code>"
    assert markup.prose("it`s <") == "it`s &lt;"


# --- serving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_that_others_can_reach_is_refused(environment: pytest.MonkeyPatch, host: str) -> None:
    environment.setenv("SLUICE_MONITOR_HOST", host)
    with pytest.raises(ConfigurationError, match="python -m workers password"):
        server.serve()


def test_a_port_in_use_is_named_with_its_variable(environment: pytest.MonkeyPatch) -> None:
    with serve_in_thread(MockConfig()) as taken:
        environment.setenv("SLUICE_MONITOR_PORT", str(urlsplit(taken.url).port))
        with pytest.raises(ConfigurationError, match="SLUICE_MONITOR_PORT"):
            server.serve()


def test_a_page_that_is_killed_comes_back_and_a_stop_is_quick(variables: dict[str, str]) -> None:
    with served(ROOT, **variables) as (url, process, log):
        os.kill(child_of(process), signal.SIGKILL)
        wait_until(lambda: log.read_text().count(f"Sluice is ready: {url}") == 2, 20, "its return")
        assert "was killed by SIGKILL" in log.read_text()
        assert "it is started again in 1 s" in log.read_text()

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

        run_workers(its | {"SLUICE_SOURCES": "sources:SOURCES"}, "migrate", "--create-models").wait(30)
        expect(page.locator(".sl-empty")).to_be_visible(timeout=10_000)
        expect(page.get_by_role("button", name="Import now")).to_be_enabled(timeout=10_000)

        run_workers(its | {"SLUICE_SOURCES": "sources:SOURCES"}, "run", "items").wait(30)
        page.get_by_role("button", name="Run import").click(timeout=10_000)  # a popover has the form now
        expect(page.locator(".sl-promise")).to_contain_text("Run 1 is running. The new run waits behind it")
        page.close()


@pytest.fixture
def theme_of() -> Callable[[Page], str]:
    def theme(page: Page) -> str:
        colour = page.locator('[data-testid="stApp"]').evaluate("part => getComputedStyle(part).backgroundColor")
        return "dark" if sum(map(int, re.findall(r"\d+", colour)[:3])) < 200 else "light"

    return theme
