"""Pause and cancel under load: when the call has returned, a lane sends one request at most; nothing comes twice."""

import http.server
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sources import ItemSource
from tests.conftest import ROOT, wait_until
from tests.helpers import hosts
from workers import Connector, InvalidTransition, Limit, settings
from workers.control import runner
from workers.records import claims, runs
from workers.records.tables import RunStatus

LANES = 16
ITEMS = 800
PAUSES = 5
#: So far away that every lane takes eight permits at once.
FAR = "20000/1"


class FastApi(http.server.ThreadingHTTPServer):
    """Items in one list page, each answered after 10 ms; `asked` has each request's instant and id."""

    daemon_threads = True
    request_queue_size = 128  # five, as it comes, are fewer than the lanes that connect at one moment

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[float, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def late(self, instant: float) -> int:
        """How many requests arrived after an instant."""
        return sum(at > instant for at, _ in list(self.asked))

    def times(self) -> Counter[int]:
        """How many items were asked for once, twice, ..."""
        return Counter(Counter(number for _, number in self.asked if number).values())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FastApi

    def do_GET(self) -> None:
        number = self.path.partition("?")[0].removeprefix("/api/items").lstrip("/")
        self.server.asked.append((time.monotonic(), number))
        time.sleep(0.01)
        body: dict[str, Any] = {"id": number, "description": "b", "price": 1}
        if not number:
            body = {"data": [{"id": n, "name": "a"} for n in range(1, ITEMS + 1)], "next_page_url": None}
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fast_api() -> Iterator[FastApi]:
    server = FastApi()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def api(house: pytest.MonkeyPatch, redis_server: str, tmp_path: Path) -> Iterator[FastApi]:
    """A fast API far from its limits, and two worker processes of eight threads, whose runs this process can steer."""
    house.setenv("SLUICE_BROKER_URL", redis_server)
    house.setenv("SLUICE_SOURCES", "benchmarks.sources:SOURCES")
    with fast_api() as server, (tmp_path / "worker.log").open("wb") as log:
        its_own = {"PYTHONPATH": str(ROOT), "DEMO_API_URL": server.url, "BENCH_LIMITS": FAR}
        command = [sys.executable, "-m", "workers", "worker"]
        workers = subprocess.Popen(command, cwd=tmp_path, env=os.environ | its_own, stdout=log, stderr=log)
        house.setenv("SLUICE_SOURCES", "tests.helpers.hosts:SOURCES")
        connector = Connector("benchmark", base_url=server.url, limits=[Limit(20_000, seconds=1)])
        hosts.SOURCES[:] = [type("Source", (ItemSource,), {"connector": connector})()]
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
