"""`doctor`: what is the matter, and the fix."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers.cli.exit_codes import EXIT_DEPENDENCY, EXIT_DONE, EXIT_FAILED
from workers.cli.printing import AS_JSON, answer, say
from workers.doctor.examination import examine
from workers.doctor.finding import Finding, Level
from workers.text.plain_text import one_line

_WIDE = 160
#: A mark and a word: a colour alone is not seen by everybody.
_MARKS = {Level.OK: ("+ ok", "green"), Level.WARNING: ("! warning", "yellow"), Level.ERROR: ("x error", "bold red")}


@click.command()
@click.option("--ask", is_flag=True, help="Also send one list request to each API, and look at what it answers.")
@AS_JSON
def doctor(ask: bool, as_json: bool) -> int:
    """Look at everything an import stands on, and name the fix of what is the matter.

    Python, settings, files, ports, Redis, the database, sources, schedules, and whether anybody works. It changes
    nothing. With --ask each API gets one request, with a permit like any other: it tells its clock, and whether the
    limits it names are yours.

    \b
    Examples:
      python -m workers doctor
      python -m workers doctor --ask
      python -m workers doctor --json | jq '.[] | select(.level != "ok")'

    It ends with 0 where no error was found, 1 where one was, and 3 where Redis or the database is down.
    """
    found = list(examine(ask=ask)) if as_json else _printed(examine(ask=ask))
    if as_json:
        answer([dataclasses.asdict(finding) for finding in found])
    counts = Counter(finding.level for finding in found)
    say(f"errors: {counts[Level.ERROR]}, warnings: {counts[Level.WARNING]}, ok: {counts[Level.OK]}")
    if any(finding.down for finding in found):
        return EXIT_DEPENDENCY
    return EXIT_FAILED if counts[Level.ERROR] else EXIT_DONE


def _printed(findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as it comes, for one may take seconds; return them all."""
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(_row(*(Text(title, "bold") for title in ("", "area", "what", "fix"))))
    shown = []
    for finding in findings:
        mark, style = _MARKS[finding.level]
        console.print(_row(Text(mark, style), Text(one_line(finding.area)), Text(finding.what), Text(finding.fix)))
        shown.append(finding)
    return shown


def _row(*cells: Text) -> Table:
    """Return a table of one row, whose columns are as wide as those of every other such row."""
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    row.add_column(width=9)
    row.add_column(width=14, overflow="fold")
    row.add_column(ratio=3, overflow="fold")
    row.add_column(ratio=2, overflow="fold")
    row.add_row(*cells)
    return row
