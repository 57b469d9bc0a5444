"""The fleet as it is deployed: real processes, real signals. 200 items on limits of 20 in 0.5 s and 80 in 2.5 s."""

import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime

import pytest
import redis

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
#: Some answers take longer than workers of little time have to stop.
SLOW = ["--fault", "timeout:0.5", "--timeout-seconds", "3"]
#: Little time to stop; and what is lost then is soon looked for.
SHORT_DRAIN = {
    "SLUICE_DRAIN_SECONDS": "2",
    "SLUICE_LINGER_SECONDS": "0.5",
    "SLUICE_TICK_SECONDS": "1",
    "SLUICE_LANE_LEASE_SECONDS": "3",
}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    """What the fleet is given: nothing for SQLite, or a Postgres server."""
    if request.param == "sqlite":
        return ""
    return f"{request.getfixturevalue('postgres_server')}/postgres"


def send_stop(fleet, number=signal.SIGTERM):
    """Signal the workers' whole group, as honcho and terminals do."""
    worker = fleet._started.pop("worker")
    os.killpg(worker.pid, number)
    return worker


def held(fleet):
    return fleet.query("SELECT count(*) FROM sluice_run_items WHERE status = 'processing'")[0][0]


def asked_for(fleet):
    """How many requests for items the API has accepted."""
    return sum(fleet.mock_stats()["items"].values())


def in_flight(fleet, run_id):
    return asked_for(fleet) - fleet.run_row(run_id).succeeded


def messages(fleet, kind, queue):
    """How many messages wait in a queue, or are in the hands of a worker process."""
    with redis.Redis.from_url(fleet.redis_url) as client:
        if kind == "queue":
            return client.llen(f"sluice:queue:{queue}")
        return sum(client.scard(key) for key in client.keys(f"sluice:queue:__acks__.*.{queue}"))


def all_given_back(fleet, but_acks=False):
    """No item is claimed, no attempt spent, and no message in the hands of a process that has ended."""
    assert held(fleet) == 0
    assert fleet.query("SELECT max(attempts) FROM sluice_run_items WHERE status = 'pending'") == [(0,)]
    if not but_acks:
        assert messages(fleet, "acks", "sluice") + messages(fleet, "acks", "sluice.DQ") == 0


def runs(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


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
    # Given a run of 120 items, and windows that are nearly used up
    with Fleet(items=120, limits="20/0.5,40/1", settings=SOON_SAFE) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.mock_stats()["accepted"] >= 20, 30, "a third is asked for")

        # When Redis is killed, started again by `workers redis`, and emptied
        killed = fleet.kill_redis()
        fleet.wait_until(fleet.redis_answers, 10, "Redis is back")
        fleet.flush_redis()
        assert killed not in fleet._children("redis")
        assert fleet.mock_stats()["accepted"] < 122

        # Then no request is refused, and the run completes with exact counts
        check_all_in(fleet, run_id, items=120)


def test_workers_stopped_in_mid_wait_give_everything_back_within_four_seconds():
    # Given lanes that wait in their threads for a window that opens in half a minute
    in_threads = {"HONCHO_PROCESS_NAME": "worker.1", "SLUICE_MAX_WAIT_SECONDS": "30"}
    with Fleet(items=ITEMS, limits="60/30", settings=in_threads) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded >= 58, 30, "the window is used up")
        fleet.wait_until(lambda: held(fleet) >= 16, 10, "each lane has claimed")

        # When the group gets a signal to stop, and another at once, as from honcho and a terminal
        worker = send_stop(fleet)
        began = time.monotonic()
        time.sleep(0.2)
        os.killpg(worker.pid, signal.SIGTERM)

        # Then it ends in time, and every claim has been given back with its attempt
        assert worker.wait(10) == 0
        assert time.monotonic() - began < 4
        all_given_back(fleet)

        # Given lanes that wait as delayed messages in the memory of new workers
        fleet.environment["SLUICE_MAX_WAIT_SECONDS"] = "1"
        fleet.start_again("worker")
        fleet.wait_until(lambda: messages(fleet, "acks", "sluice.DQ") == 16, 10, "they hold the messages")

        # When their terminal is closed, then the messages go back, too
        worker = send_stop(fleet, signal.SIGHUP)
        assert worker.wait(10) == 0
        all_given_back(fleet)
        assert messages(fleet, "queue", "sluice.DQ") + messages(fleet, "queue", "sluice") == 16


def test_a_fleet_that_was_stopped_goes_on_where_it_was():
    # Given a run whose workers are stopped in the middle, with requests in flight
    with Fleet(items=ITEMS, limits=LIMITS, mock_options=["--latency", "0.3"]) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: in_flight(fleet, run_id) > 4, 30, "some are in flight")
        worker = send_stop(fleet)

        # When these have been answered, then they are committed, and the others given back
        assert worker.wait(15) == 0
        assert in_flight(fleet, run_id) == 0
        all_given_back(fleet)

        # When the workers are started again
        fleet.start_again("worker")

        # Then it completes, and nothing was fetched twice
        check_all_in(fleet, run_id)
        assert Counter(fleet.mock_stats()["items"].values()) == {1: ITEMS}


def test_requests_that_outlast_the_drain_are_given_up_and_their_permits_go_on_counting():
    # Given requests in flight that take longer than the workers have
    with Fleet(items=40, limits="500/1", mock_options=SLOW, settings=SHORT_DRAIN) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: in_flight(fleet, run_id) >= 8, 30, "many are in flight")

        # When the workers get a signal to stop
        worker = send_stop(fleet)
        began = time.monotonic()

        # Then they end in time, what they had goes back with its attempt, and none is marked failed
        assert worker.wait(10) == 0
        assert time.monotonic() - began < 4
        assert "responses were still missing" in (fleet.folder / "worker.log").read_text()
        all_given_back(fleet, but_acks=True)
        assert fleet.run_row(run_id).failed == 0

        # Then the API may still be at these requests: they count
        (budget,) = json.loads(fleet.command("budgets", "benchmark", "--json"))
        assert budget["in_flight"] > 0

        # When the workers are started again, then the run completes, and no item was asked for a third time
        fleet.start_again("worker")
        check_all_in(fleet, run_id, items=40)
        assert max(fleet.mock_stats()["items"].values()) == 2


def test_a_second_signal_ends_the_supervisor_and_its_workers_at_once():
    # Given two processes of eight threads that drain, for each has requests in flight
    settings = {"SLUICE_LEASE_SECONDS": "40", "SLUICE_REQUEST_TIMEOUT_SECONDS": "20"}
    with Fleet(items=80, limits="500/1", mock_options=[*SLOW, "--timeout-seconds", "12"], settings=settings) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: in_flight(fleet, run_id) >= 15, 30, "many are in flight, of both processes")
        children = fleet.worker_children()
        worker = fleet._started.pop("worker")
        worker.terminate()
        began = time.monotonic()

        # When the supervisor alone gets signals again and again, and one worker process is stopped (SIGSTOP)
        os.kill(children[0], signal.SIGSTOP)
        try:
            while worker.poll() is None:
                if all(map(runs, children)):
                    at_work = time.monotonic()
                worker.terminate()
                time.sleep(0.1)

            # Then nothing ends for two seconds; and then all have gone, at once: a drain would take ten, and end with 0
            assert worker.returncode == 143
            assert at_work - began > 1.9  # they were seen a look before
            fleet.wait_until(lambda: not any(map(runs, children)), 2, "the workers are gone")
        finally:
            if runs(children[0]):  # a process that was stopped ends by nothing else
                os.kill(children[0], signal.SIGKILL)

        # Then what they held is due again when its lease ends: an item at a time, or a batch, for each lane
        assert held(fleet) >= 8
        latest = "SELECT max(due_at) FROM sluice_run_items WHERE status = 'processing'"
        due = datetime.fromisoformat(fleet.query(latest)[0][0])
        assert (due - datetime.now(UTC)).total_seconds() < 40


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_workers_whose_supervisor_is_killed_end_by_themselves_and_give_their_items_back():
    # Given a run in its middle, and a supervisor that was stopped while a worker process died
    with Fleet(items=ITEMS, limits=LIMITS, settings=SHORT_LEASE) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 20, 30, "it has begun")
        supervisor = fleet._started["worker"]
        supervisor.send_signal(signal.SIGSTOP)
        victim = fleet.kill_worker_child()
        time.sleep(0.5)

        # When it continues, then it sees that, and replaces it
        supervisor.send_signal(signal.SIGCONT)
        fleet.wait_until(lambda: len(set(fleet.worker_children()) - {victim}) == 2, 10, "it is replaced")

        # When it is killed itself
        children = fleet.worker_children()
        fleet._started.pop("worker")
        supervisor.kill()
        supervisor.wait()

        # Then its workers drain and are gone; the lease of what the other one held is soon over
        fleet.wait_until(lambda: not any(map(runs, children)), 10, "they have ended")
        fleet.start_again("worker")
        check_all_in(fleet, run_id)
        assert max(fleet.mock_stats()["items"].values()) <= 2


def test_workers_end_in_time_though_neither_the_database_nor_redis_answers():
    # Given a run in its middle
    settings = SHORT_LEASE | SHORT_DRAIN
    with Fleet(items=80, limits=LIMITS, settings=settings) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 20, 30, "it has begun")
        (redis_server,) = fleet._children("redis")

        # When a lock is held on the database, Redis hangs, and the workers get a signal to stop
        with closing(sqlite3.connect(fleet.database_url.removeprefix("sqlite:///"), isolation_level=None)) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            os.kill(redis_server, signal.SIGSTOP)
            worker = send_stop(fleet)
            began = time.monotonic()
            try:
                # Then they end in time nevertheless
                assert worker.wait(10) == 0
                assert time.monotonic() - began < 4
            finally:
                os.kill(redis_server, signal.SIGCONT)

        # Then what they held is due again when its lease ends, and the run completes
        fleet.start_again("worker")
        check_all_in(fleet, run_id, items=80)


def test_a_run_is_paused_resumed_and_cancelled_from_the_command_line():
    # So slow that a run does not end while a busy machine starts the commands
    with Fleet(items=ITEMS, limits="20/0.5,40/5") as fleet:
        # Given a running run
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 20, 30, "it has begun")

        # When it is paused, then nothing more comes in
        fleet.command("pause", str(run_id))
        time.sleep(1.5)
        stood = fleet.run_row(run_id).succeeded
        time.sleep(1.0)
        assert fleet.run_row(run_id).succeeded == stood < ITEMS

        # When it is resumed, it continues at once; and a second run waits behind it until it is cancelled
        second = fleet.start_run()
        fleet.command("resume", str(run_id))
        assert fleet.run_row(second).status == "pending"
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > stood, 5, "the run continues")
        fleet.command("cancel", str(run_id))
        check_all_in(fleet, second)
        assert fleet.run_row(run_id).status == "cancelled"


def test_a_list_page_that_outlasts_the_drain_goes_back_with_its_attempt():
    # Given a list page that takes longer than the drain
    with Fleet(items=40, limits="500/1", mock_options=["--latency", "6"], settings=SHORT_DRAIN) as fleet:
        fleet.start_run()
        page = "SELECT discovery_attempts, discovery_due_at <= datetime('now', '+2 seconds') FROM sluice_runs"
        fleet.wait_until(lambda: fleet.query(page)[0][0] == 1, 10, "the page is asked for")

        # When the workers get a signal to stop
        worker = send_stop(fleet)
        assert worker.wait(10) == 0

        # Then it is due at once, with its attempt, and announced
        assert fleet.query(page) == [(0, 1)]
        assert messages(fleet, "queue", "sluice") == 1
