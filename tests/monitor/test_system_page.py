"""The page "system", drawn by Streamlit's own test double; and the banner, which every page has."""

import logging
import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from tests.helpers.machine import forget, free_port
from tests.helpers.pages import draw, html, text
from workers.connections.trouble import Trouble
from workers.messaging import process_heartbeat, recent_errors, scheduler_heartbeat
from workers.messaging.process_heartbeat import Process
from workers.monitor.readings import cache
from workers.monitor.sections.banner import banner
from workers.monitor.sections.error_table import error_table
from workers.monitor.sections.metric_cards import figure_cards
from workers.monitor.sections.process_table import process_table
from workers.reports.health import Health

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOSTILE = "<img src=x onerror=alert(1)> `code`"


@pytest.fixture(autouse=True)
def fresh(house):
    """No readings of another test."""
    cache.forget()


def test_it_shows_processes_servers_and_errors(house):
    # Given
    scheduler_heartbeat.beat()
    with process_heartbeat.present("worker", threads=8, busy=lambda: 3), recent_errors.kept("worker"):
        logging.getLogger("a.test").error("the API of <b>items</b> is unhappy")
    process_heartbeat.Heartbeat("worker", threads=4).write()

    # When
    page = draw("system")

    # Then
    said = text(page)
    assert "no problems: 1 process, 4 worker threads" in said
    assert re.search(r"alive worker .* \d s ago", said)
    assert "Active runs 0" in said and "Items due now 0" in said
    assert "Redis Version" in said and "SQLite 3." in said and "Migrations 00" in said
    assert "error" in said and "the API of &lt;b&gt;items&lt;/b&gt; is unhappy" in said
    assert "sl-banner" not in html(page)


def test_without_processes_it_says_what_to_start(house):
    said = text(draw("system"))
    assert "2 problems" in said
    assert "No process is running" in said
    assert re.search(r"No worker runs\. .* Repair: start python -m workers worker \.", said)
    assert "none in the last seven days" in said


def test_with_redis_away_it_shows_what_can_be_shown(house):
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    forget()
    said = text(draw("system"))
    assert "Redis does not answer. No request is sent to an API" in said
    assert "Processes unknown" in said
    assert "not available: Redis does not answer" in said
    assert "SQLite 3." in said


def test_with_the_database_away_it_shows_what_can_be_shown(house):
    process_heartbeat.Heartbeat("worker", threads=4).write()
    house.setenv("SLUICE_DATABASE_URL", f"postgresql://me:s3cret-word@127.0.0.1:{free_port()}/x")
    forget()
    page = draw("system")
    said = text(page)
    assert "The database does not answer." in said
    assert "alive worker" in said
    assert "Redis Version" in said
    assert "s3cret" not in html(page)


def test_a_process_that_is_gone_has_a_word_and_an_icon(house, moved_clock):
    process_heartbeat.Heartbeat("worker", threads=4).write()
    moved_clock.advance(40)
    (gone,) = process_heartbeat.processes()

    drawn = process_table([gone], moved_clock.now().tzinfo, moved_clock.now())

    assert "sl-i-cross" in drawn and "gone" in drawn and "none for 40 s" in drawn and 'data-alive="no"' in drawn
    assert "1 gone in the last ten minutes" in drawn


def test_what_a_process_says_of_itself_is_escaped(house, moved_clock):
    now = moved_clock.now()
    process = Process("worker", HOSTILE, 7, 1, HOSTILE, since=now, seen=now, alive=True)
    drawn = process_table([process], now.tzinfo, now)
    assert "<img" not in drawn and "&lt;img" in drawn


def test_a_viewer_does_not_see_log_messages(house, moved_clock):
    now = moved_clock.now()
    line = recent_errors.LoggedError(now, "worker 7 on vm", "ERROR", "connection to 10.0.0.5 failed")
    assert "10.0.0.5" in error_table([line], now.tzinfo, now, in_full=True)
    drawn = error_table([line], now.tzinfo, now, in_full=False)
    assert "10.0.0.5" not in drawn and "worker 7 on vm" in drawn


def test_metrics_that_are_not_available_are_marked(house):
    drawn = figure_cards(None, None, None)
    assert drawn.count("sl-i-cross") == 3


def test_the_banner_names_outage_effect_and_repair(house):
    down = Trouble("Redis <b>does</b> not answer", "start it: `python -m workers redis`", meaning="Nothing is sent.")
    seen = datetime(2026, 11, 3, 11, 59, tzinfo=UTC)
    lacking = Trouble("no worker runs", "start one", meaning="It waits.", since=seen, is_down=False)

    drawn = banner(Health((down, lacking), None), ZoneInfo("Europe/Berlin"), datetime(2026, 11, 3, 12, 0, tzinfo=UTC))

    assert "<b>Redis &lt;b&gt;does&lt;/b&gt; not answer.</b> Nothing is sent." in drawn
    assert "<code>python -m workers redis</code>" in drawn
    assert drawn.index("sl-bad") < drawn.index("sl-warn")
    assert "sl-i-cross" in drawn and "sl-i-alert" in drawn
    assert ">12:59:00</time>" in drawn
    assert banner(Health((), ()), UTC, datetime.now(UTC)) == ""
