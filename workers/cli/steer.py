"""What changes the course of a run: `reschedule`, `pause`, `resume`, `cancel`, `retry`, `adjust`, `force`."""

from datetime import datetime

import click

from workers.cli import run_picker, watch
from workers.cli.arguments import FAILURE_CLASS, SOURCE, TENANT, Instant, RunId
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import Door, me, pass_door, tables
from workers.cli.printing import AS_JSON, answer_run, instant, say
from workers.connections import outages
from workers.control import runner
from workers.control.retry import meant
from workers.failures import FailureClass
from workers.messaging import scheduler_heartbeat
from workers.records import runs
from workers.records.tables import ACTIVE, Run, RunStatus
from workers.settings import get_settings
from workers.sources.registry import get_registry
from workers.text import sheet_cell

RUN = click.argument("run_id", metavar="[RUN]", required=False, type=RunId())


@click.command()
@SOURCE
@click.option(
    "--at", type=Instant(), metavar="TIME", help="When: 2026-12-24T18:00 (UTC unless it names an offset); default: now."
)
@TENANT
@AS_JSON
@pass_door
def reschedule(door: Door, source: str | None, *, at: datetime | None, tenant: str | None, as_json: bool) -> int:
    """Pull the next scheduled run of a source to now, or to a time.

    The later ones keep their time. SOURCE may be left out where there is only one.

    \b
    Examples:
      python -m workers reschedule items      now
      python -m workers reschedule items --at 2027-01-31T18:00

    Next: `status` lists what is scheduled; `schedule` changes when a source runs by itself; `run` starts one beside.
    """
    with tables():
        name = source or get_registry().only().name
        moved = runner.reschedule(name, who=me(), door=door.name, at=at, tenant=tenant)
        answer_run(moved, as_json=as_json)
        say(f"run {moved.id} of {moved.source} {_when(moved)}")
        if at and (nobody := scheduler_heartbeat.no_scheduler()):
            say(nobody)
    return EXIT_DONE


@click.command()
@RUN
@AS_JSON
@pass_door
def pause(door: Door, run_id: int | None, *, as_json: bool) -> int:
    """Hold a running run; resume goes on where it stopped.

    Each lane finishes the item it has in hand. RUN may be left out where one run is running.

    This is about one run. So that a source starts no more runs by itself: `schedule pause SOURCE`.

    \b
    Examples:
      python -m workers pause                 the one that is running
      python -m workers pause 7

    Next: `resume` goes on, `cancel` calls it off.
    """
    with tables():
        chosen = run_picker.run(run_id, "pause", Run.status == RunStatus.RUNNING, "No run is running")
        runner.pause(chosen, who=me(), door=door.name)
        run = runs.get(chosen)
        answer_run(run, as_json=as_json)
        say(f"run {run.id} of {run.source} is paused: lanes stop after the item in hand; `resume {run.id}` goes on")
        _say_what_is_away()
    return EXIT_DONE


@click.command()
@RUN
@watch.WAIT
@AS_JSON
@pass_door
def resume(door: Door, run_id: int | None, *, wait: bool, as_json: bool) -> int:
    """Go on with a paused run.

    Nothing is fetched again that was completed. RUN may be left out where one run is paused.

    This is about one run. So that a source starts runs by itself again: `schedule resume SOURCE`.

    \b
    Examples:
      python -m workers resume                the one that is paused
      python -m workers resume 7 --wait       and watch it to its end

    Next: `status RUN --watch` shows its progress.
    """
    with tables():
        chosen = run_picker.run(run_id, "resume", Run.status == RunStatus.PAUSED, "No run is paused")
        runner.resume(chosen, who=me(), door=door.name)
        run = runs.get(chosen)
        if not (as_json and wait):
            answer_run(run, as_json=as_json)
        say(f"run {run.id} of {run.source} goes on; `status {run.id} --watch` shows its progress")
    return watch.to_the_end(run, as_json=as_json) if wait else EXIT_DONE


@click.command()
@RUN
@AS_JSON
@pass_door
def cancel(door: Door, run_id: int | None, *, as_json: bool) -> int:
    """Call a run off; what it has imported stays.

    A cancelled run cannot go on: to hold it for a while, pause it. RUN may be left out where one run is running or
    paused; a run that has not begun is named.

    \b
    Examples:
      python -m workers cancel                the one that is running or paused
      python -m workers cancel 7

    Next: `run SOURCE` starts a new one.
    """
    with tables():
        chosen = run_picker.run(run_id, "cancel", Run.status.in_(ACTIVE), "No run is running or paused")
        runner.cancel(chosen, who=me(), door=door.name)
        run = runs.get(chosen)
        answer_run(run, as_json=as_json)
        say(f"run {run.id} of {run.source} is cancelled; what it has imported stays. A new one: `run {run.source}`")
        _say_what_is_away()
    return EXIT_DONE


@click.command()
@RUN
@click.option(
    "--class",
    "failure_class",
    help=f"Only items of this failure class: {', '.join(FailureClass)}.",
    **FAILURE_CLASS,
)
@click.option("--fingerprint", metavar="F", help="Only items that failed alike: `status RUN` tells the fingerprints.")
@click.option("--item", "external_ids", multiple=True, metavar="ID", help="Only this item; may be given several times.")
@click.option("--from-start", is_flag=True, help="Read the list anew, too, from its first page.")
@watch.WAIT
@AS_JSON
@pass_door
def retry(
    door: Door,
    run_id: int | None,
    *,
    failure_class: str | None,
    fingerprint: str | None,
    external_ids: tuple[str, ...],
    from_start: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Try the failed items of a run again.

    All of them, or those that all the options given agree on. A run whose list could not be read goes on where it
    stopped; with --from-start it reads its list anew, where the API no longer knows the page. RUN may be left out
    where one source's latest run has failed, or has failed items.

    \b
    Examples:
      python -m workers retry                 whatever failed last
      python -m workers retry 7 --class transient --wait
      python -m workers retry 7 --item 41 --item 42
      python -m workers retry 7 --from-start

    Next: `status RUN` tells what failed, and why; `status RUN --failed` lists the items.
    """
    with tables():
        chosen = run_picker.run(run_id, "retry", run_picker.last_and_failed(), run_picker.NOTHING_FAILED)
        count = runner.retry_failed(
            chosen,
            who=me(),
            door=door.name,
            failure_class=failure_class,
            fingerprint=fingerprint and sheet_cell.read(fingerprint),
            external_ids=meant(chosen, external_ids),
            from_start=from_start,
        )
        run = runs.get(chosen)
        if not (as_json and wait):
            answer_run(run, as_json=as_json, retried=count)
        say(_retried(run, count, from_start=from_start))
    return watch.to_the_end(run, as_json=as_json, retried=count) if wait else EXIT_DONE


@click.command()
@RUN
@click.option("--lanes", type=click.IntRange(1, 1024), metavar="N", help="How many items it works on at once.")
@click.option(
    "--priority", type=click.IntRange(-100, 100), metavar="N", help="The higher goes first; a run has 0 to begin with."
)
@AS_JSON
@pass_door
def adjust(door: Door, run_id: int | None, *, lanes: int | None, priority: int | None, as_json: bool) -> int:
    """Change the lanes or the priority of a run, also while it runs.

    More lanes help where the API answers slowly, and not where its limits are used up. A run of higher priority goes
    first where runs share an API's limits. RUN may be left out where one run is running or paused.

    \b
    Examples:
      python -m workers adjust 7 --lanes 4    leave more of the workers to others
      python -m workers adjust 7 --priority 10   before the others

    Next: `status RUN` shows how it goes.
    """
    if lanes is None and priority is None:
        raise click.UsageError("Say what to change: --lanes N, --priority N, or both")
    with tables():
        chosen = run_picker.run(run_id, "adjust", Run.status.in_(ACTIVE), "No run is running or paused")
        if lanes is not None:
            runner.set_lanes(chosen, lanes, who=me(), door=door.name)
        if priority is not None:
            runner.set_priority(chosen, priority, who=me(), door=door.name)
        run = runs.get(chosen)
        answer_run(run, as_json=as_json)
        say(f"run {run.id} of {run.source} has lanes: {run.lanes}, priority: {run.priority}")
        if lanes is not None and (hint := _too_many(lanes)):
            say(hint)
    return EXIT_DONE


@click.command()
@click.argument("run_id", metavar="RUN", type=RunId())
@AS_JSON
@pass_door
def force(door: Door, run_id: int, *, as_json: bool) -> int:
    """Move a run on that has been stuck for five minutes.

    One that is paused or cancelled and still has items in hand, is overdue, pending behind nothing, or finished and
    not completed. It is refused sooner, and where nothing is stuck; it says what it did.

    \b
    Example:
      python -m workers force 7

    Next: is a scheduler running? It starts, and ends, what is due by itself. A worker that does not let go of its items
    hangs: its log may say at what.
    """
    with tables():
        done = runner.force(run_id, who=me(), door=door.name)
        answer_run(runs.get(run_id), as_json=as_json, forced=done)
        say(done)
    return EXIT_DONE


def _when(moved: Run) -> str:
    if moved.status == RunStatus.SCHEDULED:
        return f"starts at {instant(moved.scheduled_at)}"
    ahead = runner.behind(moved)
    return f"waits behind run {ahead.id}, which is {ahead.status}" if ahead else f"is {moved.status}"


def _say_what_is_away() -> None:
    """Say that Redis is away: what was ordered stands in the database all the same."""
    if trouble := outages.redis_trouble():
        say(
            f"{trouble.what}: what was ordered stands in the database, and whoever works hears of it when Redis is "
            f"back. To do: {trouble.repair}"
        )


def _too_many(lanes: int) -> str:
    """Say that one worker with the settings here could not work on so many lanes at once; empty where it could."""
    found = get_settings()
    threads = found.worker_processes * found.worker_threads
    if lanes <= threads:
        return ""
    return (
        f"a worker with the settings here has {threads} threads, one for each lane at work: more lanes only wait, "
        "unless other workers help (SLUICE_WORKER_PROCESSES, SLUICE_WORKER_THREADS)"
    )


def _retried(run: Run, count: int, *, from_start: bool) -> str:
    ahead = runner.behind(run)
    if not count and from_start:
        return f"run {run.id} of {run.source} reads its list anew; `status {run.id} --watch` shows the progress"
    if not count:
        return f"run {run.id} of {run.source} goes on where it stopped; `status {run.id} --watch` shows the progress"
    when = (
        "once it is resumed" if run.status == RunStatus.PAUSED else f"once run {ahead.id} has ended" if ahead else "now"
    )
    what = f"{count:,} failed {'item is' if count == 1 else 'items are'} tried again {when}"
    return f"run {run.id} of {run.source}: {what}; `status {run.id} --watch` shows the progress"
