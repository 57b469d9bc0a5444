"""Watch: a run is followed to its end, or until Ctrl-C; what is said then, and the exit code."""

from typing import Any

import click

from workers.cli import exit_codes, progress
from workers.cli.printing import answer_run, say
from workers.connections import database
from workers.processes import signals
from workers.records.tables import ENDED, Run, RunStatus

WAIT = click.option("--wait", is_flag=True, help="Watch the run until it has ended; the exit code says how.")


def to_the_end(run: Run, *, as_json: bool, **more: Any) -> int:
    """Show a run's progress until it has ended, or the process is asked to stop; then end as `end`."""
    signals.on_stop()
    run = progress.watch(run)
    return end(run, f"run {run.id} {_goes_on(run)}", as_json=as_json, **more)


def end(run: Run, interrupted: str, *, as_json: bool, **more: Any) -> int:
    """Say what comes next for a run that was watched, and return the exit code.

    Parameters:
      interrupted(str): What is said where it has not ended.
      as_json(bool): Answer with the run as it is now, and with what `more` there is.
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
    """Say how to see what failed of a run, and to try it again; empty where nothing did, or that cannot be."""
    if run.items_removed_at or run.status == RunStatus.CANCELLED:
        return ""
    if run.status == RunStatus.FAILED and run.discovered_at is None:
        return f"`retry {run.id}` goes on where it stopped"
    if not run.failed_count:
        return ""
    return f"`status {run.id} --failed` lists what failed, `retry {run.id}` tries it again"


def _goes_on(run: Run) -> str:
    if run.status == RunStatus.PAUSED:
        return f"stays paused; `resume {run.id}` goes on, `cancel {run.id}` calls it off"
    return f"goes on; `status {run.id} --watch` looks again, `cancel {run.id}` calls it off"
