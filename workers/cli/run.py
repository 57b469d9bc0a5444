"""The command `run`: starts a run of a source, now, at a time, or inside this process."""

from datetime import datetime
from typing import Any

import click

from workers.cli import exit_codes, progress, watch
from workers.cli.arguments import SOURCE, TENANT, Instant
from workers.cli.origin import Door, pass_door
from workers.cli.printing import AS_JSON, answer_run, instant, say
from workers.connections import redis_probe, redis_url
from workers.control import runner, tenants
from workers.messaging import scheduler_heartbeat
from workers.processes import embedded_redis, signals
from workers.records import activation
from workers.records.tables import Run, RunStatus
from workers.settings import get_settings
from workers.sources.registry import get_registry


@click.command()
@SOURCE
@watch.WAIT
@click.option("--inline", is_flag=True, help="Do all the work in this process, without broker and workers.")
@click.option(
    "--fresh",
    is_flag=True,
    help="At its end, delete the rows that are no longer in the list, if the source allows it.",
)
@click.option("--even-if-empty", is_flag=True, help="With --fresh: delete all of them if the list was empty.")
@click.option(
    "--at",
    type=Instant(),
    metavar="TIME",
    help="When to start it: 2026-12-24T18:00 (UTC unless it has an offset); default: now.",
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

    SOURCE may be left out if there is only one. Prints the run's id. Only one run of a source is active at a time: a
    new one waits until the active one has ended.

    \b
    Examples:
      python -m workers run --wait             watch it to its end
      python -m workers run items --inline     do all the work here, without workers
      python -m workers run items --at 2027-01-31T18:00

    Next: `status` shows its progress; `pause`, `resume` and `cancel` steer it. To run a source automatically, set a
    schedule: `schedule --help`.
    """
    if inline and at:
        raise click.UsageError("--inline works now and --at starts later: give one of them")
    if even_if_empty and not fresh:
        raise click.UsageError("--even-if-empty is for --fresh: give both, or neither")
    asked: dict[str, Any] = {"tenant": tenant, "fresh": fresh, "even_if_empty": even_if_empty}
    with door.acting(migrating=True) as by:
        tenants.refuse(source, tenant)
        made = _begin(source, asked | by, inline=inline, at=at)
        if not (as_json and (wait or inline)):  # which prints the run at its end
            answer_run(made, as_json=as_json)
        _say_when(made)
        if inline:
            made = _work(made)
    if inline:
        again = f"run {made.id} has not ended: `run {made.source} --inline` continues it, and so do workers"
        return watch.end(made, again, as_json=as_json)
    return watch.to_the_end(made, as_json=as_json) if wait else exit_codes.EXIT_DONE


def _begin(source: str | None, asked: dict[str, Any], *, inline: bool, at: datetime | None) -> Run:
    if at:
        return runner.schedule(source or get_registry().only().name, at, **asked)
    if inline:
        return _begin_inline(source or get_registry().only().name, asked)
    return runner.start(source, **asked)


def _begin_inline(source: str, asked: dict[str, Any]) -> Run:
    """Start a run that this process works on or, if one is active, take that one over, and say so."""
    active = activation.active(source, asked["tenant"])
    made = runner.start_inline(source, **asked)
    if active and active.id == made.id:
        say(f"run {made.id} is active: this process continues it instead of starting a new run")
    return made


def _say_when(made: Run) -> None:
    if made.status == RunStatus.PENDING and (ahead := runner.behind(made)):
        say(f"run {made.id} waits for run {ahead.id} of {made.source}, which is {ahead.status}")
    elif made.status == RunStatus.SCHEDULED:
        say(f"run {made.id} of {made.source} starts at {instant(made.scheduled_at)}")
        if missing := scheduler_heartbeat.no_scheduler():
            say(missing.sentence)


def _work(made: Run) -> Run:
    signals.on_stop()
    url = get_settings().redis_url
    starts_redis = redis_probe.server_name(url) is None
    with embedded_redis.embedded(url):
        if starts_redis:
            say(f"Redis is served at {redis_url.Address.of(url)} until this ends")
        with progress.Display() as display:
            return runner.run_inline(made, display.show)
