"""Measure how long workers take from SIGTERM to the exit: python benchmarks/drain.py --help. From any folder."""

import json
import os
import platform
import signal
import statistics
import sys
import time
from dataclasses import asdict, dataclass
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

LANES = 16
_DRAIN_SECONDS = 10.0
_HONCHO_SECONDS = 4.0
_READY_SECONDS = 90.0
#: How long the window stays closed: all lanes sleep in their threads, the longest sleep that is allowed.
_WINDOW_SECONDS = 30
_ITEMS = 1_000
_WIDTH = 118


@dataclass(frozen=True)
class Stop:
    """One stop.

    Attributes:
      seconds: From the signal to the exit of the supervisor.
      code: Its exit code.
      claimed: Items that were still claimed then.
      attempts: The most attempts that a pending item had spent.
      messages: Messages still in the hands of processes that have ended.
      left: Processes that outlived the supervisor.
    """

    seconds: float
    code: int
    claimed: int
    attempts: int
    messages: int
    left: int


class StoppableFleet(Fleet):
    """A fleet whose workers are stopped and started again.

    Parameters:
      honcho: The whole group is signalled, and the supervisor passes it on; else the supervisor alone, as by systemd.
      in_flight: Lanes have requests in flight that take longer than the drain; else they wait for a window.
    """

    def __init__(self, *, honcho: bool, in_flight: bool, database: str = "") -> None:
        self.honcho = honcho
        self._old_claims: set[Any] = set()
        self.bound_seconds = _HONCHO_SECONDS if honcho else _DRAIN_SECONDS
        settings = {"SLUICE_MAX_WAIT_SECONDS": str(_WINDOW_SECONDS), "SLUICE_LANES": str(LANES)}
        if honcho:
            settings["HONCHO_PROCESS_NAME"] = "worker.1"
        super().__init__(
            items=_ITEMS,
            limits="500/1" if in_flight else f"60/{_WINDOW_SECONDS}",
            mock_options=["--latency", f"{self.bound_seconds + 2:g}", "--threads", "128"] if in_flight else [],
            settings=settings,
            database=database,
        )

    def claimed(self) -> int:
        """Return how many items are claimed."""
        return int(self.query("SELECT count(*) FROM sluice_run_items WHERE status = 'processing'")[0][0])

    def lanes_at_work(self) -> int:
        """Return how many lanes hold a claim, beside those of processes that have ended: they wait, or ask."""
        return len(self._claims() - self._old_claims)

    def stop_workers(self) -> Stop:
        """Signal the workers, and see what has become of everything when they have ended."""
        children = self.worker_children()
        worker = self._started.pop("worker")
        began = time.monotonic()
        if self.honcho:
            os.killpg(worker.pid, signal.SIGTERM)
        else:
            worker.terminate()
        code = worker.wait(3 * self.bound_seconds)
        seconds = time.monotonic() - began
        self._old_claims = self._claims()
        left = sum(Path(f"/proc/{child}").exists() for child in children)
        spent = self.query("SELECT coalesce(max(attempts), 0) FROM sluice_run_items WHERE status = 'pending'")
        return Stop(seconds, code, self.claimed(), int(spent[0][0]), self._messages_held(), left)

    def _claims(self) -> set[Any]:
        rows = self.query("SELECT due_at FROM sluice_run_items WHERE status = 'processing' GROUP BY 1")
        return {due_at for (due_at,) in rows}

    def _messages_held(self) -> int:
        with redis.Redis.from_url(self.redis_url, socket_timeout=2) as client:
            return sum(int(client.scard(key)) for key in client.keys("sluice:queue:__acks__*"))


def _postgresql_only(context: click.Context, option: click.Parameter, url: str) -> str:
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise click.BadParameter("give a postgresql:// URL; without one, an SQLite file is made")
    return url


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--times", default=20, show_default=True, type=click.IntRange(1), help="How often they are stopped.")
@click.option("--honcho", is_flag=True, help="As under honcho: the whole group is signalled, and 4 s are all there is.")
@click.option("--in-flight", is_flag=True, help="With requests in flight that outlast the drain; else in mid-wait.")
@click.option("--database", default="", metavar="URL", callback=_postgresql_only,
              help="A PostgreSQL server; default: an SQLite file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
def main(times: int, honcho: bool, in_flight: bool, database: str, as_json: bool) -> None:
    """Stop two worker processes with 16 lanes at work, again and again, in one run that continues in between.

    Exit codes: 0 every bound was kept, 1 one was missed, 2 usage, 3 the fleet did not come up.
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        with StoppableFleet(honcho=honcho, in_flight=in_flight, database=database) as fleet:
            stops = measure(fleet, times)
            checks = check(stops, fleet.bound_seconds, in_flight=in_flight)
            fleet.keep = not all(one.holds for one in checks)
    except FleetError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(3)
    if as_json:
        found = [asdict(one) | {"holds": one.holds} for one in checks]
        print(json.dumps({"checks": found, "stops": [asdict(stop) for stop in stops]}, indent=2))
    else:
        _print(stops, checks, f"{'Postgres' if database else 'SQLite'}, {_kind(honcho=honcho, in_flight=in_flight)}")
    if fleet.keep:
        print(f"the logs are in {fleet.folder}", file=sys.stderr)
    sys.exit(fleet.keep)


def measure(fleet: StoppableFleet, times: int) -> list[Stop]:
    """Stop a fleet's workers so often, each time with all lanes at work, and start them again."""
    stops: list[Stop] = []
    fleet.start_run()
    for number in range(1, times + 1):
        fleet.wait_until(lambda: fleet.lanes_at_work() >= LANES, _READY_SECONDS, f"{LANES} lanes are at work")
        stops.append(fleet.stop_workers())
        print(f"{number} of {times}: {stops[-1].seconds:.2f} s", file=sys.stderr, flush=True)
        if number < times:
            fleet.start_again("worker")
    return stops


def check(stops: list[Stop], bound_seconds: float, *, in_flight: bool) -> list[Check]:
    """Set what was measured beside its bounds."""
    checks = [
        Check("longest", round(max(stop.seconds for stop in stops), 2), "≤", bound_seconds),
        Check("exit codes", max(stop.code for stop in stops), "=", 0),
        Check("still claimed", max(stop.claimed for stop in stops), "=", 0),
        Check("attempts spent", max(stop.attempts for stop in stops), "=", 0),
        Check("processes left", max(stop.left for stop in stops), "=", 0),
    ]
    if not in_flight:  # the message of a lane whose thread was left is never acknowledged; its turn is over
        checks.append(Check("messages held", max(stop.messages for stop in stops), "=", 0))
    return checks


def _print(stops: list[Stop], checks: list[Check], title: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    seconds = [stop.seconds for stop in stops]
    machine = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.1f}"
    table = Table("stops", "min", "median", "max", *(one.name for one in checks[1:]), "", title=f"{title}; {machine}")
    held = all(one.holds for one in checks)
    table.add_row(
        str(len(stops)),
        f"{min(seconds):.2f} s",
        f"{statistics.median(seconds):.2f} s",
        f"{checks[0]} s",
        *(str(one) for one in checks[1:]),
        "[green]kept[/]" if held else "[red]missed[/]",
    )
    console.print(table)


def _kind(*, honcho: bool, in_flight: bool) -> str:
    return f"{'requests in flight' if in_flight else 'mid-wait'}{', as under honcho' if honcho else ''}"


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
