"""The commands that steer a run: `reschedule`, `pause`, `resume`, `cancel`, `retry`, `adjust`, `force`."""

from datetime import datetime
from typing import Any

import click

from workers.cli import run_picker, watch
from workers.cli.arguments import FAILURE_CLASS, SOURCE, TENANT, Instant, RunId
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import Door, pass_door
from workers.cli.printing import AS_JSON, answer_run, instant, say
from workers.connections import outages
from workers.control import runner
from workers.control.retry_selection import meant
from workers.failures import FailureClass
from workers.messaging import scheduler_heartbeat
from workers.records import runs
from workers.records.tables import ACTIVE, Run, RunStatus
from workers.settings import get_settings
from workers.sources.registry import get_registry
from workers.text import sheet_cell

RUN = click.argument("run_id", metavar="[RUN]", required=False, type=RunId())

#: Which runs a command may mean where no RUN is given, and what it says where there is none.
_RUNNING = Run.status == RunStatus.RUNNING, "No run is running"
_PAUSED = Run.status == RunStatus.PAUSED, "No run is paused"
_ACTIVE = Run.status.in_(ACTIVE), "No run is running or paused"


@click.command()
@SOURCE
@click.option(
    "--at", type=Instant(), metavar="TIME", help="When: 2026-12-24T18:00 (UTC unless it has an offset); default: now."
)
@TENANT
@AS_JSON
@pass_door
def reschedule(door: Door, source: str | None, *, at: datetime | None, tenant: str | None, as_json: bool) -> int:
    """Move the next scheduled run of a source to now or to a time.

    Later scheduled runs keep their time. SOURCE may be left out if there is only one.

    \b
    Examples:
      python -m workers reschedule items      now
      python -m workers reschedule items --at 2027-01-31T18:00

    Next: `status` lists scheduled runs; `schedule` changes when a source runs automatically; `run` starts another run.
    """
    with door.acting() as by:
        name = source or get_registry().only().name
        moved = _answer(runner.reschedule(name, at=at, tenant=tenant, **by).id, as_json=as_json)
        say(f"run {moved.id} of {moved.source} {_start_of(moved)}")
        if at and (missing := scheduler_heartbeat.no_scheduler()):
            say(missing.sentence)
    return EXIT_DONE


@click.command()
@RUN
@AS_JSON
@pass_door
def pause(door: Door, run_id: int | None, *, as_json: bool) -> int:
    """Pause a running run; `resume` continues it.

    Each lane completes the item it is working on. RUN may be left out if exactly one run is running.

    This pauses one run. To keep a source from starting runs automatically: `schedule pause SOURCE`.

    \b
    Examples:
      python -m workers pause                 the one that is running
      python -m workers pause 7

    Next: `resume` continues the run, `cancel` ends it.
    """
    with door.acting() as by:
        chosen = run_picker.run(run_id, "pause", *_RUNNING)
        runner.pause(chosen, **by)
        run = _answer(chosen, as_json=as_json)
        say(
            f"run {run.id} of {run.source} is paused; each lane completes its item. `resume {run.id}` continues the run"
        )
        _say_redis_is_away()
    return EXIT_DONE


@click.command()
@RUN
@watch.WAIT
@AS_JSON
@pass_door
def resume(door: Door, run_id: int | None, *, wait: bool, as_json: bool) -> int:
    """Resume a paused run.

    What was completed is not requested again. RUN may be left out if exactly one run is paused.

    This resumes one run. To let a source start runs automatically again: `schedule resume SOURCE`.

    \b
    Examples:
      python -m workers resume                the one that is paused
      python -m workers resume 7 --wait       and watch it to its end

    Next: `status RUN --watch` shows its progress.
    """
    with door.acting() as by:
        chosen = run_picker.run(run_id, "resume", *_PAUSED)
        runner.resume(chosen, **by)
        run = _answer(chosen, as_json=as_json, later=wait)
        say(f"run {run.id} of {run.source} continues; `status {run.id} --watch` shows its progress")
    return watch.to_the_end(run, as_json=as_json) if wait else EXIT_DONE


@click.command()
@RUN
@AS_JSON
@pass_door
def cancel(door: Door, run_id: int | None, *, as_json: bool) -> int:
    """Cancel a run for good; what it has imported stays.

    A cancelled run cannot be resumed: to stop it for a while, pause it. RUN may be left out if exactly one run is
    running or paused; a run that has not begun must be named.

    \b
    Examples:
      python -m workers cancel                the one that is running or paused
      python -m workers cancel 7

    Next: `run SOURCE` starts a new run.
    """
    with door.acting() as by:
        chosen = run_picker.run(run_id, "cancel", *_ACTIVE)
        runner.cancel(chosen, **by)
        run = _answer(chosen, as_json=as_json)
        say(
            f"run {run.id} of {run.source} is cancelled; what it has imported stays. "
            f"`run {run.source}` starts a new run"
        )
        _say_redis_is_away()
    return EXIT_DONE


@click.command()
@RUN
@click.option(
    "--class",
    "failure_class",
    help=f"Only items of this failure class: {', '.join(FailureClass)}.",
    **FAILURE_CLASS,
)
@click.option(
    "--fingerprint", metavar="F", help="Only items whose failures share a fingerprint: `status RUN` lists them."
)
@click.option("--item", "external_ids", multiple=True, metavar="ID", help="Only this item; can be repeated.")
@click.option("--from-start", is_flag=True, help="Also read the list again, from its first page.")
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
    """Retry the failed items of a run.

    All of them, or those that match every option given. A run that failed while it read its list continues with the
    list; --from-start reads the list from its first page, in case the API no longer knows the page where it stopped.
    RUN may be left out if the latest run of exactly one source has failed or has failed items.

    \b
    Examples:
      python -m workers retry                 whatever failed last
      python -m workers retry 7 --class transient --wait
      python -m workers retry 7 --item 41 --item 42
      python -m workers retry 7 --from-start

    Next: `status RUN` shows what failed and why; `status RUN --failed` lists the items.
    """
    with door.acting() as by:
        chosen = run_picker.run(run_id, "retry", run_picker.last_and_failed(), run_picker.NOTHING_FAILED)
        count = runner.retry_failed(
            chosen,
            failure_class=failure_class,
            fingerprint=fingerprint and sheet_cell.read(fingerprint),
            external_ids=meant(chosen, external_ids),
            from_start=from_start,
            **by,
        )
        run = _answer(chosen, as_json=as_json, later=wait, retried=count)
        say(_retried(run, count, from_start=from_start))
    return watch.to_the_end(run, as_json=as_json, retried=count) if wait else EXIT_DONE


@click.command()
@RUN
@click.option("--lanes", type=click.IntRange(1, 1024), metavar="N", help="How many items it works on at once.")
@click.option(
    "--priority", type=click.IntRange(-100, 100), metavar="N", help="The higher goes first; a run starts with 0."
)
@AS_JSON
@pass_door
def adjust(door: Door, run_id: int | None, *, lanes: int | None, priority: int | None, as_json: bool) -> int:
    """Change the lanes or the priority of a run, even while it runs.

    More lanes help where the API answers slowly, but not where its limits are used up. A run of higher priority goes
    first where runs share an API's limits. RUN may be left out if exactly one run is running or paused.

    \b
    Examples:
      python -m workers adjust 7 --lanes 4       leave more worker threads to other runs
      python -m workers adjust 7 --priority 10   before other runs

    Next: `status RUN` shows the effect.
    """
    if lanes is None and priority is None:
        raise click.UsageError("Say what to change: --lanes N, --priority N, or both")
    with door.acting() as by:
        chosen = run_picker.run(run_id, "adjust", *_ACTIVE)
        if lanes is not None:
            runner.set_lanes(chosen, lanes, **by)
        if priority is not None:
            runner.set_priority(chosen, priority, **by)
        run = _answer(chosen, as_json=as_json)
        say(f"run {run.id} of {run.source} has lanes: {run.lanes}, priority: {run.priority}")
        if lanes is not None and (hint := _more_lanes_than_threads(lanes)):
            say(hint)
    return EXIT_DONE


@click.command()
@click.argument("run_id", metavar="RUN", type=RunId())
@AS_JSON
@pass_door
def force(door: Door, run_id: int, *, as_json: bool) -> int:
    """Unblock a run that has been stuck for five minutes.

    A run is stuck when it is paused or cancelled but its lanes have not stopped, overdue, pending with no other run
    active, or finished but not completed. The command prints what it did. It refuses a run that is not stuck, or not
    yet for five minutes.

    \b
    Example:
      python -m workers force 7

    Next: check that a scheduler runs, because it starts and completes runs automatically. A worker that keeps its items
    after a pause hangs: see its log.
    """
    with door.acting() as by:
        done = runner.force(run_id, **by)
        _answer(run_id, as_json=as_json, forced=done)
        say(done)
    return EXIT_DONE


def _answer(run_id: int, *, as_json: bool, later: bool = False, **more: Any) -> Run:
    """Print the run as it is now, and return it.

    Parameters:
      later(bool): Whether the run is watched next: then JSON is printed at its end instead.
      more: Further keys of the JSON.
    """
    run = runs.get(run_id)
    if not (as_json and later):
        answer_run(run, as_json=as_json, **more)
    return run


def _start_of(moved: Run) -> str:
    if moved.status == RunStatus.SCHEDULED:
        return f"starts at {instant(moved.scheduled_at)}"
    ahead = runner.behind(moved)
    return f"waits for run {ahead.id}, which is {ahead.status}" if ahead else f"is {moved.status}"


def _say_redis_is_away() -> None:
    """Say so where Redis does not answer, because workers then apply the change later."""
    if trouble := outages.redis_trouble():
        say(f"{trouble.what}: the change is saved, and workers apply it when Redis is back. To do: {trouble.repair}")


def _more_lanes_than_threads(lanes: int) -> str:
    """Say that one worker with these settings has fewer threads than that; empty where it has enough."""
    found = get_settings()
    threads = found.worker_processes * found.worker_threads
    if lanes <= threads:
        return ""
    return (
        f"a worker with these settings has {threads} threads, one for each active lane: further lanes wait, "
        "unless other workers run (SLUICE_WORKER_PROCESSES, SLUICE_WORKER_THREADS)"
    )


def _retried(run: Run, count: int, *, from_start: bool) -> str:
    ahead = runner.behind(run)
    if not count:
        what = "reads its list again from the first page" if from_start else "continues where it stopped"
        return f"run {run.id} of {run.source} {what}; `status {run.id} --watch` shows its progress"
    when = "when the run is resumed" if run.status == RunStatus.PAUSED else "now"
    when = f"when run {ahead.id} has ended" if ahead else when
    what = f"{count:,} failed {'item is' if count == 1 else 'items are'} retried {when}"
    return f"run {run.id} of {run.source}: {what}; `status {run.id} --watch` shows its progress"
