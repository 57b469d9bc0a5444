"""Leases: the items and turns of a process that dies are due again; a sleeping lane wakes for items that are due."""

import pytest

from benchmarks.fleet import Fleet
from models import Item
from tests.helpers.machine import ROOT
from workers import clock
from workers.connections import database
from workers.control import runner
from workers.engine import detail
from workers.failures import FailureClass
from workers.limiter.permits import Usage
from workers.messaging import broker
from workers.processes import scheduler
from workers.records import claims, commits, items, lanes, run_completion, runs
from workers.records.commits import Outcome
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus

#: The item of tests/helpers/poison_source.py that kills its process.
POISON = "7"


@pytest.fixture
def sent(moved_clock, import_from):
    """What this thread sends, as (name, args, delay); a registered source; moved time."""
    messages = []
    import_from("http://127.0.0.1:1")
    with broker.captured(lambda *message: messages.append(message)):
        yield messages


def listed_run(count):
    run = runner.start("items", who="test", door="test")
    due = {"due_at": database.now(), "status": ItemStatus.PENDING}
    items.add(run.id, [due | {"external_id": str(n), "item_id": str(n)} for n in range(count)])
    for n in range(count):
        Item.create(id=n, external_id=str(n), name="a")
    listed = {"total_count": count, "discovered_at": database.now(), "discovery_due_at": None}
    Run.update(**listed).where(Run.id == run.id).execute()
    return run.id


@pytest.mark.parametrize("phase", range(5))
def test_a_lane_that_was_lost_at_work_is_replaced_within_thirty_seconds(sent, moved_clock, phase):
    # Given a scheduler that ticks every five seconds, and a lane whose process dies in the middle of its turn
    run_id = listed_run(5)
    (message,) = lanes.open_for(run_id, 1)
    scheduler.tick()
    moved_clock.advance(phase)
    assert lanes.start_turn(*message, lease_seconds=15)
    died_at = clock.monotonic()
    sent.clear()

    # When time passes
    moved_clock.advance(5 - phase)
    while not any(name == "fetch_details" for name, *_ in sent):
        scheduler.tick()
        moved_clock.advance(5)

    # Then its next turn was sent in time, and works
    assert clock.monotonic() - 5 - died_at <= 30
    again = next(args for name, args, _ in sent if name == "fetch_details")
    assert again == (run_id, message[1], message[2] + 1)
    assert lanes.start_turn(*again, lease_seconds=15)


def test_a_message_that_is_delivered_twice_does_nothing_the_second_time(sent):
    # Given a lane of a run whose API refuses connections, so that its item waits for another attempt
    run_id = listed_run(1)
    (message,) = lanes.open_for(run_id, 1)
    detail.fetch_details(*message)
    before = RunItem.get(), Lane.get(), len(sent)

    # When its message comes again
    detail.fetch_details(*message)

    # Then nothing was claimed, moved or sent
    assert (RunItem.get().attempts, Lane.get().turn, len(sent)) == (before[0].attempts, before[1].turn, before[2])


def test_lanes_that_sleep_until_a_far_attempt_are_woken_by_a_retry(sent, moved_clock):
    # Given a run whose one lane sleeps for the item that is due in 240 s, and whose other item has failed
    run_id = listed_run(2)
    claim = claims.claim(run_id, 2, lease_seconds=60)
    later = Outcome(claim.items[0], ItemStatus.PENDING, failure_class=FailureClass.TRANSIENT, retry_seconds=240)
    never = Outcome(claim.items[1], ItemStatus.FAILED, failure_class=FailureClass.NOT_FOUND)
    commits.commit(run_id, claim, [later, never], Usage(), lambda models: None)
    (message,) = lanes.open_for(run_id, 1)
    sent.clear()
    detail.fetch_details(*message)
    asleep = sent[-1]
    assert asleep[2] == pytest.approx(240)

    # When the failed item is retried
    sent.clear()
    runner.retry_failed(run_id, who="test", door="test")

    # Then a message goes out at once, and the one that slept does nothing any more
    woken = [args for name, args, delay in sent if name == "fetch_details" and not delay]
    assert lanes.start_turn(*woken[0], lease_seconds=15)
    assert not lanes.start_turn(*asleep[1], lease_seconds=15)


def test_a_lane_that_sleeps_wakes_for_items_of_a_lane_that_died(sent, moved_clock):
    # Given a lane that has claimed an item, and died; and one that finds nothing else to do
    run_id = listed_run(1)
    claims.claim(run_id, 1, lease_seconds=60)
    (message,) = lanes.open_for(run_id, 1)
    sent.clear()

    # When the second one ends its turn
    detail.fetch_details(*message)

    # Then it comes back when the lease of the other ends, and does not end the run
    name, _, delay = sent[-1]
    assert (name, delay) == ("fetch_details", pytest.approx(60))
    assert not run_completion.complete_if_done(run_id)


def test_an_item_that_was_lost_in_its_last_attempt_fails_without_another_request(sent, moved_clock):
    # Given an item that was claimed five times, by processes that died
    run_id = listed_run(1)
    for _ in range(5):
        assert claims.claim(run_id, 10, lease_seconds=60).items
        moved_clock.advance(61)

    # When it is claimed again
    (message,) = lanes.open_for(run_id, 1)
    detail.fetch_details(*message)

    # Then it has failed, with the reason
    item = RunItem.get()
    assert (item.status, item.failure_class) == (ItemStatus.FAILED, FailureClass.BUG)
    assert "the worker died, or lost its lease, 5 times while it had this item" in item.failure_reason
    assert runs.get(run_id).failed_count == 1


def test_a_poison_item_fails_after_five_attempts_though_its_worker_process_dies_each_time():
    # Given an item that kills the process that fills its row
    settings = {
        "SLUICE_SOURCES": "tests.helpers.poison_source:SOURCES",
        "PYTHONPATH": str(ROOT),
        "SLUICE_REQUEST_TIMEOUT_SECONDS": "1",
        "SLUICE_LEASE_SECONDS": "2",
        "SLUICE_TICK_SECONDS": "1",
        "SLUICE_LANE_LEASE_SECONDS": "2",
    }
    with Fleet(items=40, limits="200/1", settings=settings) as fleet:
        # When it is imported with others
        run_id = fleet.start_run()
        run = fleet.wait_for_run(run_id, seconds=60)

        # Then only this item has failed, after five attempts, and the run has completed
        assert (run.status, run.succeeded, run.failed) == (RunStatus.COMPLETED, 39, 1)
        assert fleet.mock_stats()["items"][POISON] == 5
        failed = "SELECT external_id, failure_class, failure_reason FROM sluice_run_items WHERE status = 'failed'"
        ((external_id, failure_class, reason),) = fleet.query(failed)
        assert (external_id, failure_class) == (POISON, "bug")
        assert "the worker died" in reason
        assert (fleet.folder / "worker.log").read_text().count("was killed by SIGKILL") == 5
        assert fleet.mock_stats()["rejected"] == 0
