"""Compare the limiter with others, and measure its cost: python benchmarks/limiter.py --help. From any folder."""

import json
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not benchmarks/, whose sources.py is not the demo's

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import cost as costs
from benchmarks import memory as memories
from benchmarks import peers, versus
from benchmarks.loopback import LoopbackError, own_redis
from benchmarks.measure import Check
from mock_server import parse_limits
from mock_server.algorithms import ALGORITHMS
from workers.errors import ConfigurationError

_WIDTH = 118


# --- the options


def _some_of(known: Iterable[str], context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """Read names as the command line writes them: separated by commas, each of them known."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{', '.join(unknown)}: give some of {', '.join(known)}, separated by commas")
    return list(dict.fromkeys(names))


def _seconds(context: click.Context, option: click.Parameter, text: str) -> list[float]:
    try:
        seconds = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}: give seconds, separated by commas") from None
    if not all(0 <= one <= 10 for one in seconds):
        raise click.BadParameter(f"{text!r}: give seconds from 0 to 10")
    return seconds


def _limits(context: click.Context, option: click.Parameter, text: str) -> str:
    try:
        if parse_limits(text):
            return text
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    raise click.BadParameter("a limiter needs a limit")


_KNOWN = tuple(peers.PEERS)


def _clients(default: Iterable[str]) -> Callable[[click.decorators.FC], click.decorators.FC]:
    some_of_them = partial(_some_of, _KNOWN)
    return click.option(
        "--clients", default=",".join(default), show_default=True, callback=some_of_them, help="Which limiters."
    )


_json = click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure the limiter. Without a command: cost, memory and versus, one after the other.

    Exit codes: 0 Sluice kept every bound, 1 one was missed, 2 usage, 3 a process did not come up.
    """
    signal.signal(signal.SIGTERM, _leave)
    if context.invoked_subcommand is None:
        _finish(Report().take(_cost()).take(_memory()).take(_versus()), as_json=False)


@main.command("versus")
@_clients(_KNOWN)
@click.option("--algorithms", default=",".join(versus.ALGORITHMS), show_default=True,
              callback=partial(_some_of, ALGORITHMS), help="How the server counts.")  # fmt: skip
@click.option("--jitters", default="0.01,0.25", show_default=True, callback=_seconds,
              help="The most that is added to the server's 5 ms, in seconds.")  # fmt: skip
@click.option("--limits", default="50/2,200/10", show_default=True, callback=_limits,
              help="What the server allows; a quick try: 10/1,40/5 with 62 requests, 7 s a cell.")  # fmt: skip
@click.option("--requests", default=1010, show_default=True, type=click.IntRange(1), help="How many are made in all.")
@click.option("--parallel", default=3, show_default=True, type=click.IntRange(1), help="Cells measured at a time.")
@_json
def versus_command(as_json: bool, **options: Any) -> None:
    """429s and spans, side by side: 2 processes of 8 threads, each cell with a server of its own."""
    _finish(_versus(**options), as_json)


@main.command("cost")
@click.option("--rounds", default=costs.ROUNDS, show_default=True, type=click.IntRange(4), help="Blocks of each kind.")
@_json
def cost_command(as_json: bool, rounds: int) -> None:
    """Acquire and complete, against a bare round trip in the same run."""
    _finish(_cost(rounds), as_json)


@main.command("memory")
@_clients(memories.PEERS)
@click.option("--limits", default=memories.LIMITS, show_default=True, callback=_limits, help="What each keeps.")
@click.option("--permits", default=memories.PERMITS, show_default=True, type=click.IntRange(memories.LANES),
              help="How many each grants.")  # fmt: skip
@_json
def memory_command(as_json: bool, **options: Any) -> None:
    """The bytes of all of a budget's keys, at their most."""
    _finish(_memory(**options), as_json)


# --- what is measured


class Report:
    """What came of a run: figures by command, tables to print, and bounds."""

    def __init__(self, name: str = "", figures: Iterable[dict[str, Any]] = (), tables: Iterable[Table] = ()) -> None:
        self.figures = {name: list(figures)} if name else {}
        self.tables = list(tables)
        self.checks: list[Check] = []

    def take(self, other: "Report") -> "Report":
        """Add what another holds; return this one."""
        self.figures |= other.figures
        self.tables += other.tables
        self.checks += other.checks
        return self

    @property
    def missed(self) -> list[Check]:
        return [check for check in self.checks if not check.holds]

    def as_dict(self) -> dict[str, Any]:
        about = {"machine": _machine(), "versions": peers.versions(), "missed": [f"{c.name}: {c}" for c in self.missed]}
        return about | self.figures


def _versus(
    clients: Iterable[str] = _KNOWN,
    algorithms: Iterable[str] = versus.ALGORITHMS,
    jitters: Iterable[float] = (0.01, 0.25),
    parallel: int = 3,
    **more: Any,
) -> Report:
    cells = versus.cells(list(clients), list(algorithms), list(jitters), **more)
    with own_redis() as redis_url, Bars(len(cells)) as bars:
        results = versus.measure_all(cells, redis_url, parallel=parallel, look=bars.look, done=bars.done)
    report = Report("versus", [result.as_dict() for result in results], _versus_tables(results))
    report.checks = [check for result in results for check in result.checks]
    return report


def _cost(rounds: int = costs.ROUNDS) -> Report:
    with own_redis() as redis_url:
        measured = costs.measure(redis_url, rounds, _say)
    report = Report("cost", [cost.as_dict() for cost in measured], [_cost_table(measured)])
    report.checks = costs.checks(measured)
    return report


def _memory(clients: Iterable[str] = memories.PEERS, **more: Any) -> Report:
    with own_redis() as redis_url:
        measured = memories.measure_all(list(clients), redis_url, say=_say, **more)
    report = Report("memory", [memory.as_dict() for memory in measured], [_memory_table(measured)])
    report.checks = [check for memory in measured for check in memory.checks]
    return report


def _finish(report: Report, as_json: bool) -> NoReturn:
    if as_json:
        print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(report)
    sys.exit(bool(report.missed))


# --- on the way: stderr


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bars:
    """A bar for each cell under way, and one for all; on a terminal. Anywhere a line for each cell that is done."""

    def __init__(self, cells: int) -> None:
        console = Console(stderr=True)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._all = self._progress.add_task("cells", total=cells)
        self._bars: dict[versus.Cell, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def look(self, cell: versus.Cell, made: int) -> None:
        """Show how many requests a cell has made."""
        if cell not in self._bars:
            self._bars[cell] = self._progress.add_task(str(cell), total=cell.requests)
        self._progress.update(self._bars[cell], completed=made)

    def done(self, result: versus.Result) -> None:
        """Say what came of a cell."""
        if (bar := self._bars.pop(result.cell, None)) is not None:
            self._progress.remove_task(bar)
        self._progress.advance(self._all)
        text = result.why or f"{result.rejected} x 429, {result.span_seconds:.2f} s"
        self._progress.console.print(f"{result.cell}: {text}", highlight=False, soft_wrap=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


# --- at the end: stdout


def _print(report: Report) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for table in report.tables:
        console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in peers.versions().items())
    console.print(f"{_machine()}; {versions}", highlight=False)
    for check in report.missed:
        console.print(f"[red]missed:[/] {check.name}: {check}", highlight=False)
    if not report.missed:
        console.print(f"Sluice kept every bound ({len(report.checks)})", highlight=False)


def _versus_tables(results: list[versus.Result]) -> Iterable[Table]:
    """One table for each jitter: a row for each limiter, a column for each server."""
    for jitter in dict.fromkeys(result.cell.jitter_seconds for result in results):
        shown = [result for result in results if result.cell.jitter_seconds == jitter]
        cell = shown[0].cell
        algorithms = list(dict.fromkeys(result.cell.algorithm for result in shown))
        title = (
            f"{cell.requests:,} requests on {cell.limits}, {versus.PROCESSES} processes of {versus.THREADS} threads, "
            f"{versus.LATENCY_SECONDS * 1000:g} ms and 0 to {jitter * 1000:g} ms: "
            f"429s, span, over the log floor of {cell.floor_seconds:g} s"
        )
        table = Table("client", *algorithms, title=title)
        for name in dict.fromkeys(result.cell.peer for result in shown):
            row = {result.cell.algorithm: _versus_cell(result) for result in shown if result.cell.peer == name}
            table.add_row(name, *(row[algorithm] for algorithm in algorithms))
        yield table


def _versus_cell(result: versus.Result) -> str:
    if result.why:
        return result.why
    over = result.span_seconds - result.cell.floor_seconds
    missed = any(not check.holds for check in result.checks)
    text = f"{result.rejected} x 429\n{result.span_seconds:.2f} s\n{over:+.2f} s"
    times = f", x {result.over_floor:.4f}" if result.over_floor else ""
    return f"[red]{text}{times}[/]" if missed else f"{text}{times}"


def _cost_table(measured: list[costs.Cost]) -> Table:
    title = f"Acquire and complete against a bare round trip; bound {costs.BOUND:g} in a lane's steady state"
    table = Table("budget", "threads", "way", "bare", "permit", "ratio", "quartiles", title=title)
    for cost in measured:
        table.add_row(
            cost.budget,
            str(cost.threads),
            cost.way,
            f"{cost.bare_us:.0f} µs",
            f"{cost.permit_us:.0f} µs",
            f"{cost.ratio:.2f}",
            f"{cost.low:.2f} to {cost.high:.2f} of {cost.rounds}",
        )
    return table


def _memory_table(measured: list[memories.Memory]) -> Table:
    title = f"Bytes in Redis at the most, {memories.LANES} lanes; bound of Sluice {memories.BOUND_BYTES:,}"
    table = Table("client", "permits", "bytes", "keys", title=title)
    for memory in measured:
        figures = [f"{figure:,}" for figure in (memory.permits, memory.most_bytes, memory.most_keys)]
        table.add_row(memory.peer, *([memory.why] if memory.why else figures))
    return table


def _machine() -> str:
    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load average {os.getloadavg()[0]:.2f}"


if __name__ == "__main__":
    try:
        main()
    except (LoopbackError, ConfigurationError) as error:
        _say(f"Error: {error}")
        sys.exit(3)
