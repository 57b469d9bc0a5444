"""Pause and cancel under load: when the call has returned, a lane sends one request at most; nothing comes twice."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sources import ItemSource
from tests.helpers import registered_sources
from tests.helpers.machine import ROOT, wait_until
from workers import Connector, InvalidTransition, Limit, settings, testing
from workers.control import runner
from workers.records import claims, runs
from workers.records.tables import RunStatus

LANES = 16
ITEMS = 800
PAUSES = 5
#: So far away that every lane takes eight permits at once.
FAR = "20000/1"


class FastApi:
    """Items in one list page, each answered after 10 ms; `asked` has each request's instant and id."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.url = ""

    def answer(self, request: testing.Request) -> object:
        number = request.path.removeprefix("/api/items").lstrip("/")
        self.asked.append((time.monotonic(), number))
        time.sleep(0.01)
        if number:
            return {"id": number, "description": "b", "price": 1}
        return {"data": [{"id": n, "name": "a"} for n in range(1, ITEMS + 1)], "next_page_url": None}

    def late(self, instant: float) -> int:
        """How many requests arrived after an instant."""
        return sum(at > instant for at, _ in list(self.asked))

    def times(self) -> Counter[int]:
        """How many items were asked for once, twice, ..."""
        return Counter(Counter(number for _, number in self.asked if number).values())


@contextmanager
def fast_api() -> Iterator[FastApi]:
    api = FastApi()
    with testing.api(api.answer) as server:
        api.url = server.url
        yield api


@pytest.fixture
def api(house: pytest.MonkeyPatch, redis_server: str, tmp_path: Path) -> Iterator[FastApi]:
    """A fast API far from its limits, and two worker processes of eight threads, whose runs this process can steer."""
    house.setenv("SLUICE_BROKER_URL", redis_server)
    house.setenv("SLUICE_SOURCES", "benchmarks.sources:SOURCES")
    with fast_api() as server, (tmp_path / "worker.log").open("wb") as log:
        its_own = {"PYTHONPATH": str(ROOT), "DEMO_API_URL": server.url, "BENCH_LIMITS": FAR}
        command = [sys.executable, "-m", "workers", "worker"]
        workers = subprocess.Popen(command, cwd=tmp_path, env=os.environ | its_own, stdout=log, stderr=log)
        house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
        connector = Connector("benchmark", base_url=server.url, limits=[Limit(20_000, seconds=1)])
        registered_sources.SOURCES[:] = [type("Source", (ItemSource,), {"connector": connector})()]
        settings.get_settings.cache_clear()
        yield server
        workers.terminate()
        workers.wait(20)


def start() -> int:
    run = runner.start("items", who="ann", door="test")
    wait_until(lambda: runs.get(run.id).succeeded_count > 0, 20, "the first items are in")
    return run.id


def late_requests(api: FastApi, run_id: int, stop: Callable[..., None]) -> int:
    """Stop a run; count the requests that arrived after the call had returned, when no item is processed any more."""
    stop(run_id, who="ann", door="test")
    returned_at = time.monotonic()
    wait_until(lambda: not claims.has_any(run_id), 10, "every lane has stopped")
    return api.late(returned_at)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # it is about requests: Postgres adds only seconds
def test_after_pause_and_cancel_have_returned_a_lane_sends_one_request_at_most_and_nothing_is_fetched_twice(api):
    # Given a run of sixteen lanes at full speed
    luck = random.Random(5)
    run_id = start()

    # When it is paused at random instants, and resumed, until it has come to its end
    late: list[int] = []
    while len(late) < PAUSES:
        time.sleep(luck.uniform(0.0, 0.1))
        try:
            late.append(late_requests(api, run_id, runner.pause))
        except InvalidTransition:  # a machine that stalls here does not stop the workers
            break
        runner.resume(run_id, who="ann", door="test")

    # Then no lane sent more than one request after a call had returned
    assert late
    assert max(late) <= LANES

    # And at the end each item was asked for once
    wait_until(lambda: runs.get(run_id).status == RunStatus.COMPLETED, 30, "the run completes")
    assert api.times() == {1: ITEMS}
    assert runs.get(run_id).succeeded_count == ITEMS

    # When another one is cancelled, then it stops as soon, and what was asked for is counted
    api.asked.clear()
    run_id = start()
    assert late_requests(api, run_id, runner.cancel) <= LANES
    assert api.times() == {1: runs.get(run_id).succeeded_count}
    print(f"late requests of {len(late)} pauses: {late}")
