"""The command `prune`: deletes the items of runs, and the runs, that ended long ago."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from workers import clock
from workers.cli.exit_codes import EXIT_DONE, EXIT_FAILED
from workers.cli.origin import Door, pass_door
from workers.cli.printing import AS_JSON, answer, say
from workers.connections import database
from workers.errors import UsageError
from workers.processes import signals
from workers.records import retention
from workers.records.retention import Pruned
from workers.settings import get_settings
from workers.text.durations import duration

#: How often a line is printed if there is no terminal for a bar.
_LINE_SECONDS = 10.0


@click.command()
@click.option(
    "--items-days",
    type=float,
    metavar="N",
    help="Delete the items of runs that ended more than N days ago; 0 keeps them. Default: SLUICE_KEEP_ITEMS_DAYS.",
)
@click.option(
    "--runs-days",
    type=float,
    metavar="N",
    help="Delete runs that ended more than N days ago; 0 keeps them. Default: SLUICE_KEEP_RUNS_DAYS.",
)
@click.option("--dry-run", is_flag=True, help="Only count; nothing is deleted.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation; required without a terminal.")
@AS_JSON
@pass_door
def prune(
    door: Door, items_days: float | None, runs_days: float | None, *, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Delete items and runs that ended long ago.

    Items go first, because they take most of the space: their run stays in `status` with its counts, but its failed
    items can no longer be listed or retried. Runs go much later, with their timelines. Your own tables are not touched,
    and neither are runs that have not ended. The scheduler does the same automatically, a little with each tick; this
    command does all of it at once. It can be stopped at any time and continued later.

    An SQLite file does not shrink: new rows reuse the space. To shrink it, VACUUM it in the sqlite3 shell while nothing
    runs.

    \b
    Examples:
      python -m workers prune --dry-run                 count only
      python -m workers prune                           ask, then delete
      python -m workers prune --items-days 7 --yes      from a cron job of yours
    """
    settings = get_settings()
    ages = {
        "items_days": settings.keep_items_days if items_days is None else items_days,
        "runs_days": settings.keep_runs_days if runs_days is None else runs_days,
    }
    with door.acting() as by:
        there = retention.removable(**ages)
        say(_sentence(there, **ages))
        if dry_run or there == Pruned():
            return _end(there if dry_run else Pruned(), dry_run=dry_run, as_json=as_json, **ages)
        if not (yes or _agreed()):
            say("nothing was deleted")
            return EXIT_FAILED
        signals.on_stop()
        with _progress(there) as show:
            pruned = retention.prune(**ages, **by, on_batch=show)
        if database.is_sqlite():
            say("the file keeps its size, and new rows reuse the space; VACUUM shrinks it while nothing runs")
    return _end(pruned, dry_run=False, as_json=as_json, **ages)


def _sentence(there: Pruned, *, items_days: float, runs_days: float) -> str:
    """Return how much would be deleted, and from which age on."""
    items = f"items {there.items:,} ({_age(items_days)})"
    return f"to be deleted: {items}, runs {there.runs:,} ({_age(runs_days)})"


def _age(days: float) -> str:
    age = f"{days:.9g} days" if days >= 1 else duration(days * 86_400)
    return f"of runs that ended more than {age} ago" if days else "0 days: all are kept"


def _agreed() -> bool:
    """Ask for confirmation.

    Raises:
      UsageError: There is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise UsageError("Deleted rows cannot be restored, and there is no terminal to ask on: add --yes or --dry-run")
    return click.confirm("Deleted rows cannot be restored. Continue?", err=True)


def _end(pruned: Pruned, *, dry_run: bool, as_json: bool, **ages: float) -> int:
    if as_json:
        answer(asdict(pruned) | ages | {"dry_run": dry_run})
    else:
        click.echo(f"{'to be deleted' if dry_run else 'deleted'}: items {pruned.items:,}, runs {pruned.runs:,}")
    return signals.exit_code() if clock.stop_requested.is_set() else EXIT_DONE


@contextmanager
def _progress(there: Pruned) -> Iterator[Callable[[Pruned], None]]:
    """Yield the function that shows the progress: a bar on a terminal, else a line every ten seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(there)
        return
    with Progress("deleted", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("rows", total=there.items + there.runs)
        yield lambda pruned: bar.update(task, completed=pruned.items + pruned.runs)


def _lines(there: Pruned) -> Callable[[Pruned], None]:
    said_at = clock.monotonic()

    def show(pruned: Pruned) -> None:
        nonlocal said_at
        if clock.monotonic() - said_at >= _LINE_SECONDS:
            said_at = clock.monotonic()
            say(f"deleted: items {pruned.items:,} of {there.items:,}, runs {pruned.runs:,} of {there.runs:,}")

    return show
