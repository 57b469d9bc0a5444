"""Follows a run until it has ended or Ctrl-C is pressed, and returns the exit code for how it ended."""

from typing import Any

import click

from workers.cli import exit_codes, progress
from workers.cli.printing import answer_run, say
from workers.connections import database
from workers.processes import signals
from workers.records.tables import ENDED, Run, RunStatus

WAIT = click.option("--wait", is_flag=True, help="Watch the run until it has ended; the exit code says how it ended.")


def to_the_end(run: Run, *, as_json: bool, **more: Any) -> int:
    """Show a run's progress until it has ended, or the process is asked to stop; then do and return as `end`."""
    signals.on_stop()
    run = progress.watch(run)
    return end(run, f"run {run.id} {_not_ended(run)}", as_json=as_json, **more)


def end(run: Run, interrupted: str, *, as_json: bool, **more: Any) -> int:
    """Print the next step for a run that was watched, and return the exit code.

    Parameters:
      interrupted(str): Printed if the run has not ended.
      as_json(bool): Whether to print the run as it is now as JSON, with `more` keys.
    """
    ended = run.status in ENDED
    if not ended:
        say(interrupted)
    elif hint := on_failures(run):
        say(hint)
    if as_json:
        with database.connection():
            answer_run(run, as_json=True, **more)
    return exit_codes.code_of(run) if ended else signals.exit_code()


def on_failures(run: Run) -> str:
    """Return how to list and retry what failed of a run; empty if nothing failed or nothing can be retried."""
    if run.items_removed_at or run.status == RunStatus.CANCELLED:
        return ""
    if run.status == RunStatus.FAILED and run.discovered_at is None:
        return f"`retry {run.id}` continues where it stopped"
    if not run.failed_count:
        return ""
    return f"`status {run.id} --failed` lists what failed, `retry {run.id}` retries it"


def _not_ended(run: Run) -> str:
    if run.status == RunStatus.PAUSED:
        return f"stays paused; `resume {run.id}` continues it, `cancel {run.id}` ends it"
    return f"continues in the background; `status {run.id} --watch` watches it again, `cancel {run.id}` ends it"
