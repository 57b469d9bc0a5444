"""`schedule`: when sources run by themselves. Alone it lists the schedules; its commands change one."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from workers import clock
from workers.cli.arguments import TENANT, SourceName, Zone
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import Door, me, pass_door, tables
from workers.cli.printing import AS_JSON, answer, instant, line, say, show, table
from workers.control import runner
from workers.cron import CatchUp, Cron
from workers.errors import UsageError
from workers.scheduling import schedule_stats, timetable
from workers.scheduling.schedule_stats import PREVIEW, ScheduleStats
from workers.sources.registry import get_registry
from workers.text.durations import duration

NAMED = click.argument("source", type=SourceName())
CRON = click.argument("cron", nargs=-1, required=True, metavar="CRON")


#: What else people type for it.
_ELSEWHERE = {
    "list": "`schedule` alone lists the schedules.",
    "add": "`schedule set SOURCE CRON` gives a source a schedule.",
    "change": "`schedule set SOURCE CRON` changes one.",
    "delete": "`schedule remove SOURCE` takes one back.",
    "stop": "`schedule pause SOURCE` stops one.",
}


class Schedules(click.Group):
    """A group that knows what is meant where a source stands in a command's place."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and args[0] in get_registry():
            ctx.fail(
                f"Say what to do with the schedule of {args[0]}: `show {args[0]}`, or one of the commands in --help"
            )
        if args[0] in _ELSEWHERE:
            ctx.fail(f"No such command {args[0]!r}. {_ELSEWHERE[args[0]]}")
        return super().resolve_command(ctx, args)


@click.group(cls=Schedules, invoke_without_command=True)
@AS_JSON
@click.pass_context
def schedule(ctx: click.Context, as_json: bool) -> int:
    """Let a source run by itself, every so often.

    Alone it lists the schedules. The scheduler (`python -m workers scheduler`) starts what is due. A source may declare
    a schedule in its code; what you set here wins.

    A schedule makes runs again and again. For one run at a time you name: `run SOURCE --at TIME`. To start the next
    scheduled one now: `reschedule SOURCE`.

    CRON is five fields, in quotes: minute, hour, day of month, month, day of week.

    \b
    Examples:
      python -m workers schedule preview "30 6 * * 1-5"
      python -m workers schedule set items "0 */3 * * *"    every three hours
      python -m workers schedule pause items
      python -m workers schedule resume items
      python -m workers schedule remove items
    """
    if ctx.invoked_subcommand:
        return EXIT_DONE
    with tables():
        _adopt()
        found = schedule_stats.all_schedules()
    if as_json:
        answer([dataclasses.asdict(one) for one in found])
    else:
        _list(found)
    return EXIT_DONE


@schedule.command(name="show")
@NAMED
@TENANT
@AS_JSON
def show_one(source: str, *, tenant: str | None, as_json: bool) -> int:
    """Show the schedule of a source, and its next five times.

    \b
    Example:
      python -m workers schedule show items
    """
    with tables():
        _adopt()
        _tell(source, tenant, as_json=as_json)
    return EXIT_DONE


@schedule.command()
@CRON
@click.option("--timezone", default="UTC", show_default=True, type=Zone(), help="A name like Europe/Paris.")
@AS_JSON
def preview(cron: tuple[str, ...], *, timezone: str, as_json: bool) -> int:
    """Show a CRON's next five times; nothing is stored.

    \b
    Example:
      python -m workers schedule preview "0 */3 * * *" --timezone Europe/Paris
    """
    read = Cron(" ".join(cron), timezone)
    times = read.next(PREVIEW, clock.now())
    if as_json:
        answer({"cron": read.expression, "timezone": timezone, "in_words": read.in_words, "next_at": times})
    else:
        line(f"{read.in_words}, {timezone}")
        show(_times(times, timezone))
    return EXIT_DONE


@schedule.command(name="set")
@NAMED
@CRON
@click.option(
    "--timezone", type=Zone(), help="A name like Europe/Paris; default: as it was, else what the source says."
)
@click.option(
    "--catch-up",
    type=click.Choice([c.value for c in CatchUp]),
    help="Which times are made up for that passed while no scheduler ran; default: the latest.",
)
@TENANT
@AS_JSON
@pass_door
def set_one(
    door: Door,
    source: str,
    cron: tuple[str, ...],
    *,
    timezone: str | None,
    catch_up: str | None,
    tenant: str | None,
    as_json: bool,
) -> int:
    """Let a source run by itself, or change when it does.

    \b
    Examples:
      python -m workers schedule set items "0 */3 * * *"
      python -m workers schedule set items "30 6 * * 1-5" --timezone Europe/Paris

    Next: a scheduler must run: `python -m workers scheduler`.
    """
    with tables():
        runner.refuse_tenant(source, tenant)
        timetable.set_schedule(
            source, " ".join(cron), who=me(), door=door.name, timezone=timezone, catch_up=catch_up, tenant=tenant
        )
        _tell(source, tenant, as_json=as_json)
    return EXIT_DONE


@schedule.command()
@NAMED
@TENANT
@AS_JSON
@pass_door
def pause(door: Door, source: str, *, tenant: str | None, as_json: bool) -> int:
    """Let a source start no more runs by itself.

    Until it is resumed. A run that has begun goes on: to hold it, `python -m workers pause RUN`.

    \b
    Example:
      python -m workers schedule pause items
    """
    with tables():
        _adopt()
        timetable.pause_schedule(source, who=me(), door=door.name, tenant=tenant)
        _tell(source, tenant, as_json=as_json)
    return EXIT_DONE


@schedule.command()
@NAMED
@TENANT
@AS_JSON
@pass_door
def resume(door: Door, source: str, *, tenant: str | None, as_json: bool) -> int:
    """Let a source start runs by itself again.

    From its next time on; those that passed meanwhile are not made up for. To go on with a paused run:
    `python -m workers resume RUN`.

    \b
    Example:
      python -m workers schedule resume items
    """
    with tables():
        _adopt()
        timetable.resume_schedule(source, who=me(), door=door.name, tenant=tenant)
        _tell(source, tenant, as_json=as_json)
    return EXIT_DONE


@schedule.command()
@NAMED
@TENANT
@AS_JSON
@pass_door
def remove(door: Door, source: str, *, tenant: str | None, as_json: bool) -> int:
    """Take back the schedule that was set.

    What the source declares in its code holds again, or nothing.

    \b
    Example:
      python -m workers schedule remove items

    Next: to stop a schedule that the source declares, pause it.
    """
    with tables():
        _adopt()
        left = timetable.remove_schedule(source, who=me(), door=door.name, tenant=tenant)
        if left is None:
            say(f"{_whose(source, tenant)} runs by itself no more")
        else:
            say(f"what {source} declares in its code holds again: `schedule pause {source}` stops that, too")
        if left is not None or as_json:
            _tell(source, tenant, as_json=as_json)
    return EXIT_DONE


def _adopt() -> None:
    """Take over what the sources declare, where no scheduler has done so yet."""
    held = {one.source for one in schedule_stats.all_schedules() if one.tenant is None}
    if any(source.schedule and name not in held for name, source in get_registry().items()):
        timetable.record_declared()


def _tell(source: str, tenant: str | None, *, as_json: bool) -> None:
    """Print a schedule as it is now, with its next times."""
    name = get_registry()[source].name
    one = schedule_stats.schedule_stats(name, tenant)
    if as_json:
        answer(dataclasses.asdict(one) if one else None)
    elif one is None:
        whose = _whose(name, tenant)
        raise UsageError(f'{whose} has no schedule: `schedule set {name} "0 */3 * * *"` gives it one')
    else:
        _print(one)
    if one and one.unattended:
        say(one.unattended)


def _print(one: ScheduleStats) -> None:
    origin = f"set by {one.updated_by}" if _is_set(one) else "declared by its source"
    line(f"{_whose(one.source, one.tenant)}: {one.cron} ({one.in_words}), {one.timezone}; {origin}")
    if one.trouble:
        line(f"it cannot be kept: {one.trouble}")
    elif one.paused_at:
        line(f"paused since {instant(one.paused_at)}: `schedule resume {one.source}` goes on")
    else:
        show(_times(one.next_at, one.timezone))
        say(f"times that pass while no scheduler runs: {_CATCH_UP[one.catch_up]}")


_CATCH_UP: dict[str, str] = {
    CatchUp.LATEST: "the latest is made up for",
    CatchUp.NONE: "none is made up for",
    CatchUp.ALL: "each is made up for",
}


def _list(found: Sequence[ScheduleStats]) -> None:
    if found:
        titles = ("source", "cron", "in words", "timezone", "catch-up", "set by", "next")
        listed = table(*titles, rows=[_row(one) for one in found])
        listed.columns[-1].no_wrap = True  # where there is no room, the words wrap
        show(listed)
    else:
        say('No source has a schedule: `python -m workers schedule set SOURCE "0 */3 * * *"` gives it one.')
    for one in found:
        if one.trouble:
            line(f"{_whose(one.source, one.tenant)}: {one.trouble}")
    for why in dict.fromkeys(one.unattended for one in found if one.unattended):
        say(why)


def _row(one: ScheduleStats) -> tuple[object, ...]:
    origin = one.updated_by if _is_set(one) else "its source"
    return _whose(one.source, one.tenant), one.cron, one.in_words, one.timezone, one.catch_up, origin, _coming(one)


def _is_set(one: ScheduleStats) -> bool:
    """Whether a person has set it."""
    return one.edited or not one.declared


def _coming(one: ScheduleStats) -> str:
    if one.next_at:
        run = f" (run {one.next_run_id})" if one.next_run_id else ""
        return f"{one.next_at[0]:%Y-%m-%d %H:%M} UTC{run}"
    return "paused" if one.paused_at else "never: see below"


def _times(times: Sequence[datetime], timezone: str) -> Any:
    """Return the table of some instants: there, in UTC, and from now."""
    now, zone = clock.now(), ZoneInfo(timezone)
    rows = [(*_both(at, zone), f"in {duration((at - now).total_seconds())}") for at in times]
    titles = ("next", "UTC", "") if zone.key != "UTC" else ("next", "")
    return table(*titles, rows=rows)


def _both(at: datetime, zone: ZoneInfo) -> tuple[str, ...]:
    utc = f"{at.astimezone(UTC):%a %Y-%m-%d %H:%M}"
    return (utc,) if zone.key == "UTC" else (f"{at.astimezone(zone):%a %Y-%m-%d %H:%M %Z}", utc)


def _whose(source: str, tenant: str | None) -> str:
    return f"{source} for {tenant}" if tenant else source
