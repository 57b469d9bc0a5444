"""`status`: the newest runs, or all about one."""

import dataclasses
from datetime import datetime

import click

from workers import database, progress, runs, signals, stats
from workers.cli import choose
from workers.cli.door import tables
from workers.cli.ending import EXIT_DONE
from workers.cli.printing import AS_JSON, answer, answer_run, instant, pairs, run_as_dict, say, show, table
from workers.cli.run import finished
from workers.cli.words import RunId, SourceName
from workers.failure_groups import FailureGroup, failure_groups
from workers.failures import one_line
from workers.tables import ACTIVE, Run, RunStatus


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False, type=RunId())
@click.option("--last", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many runs to list.")
@click.option("--source", type=SourceName(), help="Only runs of this source.")
@click.option("--status", "wanted", type=click.Choice([s.value for s in RunStatus]), help="Only runs in this status.")
@click.option(
    "--watch", is_flag=True, help="Watch the run, or the only one, until it has ended; the exit code says how."
)
@AS_JSON
def status(run_id: int | None, *, last: int, source: str | None, wanted: str | None, watch: bool, as_json: bool) -> int:
    """List the newest runs, or tell all about one.

    Below the list stands why a run does not go on, or goes slowly. Of skipped slots only the newest five are listed;
    `--status cancelled` has them all. Of one RUN it tells the figures, what failed and why, and who did what to it.

    \b
    Examples:
      python -m workers status                     the newest runs, active ones first
      python -m workers status --source items --status failed
      python -m workers status 7                   all about run 7
      python -m workers status 7 --watch           its progress, to its end

    Next: `pause`, `resume`, `cancel` and `retry` steer a run; `budgets` shows what an API's limits have left.
    """
    if watch:
        return _watch(run_id, as_json=as_json)
    with tables():
        if run_id is None:
            _tell_runs(stats.recent_runs(last, source, wanted), as_json=as_json)
        else:
            _tell_run(runs.get(run_id), as_json=as_json)
    return EXIT_DONE


def _watch(run_id: int | None, *, as_json: bool) -> int:
    with tables():
        going_on = Run.status.in_([*ACTIVE, RunStatus.PENDING])
        run = runs.get(choose.run(run_id, "status --watch", going_on, "running, paused or pending"))
    signals.on_stop()
    run = progress.watch(run)
    with database.connection():
        answer_run(run, as_json=as_json)
    return finished(run)


def _tell_runs(found: list[stats.RunStats], *, as_json: bool) -> None:
    if as_json:
        answer([run_as_dict(one) for one in found])
        return
    if not found:
        say("No run: `python -m workers run` starts one.")
        return
    titles = ("run", "source", "status", "progress", "done", "failed", "took", "waiting")
    show(table(*titles, rows=[_row(one) for one in found]))
    for one in found:
        for why in (one.why or one.error_summary, one.slowed):
            if why:
                click.echo(one_line(f"run {one.id}: {why}"))


def _row(one: stats.RunStats) -> tuple[object, ...]:
    return (
        one.id,
        one.source if one.tenant is None else f"{one.source} ({one.tenant})",
        one.label,
        f"{one.percent} %" if one.percent is not None else "",
        f"{one.done:,}/{one.total:,}" if one.total is not None else "",
        one.failed,
        progress.duration(one.duration_seconds),
        progress.duration(one.waiting_seconds),
    )


def _tell_run(run: Run, *, as_json: bool) -> None:
    one = run_as_dict(stats.run_stats(run)) | {"lanes": run.lanes, "priority": run.priority}
    groups = failure_groups(run.id)
    if as_json:
        answer(one | {"failures": [dataclasses.asdict(group) for group in groups]})
        return
    told = [(name, value) for name, value in one.items() if value not in (None, "")]
    show(pairs((name.replace("_", " "), _in_words(value)) for name, value in told))
    if groups:
        titles = ("failed", "class", "fingerprint", "for example", "reason")
        show(table(*titles, rows=[_group_row(group) for group in groups]))
    for event in stats.events(run.id):
        said = f"{event.what:<12} {event.who} ({event.door}) {event.detail or ''}"
        click.echo(one_line(f"{event.at:%Y-%m-%d %H:%M:%S}  {said}".rstrip()))


def _in_words(value: object) -> object:
    if isinstance(value, datetime):
        return instant(value)
    return f"{value:.1f}" if isinstance(value, float) else value


def _group_row(group: FailureGroup) -> tuple[object, ...]:
    return f"{group.count:,}", group.failure_class, group.fingerprint, group.external_id, group.reason
