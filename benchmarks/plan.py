"""Compare what `plan` predicts with the real duration: python benchmarks/plan.py [CASE ...]. From any folder."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not benchmarks/, whose sources.py is not the demo's

import click
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet, FleetError
from benchmarks.measure import Check

#: By how much a plan may be off, either way.
_OFF = 0.10
_LONGEST_SECONDS = 300.0
_WIDTH = 118


@dataclass(frozen=True)
class Case:
    """A run that is planned, and then done.

    Parameters:
      name: What it is called by.
      story: What decides how long it takes, in a sentence.
      decides: What the plan is to say of that.
      items, limits, latency_seconds: The API.
      source: What of it is imported.
      settings: More SLUICE_* variables.
    """

    name: str
    story: str
    decides: str
    items: int = 1000
    limits: str = "50/2,200/10"
    latency_seconds: float = 0.0
    source: str = "items"
    settings: Mapping[str, str] = field(default_factory=dict)


CASES = {
    case.name: case
    for case in (
        Case("limits", "The limits: 1,010 requests, 50 in 2 s and 200 in 10 s.", "limits"),
        Case(
            "latency",
            "The limits, each window longer by an answer of 0.2 s.",
            "limits",
            items=600,
            latency_seconds=0.2,
        ),
        Case(
            "lanes",
            "Four lanes, of which each waits 0.2 s for an answer; the limits are wide.",
            "lanes",
            items=600,
            limits="5000/2",
            latency_seconds=0.2,
            settings={"SLUICE_LANES": "4"},
        ),
        Case(
            "threads",
            "The same of 16 lanes, for which there are 2 processes of 3 threads.",
            "lanes",
            items=900,
            limits="5000/2",
            latency_seconds=0.2,
            settings={"SLUICE_WORKER_THREADS": "3"},
        ),
        Case(
            "list",
            "A list that says all: 50 pages, one after another, each after 0.5 s, and no details.",
            "list",
            items=5000,
            limits="5000/2",
            latency_seconds=0.5,
            source="listed",
        ),
        Case(
            "list-limits",
            "The same of 105 pages that come at once, of which the limits let 25 in 10 s; one lane.",
            "limits",
            items=10_500,
            limits="25/10",
            source="listed",
            settings={"SLUICE_LANES": "1"},
        ),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What was planned, and what came of it."""

    case: Case
    plan: dict[str, Any]
    real_seconds: float
    requests: int
    items: int

    @property
    def checks(self) -> list[Check]:
        ratio = round(self.plan["seconds"] / self.real_seconds, 3)
        return [
            Check("planned / real", ratio, "≥", 1 - _OFF),
            Check("planned / real", ratio, "≤", 1 + _OFF),
            Check("requests", self.plan["requests"], "=", self.requests),
            Check("items", self.plan["items"], "=", self.items),
            Check("decides", self.plan["slowest"], "=", self.case.decides),
        ]

    @property
    def missed(self) -> list[Check]:
        return [check for check in self.checks if not check.holds]


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Cases: {', '.join(CASES)}.")
@click.argument("names", metavar="[CASE ...]", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
def main(names: tuple[str, ...], as_json: bool) -> None:
    """Plan a run, do it with a fleet of real processes, and compare; without a CASE, all of them.

    Exit codes: 0 every plan was right to a tenth, 1 one was not, 2 usage, 3 a fleet did not come up or go away.
    """
    outcomes = []
    try:
        for name in dict.fromkeys(names or CASES):
            outcomes.append(_measure(CASES[name]))
            print(_sentence(outcomes[-1]), file=sys.stderr, flush=True)
    except FleetError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(3)
    finally:
        if outcomes:
            print(_json(outcomes)) if as_json else _print(outcomes)
    sys.exit(any(outcome.missed for outcome in outcomes))


def _measure(case: Case) -> Outcome:
    settings = {"SLUICE_SOURCES": "benchmarks.listed:SOURCES", **case.settings}
    options = ["--latency", str(case.latency_seconds)]
    with Fleet(items=case.items, limits=case.limits, mock_options=options, settings=settings) as fleet:
        plan = json.loads(fleet.command("plan", case.source, "--json"))
        asked = fleet.mock_stats()["accepted"]
        run_id = fleet.start_run(case.source)
        row = fleet.wait_for_run(run_id, _LONGEST_SECONDS)
        if row.status != "completed":
            raise FleetError(f"{case.name}: the run is {row.status} after {_LONGEST_SECONDS:g} s")
        began, ended = fleet.query(f"SELECT started_at, ended_at FROM sluice_runs WHERE id = {run_id:d}")[0]
        took = (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
        return Outcome(case, plan, took, fleet.mock_stats()["accepted"] - asked, row.total)


def _sentence(outcome: Outcome) -> str:
    missed = "; ".join(f"{check.name} {check}" for check in outcome.missed)
    planned = f"{outcome.plan['seconds']:.2f} s planned, {outcome.real_seconds:.2f} s real"
    return f"{outcome.case.name}: {planned}{'; MISSED ' + missed if missed else ''}"


def _print(outcomes: list[Outcome]) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    title = f"{os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}"
    table = Table("case", "planned", "real", "planned / real", "floor", "requests", "decides", "", title=title)
    for outcome in outcomes:
        plan = outcome.plan
        table.add_row(
            outcome.case.name,
            f"{plan['seconds']:.2f} s",
            f"{outcome.real_seconds:.2f} s",
            f"{plan['seconds'] / outcome.real_seconds:.3f}",
            f"{plan['floor_seconds']:.2f} s",
            f"{plan['requests']:,}",
            plan["slowest"],
            "[red]missed[/]" if outcome.missed else "[green]kept[/]",
        )
    console.print(table)


def _json(outcomes: list[Outcome]) -> str:
    made = [
        {"case": asdict(one.case), "plan": one.plan, "real_seconds": one.real_seconds, "holds": not one.missed}
        for one in outcomes
    ]
    return json.dumps(made, indent=2)


if __name__ == "__main__":
    main()
