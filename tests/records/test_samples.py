"""Samples: one row for each run and slot, from any process; thinned as a run ages. Requests are counted per run."""

import itertools
import logging
import os
import random
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
import requests
from peewee import chunked

from mock_server import Fault
from tests.helpers.machine import ROOT, wait_until
from workers import Connector, Limit, clock
from workers.connections import database
from workers.connections.redis_client import redis_client
from workers.control import runner
from workers.engine.sampling import Sampler
from workers.limiter.rate_limiter import RateLimiter
from workers.records import activation, retention, runs, samples
from workers.records.tables import Run, RunStatus, Sample
from workers.settings import get_settings

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def running(source="items", **values):
    run = runs.create(source, lanes=4, created_by="test", door="test")
    assert activation.activate(run.id)
    Run.update({"discovered_at": database.now(), **values}).where(Run.id == run.id).execute()
    return runs.get(run.id)


def sampled(run, slots):
    """Write samples of a run in these slots, without time passing."""
    zeros = dict.fromkeys(("failed", "skipped", "requests", "hits", "sleeps", "waiting_seconds"), 0)
    at = database.now()
    rows = [{"run_id": run.id, "slot": slot, "at": at, "succeeded": slot} | zeros for slot in slots]
    for some in chunked(rows, 500):
        Sample.insert_many(some).execute()


def slots_of(run):
    return [sample.slot for sample in Sample.select().where(Sample.run_id == run.id).order_by(Sample.slot)]


# --- taking -----------------------------------------------------------------------------------------------------------


def test_a_sample_has_the_counters_of_each_running_run(moved_clock, house):
    # Given two running runs, and three that are not
    counts = {"succeeded_count": 5, "failed_count": 2, "skipped_count": 1, "requests_count": 9}
    waits = {"rate_limit_hits_count": 3, "rate_limit_sleeps_count": 4, "total_sleep_seconds": 7.5}
    first, second = running(**counts, **waits), running("others")
    paused = running("paused")
    runs.move(paused.id, RunStatus.PAUSED, who="test", door="test")
    runs.create("items", lanes=4, created_by="test", door="test")

    # When samples are taken
    assert samples.take(database.now()) == 2

    # Then those that run have one each
    sample = Sample.get(Sample.run_id == first.id)
    assert (sample.succeeded, sample.failed, sample.skipped, sample.requests) == (5, 2, 1, 9)
    assert (sample.hits, sample.sleeps, sample.waiting_seconds, sample.at) == (3, 4, 7.5, clock.now())
    assert Sample.get(Sample.run_id == second.id).succeeded == 0
    assert Sample.select().count() == 2


def test_many_takers_give_a_run_one_row_in_each_slot(house):
    # Given a running run, and four that take samples of it as often as they can
    run = running()
    begin, taken, lock = database.now(), [], threading.Lock()

    def take_all():
        with database.connection():
            for second in range(12):
                count = samples.take(begin + timedelta(seconds=second))
                with lock:
                    taken.append(count)

    threads = [threading.Thread(target=take_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then each slot has one row, and each was counted by its taker alone
    slots = slots_of(run)
    assert slots == list(range(slots[0], slots[0] + len(slots)))
    assert len(slots) == sum(taken) == 6 + (begin.timestamp() % 2 >= 1)


@on_sqlite
def test_where_nothing_runs_nothing_is_written(house, database_url):
    # Given a run that has ended, and another process that holds the database for writing
    run = running()
    runs.move(run.id, RunStatus.CANCELLED, who="test", door="test")
    with database.db.atomic():
        Run.update(lanes=4).where(Run.id == run.id).execute()

        # When a process takes samples meanwhile, then it does not wait for the lock
        counts = []
        taker = threading.Thread(target=lambda: counts.append(_take_elsewhere()))
        taker.start()
        taker.join(5)
        assert counts == [0]


def _take_elsewhere():
    with database.connection():
        return samples.take(database.now())


def test_what_keeps_samples_from_being_taken_is_told_once_and_hurts_nobody(house, caplog):
    # Given a database whose table of samples is away
    running()
    database.db.execute_sql("ALTER TABLE sluice_samples RENAME TO away")
    sampler = Sampler()

    # When it is looked three times, and again when the table is back
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sampler.take()
    database.db.execute_sql("ALTER TABLE away RENAME TO sluice_samples")
    sampler.take()

    # Then
    assert len([r for r in caplog.records if r.name == "workers.engine.sampling"]) == 1
    assert Sample.select().count() == 1


@on_sqlite
def test_a_worker_process_takes_samples(house, import_from):
    import_from("http://127.0.0.1:9")
    run = running()

    worker = subprocess.Popen(
        [sys.executable, "-m", "workers", "worker-process"], cwd=ROOT, env=_environment(), stdin=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: slots_of(run), 30, "a sample")
    finally:
        worker.terminate()
        worker.wait(15)


def _environment():
    url = get_settings().redis_url
    return os.environ | {"PYTHONPATH": f"{ROOT}/tests", "SLUICE_BROKER_URL": url, "SLUICE_WORKER_THREADS": "2"}


# --- thinning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [0, 100_000])
def test_however_long_a_run_lives_it_has_some_five_hundred_samples(house, gaps):
    # Given a run that is sampled for hours, or for days with long pauses in between
    run, chance, slot = running(), random.Random(7), 0
    for _ in range(12):
        begin = slot + (chance.randrange(gaps) if gaps and chance.random() < 0.2 else 0)
        slot = begin + 400
        sampled(run, range(begin, slot))

        # When they are thinned ever again, then they are never too many, nor too few
        before = slots_of(run)
        removed = samples.thin(run.id)
        kept = slots_of(run)
        assert len(kept) == len(before) - removed <= 480
        assert len(kept) >= min(len(before), 200)

        # And the newest two minutes are whole, the older ones spread the wider the older they are
        assert kept[-60:] == before[-60:]
        between = [later - earlier for earlier, later in itertools.pairwise(kept[:-60])]
        assert gaps or between == sorted(between, reverse=True)


def test_taking_thins_by_itself(moved_clock, house):
    # Given a run with more samples than it may keep
    run = running()
    now = int(clock.now().timestamp()) // 2
    sampled(run, range(now - 600, now))

    # When one more minute of samples is taken
    for _ in range(30):
        assert samples.take(database.now()) == 1
        moved_clock.advance(2)

    # Then
    assert len(slots_of(run)) <= 500


def test_samples_go_with_the_items_of_an_old_run(moved_clock, house):
    # Given two runs with 700 samples, one of which ended long ago, and one without any
    old, young, bare = running(), running("others"), running("bare")
    for run, days in ((old, 31), (bare, 31), (young, 29)):
        sampled(run, range(0 if run is bare else 700))
        ended = database.now() - timedelta(days=days)
        Run.update(status=RunStatus.COMPLETED, ended_at=ended).where(Run.id == run.id).execute()

    # When what is old is removed
    pruned = retention.prune(items_days=30, runs_days=365)

    # Then they are gone, and the others are not; nor do they count as items
    assert (len(slots_of(old)), len(slots_of(young)), pruned.items) == (0, 700, 0)
    assert [runs.get(run.id).items_removed_at is None for run in (old, young, bare)] == [False, True, False]


# --- requests ---------------------------------------------------------------------------------------------------------


def test_every_request_is_counted_once_with_its_run(moved_clock, mock_api, import_from):
    # Given an API that fails now and then, and refuses more than is known of it
    server = mock_api(items=50, limits="40/2", faults=(Fault("500", 0.2),), seed=3)
    import_from(server.url, limits=(Limit(50, seconds=2),))

    # When its items are imported, waits and repeated requests included
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    # Then the run counted what the API saw, and has samples that lead up to it
    seen = requests.get(f"{server.url}/stats", timeout=5).json()
    assert run.requests_count == seen["accepted"] + seen["rejected"] > 51
    counted = [sample.requests for sample in Sample.select().order_by(Sample.slot)]
    assert counted == sorted(counted)
    assert len(counted) > 3
    assert 0 < counted[-1] <= run.requests_count


@on_sqlite
def test_a_request_that_never_reached_the_api_is_none(house):
    # Given a connector whose API refuses connections
    connector = Connector("api", base_url="http://127.0.0.1:9", limits=[Limit(5, seconds=20)])
    caller = connector.permit_client()

    with pytest.raises(Exception, match="refuses connections"):
        connector.send(requests.Request("GET", "/"), caller)

    assert caller.take_usage().requests == 0


@on_sqlite
def test_what_could_not_be_written_is_counted_later(house):
    caller = RateLimiter(
        Connector("api", base_url="http://127.0.0.1:9", limits=[Limit(5, seconds=20)]).budget,
        redis_client(get_settings().redis_url),
        prefix=get_settings().prefix,
    ).permit_client()
    caller.answered(caller.acquire(1.0))

    caller.put_back_usage(caller.take_usage())

    assert caller.take_usage().requests == 1
    caller.flush()
