"""Prints answers to stdout, as tables or JSON, and everything else to stderr, without secrets."""

import dataclasses
import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from workers.records.tables import Run
from workers.reports import run_stats
from workers.text.plain_text import one_line
from workers.text.redaction import redact

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

#: Columns of a table that goes to a file or a pipe: wide enough for every table.
_WIDE = 160


def run_as_dict(one: run_stats.RunStats) -> dict[str, Any]:
    """Return a run's figures as the values of JSON."""
    return dataclasses.asdict(one) | {"done": one.done, "percent": one.percent, "efficiency": one.efficiency}


def answer(value: Any) -> None:
    """Print a value as JSON; instants as ISO text in UTC."""
    click.echo(json.dumps(value, indent=2, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v)))


def answer_run(run: Run, *, as_json: bool, **more: Any) -> None:
    """Print a run's id; as JSON its figures, with `more` keys."""
    if as_json:
        answer(run_as_dict(run_stats.run_stats(run)) | more)
    else:
        click.echo(run.id)


def line(text: str) -> None:
    """Print one line of an answer, which can hold text of an API."""
    click.echo(one_line(text))


def say(text: str) -> None:
    """Print on stderr what is not part of the answer, without secrets."""
    click.echo(one_line(redact(text)), err=True)


def table(*titles: str, rows: Iterable[Iterable[object]]) -> Table:
    """Return a table. Its cells are text, not markup, because they can hold text of an API."""
    made = Table(*titles, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text(one_line(str(cell))) for cell in row])
    return made


def pairs(rows: Iterable[tuple[str, object]]) -> Table:
    """Return a table of names and values; its cells are text, as in `table`."""
    made = table("", "", rows=rows)
    made.show_header = False
    return made


def show(made: object) -> None:
    """Print a table, as wide as the terminal."""
    terminal = sys.stdout.isatty()
    Console(markup=False, highlight=False, width=None if terminal else _WIDE).print(made)


def instant(at: datetime | None) -> str:
    """Return an instant as tables show it, in UTC."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else ""
