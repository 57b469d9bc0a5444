"""Measure a fleet against an API that misbehaves as real ones do: python benchmarks/habits.py [CASE ...]

Every case starts an API that has one habit, and a fleet of real processes, and ends within two minutes.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fleet import Fleet
from benchmarks.floor import floor_seconds
from mock_server import Window
from workers import testing

Answer = tuple[int, dict[str, str]]
WELL: Answer = (200, {})


@dataclass
class Api:
    """An API with a habit.

    Attributes:
      items: How many it has.
      habit: Called with the path, the number of requests so far and the seconds since the first one, for each request.
      asked: Each request: when, its path, what it was answered.
      url: Where it is.
    """

    items: int
    habit: Callable[[str, int, float], Answer] = lambda path, number, at: WELL
    asked: list[tuple[float, str, int]] = field(default_factory=list)
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: testing.Request) -> testing.Response:
        path, query = request.path, request.query
        with self._lock:
            now = time.monotonic()
            began = self.asked[0][0] if self.asked else now
            status, headers = self.habit(path, len(self.asked) + 1, now - began)
            self.asked.append((now, path, status))
        if status != 200:
            return testing.Response(status, {"message": "not now"}, headers)
        if path[-1].isdigit():
            return testing.Response(status, self._item(path), headers)
        return testing.Response(status, self._page(int(query["page"]), int(query["perPage"])), headers)

    def _page(self, page: int, per_page: int) -> dict[str, Any]:
        ids = range((page - 1) * per_page + 1, min(page * per_page, self.items) + 1)
        listed = [{"id": n, "name": f"item {n}"} for n in ids]
        following = "next" if page * per_page < self.items else None
        return {"data": listed, "current_page": page, "total": self.items, "next_page_url": following}

    def _item(self, path: str) -> dict[str, Any]:
        return {"id": int(path.rpartition("/")[2]), "description": "a thing", "price": "1.00"}

    def span(self) -> float:
        return self.asked[-1][0] - self.asked[0][0]

    def refused(self) -> int:
        return sum(status != 200 for _, _, status in self.asked)


@contextmanager
def serving(api: Api) -> Iterator[Api]:
    with testing.api(api.answer) as server:
        api.url = server.url
        yield api


@contextmanager
def fleet(api: Api, limits: str, **settings: str) -> Iterator[Fleet]:
    """A fleet that imports from an API, configured with these limits."""
    variables = {"DEMO_API_URL": api.url, "SLUICE_SOURCES": "benchmarks.habit_sources:SOURCES"}
    with Fleet(items=1, limits="1000/1", client_limits=limits, settings=variables | settings) as started:
        yield started


@dataclass
class Result:
    """What a case came to: what was measured, as text, and whether that is within the bound."""

    measured: str
    kept: bool


# --- the cases


def one_item_refused(status: int) -> Result:
    """39 of 40 done and one failed; another source on the budget takes 1.2 times as long at most."""
    alone, _ = _beside_forty(lambda path, number, at: WELL)
    with_it, came = _beside_forty(
        lambda path, number, at: (status, {"Retry-After": "1"}) if path.endswith("/items/7") else WELL
    )
    kept = came == {"completed": 39, "rate_limited": 1} and with_it <= 1.2 * alone
    return Result(f"{with_it:.1f} s beside it, {alone:.1f} s without; of forty {came}", kept)


def _beside_forty(habit: Callable[[str, int, float], Answer]) -> tuple[float, dict[str, int]]:
    """Return how long a source of 1,100 items takes beside one of forty, and what came of the forty."""
    api = Api(1_140, habit)
    with serving(api), fleet(api, "50/1") as started:
        forty, beside = started.start_run("forty"), started.start_run("beside")
        begun = time.monotonic()
        started.wait_for_run(beside, 100, every=0.1)
        seconds = time.monotonic() - begun
        started.wait_for_run(forty, 60)
        found = started.query(
            f"SELECT coalesce(failure_class, status), count(*) FROM sluice_run_items WHERE run_id = {forty} "
            f"AND status IN ('completed', 'failed') GROUP BY 1"
        )
    return seconds, dict(found)


def forbidden_for_a_while() -> Result:
    """403 with Retry-After for 3 s: all done, one refusal a lane at most."""

    def habit(path: str, number: int, at: float) -> Answer:
        return (403, {"Retry-After": "3"}) if 1 < at < 4 else WELL

    api = Api(300, habit)
    with serving(api), fleet(api, "100/1") as started:
        row = started.wait_for_run(started.start_run(), 60)
    return Result(f"{row.succeeded} done, {api.refused()} refused", row.succeeded == 300 and api.refused() <= 16)


def one_stray_429() -> Result:
    """One 429 without a header on 100 in 10 s and 2,000 a day: within 1.2 of the floor."""
    api = Api(396, lambda path, number, at: (429, {}) if number == 250 else WELL)
    with serving(api), fleet(api, "100/10,2000/86400") as started:
        row = started.wait_for_run(started.start_run(), 110)
    floor = floor_seconds([Window(100, 10.0), Window(2000, 86_400.0)], len(api.asked))
    return Result(f"{api.span():.1f} s, floor {floor:.1f} s", row.succeeded == 396 and api.span() <= 1.2 * floor)


def the_longest_pause() -> Result:
    """Retry-After equal to the longest pause: waited out automatically."""
    begun: list[float] = []

    def habit(path: str, number: int, at: float) -> Answer:
        if number == 50:
            begun.append(at)
        return (429, {"Retry-After": "10"}) if begun and at < begun[0] + 10 else WELL

    api = Api(200, habit)
    with serving(api), fleet(api, "100/1", SLUICE_LONGEST_PAUSE_SECONDS="10") as started:
        row = started.wait_for_run(started.start_run(), 60)
    return Result(
        f"{row.status}, {row.succeeded} done, {api.refused()} refused, {api.span():.1f} s", row.succeeded == 200
    )


def a_renewed_penalty() -> Result:
    """A penalty of 10 s that each try renews: left automatically."""
    until: list[float] = [0.0]

    def habit(path: str, number: int, at: float) -> Answer:
        if number == 50 or at < until[0]:
            until[0] = at + 10
        return (429, {}) if at < until[0] else WELL

    api = Api(100, habit)
    with serving(api), fleet(api, "5/1") as started:
        row = started.wait_for_run(started.start_run(), 110)
    return Result(f"{row.succeeded} done, {api.refused()} refused, {api.span():.1f} s", row.succeeded == 100)


def relearn_wakes() -> Result:
    """`budgets NAME --relearn` under a sleeping run: its next request within 2 s."""
    named = {"RateLimit-Policy": '"a";q=5;w=86400', "RateLimit": '"a";r=0;t=86000'}
    api = Api(300, lambda path, number, at: (200, named if number < 40 else {}))
    with serving(api), fleet(api, "100/1,20000/86400") as started:
        run = started.start_run()
        quiet = time.monotonic() + 60
        while time.monotonic() < quiet and not (api.asked and time.monotonic() - api.asked[-1][0] > 5):
            time.sleep(0.1)
        before, why = len(api.asked), json.loads(started.command("status", str(run), "--json"))
        started.command("budgets", "benchmark", "--relearn")
        relearned_at = time.monotonic()
        while len(api.asked) == before and time.monotonic() < relearned_at + 20:
            time.sleep(0.01)
        after = api.asked[before][0] - relearned_at if len(api.asked) > before else 20.0
        why = json.loads(started.command("status", str(run), "--json"))
    return Result(
        f"slept after {before} requests; the next {after:.2f} s after relearn ({why['status']})", after <= 2.0
    )


def killed_among_many() -> Result:
    """kill -9 with 1,200 delayed messages waiting: another run moves again within 26 s, as documented."""
    api = Api(700)
    with serving(api), fleet(api, "10/1", SLUICE_LANE_LEASE_SECONDS="20") as started:
        for tenant in range(75):
            started.command("run", "daily", "--tenant", f"t{tenant}")
        run = started.start_run()
        started.wait_until(lambda: started.run_row(run).succeeded > 50, 60, "the run is at work")
        waiting = started.query("SELECT count(*) FROM sluice_lanes WHERE due_at IS NOT NULL")[0][0]
        for _ in started.worker_children():
            started.kill_worker_child()
        killed, before = time.monotonic(), len(api.asked)
        while len(api.asked) < before + 20 and time.monotonic() < killed + 60:  # more than those that were under way
            time.sleep(0.05)
        seconds = time.monotonic() - killed
    return Result(f"{waiting} lanes; 20 more requests after {seconds:.1f} s", waiting >= 1200 and seconds <= 26)


CASES: dict[str, Callable[[], Result]] = {
    "503-item": lambda: one_item_refused(503),
    "429-item": lambda: one_item_refused(429),
    "403-for-3-s": forbidden_for_a_while,
    "stray-429": one_stray_429,
    "longest-pause": the_longest_pause,
    "renewed-penalty": a_renewed_penalty,
    "relearn": relearn_wakes,
    "killed": killed_among_many,
}


def main(names: list[str]) -> int:
    unknown = set(names) - CASES.keys()
    if unknown:
        print(f"no such case: {', '.join(sorted(unknown))}. Cases: {', '.join(CASES)}", file=sys.stderr)
        return 2
    missed = 0
    for name in names or CASES:
        begun = time.monotonic()
        result = CASES[name]()
        missed += not result.kept
        took = time.monotonic() - begun
        print(f"{name:16} {'kept' if result.kept else 'MISSED':7} {took:6.1f} s  {result.measured}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
