"""The command line: lists the commands, imports the one that was typed, and ends with the exit code of its outcome.

`python -m workers ...`, installed as `sluice`. A command is a function of a module in this package and a line in
SECTIONS; it parses and prints, and leaves every act to `control/`.
"""

import gc
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

import click

from workers.errors import ConfigurationError
from workers.version import VERSION

#: The list of commands by purpose: each one's name, its module, and its line in `--help`.
SECTIONS = {
    "Import": (("run", "run", "Start a run of a source, now or at a time."),),
    "Steer": (
        ("reschedule", "steer", "Move the next scheduled run of a source to now or to a time."),
        ("pause", "steer", "Pause a running run; resume continues it."),
        ("resume", "steer", "Resume a paused run."),
        ("cancel", "steer", "Cancel a run for good; what it has imported stays."),
        ("retry", "steer", "Retry the failed items of a run."),
        ("adjust", "steer", "Change the lanes or the priority of a run, even while it runs."),
        ("force", "steer", "Unblock a run that has been stuck for five minutes."),
    ),
    "Look": (
        ("status", "status", "List the newest runs, or show one in full."),
        ("sources", "sources", "List the sources with their APIs and limits."),
        ("budgets", "budgets", "Show how much of each API's limits is used, and how many requests wait."),
        ("plan", "plan", "Estimate how long a run would take, from one list page."),
    ),
    "Schedule": (("schedule", "schedule", "Run a source automatically, by a cron expression."),),
    "Set up": (
        ("migrate", "migrate", "Create Sluice's tables, or bring them up to date."),
        ("doctor", "doctor", "Check everything an import depends on, and name each fix."),
        ("prune", "prune", "Delete items and runs that ended long ago."),
        ("password", "password", "Print the setting with a password for the page, as a hash."),
        ("completion", "completion", "Print the script for shell completion."),
    ),
    "Processes": (
        ("worker", "processes", "Run worker processes until stopped."),
        ("scheduler", "processes", "Start scheduled runs on time, and recover lost work."),
        ("redis", "processes", "Serve Redis where none is running."),
        ("monitor", "processes", "Serve the page from which people watch and steer runs."),
    ),
}


#: How the docs and the examples here call the command line; it is also installed as `sluice`.
_MODULE = "python -m workers"


#: The help of each command as it is written here.
_written: WeakKeyDictionary[click.Command, str] = WeakKeyDictionary()


class Later(click.Command):
    """A command whose module is imported when it is used, because the list of commands must not take a second.

    Parameters:
      name(str): As it is typed.
      module(str): Of this package; its function has the command's name.
      line(str): Its line in the list of commands.
      hidden(bool): Whether the list leaves it out.
    """

    def __init__(self, name: str, module: str, line: str, *, hidden: bool = False) -> None:
        super().__init__(name, short_help=line, hidden=hidden)
        self.module = module

    def load(self) -> click.Command:
        """Return the command itself."""
        gc.disable()  # what is imported stays: to collect garbage in it takes a tenth of the time
        try:
            module = import_module(f"workers.cli.{self.module}")
        finally:
            gc.enable()
        gc.freeze()
        command: click.Command = getattr(module, str(self.name).replace("-", "_"))
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        command = self.load()
        if parent is not None:
            _as_typed(command, parent.find_root().info_name or _MODULE)
        return command.make_context(info_name, args, parent, **extra)


class Sections(click.Group):
    """A group whose help lists its commands by purpose."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, _, line in entries])


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="sluice")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Import from rate-limited APIs at the fastest pace they allow, losing and repeating nothing.

    \b
    A first import:
      python -m workers migrate --create-models    create the tables
      python -m workers redis                      in a terminal of its own, if no Redis runs
      python -m workers worker                     in another terminal
      python -m workers doctor                     check what is missing
      python -m workers run --wait                 start a run and watch it

    COMMAND --help has examples. Answers go to stdout: ids and tables or, with --json, JSON. Progress, hints and errors
    go to stderr.

    \b
    Exit codes:
      0  done                        3  Redis or the database is down
      1  failed                      4  finished, with failed items
      2  usage or configuration      130, 143  ended by a signal
    """
    _set_up_log()
    command = cli.commands.get(ctx.invoked_subcommand or "")
    lives_on = isinstance(command, Later) and command.module == "processes"
    if not lives_on and logging.root.level == logging.INFO:
        logging.root.setLevel(logging.WARNING)  # the command prints what it did


def _as_typed(command: click.Command, typed: str) -> None:
    """Make examples begin with the name under which the command line was called."""
    written = _written.setdefault(command, command.help or "")  # one process can be called by several names: tests are
    command.help = written.replace(_MODULE, typed)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _as_typed(inner, typed)


def _check_arguments() -> None:
    """Refuse arguments that no database can store, before anything is done."""
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"The argument {argument!r} is not UTF-8") from None


def _set_up_log() -> None:
    from workers import log

    with suppress(ConfigurationError):  # a command that needs the settings reports it; doctor must still run
        log.set_up()


def _entries() -> Iterator[Later]:
    for entries in SECTIONS.values():
        yield from (Later(*entry) for entry in entries)
    yield Later("worker-process", "processes", "", hidden=True)


for _command in _entries():
    cli.add_command(_command)


def main(command: click.Command = cli, door: object = None, name: str = "sluice") -> None:
    """Run a command, and end the process with the exit code of its outcome.

    Parameters:
      command(click.Command): The command; default: the one that the arguments name.
      door(Door | None): Where it comes from; None: the command line.
      name(str): The name under which it was called.
    """
    try:
        if command is cli:
            _as_typed(cli, name)
        else:
            _set_up_log()
        _check_arguments()
        code = command.main(prog_name=name, standalone_mode=False, obj=door)
        if sys.stdout:
            sys.stdout.flush()
    except SystemExit as left:  # click has completed a word, or the reader of the answer has closed its pipe
        code = 128 + signal.SIGPIPE if isinstance(left.__context__, BrokenPipeError) else left.code
    except (Exception, KeyboardInterrupt) as error:
        from workers.cli import exit_codes

        code = exit_codes.of(error)
    sys.exit(code if isinstance(code, int) else 0)
