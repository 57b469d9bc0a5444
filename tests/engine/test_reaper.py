"""The reaper re-sends lost messages, the middleware re-sends those that must wait, and no message multiplies."""

import threading

import dramatiq
import pytest

from models import Item
from workers import InvalidTransition, Limit, RateLimited, clock
from workers.connections import database
from workers.control import runner
from workers.engine import detail, reaper
from workers.engine.discovery import discover
from workers.messaging import broker
from workers.messaging.middleware import RateLimiterMiddleware, resend_delay
from workers.records import items, lanes, runs
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus


@pytest.fixture
def sent(moved_clock, import_from):
    """What this thread sends, as (name, args); a registered source; moved time."""
    messages = []
    import_from("http://127.0.0.1:1")
    with broker.captured(lambda name, args, delay: messages.append((name, args))):
        yield messages


def discovered_run(count):
    run = runner.start("items", who="test", door="test")
    now = database.now()
    rows = [
        {"external_id": str(n), "item_id": str(n), "due_at": now, "status": ItemStatus.PENDING} for n in range(count)
    ]
    items.add(run.id, rows)
    Run.update(total_count=count, discovered_at=now, discovery_due_at=None).where(Run.id == run.id).execute()
    return runs.get(run.id)


def test_a_lost_list_page_is_sent_again(sent, moved_clock):
    # Given a run whose first message was lost
    run = runner.start("items", who="test", door="test")
    sent.clear()

    # When the reaper looks at once, and again after a while
    reaper.reap()
    assert sent == []
    moved_clock.advance(6)
    reaper.reap()

    # Then it sends it
    assert sent == [("discover", (run.id,))]


def test_a_silent_lane_is_sent_again_with_its_turn_and_only_one_of_the_two_messages_works(sent, moved_clock):
    # Given two lanes, one of which has begun its turn
    run = discovered_run(4)
    first, second = lanes.open_for(run.id, 2)
    moved_clock.advance(30)
    lanes.start_turn(*second, lease_seconds=15)
    sent.clear()

    # When the reaper looks
    reaper.reap()

    # Then the silent one's message comes again, as it was
    assert sent == [("fetch_details", first)]
    assert lanes.start_turn(*first, lease_seconds=15)
    assert not lanes.start_turn(*first, lease_seconds=15)


def test_open_items_without_a_lane_get_lanes(sent):
    run = discovered_run(3)

    reaper.reap()

    assert [message for message in sent if message[0] == "fetch_details"] == [
        ("fetch_details", (run.id, lane, 1)) for lane in range(3)
    ]


def test_a_run_whose_finalize_message_was_lost_is_finalized_within_ten_seconds(sent, moved_clock):
    # Given a run whose items have all ended
    run = discovered_run(1)
    RunItem.update(status=ItemStatus.COMPLETED).execute()
    sent.clear()

    # When the reaper looks at it, and finalize has looked too
    reaper.reap()
    assert sent == [("finalize", (run.id,))]
    Run.update(last_finalize_attempt_at=database.now()).execute()
    reaper.reap()
    moved_clock.advance(11)
    reaper.reap()

    # Then it is not asked for more often than that
    assert sent == [("finalize", (run.id,))] * 2


def test_a_pending_run_whose_start_was_lost_is_started(sent):
    # Given a run that waited behind one that was cancelled by a process which died there
    first = runner.start("items", who="test", door="test")
    second = runner.start("items", who="test", door="test")
    Run.update(status=RunStatus.CANCELLED).where(Run.id == first.id).execute()
    sent.clear()

    reaper.reap()

    assert runs.get(second.id).status == RunStatus.RUNNING
    assert sent == [("discover", (second.id,))]


def test_reapers_in_many_processes_multiply_nothing(house, import_from):
    # Given four silent lanes, and eight reapers
    import_from("http://127.0.0.1:1")
    run = discovered_run(4)
    lanes.open_for(run.id, 4)
    Lane.update(due_at=database.now() - lanes.timedelta(seconds=60)).execute()
    started, lock = [], threading.Lock()

    def reap_and_work():
        def put(name, args, delay):
            if name == "fetch_details" and lanes.start_turn(*args, lease_seconds=60):
                with lock:
                    started.append(args)

        with database.connection(), broker.captured(put):
            reaper.reap()

    threads = [threading.Thread(target=reap_and_work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then each lane began one turn
    assert sorted(started) == [(run.id, lane, 1) for lane in range(4)]


def test_an_actor_that_must_wait_gets_the_same_message_again_a_little_early_and_no_retry_is_spent(house):
    # Given a message whose budget opens in seven seconds
    stub = broker.get_broker()
    message = dramatiq.Message(broker.QUEUE, "fetch_details", (1, 2, 3), {}, {})

    # When its actor says so
    RateLimiterMiddleware().after_process_message(stub, message, exception=RateLimited(7.0, "window full"))

    # Then the message is sent as it was, for six seconds from now
    delayed = dramatiq.Message.decode(stub.queues[f"{broker.QUEUE}.DQ"].get_nowait())
    assert (delayed.actor_name, tuple(delayed.args)) == ("fetch_details", (1, 2, 3))
    assert "retries" not in delayed.options
    assert delayed.options["eta"] / 1000 == pytest.approx(clock.now().timestamp() + 6, abs=1)


def test_a_process_that_stops_sends_its_waiting_messages_on_at_once():
    assert (resend_delay(7.0, first=False), resend_delay(7.0, first=True)) == (6.0, 5.5)
    clock.stop_requested.set()
    try:
        assert resend_delay(7.0, first=False) == 0.0
    finally:
        clock.stop_requested.clear()


def test_a_lane_whose_budget_closes_for_long_gives_its_items_and_permit_back(moved_clock, mock_api, import_from):
    # Given a budget that is closed for the next 20 s
    server = mock_api(items=6)
    source = import_from(server.url, limits=(Limit(4, seconds=20),))
    run = runner.start("items", who="test", door="test", send=False)
    messages = []
    with broker.captured(lambda name, args, delay: messages.append((name, args))):
        discover(run.id)
        lane = next(args for name, args in messages if name == "fetch_details")

        # When a lane works until its permits are used up
        with pytest.raises(RateLimited) as waiting:
            detail.fetch_details(*lane)

    # Then it did three items, holds nothing, spent no attempt, and its message is good for another go
    assert waiting.value.wait_seconds == pytest.approx(20, abs=1)
    assert Item.select().where(Item.price.is_null(False)).count() == 3
    assert {(item.status, item.attempts) for item in RunItem.select()} == {("completed", 1), ("pending", 0)}
    assert source.connector.limiter.snapshot().in_flight == 0
    assert lanes.start_turn(*lane, lease_seconds=1)


def test_a_list_page_that_waits_for_its_window_is_due_when_its_message_comes_back(moved_clock, mock_api, import_from):
    # Given a list of five pages, and a budget of two requests in 20 s
    import_from(mock_api(items=50).url, limits=(Limit(2, seconds=20),), per_page=10)
    run = runner.start("items", who="test", door="test", send=False)
    with pytest.raises(RateLimited) as waiting:
        discover(run.id)

    # When the message comes back, a little early
    moved_clock.advance(resend_delay(waiting.value.wait_seconds, first=True) + 0.001)
    with pytest.raises(RateLimited):
        discover(run.id)

    # Then it has read the next pages, and no attempt was spent
    run = runs.get(run.id)
    assert (run.total_count, run.discovery_cursor, run.discovery_attempts) == (40, 5, 0)


def test_a_cancelled_run_cannot_be_retried(sent):
    run = discovered_run(1)
    runner.cancel(run.id, who="test", door="test")

    with pytest.raises(InvalidTransition, match="Start a new run instead"):
        runner.retry_failed(run.id, who="test", door="test")
