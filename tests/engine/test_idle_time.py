"""Idle time: time without a worker, Redis or a database is not part of a run's active time."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis

from workers import clock
from workers.connections import outages
from workers.connections.redis_errors import trouble
from workers.control import runner
from workers.engine import idle_time
from workers.engine.sampling import Sampler
from workers.records import runs
from workers.records.tables import Run, RunStatus
from workers.reports import run_stats

ME: dict[str, Any] = {"who": "me", "door": "test"}


@pytest.fixture
def run(import_from: Callable[..., Any], moved_clock: clock.MovedClock) -> Run:
    import_from("http://127.0.0.1:1")
    return runner.start("items", send=False, **ME)


def work(moved: clock.MovedClock, seconds: int, *samplers: Sampler) -> None:
    """Let time pass in which processes take samples."""
    for _ in range(seconds // 2):
        moved.advance(2)
        for sampler in samplers:
            sampler.take()


def spent(run: Run) -> tuple[int, int, int]:
    one = run_stats.run_stats(runs.get(run.id))
    return round(one.active_seconds), round(one.idle_seconds), round(one.held_seconds)


def test_time_without_a_worker_is_idle_while_it_lasts_and_after(run: Run, moved_clock: clock.MovedClock) -> None:
    one, other = Sampler(adds_idle_time=True), Sampler(adds_idle_time=True)
    work(moved_clock, 60, one, other)
    before = spent(run)
    moved_clock.advance(100)
    meanwhile = spent(run)
    work(moved_clock, 40, one, other)

    assert before == (60, 0, 0)
    assert meanwhile[0] == pytest.approx(60, abs=3) and meanwhile[1] == pytest.approx(100, abs=3)
    after = spent(run)
    assert after[0] == pytest.approx(100, abs=5) and after[1] == pytest.approx(100, abs=5)
    assert sum(after) == 200


def test_a_pause_by_a_person_is_not_idle_time(run: Run, moved_clock: clock.MovedClock) -> None:
    sampler = Sampler(adds_idle_time=True)
    work(moved_clock, 20, sampler)
    runs.move(run.id, RunStatus.PAUSED, **ME)
    moved_clock.advance(300)
    runs.resume(run.id, **ME)
    work(moved_clock, 20, sampler)

    assert spent(run) == (40, 0, 300)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_time_without_redis_is_idle(run: Run, moved_clock: clock.MovedClock) -> None:
    sampler = Sampler(adds_idle_time=True)
    work(moved_clock, 20, sampler)
    outages._redis.met(trouble(redis.ConnectionError("refused")))
    work(moved_clock, 30, sampler)
    outages._redis.over()
    work(moved_clock, 20, sampler)

    assert spent(run) == (40, 30, 0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_inline_run_that_sleeps_between_two_samples_adds_none(run: Run, moved_clock: clock.MovedClock) -> None:
    sampler = Sampler()
    for _ in range(5):
        moved_clock.advance(25)
        sampler.take()

    assert runs.get(run.id).idle_seconds == 0.0
    assert idle_time.silent_since(clock.now()) == {}
    assert spent(run)[0] == 125
    assert idle_time.silent_since(clock.now() + timedelta(seconds=30)).keys() == {run.id}
