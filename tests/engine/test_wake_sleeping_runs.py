"""A budget that opens earlier than expected wakes the runs that wait for it, even those delayed for hours."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from models import Item
from tests.helpers import registered_sources
from tests.helpers.limiters import use
from workers import Connector, Limit, clock, settings
from workers.connections import database
from workers.control import runner
from workers.control.relearn import relearn
from workers.engine import list_failure, wake_sleeping_runs
from workers.errors import RateLimited, Refused
from workers.messaging import broker, process_heartbeat
from workers.processes import scheduler
from workers.records import cursor, items, lanes, runs
from workers.records.lanes import open_for
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus
from workers.reports import budget_states, run_stats
from workers.reports.reasons import Reason
from workers.settings import get_settings
from workers.sources.registry import get_registry

HOUR = 3600.0
DAILY = (Limit(5, seconds=86_400),)

Sent = list[tuple[str, tuple[int, ...]]]


@pytest.fixture
def sent(moved_clock: clock.MovedClock, import_from: Callable[..., object]) -> Iterator[Sent]:
    """What this thread sends, as (name, args); a source with a day's limit; moved time."""
    messages: Sent = []
    import_from("http://127.0.0.1:1", limits=DAILY)
    with broker.captured(lambda name, args, delay: messages.append((name, args))):
        yield messages


def sleeping(seconds: float = HOUR, source: str = "items", status: str = ItemStatus.PENDING) -> Run:
    """A run with an item that is due, whose two lanes come back after so long."""
    run = runner.start(source, who="test", door="test")
    now = database.now()
    items.add(run.id, [{"external_id": "1", "item_id": "1", "due_at": now, "status": status}])
    Run.update(total_count=1, discovered_at=now, discovery_due_at=None).where(Run.id == run.id).execute()
    open_for(run.id, 2)
    Lane.update(due_at=now + timedelta(seconds=seconds)).where(Lane.run_id == run.id).execute()
    return runs.get(run.id)


def listing(seconds: float = HOUR, attempts: int = 0) -> Run:
    """A run that waits for the budget before a list page."""
    run = runner.start("items", who="test", door="test")
    due = database.now() + timedelta(seconds=seconds)
    Run.update(discovery_due_at=due, discovery_attempts=attempts).where(Run.id == run.id).execute()
    return runs.get(run.id)


def limiter_of(source: str = "items"):
    return get_registry()[source].connector.limiter


def woken(run: Run) -> Sent:
    """What wakes that run's lanes: messages of the turn after the one that sleeps."""
    return [("fetch_details", (run.id, lane, 2)) for lane in (0, 1)]


def test_relearn_wakes_the_runs_that_wait_for_the_budget(sent):
    # Given a run that sleeps for hours
    run = sleeping()
    sent.clear()

    # When a person lets the budget learn anew
    relearn(limiter_of().budget, who="ann")

    # Then its lanes are sent, and the messages that are still delayed will do nothing
    assert sent == woken(run)
    assert [lane.due_at for lane in Lane.select()] == [database.now()] * 2


def test_a_list_that_waits_is_read_at_once_and_one_that_is_being_read_or_failed_is_not_disturbed(sent):
    waiting = listing()
    sent.clear()
    assert wake_sleeping_runs.wake_budget("api-of-items") == 1
    assert sent == [("discover", (waiting.id,))]
    assert runs.get(waiting.id).discovery_due_at == database.now()

    Run.update(discovery_attempts=1, discovery_due_at=database.now() + timedelta(seconds=90)).execute()
    assert wake_sleeping_runs.wake_budget("api-of-items") == 0


@pytest.mark.parametrize("other", ["another budget", "paused", "ended"])
def test_a_run_that_does_not_wait_for_this_budget_is_not_woken(sent, import_from, other):
    if other == "another budget":
        import_from("http://127.0.0.1:1", name="others", limits=DAILY)
    run = sleeping(source="others" if other == "another budget" else "items")
    if other != "another budget":
        Run.update(status=RunStatus.PAUSED if other == "paused" else RunStatus.CANCELLED).execute()
    sent.clear()

    assert wake_sleeping_runs.wake_budget("api-of-items") == 0
    assert sent == []
    assert {lane.turn for lane in Lane.select().where(Lane.run_id == run.id)} == {1}


# --- found by the scheduler -----------------------------------------------------------------------------------------


def fill() -> None:
    with suppress(RateLimited):
        use(limiter_of().permit_client(), 5)


OPENED = {
    "it is open": (lambda: None, HOUR, True),
    "Redis has forgotten it": (
        lambda: (fill(), limiter_of().ledger.client.delete(*limiter_of().ledger.keys)),
        HOUR,
        True,
    ),
    "its window is full": (fill, HOUR, False),
    "it comes back soon": (lambda: None, 9.0, False),
}


@pytest.mark.parametrize(("happens", "seconds", "is_woken"), OPENED.values(), ids=OPENED)
def test_a_run_that_sleeps_on_though_its_budget_is_open_is_woken_within_a_tick(sent, happens, seconds, is_woken):
    run = sleeping(seconds)
    happens()
    sent.clear()

    scheduler.tick()

    assert [message for message in sent if message[0] == "fetch_details"] == (woken(run) if is_woken else [])
    scheduler.tick()
    assert len([message for message in sent if message[0] == "fetch_details"]) == 2 * is_woken


def test_a_limit_that_was_raised_in_the_code_wakes_runs_that_wait_for_the_old_one(sent, import_from):
    # Given a run that sleeps for a limit of five a day
    fill()
    run = sleeping(20 * HOUR)
    sent.clear()
    assert wake_sleeping_runs.wake_sleepers() == 0

    # When its source is started again with fifty
    registered_sources.SOURCES.clear()
    import_from("http://127.0.0.1:1", limits=(Limit(50, seconds=86_400),))

    assert wake_sleeping_runs.wake_sleepers() == 2
    assert sent == woken(run)


@pytest.mark.parametrize("what", ["nothing is due", "the list failed", "Redis is away"])
def test_a_run_that_waits_for_something_else_is_not_woken(sent, house, what):
    if what == "nothing is due":
        sleeping()
        RunItem.update(due_at=database.now() + timedelta(hours=1)).execute()
    elif what == "the list failed":
        listing(attempts=1)
    else:
        sleeping()
        get_registry()["items"].connector = Connector("away", base_url="http://127.0.0.1:1", limits=DAILY)
        house.setenv("SLUICE_REDIS_URL", "redis://127.0.0.1:1/0")
        settings.get_settings.cache_clear()
        budget_states._limiter.cache_clear()
    sent.clear()

    assert wake_sleeping_runs.wake_sleepers() == 0
    assert sent == []


@pytest.mark.parametrize("what", ["at work", "in the queue", "crashed"])
def test_a_lane_that_is_expected_within_its_lease_or_crashed_does_not_sleep(sent, moved_clock, what):
    # Given a run whose lanes work, wait in the queue for a worker, or come back after an error; its budget is open
    run = sleeping(seconds=-6.0)
    for lane in (0, 1):
        if what != "in the queue":
            assert lanes.start_turn(run.id, lane, 1, settings.get_settings().lane_lease_seconds)
        if what == "crashed":
            lanes.crashed(run.id, lane, 2, "KeyError: 'a'")
            assert lanes.end_turn(run.id, lane, 2, 60.0)
    turns = {lane.turn for lane in Lane.select()}

    # When the scheduler ticks for some minutes
    for _ in range(12 if what == "in the queue" else 2):
        scheduler.tick()
        moved_clock.advance(5.0)

    # Then no lane is overtaken
    assert {lane.turn for lane in Lane.select()} == turns


def test_a_lane_that_sleeps_for_the_budget_after_an_error_is_woken(sent, moved_clock):
    run = sleeping()
    for lane in (0, 1):
        assert lanes.start_turn(run.id, lane, 1, 15.0)
        lanes.crashed(run.id, lane, 2, "KeyError: 'a'")
        assert lanes.start_turn(run.id, lane, 2, 15.0)
        assert lanes.rewind(run.id, lane, 2, HOUR)

    assert wake_sleeping_runs.wake_sleepers() == 2
    assert {lane.crashes for lane in Lane.select()} == {1}


def test_a_list_whose_refusal_is_its_own_waits_as_long_as_the_api_asks(sent):
    run = listing(0.0)
    page = cursor.begin_page(run.id, 90.0)
    list_failure.settle(page, Refused(300.0, "429, Retry-After 300", own=True))
    sent.clear()

    assert wake_sleeping_runs.wake_sleepers() == 0
    assert sent == []


@pytest.mark.parametrize("closed", ["before it was asked for", "by its refusal"])
def test_a_list_that_failed_before_and_sleeps_for_its_budget_now_is_woken_and_says_so(sent, closed):
    # Given a list page that failed once, and then found its budget closed
    run = listing(0.0)
    page = cursor.begin_page(run.id, 90.0)
    assert cursor.put_page_back(page, 0.0, refund=False, reason="list page 1, attempt 1 of 5: 500")
    page = cursor.begin_page(run.id, 90.0)
    if closed == "by its refusal":
        with pytest.raises(Refused):
            list_failure.settle(page, Refused(HOUR, "429, Retry-After 3600"))
    else:
        assert cursor.let_page_sleep(page, HOUR)
    sent.clear()
    assert run_stats.run_stats(runs.get(run.id)).why_code != Reason.LIST_BACKS_OFF

    # When the budget opens
    assert wake_sleeping_runs.wake_budget("api-of-items") == 1

    # Then the page is due, and its attempt still counts
    assert sent == [("discover", (run.id,))]
    assert runs.get(run.id).discovery_attempts == 1


def test_a_list_that_waits_for_hours_before_an_open_budget_is_read(sent):
    waiting = listing()
    sent.clear()

    assert wake_sleeping_runs.wake_sleepers() == 1
    assert sent == [("discover", (waiting.id,))]


def test_lanes_that_have_just_begun_their_turns_are_not_overtaken(sent):
    # Given a run with more items than its lanes have claimed, each lane in the first seconds of its turn
    run = sleeping()
    for run_id, lane, turn in open_for(run.id, 2):
        assert lanes.start_turn(run_id, lane, turn, get_settings().lane_lease_seconds)
    before = [(lane.lane, lane.turn) for lane in Lane.select().order_by(Lane.lane)]
    sent.clear()

    assert wake_sleeping_runs.wake_sleepers() == 0

    assert [(lane.lane, lane.turn) for lane in Lane.select().order_by(Lane.lane)] == before
    assert sent == []


class Heavy(Connector):
    """Each request counts as half of the limit."""

    def weigh(self, request: Any) -> int:
        return 50


def test_a_run_sleeps_on_whose_requests_weigh_more_than_is_left_and_says_so(sent, house, moved_clock):
    # Given a budget of 100 a day of which 60 are used, and a run whose requests weigh 50
    limits = [Limit(100, seconds=86_400)]
    get_registry()["items"].connector = Heavy("heavy", base_url="http://127.0.0.1:1", limits=limits)
    run = sleeping()
    RunItem.update(item_id=Item.create(external_id="1", name="one").id).execute()
    use(limiter_of().permit_client(), 60)
    process_heartbeat.Heartbeat("worker", 8).write()

    # Then it is not woken for what it cannot use
    assert wake_sleeping_runs.wake_sleepers() == 0
    found = run_stats.run_stats(runs.get(run.id))
    assert found.why_code == Reason.WINDOW_FULL
    assert found.why.startswith("window 100/86400 s has 40 left, its next request counts 50; opens in 1 d")
