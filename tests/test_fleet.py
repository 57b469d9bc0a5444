"""The fleet as it is deployed: real processes, real signals. 200 items on limits of 20 in 0.5 s and 80 in 2.5 s."""

import os
import signal
import time
from collections import Counter

import pytest

from benchmarks.fleet import Fleet

LIMITS = "20/0.5,80/2.5"
ITEMS = 200
SHORT_LEASE = {"SLUICE_LEASE_SECONDS": "5", "SLUICE_REQUEST_TIMEOUT_SECONDS": "2.5"}
#: What is lost is soon counted out; and a request that times out on a busy machine is soon tried again.
SOON_SAFE = {
    "SLUICE_REQUEST_TIMEOUT_SECONDS": "1",
    "SLUICE_LINGER_SECONDS": "0.5",
    "SLUICE_BACKOFF_SECONDS": "1,2,4,8",
    "SLUICE_TICK_SECONDS": "1",
}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    """What the fleet is given: nothing for SQLite, or a Postgres server."""
    if request.param == "sqlite":
        return ""
    return f"{request.getfixturevalue('postgres_server')}/postgres"


def check_all_in(fleet, run_id, items=ITEMS):
    """Every item once, counters equal to the rows, no 429."""
    run = fleet.wait_for_run(run_id, seconds=60)
    assert run.status == "completed"
    assert (run.total, run.succeeded, run.failed, run.skipped) == (items, items, 0, 0)
    assert fleet.query("SELECT count(*), count(DISTINCT external_id), count(price) FROM items") == [
        (items, items, items)
    ]
    by_status = f"SELECT status, count(*) FROM sluice_run_items WHERE run_id = {run_id} GROUP BY status"
    assert fleet.query(by_status) == [("completed", items)]
    assert fleet.mock_stats()["rejected"] == 0
    return run


def test_a_fleet_imports_every_item_once_and_earns_no_429(database):
    with Fleet(items=ITEMS, limits=LIMITS, database=database) as fleet:
        run = check_all_in(fleet, fleet.start_run())

        assert set(fleet.mock_stats()["items"].values()) == {1}
        assert run.hits == 0
        assert run.sleeps > 0


def test_a_worker_process_that_is_killed_is_replaced_and_nothing_is_lost(database):
    # Given a run in its middle
    with Fleet(items=ITEMS, limits=LIMITS, database=database, settings=SHORT_LEASE) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 40, 30, "a fifth is in")

        # When one of the worker processes is killed
        victim = fleet.kill_worker_child()

        # Then another one takes its place, and the run completes with exact counts
        fleet.wait_until(lambda: len(set(fleet.worker_children()) - {victim}) == 2, 10, "it is replaced")
        check_all_in(fleet, run_id)


def test_redis_killed_in_mid_run_and_emptied_when_it_is_back_costs_neither_an_item_nor_a_429():
    # Given a run of 60 items, and windows that are nearly used up
    with Fleet(items=60, limits="20/0.5,40/1", settings=SOON_SAFE) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.mock_stats()["accepted"] >= 20, 30, "a third is asked for")

        # When Redis is killed, started again by `workers redis`, and emptied
        killed = fleet.kill_redis()
        fleet.wait_until(fleet.redis_answers, 10, "Redis is back")
        fleet.flush_redis()
        assert killed not in fleet._children("redis")
        assert fleet.mock_stats()["accepted"] < 61

        # Then nobody is refused, and the run completes with exact counts
        check_all_in(fleet, run_id, items=60)


def test_workers_told_to_stop_in_mid_wait_give_everything_back_within_four_seconds():
    # Given lanes that wait for a window that opens in half a minute
    with Fleet(items=ITEMS, limits="60/30", settings={"HONCHO_PROCESS_NAME": "worker.1"}) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded >= 58, 30, "the window is used up")
        worker = fleet._started.pop("worker")

        # When the group is told to stop, and told again at once, as honcho and a terminal do
        began = time.monotonic()
        os.killpg(worker.pid, signal.SIGTERM)
        time.sleep(0.2)
        os.killpg(worker.pid, signal.SIGTERM)

        # Then it ends in time, and every claim has been given back with its attempt
        assert worker.wait(10) == 0
        assert time.monotonic() - began < 4
        assert fleet.query("SELECT count(*) FROM sluice_run_items WHERE status = 'processing'") == [(0,)]
        assert fleet.query("SELECT max(attempts) FROM sluice_run_items WHERE status = 'pending'") == [(0,)]


def test_a_fleet_that_was_stopped_goes_on_where_it_was():
    # Given a run whose workers were stopped in the middle
    with Fleet(items=ITEMS, limits=LIMITS) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 40, 30, "a fifth is in")
        worker = fleet._started.pop("worker")
        worker.terminate()
        worker.wait(15)

        # When they are started again
        fleet._spawn("worker", "workers", "worker")

        # Then it completes, and nothing was fetched twice
        check_all_in(fleet, run_id)
        assert Counter(fleet.mock_stats()["items"].values()) == {1: ITEMS}


def test_a_run_is_paused_resumed_and_cancelled_from_the_command_line():
    # So slow that a run does not end while a busy machine starts the commands
    with Fleet(items=ITEMS, limits="20/0.5,40/2.5") as fleet:
        # Given a running run
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 20, 30, "it has begun")

        # When it is paused, then nothing more comes in
        fleet.command("pause", str(run_id))
        time.sleep(1.5)
        stood = fleet.run_row(run_id).succeeded
        time.sleep(1.0)
        assert fleet.run_row(run_id).succeeded == stood < ITEMS

        # When it is resumed, it goes on at once; and a second run waits behind it until it is cancelled
        second = fleet.start_run()
        fleet.command("resume", str(run_id))
        assert fleet.run_row(second).status == "pending"
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > stood, 5, "it goes on")
        fleet.command("cancel", str(run_id))
        check_all_in(fleet, second)
        assert fleet.run_row(run_id).status == "cancelled"
