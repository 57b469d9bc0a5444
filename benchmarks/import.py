"""Measure imports by whole fleets of real processes: python benchmarks/import.py [CASE ...]. Works from any folder."""

import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not benchmarks/, whose sources.py is not the demo's

import click  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.cases import CASES  # noqa: E402
from benchmarks.fleet import FleetError  # noqa: E402
from benchmarks.measure import Check, Outcome, measure  # noqa: E402

_LINE_SECONDS = 10.0
_WIDTH = 118


def _postgresql_only(context: click.Context, option: click.Parameter, url: str) -> str:
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise click.BadParameter("give a postgresql:// URL; without one, an SQLite file is made")
    return url


@click.command(context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Cases: {', '.join(CASES)}.")
@click.argument("names", metavar="[CASE ...]", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--database", default="", metavar="URL", callback=_postgresql_only,
              help="A PostgreSQL server; default: an SQLite file.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
@click.option("--keep", is_flag=True, help="Keep the fleets' folders, with their logs.")
def main(names: tuple[str, ...], database: str, as_json: bool, keep: bool) -> None:
    """Import with a fleet of real processes, and set what came of it beside its bounds; without a CASE, all of them.

    Exit codes: 0 every bound was kept, 1 one was missed, 2 usage, 3 a fleet did not come up or go away.
    """
    signal.signal(signal.SIGTERM, _leave)
    outcomes, show = [], Progress()
    try:
        for name in dict.fromkeys(names or CASES):
            outcomes.append(measure(CASES[name], database=database, keep=keep, say=show))
            show.end(_sentence(outcomes[-1]))
    except FleetError as error:
        show.end(f"Error: {error}")
        sys.exit(3)
    finally:
        if outcomes:
            print(_json(outcomes)) if as_json else _print(outcomes)
    sys.exit(any(outcome.missed for outcome in outcomes))


class Progress:
    """One line on a terminal, written over; elsewhere a line every ten seconds. On stderr."""

    def __init__(self) -> None:
        self._said_at = float("-inf")
        self._on_terminal = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._on_terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._said_at > _LINE_SECONDS:
            self._said_at = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def end(self, text: str) -> None:
        """Say something that stays."""
        self._said_at = float("-inf")
        print(f"\r\x1b[K{text}" if self._on_terminal else text, file=sys.stderr, flush=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _sentence(outcome: Outcome) -> str:
    missed = "; ".join(f"{check.name} {check}" for check in outcome.missed)
    return f"{outcome.case.name}: " + (
        f"MISSED {missed} (logs: {outcome.folder})" if missed else f"every bound kept, span {_span(outcome)}"
    )


def _print(outcomes: list[Outcome]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    table = Table("case", "floor", "span", "requests", "429s", "hits", "counts", "", title=_machine(outcomes))
    for outcome in outcomes:
        table.add_row(
            outcome.case.name,
            _floor(outcome),
            _span(outcome),
            _cell(outcome, "requests") or "any",
            _cell(outcome, "429s") or f"{outcome.facts['rejected']} (expected)",
            _hits(outcome),
            _counted(outcome),
            "[red]missed[/]" if outcome.missed else "[green]kept[/]",
        )
    console.print(table)
    for outcome in outcomes:
        for note in outcome.notes:
            console.print(f"{outcome.case.name}: {note}", highlight=False, soft_wrap=True)
        for check in outcome.missed:
            console.print(f"{outcome.case.name}: {check.name}: {check} does not hold; logs: {outcome.folder}")


def _cell(outcome: Outcome, name: str) -> str:
    check = outcome.check(name)
    return str(check) if check else ""


def _floor(outcome: Outcome) -> str:
    return "" if outcome.case.newcomers else f"{outcome.case.floor_seconds:.1f} s"


def _span(outcome: Outcome) -> str:
    return f"{_cell(outcome, 'span') or format(outcome.facts['span_seconds'], '.2f')} s"


def _hits(outcome: Outcome) -> str:
    hits = outcome.check("hits")
    return f"{hits} bursts" if hits else f"{outcome.facts['hits']}"


_PACE = {"span", "429s", "requests", "hits", "longest time without requests", "longest wait after an opening"}


def _counted(outcome: Outcome) -> str:
    counts: list[Check] = [check for check in outcome.checks if check.name not in _PACE]
    held = sum(check.holds for check in counts)
    return f"{held} of {len(counts)} exact"


def _machine(outcomes: list[Outcome]) -> str:
    load = outcomes[-1].facts["load_average_after"][0]
    database = outcomes[-1].facts["database"]
    return f"{database}, Python {platform.python_version()}, {os.cpu_count()} CPUs, load average {load}"


def _json(outcomes: list[Outcome]) -> str:
    return json.dumps([outcome.as_dict() for outcome in outcomes], indent=2, ensure_ascii=False)


if __name__ == "__main__":
    main()
