"""`run`: start a run of a source, now, at a time, or in this process."""

from datetime import datetime
from typing import Any

import click

from workers.cli import exit_codes, progress, watch
from workers.cli.arguments import SOURCE, TENANT, Instant
from workers.cli.origin import Door, me, pass_door
from workers.cli.printing import AS_JSON, answer_run, instant, say
from workers.connections import database, redis_url
from workers.control import runner
from workers.messaging import scheduler_heartbeat
from workers.processes import redis_server, signals
from workers.records import activation
from workers.records.tables import Run, RunStatus
from workers.settings import get_settings
from workers.sources.registry import get_registry


@click.command()
@SOURCE
@watch.WAIT
@click.option("--inline", is_flag=True, help="Do all the work in this process: no broker, no workers.")
@click.option(
    "--fresh",
    is_flag=True,
    help="At its end, remove the rows that are no longer in the list, where the source allows it.",
)
@click.option("--even-if-empty", is_flag=True, help="With --fresh: remove all of them where the list was empty.")
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
    even_if_empty: bool,
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
    if even_if_empty and not fresh:
        raise click.UsageError("--even-if-empty is for --fresh: give both, or neither")
    asked: dict[str, Any] = {"tenant": tenant, "fresh": fresh, "even_if_empty": even_if_empty}
    with database.connection():
        door.prepare()
        runner.refuse_tenant(source, tenant)
        made = _begin(door, source, asked, inline=inline, at=at)
        if not (as_json and (wait or inline)):  # which answers with the run as it has become
            answer_run(made, as_json=as_json)
        _say_when(made)
        if inline:
            made = _work(made)
    if inline:
        again = f"run {made.id} is not over: `run {made.source} --inline` goes on with it, and workers do, too"
        return watch.end(made, again, as_json=as_json)
    return watch.to_the_end(made, as_json=as_json) if wait else exit_codes.EXIT_DONE


def _begin(door: Door, source: str | None, asked: dict[str, Any], *, inline: bool, at: datetime | None) -> Run:
    if at:
        return runner.schedule(source or get_registry().only().name, at, who=me(), door=door.name, **asked)
    if inline:
        return _taken_up(door, source or get_registry().only().name, asked)
    return runner.start(source, who=me(), door=door.name, **asked)


def _taken_up(door: Door, source: str, asked: dict[str, Any]) -> Run:
    """Start a run that this process is to do or, where one is active, take that up, and say so."""
    active = activation.active(source, asked["tenant"])
    made = runner.start_inline(source, who=me(), door=door.name, **asked)
    if active and active.id == made.id:
        say(f"run {made.id} is active: this process works on it, and no new run is made")
    return made


def _say_when(made: Run) -> None:
    if made.status == RunStatus.PENDING and (ahead := runner.behind(made)):
        say(f"run {made.id} waits behind run {ahead.id} of {made.source}, which is {ahead.status}")
    elif made.status == RunStatus.SCHEDULED:
        say(f"run {made.id} of {made.source} starts at {instant(made.scheduled_at)}")
        if nobody := scheduler_heartbeat.no_scheduler():
            say(nobody)


def _work(made: Run) -> Run:
    signals.on_stop()
    url = get_settings().redis_url
    brought = redis_url.answers(url) is None
    with redis_server.embedded(url):
        if brought:
            say(f"Redis is served at {redis_url.Address.of(url)} until this ends")
        with progress.Display() as display:
            return runner.run_inline(made, display.show)
