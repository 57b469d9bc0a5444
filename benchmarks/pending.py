"""Measure a run of very many items while they are pending: python benchmarks/pending.py --help. From any folder."""

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not benchmarks/, whose sources.py is not the demo's

import click
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet, FleetError
from benchmarks.measure import Check

_MB = 1_000_000
_REDIS_MB = 5.0
_REAPER_MS = 100.0
#: Memory is taken and given back in lumps: what is less than this is no growth.
_GROWTH_PERCENT = 5.0
#: Parts of the run: its begin is left out, for processes fill their caches; and its end, where lanes run out of items.
_FIRST, _LAST = (0.02, 0.12), (0.89, 0.99)
#: Where in the run a fresh process times the reaper: what it looks for is rare at the begin, and again at the end.
_LOOKS = (0.0, 0.5, 0.97)
_PASSES = 20
_LEAST_PER_SECOND = 20
_SAY_SECONDS = 10.0
_WIDTH = 118

#: Run in a process of its own, as the scheduler's: the first pass of each kind, which connects, is not counted.
_TIME_PASSES = f"""
import json, sys, time
from workers.connections import database; from workers.records import claims; from workers.engine import reaper

run_id, took = int(sys.argv[1]), {{"reaper": [], "claim": []}}

def timed(name, do):
    began = time.perf_counter()
    result = do()
    took[name].append(time.perf_counter() - began)
    return result

with database.connection():
    for _ in range({_PASSES + 1}):
        timed("reaper", reaper.reap)
        claim = timed("claim", lambda: claims.claim(run_id, 25, 60.0))
        claims.give_back(claim, claim.items)
        time.sleep(0.02)
print(json.dumps({{name: seconds[1:] for name, seconds in took.items()}}))
"""


@dataclass(frozen=True)
class Sample:
    """One look at the fleet."""

    at: float
    done: int
    redis_bytes: int
    resident_bytes: dict[int, int]


@dataclass
class Course:
    """What was seen of a run.

    Attributes:
      passes: Seconds of each pass, by the share of the run that was done, and by what was timed.
    """

    items: int
    samples: list[Sample] = field(default_factory=list)
    passes: dict[float, dict[str, list[float]]] = field(default_factory=dict)

    def part(self, bounds: tuple[float, float]) -> list[Sample]:
        """Return the samples of a part of the run."""
        first, last = (share * self.items for share in bounds)
        return [sample for sample in self.samples if first <= sample.done <= last]

    def resident(self, process: int, bounds: tuple[float, float]) -> float:
        """Return the mean resident memory of a process in a part of the run, in MB."""
        return statistics.fmean(sample.resident_bytes[process] for sample in self.part(bounds)) / _MB

    def per_second(self, bounds: tuple[float, float]) -> float:
        """Return how many items were done each second in a part of the run."""
        samples = self.part(bounds)
        return (samples[-1].done - samples[0].done) / (samples[-1].at - samples[0].at)

    @property
    def steady(self) -> list[int]:
        """The worker processes that were there from the first look to the last."""
        seen = [set(sample.resident_bytes) for sample in self.samples]
        return sorted(set.intersection(*seen))


def _postgresql_only(context: click.Context, option: click.Parameter, url: str) -> str:
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise click.BadParameter("give a postgresql:// URL; without one, an SQLite file is made")
    return url


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--items", default=100_000, show_default=True, type=click.IntRange(2_000), help="How many items.")
@click.option("--database", default="", metavar="URL", callback=_postgresql_only,
              help="A PostgreSQL server; default: an SQLite file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
@click.option("--keep", is_flag=True, help="Keep the fleet's folder, with its logs.")
def main(items: int, database: str, as_json: bool, keep: bool) -> None:
    """Import very many items under limits that do not bind, and watch Redis, the workers' memory and the reaper.

    Exit codes: 0 every bound was kept, 1 one was missed, 2 usage, 3 the fleet did not come up, or the run did not end.
    """
    signal.signal(signal.SIGTERM, _leave)
    # The source of very many leaves one item out.
    fleet = Fleet(items=items + 1, limits="100000/1", mock_options=["--threads", "64"], database=database, keep=keep)
    try:
        with fleet:
            course = follow(fleet, items)
            checks = check(course)
            fleet.keep |= not all(one.holds for one in checks)
    except FleetError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(3)
    if as_json:
        found = [asdict(one) | {"holds": one.holds} for one in checks]
        print(json.dumps({"checks": found, "facts": facts(course)}, indent=2))
    else:
        _print(course, checks, "Postgres" if database else "SQLite")
    if fleet.keep:
        print(f"the logs are in {fleet.folder}", file=sys.stderr)
    sys.exit(not all(one.holds for one in checks))


# --- the run


def follow(fleet: Fleet, items: int) -> Course:
    """Import `items` items, and look at the fleet once a second.

    Raises:
      FleetError: The run did not end in time, or not as it should.
    """
    course, say = Course(items), Progress(items)
    run_id = fleet.start_run("many")
    is_listed = "SELECT count(*) FROM sluice_runs WHERE discovered_at IS NOT NULL"
    fleet.wait_until(lambda: fleet.query(is_listed)[0][0], 60 + items / 500, "the list is in")
    ends_at = time.monotonic() + items / _LEAST_PER_SECOND
    looks, timing = list(_LOOKS), None
    while True:
        run = fleet.run_row(run_id)
        course.samples.append(_look(fleet, run.succeeded))
        say(course.samples)
        if run.ended or time.monotonic() > ends_at:
            break
        if timing and timing.ended:
            course.passes[timing.share] = timing.result()
            timing = None
        if looks and not timing and run.succeeded >= looks[0] * items:
            timing = Timing(fleet, run_id, looks.pop(0))
        fleet.check_alive()
        time.sleep(min(1.0, items / 20_000))
    if timing:
        course.passes[timing.share] = timing.result()
    if run.status != "completed" or run.succeeded != items:
        raise FleetError(f"run {run_id} is {run.status}, with {run.succeeded:,} of {items:,} items; {fleet.folder}")
    return course


class Timing:
    """A fresh process that times reaper passes and claims, while the fleet works and is looked at."""

    def __init__(self, fleet: Fleet, run_id: int, share: float) -> None:
        self.share = share
        line = [sys.executable, "-c", _TIME_PASSES, str(run_id)]
        self._process = subprocess.Popen(
            line, cwd=fleet.folder, env=fleet.environment, stdout=subprocess.PIPE, text=True
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def result(self) -> dict[str, list[float]]:
        """Wait for it, and return the seconds of each pass by what was timed.

        Raises:
          FleetError: It failed; its last words are on stderr.
        """
        said, _ = self._process.communicate(timeout=120)
        if self._process.returncode:
            raise FleetError("the process that times the reaper failed")
        passes: dict[str, list[float]] = json.loads(said)
        return passes


def _look(fleet: Fleet, done: int) -> Sample:
    with redis.Redis.from_url(fleet.redis_url, socket_timeout=5) as client:
        memory = client.info("memory")
    used = memory["used_memory"] - memory["used_memory_startup"]
    return Sample(time.monotonic(), done, used, {child: _resident(child) for child in fleet.worker_children()})


def _resident(process: int) -> int:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- what is made of it


def check(course: Course) -> list[Check]:
    """Set what was seen beside its bounds."""
    first = course.samples[0]
    checks = [
        Check("Redis at first, MB", round(first.redis_bytes / _MB, 2), "≤", _REDIS_MB),
        Check(
            "Redis at most, MB", round(max(sample.redis_bytes for sample in course.samples) / _MB, 2), "≤", _REDIS_MB
        ),
        Check("worker processes replaced", len(first.resident_bytes) - len(course.steady), "=", 0),
    ]
    for number, process in enumerate(course.steady, 1):
        before, after = course.resident(process, _FIRST), course.resident(process, _LAST)
        name = f"growth of worker {number}, {before:.1f} to {after:.1f} MB, %"
        checks.append(Check(name, round(100 * (after / before - 1), 2), "≤", _GROWTH_PERCENT))
    for share, passes in course.passes.items():
        median = round(1000 * statistics.median(passes["reaper"]), 2)
        checks.append(Check(f"median reaper pass at {share:.0%} of the run, ms", median, "≤", _REAPER_MS))
    return checks


def facts(course: Course) -> dict[str, Any]:
    """Return the figures that have no bound."""
    return {
        "items": course.items,
        "seconds": round(course.samples[-1].at - course.samples[0].at, 1),
        "pending_at_first": course.items - course.samples[0].done,
        "items_per_second_first_tenth": round(course.per_second(_FIRST), 1),
        "items_per_second_last_tenth": round(course.per_second(_LAST), 1),
        "passes_seconds": {
            f"{share:.0%}": {name: _spread(seconds) for name, seconds in passes.items()}
            for share, passes in course.passes.items()
        },
        "load_average_after": os.getloadavg()[0],
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    of: dict[str, Callable[[list[float]], float]] = {"min": min, "median": statistics.median, "max": max}
    return {name: round(measure(seconds), 4) for name, measure in of.items()}


class Progress:
    """A line every ten seconds, on stderr."""

    def __init__(self, items: int) -> None:
        self._items = items
        self._said_at = float("-inf")

    def __call__(self, samples: list[Sample]) -> None:
        now = samples[-1]
        if now.at - self._said_at < _SAY_SECONDS:
            return
        self._said_at = now.at
        resident = ", ".join(f"{size / _MB:.1f}" for size in now.resident_bytes.values())
        print(
            f"{now.done:,} of {self._items:,} items; Redis {now.redis_bytes / _MB:.2f} MB, workers {resident} MB",
            file=sys.stderr,
            flush=True,
        )


def _print(course: Course, checks: list[Check], database: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}"
    table = Table("figure", "measured and bound", "", title=f"{course.items:,} items, {database}, {machine}")
    for one in checks:
        table.add_row(one.name, str(one), "[green]kept[/]" if one.holds else "[red]missed[/]")
    console.print(table)
    found = facts(course)
    for share, passes in found["passes_seconds"].items():
        for name, spread in passes.items():
            medians = ", ".join(f"{word} {1000 * seconds:.1f} ms" for word, seconds in spread.items())
            print(f"{name}, at {share} of the run, {_PASSES} times: {medians}")
    print(
        f"{found['items_per_second_first_tenth']:,.0f} items/s in the first tenth, "
        f"{found['items_per_second_last_tenth']:,.0f} in the last; {found['seconds']:,.0f} s in all; "
        f"{found['pending_at_first']:,} were pending at the first look"
    )


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
