"""The command `doctor`: checks everything an import depends on, and prints each finding with its fix."""

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
#: A mark and a word, because not every reader sees colours.
_MARKS = {Level.OK: ("+ ok", "green"), Level.WARNING: ("! warning", "yellow"), Level.ERROR: ("x error", "bold red")}


@click.command()
@click.option("--ask", is_flag=True, help="Also send one list request to each API, and check its response.")
@AS_JSON
def doctor(ask: bool, as_json: bool) -> int:
    """Check everything an import depends on, and name each fix.

    Python, settings, files, ports, Redis, the database, sources, schedules, and whether workers and a scheduler run. It
    changes nothing. With --ask it sends each API one request, which takes a permit like any other: the response shows
    the API's clock, and whether its limits are those that you configured.

    \b
    Examples:
      python -m workers doctor
      python -m workers doctor --ask
      python -m workers doctor --json | jq '.[] | select(.level != "ok")'

    Exit codes: 0 without errors, 1 with errors, 3 if Redis or the database is down.
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
    """Print each finding as it comes, because one can take seconds; return them all."""
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(_row(*(Text(title, "bold") for title in ("", "area", "what", "fix"))))
    shown = []
    for finding in findings:
        mark, style = _MARKS[finding.level]
        console.print(_row(Text(mark, style), Text(one_line(finding.area)), Text(finding.what), Text(finding.fix)))
        shown.append(finding)
    return shown


def _row(*cells: Text) -> Table:
    """Return a table of one row; all such tables have the same column widths."""
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    row.add_column(width=9)
    row.add_column(width=14, overflow="fold")
    row.add_column(ratio=3, overflow="fold")
    row.add_column(ratio=2, overflow="fold")
    row.add_row(*cells)
    return row
