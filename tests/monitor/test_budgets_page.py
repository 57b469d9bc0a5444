"""The page "budgets", drawn by Streamlit's own test double, and the gauge: what is used, and when a window opens."""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime

import pytest
import redis

from tests.helpers.machine import forget, free_port
from tests.helpers.pages import draw, html, labels, press, text
from workers import Limit, RateLimiter, clock
from workers.errors import RateLimited, SluiceError
from workers.limiter.state import BudgetState, WindowState
from workers.monitor.actions import act, reset_budget
from workers.monitor.actions.act import Outcome
from workers.monitor.html.gauge import gauge
from workers.monitor.readings import cache
from workers.monitor.sections.budget_card import budget_card
from workers.records import watermark
from workers.records.tables import Run, RunStatus
from workers.reports import budgets
from workers.sources import registry

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def budget(house, redis_server):
    """The budget of the demo's source, from within, and a running run that uses it."""
    cache.forget()
    values = {"source": "items", "lanes": 4, "created_by": "me", "status": RunStatus.RUNNING}
    Run.create(**values, started_at=clock.now())
    its = registry.get_registry()["items"].connector.budget
    with redis.Redis.from_url(redis_server) as client:
        prefix = os.environ["SLUICE_PREFIX"]
        kept = watermark.Watermark(its.name)
        yield RateLimiter(its, client, prefix=prefix, max_wait_seconds=0.0, watermark=kept)


def answer(budget: RateLimiter, status: int, **headers: str) -> None:
    caller = budget.permit_client()
    with suppress(RateLimited):
        caller.report(caller.acquire(5), status, {name.replace("_", "-"): value for name, value in headers.items()})
    caller.flush()


def take(budget: RateLimiter, count: int) -> None:
    caller = budget.permit_client()
    caller.expects = count
    for _ in range(count):
        caller.answered(caller.acquire(5))
    caller.flush()


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_budget_that_was_never_used_says_so_and_what_it_would_allow(budget):
    said = text(draw("budgets"))
    assert "1 budget: not used yet" in said
    assert "no request since Redis was started or emptied" in said
    assert "0 of 500 · 500 left" in said and "0 of 2,000 · 2,000 left" in said
    assert "20.0 /s long-term average: 2000/100 s" in said


def test_a_budget_in_use_shows_its_windows_its_counters_and_who_uses_it(budget):
    # When
    take(budget, 3)
    page = draw("budgets")

    # Then
    said = text(page)
    assert "1 budget: open" in said and "requests can be sent" in said
    assert "3 of 500 · 497 left" in said and "3 of 2,000 · 1,997 left" in said
    assert "Permits granted 3 one for each request" in said and "Rate-limit hits (429) 0 refused by the API" in said
    assert "used by run 1 of items" in said
    assert '<a href="run?id=1" data-page>' in html(page)


def test_a_paused_budget_says_why_and_until_when_in_the_viewer_s_time(budget):
    answer(budget, 429, Retry_After="1800")
    page = draw("budgets")
    said = text(page)
    assert "1 budget: paused" in said
    assert re.search(r"answered 429, Retry-After 1800: paused until [\d:]+ , (30 min [01]|29 min \d+) s left", said)
    (until,) = re.findall(r'paused until <time datetime="([^"]+)" title="[\d: -]+ UTC">', html(page))
    assert 1780 < (datetime.fromisoformat(until) - clock.now()).total_seconds() <= 1802
    assert "Decisions: 1 note, newest first" in said


def test_what_the_api_taught_is_said_and_forgotten_when_a_person_asks(budget):
    # Given a limit that the API lowered
    answer(budget, 200, RateLimit_Policy='"a";q=400;w=20', RateLimit='"a";r=380;t=10')
    page = draw("budgets")
    assert "configured as 500; the API announced another limit" in text(page)
    assert "window 500/20 s is 400 now, says the API" in text(page)

    assert press(page, "relearn rate-test").button(key="confirm_yes").label == "Reset budget"

    # When a person confirms
    question = reset_budget.question("rate-test")
    assert "not paced" in question.sentences[0]
    assert question.do() == "Budget rate-test is reset to its configuration"

    # Then
    page = draw("budgets")
    assert "configured as 500" not in text(page)
    assert "monitor: as configured again, what the API taught is forgotten" in text(page)
    assert labels(page) == []


def test_what_cannot_be_forgotten_now_says_why(budget, house):
    with pytest.raises(SluiceError, match="No source and no active run uses the budget gone any more"):
        reset_budget.question("gone").do()
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    forget()
    assert act.perform(reset_budget.question("rate-test").do).outcome is Outcome.UNAVAILABLE


def test_with_redis_away_each_budget_is_named_with_what_is_configured(budget, house):
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    forget()
    said = text(draw("budgets"))
    assert "1 budget: unknown" in said
    assert "usage is not available: Redis does not answer" in said
    assert "configured as 500/20 s and 2000/100 s" in said
    assert "used by run 1 of items" in said


def test_with_the_database_away_the_windows_are_shown(budget, house):
    take(budget, 3)
    house.setenv("SLUICE_DATABASE_URL", f"postgresql://127.0.0.1:{free_port()}/x")
    forget()
    said = text(draw("budgets"))
    assert "3 of 500 · 497 left" in said
    assert "only the budgets that sources name are known" in said
    assert "its runs are not available: the database does not answer" in said


def test_sources_that_cannot_be_loaded_are_reported(house):
    house.setenv("SLUICE_SOURCES", "nowhere:SOURCES")
    forget()
    said = text(draw("budgets"))
    assert "Budgets are not available" in said and "SLUICE_SOURCES=nowhere:SOURCES" in said


def test_what_an_api_said_is_escaped(budget):
    ((use,), _) = budgets.budget_uses()
    state = BudgetState(HOSTILE, use.state.windows, paused_for_seconds=9.0, paused_why=HOSTILE)
    user = budgets.User(1, HOSTILE, HOSTILE, "running")
    hostile = budgets.BudgetUse(HOSTILE, use.limits, 1.0, state, 1.0, HOSTILE, (HOSTILE,), (user,))
    drawn = budget_card(hostile, UTC, clock.now(), reset_budget.reset_button(state))
    assert "<img" not in drawn
    assert drawn.count("&lt;img") >= 6


# --- the gauge --------------------------------------------------------------------------------------------------------


SHORT, LONG = Limit(500, seconds=20), Limit(2000, seconds=100)


def of(*used: int, **values: object) -> BudgetState:
    """The demo's budget, of which so much is used."""
    windows = (WindowState(SHORT, 500, 500, used[0]), WindowState(LONG, 2000, 2000, used[1]))
    return BudgetState("rate-test", windows, **values)


def said(drawn: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", drawn)).strip()


def test_a_full_window_has_a_word_and_an_icon_and_says_when_it_opens(house):
    state = of(500, 2000, opens_in_seconds=12.2)
    short, long = (gauge(state, window) for window in state.windows)
    assert said(long) == "2000/100 s 2,000 of 2,000 · full, opens in 12 s"
    assert said(short) == "500/20 s 500 of 500 · full"  # the other one decides when
    assert "sl-i-wait" in long and "sl-gauge-full" in long


def test_a_window_that_is_taken_as_full_is_not_shown_as_used_up(house):
    state = of(500, 2000, opens_in_seconds=99.0, taken_as_full_seconds=99.0)
    assert said(gauge(state, state.windows[1])) == "2000/100 s 2,000 of 2,000 · taken as full, opens in 1 min 39 s"


@pytest.mark.parametrize(("used", "share"), [(0, "0.0"), (1, "1.0"), (1999, "99.0"), (2000, "100.0"), (2400, "100.0")])
def test_a_bar_is_whole_only_where_the_window_is_full_and_empty_only_where_it_is_unused(house, used, share):
    state = of(0, used)
    assert f'style="width:{share}%"' in gauge(state, state.windows[1])


def test_a_tick_marks_our_share_and_a_changed_limit_is_shown(house):
    ours = WindowState(LONG, 1600, 800, 400)
    drawn = gauge(BudgetState("b", (ours,)), ours)
    assert '<i class="sl-gauge-tick" style="left:50.0%"' in drawn
    assert "400 of 800 · 400 left" in drawn
    assert "configured as 2,000; the API announced another limit; our share is 800 of 1,600" in drawn
    assert 'style="width:25.0%"' in drawn
