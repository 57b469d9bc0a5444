"""The command `schedule`: lists when sources run automatically; subcommands show, set, pause or remove a schedule."""

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import click

from workers import clock
from workers.cli.arguments import TENANT, SourceName, Zone
from workers.cli.exit_codes import EXIT_DONE
from workers.cli.origin import Door, pass_door, tables
from workers.cli.printing import AS_JSON, answer, instant, line, say, show, table
from workers.control import tenants
from workers.cron import CatchUp, Cron
from workers.errors import UsageError
from workers.records.tables import Schedule
from workers.scheduling import schedule_stats, timetable
from workers.scheduling.schedule_stats import PREVIEW, ScheduleStats
from workers.sources.registry import get_registry
from workers.text.durations import duration

NAMED = click.argument("source", type=SourceName())
CRON = click.argument("cron", nargs=-1, required=True, metavar="CRON")


#: What people type instead of a subcommand, and the one that they mean.
_MEANT = {
    "list": "`schedule` without a subcommand lists the schedules.",
    "add": "`schedule set SOURCE CRON` sets a schedule.",
    "change": "`schedule set SOURCE CRON` changes a schedule.",
    "delete": "`schedule remove SOURCE` removes a schedule.",
    "stop": "`schedule pause SOURCE` stops a schedule.",
}


class Schedules(click.Group):
    """A group that names the right subcommand where a source, or another word, was typed in its place."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in self.commands and args[0] in get_registry():
            ctx.fail(
                f"Say what to do with the schedule of {args[0]}: `show {args[0]}`, or another subcommand of --help"
            )
        if args[0] in _MEANT:
            ctx.fail(f"No such command {args[0]!r}. {_MEANT[args[0]]}")
        return super().resolve_command(ctx, args)


@click.group(cls=Schedules, invoke_without_command=True)
@AS_JSON
@click.pass_context
def schedule(ctx: click.Context, as_json: bool) -> int:
    """Run a source automatically, by a cron expression.

    Without a subcommand it lists the schedules. The scheduler (`python -m workers scheduler`) starts the runs. A source
    can declare a schedule in its code; a schedule that you set here overrides it.

    A schedule makes runs repeatedly. For a single run at a time of yours: `run SOURCE --at TIME`. To start the next
    scheduled run now: `reschedule SOURCE`.

    CRON has five fields, in quotes: minute, hour, day of month, month, day of week.

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
        _record_declared()
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
    """Show the schedule of a source and its next five times.

    \b
    Example:
      python -m workers schedule show items
    """
    with tables():
        _record_declared()
        _show(source, tenant, as_json=as_json)
    return EXIT_DONE


@schedule.command()
@CRON
@click.option("--timezone", default="UTC", show_default=True, type=Zone(), help="A name like Europe/Paris.")
@AS_JSON
def preview(cron: tuple[str, ...], *, timezone: str, as_json: bool) -> int:
    """Show the next five times of a CRON without storing it.

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
@click.option("--timezone", type=Zone(), help="A name like Europe/Paris; default: unchanged, else the source's.")
@click.option(
    "--catch-up",
    type=click.Choice([c.value for c in CatchUp]),
    help="Which missed times are run late, if no scheduler ran: the latest (default), none, or all.",
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
    """Set or change the schedule of a source.

    \b
    Examples:
      python -m workers schedule set items "0 */3 * * *"
      python -m workers schedule set items "30 6 * * 1-5" --timezone Europe/Paris

    Next: make sure that a scheduler runs: `python -m workers scheduler`.
    """
    with door.acting() as by:
        tenants.refuse(source, tenant)
        timetable.set_schedule(source, " ".join(cron), timezone=timezone, catch_up=catch_up, tenant=tenant, **by)
        _show(source, tenant, as_json=as_json)
    return EXIT_DONE


@schedule.command()
@NAMED
@TENANT
@AS_JSON
@pass_door
def pause(door: Door, source: str, *, tenant: str | None, as_json: bool) -> int:
    """Pause the schedule of a source: it starts no runs automatically until it is resumed.

    A run that has begun continues: to pause it, `python -m workers pause RUN`.

    \b
    Example:
      python -m workers schedule pause items
    """
    return _change(timetable.pause_schedule, door, source, tenant, as_json=as_json)


@schedule.command()
@NAMED
@TENANT
@AS_JSON
@pass_door
def resume(door: Door, source: str, *, tenant: str | None, as_json: bool) -> int:
    """Resume the schedule of a source, from its next time on.

    Times that passed during the pause are not run late. To continue a paused run: `python -m workers resume RUN`.

    \b
    Example:
      python -m workers schedule resume items
    """
    return _change(timetable.resume_schedule, door, source, tenant, as_json=as_json)


@schedule.command()
@NAMED
@TENANT
@AS_JSON
@pass_door
def remove(door: Door, source: str, *, tenant: str | None, as_json: bool) -> int:
    """Remove the schedule that was set for a source.

    The schedule that the source declares in its code applies again, if it has one.

    \b
    Example:
      python -m workers schedule remove items

    Next: to stop a schedule that the source declares, pause it.
    """
    with door.acting() as by:
        _record_declared()
        left = timetable.remove_schedule(source, tenant=tenant, **by)
        if left is None:
            say(f"{_whose(source, tenant)} has no schedule any more")
        else:
            say(f"the schedule in the code of {source} applies again; `schedule pause {source}` stops it")
        if left is not None or as_json:
            _show(source, tenant, as_json=as_json)
    return EXIT_DONE


def _change(act: Callable[..., Schedule], door: Door, source: str, tenant: str | None, *, as_json: bool) -> int:
    """Change the schedule of a source by an act of `timetable`, and print it."""
    with door.acting() as by:
        _record_declared()
        act(source, tenant=tenant, **by)
        _show(source, tenant, as_json=as_json)
    return EXIT_DONE


def _record_declared() -> None:
    """Record the schedules that sources declare in their code, where no scheduler has done so yet."""
    recorded = {one.source for one in schedule_stats.all_schedules() if one.tenant is None}
    if any(source.schedule and name not in recorded for name, source in get_registry().items()):
        timetable.record_declared()


def _show(source: str, tenant: str | None, *, as_json: bool) -> None:
    """Print the schedule of a source as it is now, with its next times."""
    name = get_registry()[source].name
    one = schedule_stats.schedule_stats(name, tenant)
    if as_json:
        answer(dataclasses.asdict(one) if one else None)
    elif one is None:
        whose = _whose(name, tenant)
        raise UsageError(f'{whose} has no schedule: set one with `schedule set {name} "0 */3 * * *"`')
    else:
        _print(one)
    if one and one.unattended:
        say(one.unattended)


def _print(one: ScheduleStats) -> None:
    origin = f"set by {one.updated_by}" if _is_set(one) else "declared by its source"
    line(f"{_whose(one.source, one.tenant)}: {one.cron} ({one.in_words}), {one.timezone}; {origin}")
    if one.trouble:
        line(f"it cannot be followed: {one.trouble}")
    elif one.paused_at:
        line(f"paused since {instant(one.paused_at)}: `schedule resume {one.source}` continues it")
    else:
        show(_times(one.next_at, one.timezone))
        say(f"times missed while no scheduler runs: {_CATCH_UP[one.catch_up]}")


_CATCH_UP: dict[str, str] = {
    CatchUp.LATEST: "the latest one is run late",
    CatchUp.NONE: "none is run",
    CatchUp.ALL: "every one is run late",
}


def _list(found: Sequence[ScheduleStats]) -> None:
    if found:
        titles = ("source", "cron", "in words", "timezone", "catch-up", "set by", "next")
        listed = table(*titles, rows=[_row(one) for one in found])
        listed.columns[-1].no_wrap = True  # on a narrow terminal the words wrap instead
        show(listed)
    else:
        say('No source has a schedule: set one with `python -m workers schedule set SOURCE "0 */3 * * *"`.')
    for one in found:
        if one.trouble:
            line(f"{_whose(one.source, one.tenant)}: {one.trouble}")
    for why in dict.fromkeys(one.unattended for one in found if one.unattended):
        say(why)


def _row(one: ScheduleStats) -> tuple[object, ...]:
    origin = one.updated_by if _is_set(one) else "its source"
    return _whose(one.source, one.tenant), one.cron, one.in_words, one.timezone, one.catch_up, origin, _next(one)


def _is_set(one: ScheduleStats) -> bool:
    """Whether a person has set it."""
    return one.edited or not one.declared


def _next(one: ScheduleStats) -> str:
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
