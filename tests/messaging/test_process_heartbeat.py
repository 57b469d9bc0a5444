"""Presence: which processes live, and which were missed, by Redis's own clock."""

import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker

from tests.helpers.machine import free_port, wait_until
from workers import clock, settings
from workers.messaging import process_heartbeat
from workers.processes.worker import InWork

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
pytestmark = ON_ONE_DATABASE


@pytest.fixture
def client(house, redis_server):
    with redis.Redis.from_url(redis_server) as client:
        yield client


def prefix() -> str:
    return os.environ["SLUICE_PREFIX"]


def test_a_process_is_there_while_it_works_and_says_how_much_of_it_is_busy(house):
    # Given
    with process_heartbeat.present("worker", threads=8, busy=lambda: 3):
        wait_until(process_heartbeat.processes)

        # Then
        (worker,) = process_heartbeat.processes()
        assert (worker.kind, worker.pid, worker.threads, worker.busy_lanes) == ("worker", os.getpid(), 8, 3)
        assert worker.alive
        assert abs(worker.seen - worker.since) < timedelta(seconds=2)

    # When it leaves in order
    assert process_heartbeat.processes() == ()


def test_a_killed_process_is_missed_for_a_while_and_then_forgotten(house, moved_clock):
    # Given one that leaves no word any more
    heartbeat = process_heartbeat.Heartbeat("scheduler")
    heartbeat.write()

    # When, Then
    moved_clock.advance(process_heartbeat.GONE_SECONDS - 1)
    assert [process.alive for process in process_heartbeat.processes()] == [True]
    moved_clock.advance(2)
    (gone,) = process_heartbeat.processes()
    assert not gone.alive
    assert round((clock.now() - gone.seen).total_seconds()) == process_heartbeat.GONE_SECONDS + 1
    moved_clock.advance(process_heartbeat.REMEMBERED_SECONDS)
    assert process_heartbeat.processes() == ()


def test_kill_9_of_a_process_leaves_the_word_that_it_was_there(house, client):
    # Given
    code = (
        "import time; from workers.messaging.process_heartbeat import present\nwith present('monitor'): time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_until(process_heartbeat.processes, what="its word")

        # When
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(10)

    # Then: it is remembered, and its successor is another process though its pid may come again
    (killed,) = process_heartbeat.processes()
    assert (killed.kind, killed.pid) == ("monitor", process.pid)
    assert 0 < client.ttl(f"{prefix()}:processes") <= process_heartbeat.REMEMBERED_SECONDS


def test_it_began_when_it_began_whatever_redis_forgets(house, client, moved_clock):
    # Given
    heartbeat = process_heartbeat.Heartbeat("worker", threads=4)
    moved_clock.advance(3)
    heartbeat.write()
    (before,) = process_heartbeat.processes()

    # When
    moved_clock.advance(60)
    moved_clock.step(-1)  # clocks are set
    client.delete(f"{prefix()}:processes", f"{prefix()}:processes:seen")
    heartbeat.write()

    # Then
    (after,) = process_heartbeat.processes()
    assert after.since == before.since == before.seen - timedelta(seconds=3)
    assert after.seen == before.seen + timedelta(seconds=59)


def test_the_hosts_clock_does_not_matter(house):
    # Given a host whose clock is a day behind: Redis says what time it is
    class Behind(clock.Clock):
        def now(self):
            return super().now() - timedelta(days=1)

    clock.use(Behind())
    process_heartbeat.Heartbeat("worker").write()

    # Then
    clock.use(clock.Clock())
    (worker,) = process_heartbeat.processes()
    assert worker.alive
    assert abs(clock.now() - worker.seen) < timedelta(seconds=10)


def test_what_is_kept_is_bounded(house, client):
    # Given as many processes as are remembered, and one more
    others = [f"other-{number}" for number in range(process_heartbeat._MOST)]
    client.zadd(f"{prefix()}:processes:seen", dict.fromkeys(others, client.time()[0] - 10))
    client.hset(f"{prefix()}:processes", mapping=dict.fromkeys(others, ""))
    process_heartbeat.Heartbeat("worker").write()

    # Then
    assert client.zcard(f"{prefix()}:processes:seen") == client.hlen(f"{prefix()}:processes") == process_heartbeat._MOST
    assert [process.kind for process in process_heartbeat.processes()] == ["worker"]


@pytest.mark.parametrize(
    "said", [b"", b"\xff\xfe", b"1 []", b"x {}", b'1 {"kind": "root"}', b'1e400 {"kind": "worker"}']
)
def test_what_somebody_else_wrote_there_is_left_out(house, client, said):
    # Given
    process_heartbeat.Heartbeat("worker", threads=2).write()
    client.zadd(f"{prefix()}:processes:seen", {"theirs": 2_000_000_000, "absent": 2_000_000_000})
    client.hset(f"{prefix()}:processes", "theirs", said)

    # Then
    assert [process.threads for process in process_heartbeat.processes()] == [2]


def test_a_worker_process_leaves_word_while_it_runs_and_takes_it_back(house):
    # Given
    worker = subprocess.Popen([sys.executable, "-m", "workers", "worker-process"], stdin=subprocess.DEVNULL)
    try:
        wait_until(process_heartbeat.processes, what="its word")
        (alive,) = process_heartbeat.processes()
        assert (alive.kind, alive.pid, alive.threads, alive.busy_lanes) == ("worker", worker.pid, 8, 0)
        assert alive.sources == ("items",)

        # When
        worker.terminate()
        worker.wait(10)
    finally:
        worker.kill()

    # Then
    assert process_heartbeat.processes() == ()


def test_what_a_worker_has_in_work_is_counted_while_it_is(house):
    # Given a worker, and a message that takes its time
    broker, in_work, go_on = StubBroker(), InWork(), threading.Event()
    broker.add_middleware(in_work)
    slow = dramatiq.actor(lambda: go_on.wait(10) and None, broker=broker, actor_name="slow", max_retries=0)
    worker = dramatiq.Worker(broker, worker_threads=2, worker_timeout=50)
    worker.start()
    try:
        # Then
        assert in_work.count() == 0
        slow.send()
        wait_until(lambda: in_work.count() == 1)
        go_on.set()
        wait_until(lambda: in_work.count() == 0)
    finally:
        worker.stop()


def test_where_redis_is_away_nobody_is_kept_waiting_and_who_asks_is_told(house):
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    settings.get_settings.cache_clear()

    with process_heartbeat.present("worker"):
        pass
    with pytest.raises(redis.ConnectionError):
        process_heartbeat.processes()
