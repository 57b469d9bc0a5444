"""`run`: start a run of a source, now, at a time, or in this process."""

from datetime import datetime

import click

from workers import database, progress, redis_server, runner, signals
from workers.cli import ending
from workers.cli.door import Door, me, pass_door
from workers.cli.printing import AS_JSON, answer_run, instant, say
from workers.cli.words import SOURCE, TENANT, Instant
from workers.registry import get_registry
from workers.settings import get_settings
from workers.tables import ENDED, Run, RunStatus


@click.command()
@SOURCE
@click.option("--wait", is_flag=True, help="Watch the run until it has ended; the exit code says how.")
@click.option("--inline", is_flag=True, help="Do all the work in this process: no broker, no workers.")
@click.option("--fresh", is_flag=True, help="Empty the source's table first, where the source allows it.")
@click.option(
    "--at",
    type=Instant(),
    metavar="TIME",
    help="Start it then instead: 2026-12-24T18:00 (UTC unless it names an offset).",
)
@TENANT
@AS_JSON
@pass_door
def run(
    door: Door,
    source: str | None,
    *,
    wait: bool,
    inline: bool,
    fresh: bool,
    at: datetime | None,
    tenant: str | None,
    as_json: bool,
) -> int:
    """Start a run of a source, now or at a time.

    SOURCE may be left out where there is only one. Prints the run's id. A source runs once at a time: while a run of
    it is active, the new one waits behind it.

    \b
    Examples:
      python -m workers run --wait             watch it to its end
      python -m workers run items --inline     do all of it here, without workers
      python -m workers run items --at 2027-01-31T18:00

    Next: `status` tells where it is; `pause`, `resume` and `cancel` steer it. To run a source every so often, give it
    a schedule: `schedule --help`.
    """
    if inline and at:
        raise click.UsageError("--inline works now and --at later: give one of them")
    with database.connection():
        door.prepare()
        made = _begin(door, source, inline=inline, fresh=fresh, at=at, tenant=tenant)
        answer_run(made, as_json=as_json)
        _say_when(made)
        if inline:
            made = _work(made)
    if wait and not inline:
        signals.on_stop()
        made = progress.watch(made)
    return finished(made) if wait or inline else ending.EXIT_DONE


def finished(made: Run) -> int:
    """Return what a command ends with that waited for a run, or was interrupted while it did."""
    return ending.code_of(made) if made.status in ENDED else signals.exit_code()


def _begin(
    door: Door, source: str | None, *, inline: bool, fresh: bool, at: datetime | None, tenant: str | None
) -> Run:
    if at:
        name = source or get_registry().only().name
        return runner.schedule(name, at, who=me(), door=door.name, tenant=tenant, fresh=fresh)
    start = runner.start_inline if inline else runner.start
    return start(source, who=me(), door=door.name, tenant=tenant, fresh=fresh)


def _say_when(made: Run) -> None:
    if made.status == RunStatus.PENDING and (ahead := runner.behind(made)):
        say(f"run {made.id} waits behind run {ahead.id} of {made.source}, which is {ahead.status}")
    elif made.status == RunStatus.SCHEDULED:
        say(f"run {made.id} of {made.source} starts at {instant(made.scheduled_at)}")


def _work(made: Run) -> Run:
    signals.on_stop()
    with redis_server.embedded(get_settings().redis_url), progress.Display() as display:
        return runner.run_inline(made, display.show)
