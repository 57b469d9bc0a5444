"""The command `status`: lists the newest runs, or shows one in full, or its failed items."""

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from workers.cli import failed_items, run_picker, watch
from workers.cli.arguments import FAILURE_CLASS, RunId, SourceName
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import tables
from workers.cli.printing import AS_JSON, answer, instant, line, pairs, run_as_dict, say, show, table
from workers.records import runs
from workers.records.tables import ACTIVE, ENDED, Run, RunStatus
from workers.reports import labels, run_stats
from workers.reports.efficiency import efficiency_text
from workers.reports.failure_groups import FailureGroup, failure_groups
from workers.sources.registry import get_registry
from workers.text import sheet_cell
from workers.text.durations import duration

#: The statuses, and the labels that are no status.
_STATUSES = [status.value for status in RunStatus]
_KNOWN = [*_STATUSES, labels.WITH_FAILURES, labels.OVERDUE, labels.PAUSING, labels.SKIPPED]
#: Of how many of the newest runs the list explains the failure.
_NEWEST = 5


@click.command()
@click.argument("run_id", metavar="[RUN]", required=False, type=RunId())
@click.option(
    "--last", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many runs or items to list."
)
@click.option("--source", type=SourceName(), help="Only runs of this source.")
@click.option(
    "--status",
    "wanted",
    type=click.Choice(_KNOWN),
    metavar="STATUS",
    help=f"Only runs with this status: {', '.join(_KNOWN)}.",
)
@click.option("--failed", "only_failed", is_flag=True, help="List the failed items of the run.")
@click.option("--class", "failure_class", help="Of the failed items only those of this class.", **FAILURE_CLASS)
@click.option("--fingerprint", metavar="F", help="Of the failed items only those with this fingerprint.")
@click.option(
    "--watch",
    "follow",
    is_flag=True,
    help="Watch the run, or the only active one, until it has ended; the exit code says how it ended.",
)
@AS_JSON
def status(
    run_id: int | None,
    *,
    last: int,
    source: str | None,
    wanted: str | None,
    only_failed: bool,
    failure_class: str | None,
    fingerprint: str | None,
    follow: bool,
    as_json: bool,
) -> int:
    """List the newest runs, or show one in full.

    Below the list it explains why a run is stalled or slow, and why the newest ones failed. Of skipped runs it lists
    only the newest five; `--status skipped` lists them all. Of one RUN it shows the figures, the failures with their
    reasons, and the timeline with who did what.

    \b
    Examples:
      python -m workers status                     the newest runs, active ones first
      python -m workers status --source items --status failed
      python -m workers status --status "completed with failures"
      python -m workers status 7                   run 7 in full
      python -m workers status 7 --failed          its failed items and why they failed
      python -m workers status 7 --watch           its progress, until it has ended

    Next: `pause`, `resume`, `cancel` and `retry` steer a run; `budgets` shows how much of an API's limits is used.
    """
    if follow:
        return _watch(run_id, as_json=as_json)
    with tables():
        if only_failed or failure_class or fingerprint:
            which = run_picker.run(run_id, "status --failed", run_picker.last_and_failed(), run_picker.NOTHING_FAILED)
            about = {"failure_class": failure_class, "fingerprint": fingerprint and sheet_cell.read(fingerprint)}
            failed_items.show_failed(runs.get(which), **about, last=last, as_json=as_json)
        elif run_id is None:
            _show_runs(_found(last, source, wanted), as_json=as_json)
        else:
            _show_run(runs.get(run_id), as_json=as_json)
    return EXIT_DONE


def _watch(run_id: int | None, *, as_json: bool) -> int:
    with tables():
        not_ended = Run.status.in_([*ACTIVE, RunStatus.PENDING])
        run = runs.get(run_picker.run(run_id, "status --watch", not_ended, "No run is running, paused or pending"))
        if not as_json:
            click.echo(run.id)
    return watch.to_the_end(run, as_json=as_json)


def _found(last: int, source: str | None, wanted: str | None) -> list[run_stats.RunStats]:
    """Return the newest runs.

    Raises:
      UnknownSource: No source has this name, and no run is of one that had.
    """
    if source and not Run.select().where(Run.source == source).exists():
        get_registry()[source]
    kind = {"status" if wanted in _STATUSES else "label": wanted} if wanted else {}
    return run_stats.recent_runs(last, source or "", **kind)


def _show_runs(found: list[run_stats.RunStats], *, as_json: bool) -> None:
    if as_json:
        answer([run_as_dict(one) for one in found])
        return
    if not found:
        say("No run: `python -m workers run` starts one.")
        return
    titles = ("run", "source", "status", "progress", "done", "failed", "took", "waiting")
    show(table(*titles, rows=[_row(one) for one in found]))
    newest = sorted((one.id for one in found), reverse=True)[:_NEWEST]
    for one in found:
        for why in _whys(one, newest):
            line(f"run {one.id}: {why}")


def _whys(one: run_stats.RunStats, newest: Iterable[int]) -> list[str]:
    """Return the explanations below the list: of runs that have not ended, and of the newest that failed."""
    if one.status in ENDED and not (one.status == RunStatus.FAILED and one.id in newest):
        return []
    return [why for why in (one.why or one.error_summary, one.slowed) if why]


def _row(one: run_stats.RunStats) -> tuple[object, ...]:
    return (
        one.id,
        one.source if one.tenant is None else f"{one.source} ({one.tenant})",
        one.label,
        f"{one.percent} %" if one.percent is not None else "",
        f"{one.done:,}/{one.total:,}" if one.total is not None else "",
        one.failed,
        duration(one.duration_seconds),
        duration(one.waiting_seconds),
    )


def _show_run(run: Run, *, as_json: bool) -> None:
    one = run_as_dict(run_stats.run_stats(run))
    groups = failure_groups(run.id)
    if as_json:
        answer(one | {"failures": [dataclasses.asdict(group) for group in groups]})
        return
    show(pairs((_title(name), _shown(name, value)) for name, value in _figures(one).items()))
    if groups:
        titles = ("failed", "class", "fingerprint", "for example", "reason")
        show(table(*titles, rows=[_group_row(group) for group in groups]))
    for event in reversed(run_stats.events(run.id)):
        line(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.what:<12} {event.who} ({event.door}) {event.detail or ''}".rstrip())
    if hint := watch.on_failures(run):
        say(hint)


_TITLES = {
    "discovered": "list read",
    "hits": "rate-limit hits (429)",
    "sleeps": "planned waits",
    "held_seconds": "paused",
    "pace_seconds": "pace measured over",
    "why_code": "reason code",
}
_SECONDS = "_seconds"
#: Figures for programs, which the sentences beside them contain.
_IN_SENTENCES = ("eta_window", "why_window")


def _figures(one: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a run that are known; of one that has not begun, none that is 0."""
    begun = one["started_at"] is not None
    shown = {name: value for name, value in one.items() if name not in _IN_SENTENCES}
    known = {name: value for name, value in shown.items() if value not in (None, "") and (value or begun)}
    if known["label"] == known["status"]:
        del known["label"]
    return known


def _title(name: str) -> str:
    return _TITLES.get(name) or name.removesuffix(_SECONDS).replace("_", " ")


def _shown(name: str, value: object) -> object:
    if isinstance(value, float) and name.endswith(_SECONDS):
        return duration(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, float) and name == "efficiency":
        return efficiency_text(value)
    return f"{value:.1f}" if isinstance(value, float) else value


def _group_row(group: FailureGroup) -> tuple[object, ...]:
    return f"{group.count:,}", group.failure_class, group.fingerprint, group.external_id, group.reason
