"""The command line: `python -m workers ...`, installed as `sluice`. It parses and prints; the doing is the runner's.

A command is a function of a module in this package, and a line in SECTIONS. The module is imported when it is used.
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

#: What a person wants, and the commands for it: a name, the module that holds it, its line in the list.
SECTIONS = {
    "Import": (("run", "run", "Start a run of a source, now or at a time."),),
    "Steer": (
        ("reschedule", "steer", "Pull the next scheduled run of a source to now, or to a time."),
        ("pause", "steer", "Hold a running run; resume goes on where it stopped."),
        ("resume", "steer", "Go on with a paused run."),
        ("cancel", "steer", "Call a run off; what it has imported stays."),
        ("retry", "steer", "Try the failed items of a run again."),
        ("adjust", "steer", "Change the lanes or the priority of a run, also while it runs."),
        ("force", "steer", "Move a run on that has been stuck for five minutes."),
    ),
    "Look": (
        ("status", "status", "List the newest runs, or tell all about one."),
        ("sources", "sources", "List what can be run: the sources, their APIs and their limits."),
        ("budgets", "budgets", "Show what each API's limits have left, and what waits for them."),
        ("plan", "plan", "Tell how long a run would take, from one list page."),
    ),
    "Schedule": (("schedule", "schedule", "Let a source run by itself, every so often."),),
    "Set up": (
        ("migrate", "migrate", "Bring Sluice's tables up to date."),
        ("doctor", "doctor", "Say what is the matter with what an import stands on, and the fix."),
        ("prune", "prune", "Remove what runs left behind that ended long ago."),
        ("password", "password", "Print the line that sets a password for the page."),
        ("completion", "completion", "Print what lets your shell complete commands, sources and runs."),
    ),
    "Processes": (
        ("worker", "processes", "Work: keep worker processes alive until told to stop."),
        ("scheduler", "processes", "Start runs when their time comes, and put back to work what was lost."),
        ("redis", "processes", "Serve Redis where none answers."),
        ("monitor", "processes", "Serve the page to watch and steer from."),
    ),
}


#: How the docs, and the examples here, call the command line; it is installed as `sluice`, too.
_MODULE = "python -m workers"


#: The help of each command as it is written here.
_written: WeakKeyDictionary[click.Command, str] = WeakKeyDictionary()


class Later(click.Command):
    """A command whose module is imported when it is used: the list of commands must not take a second.

    Parameters:
      module(str): Of this package; its function has the command's name.
      line(str): What the list says of it.
    """

    def __init__(self, name: str, module: str, line: str, *, hidden: bool = False) -> None:
        super().__init__(name, short_help=line, hidden=hidden)
        self.module = module

    def load(self) -> click.Command:
        """Return the command itself."""
        gc.disable()  # what is imported stays: to look for garbage among it is a tenth of the time
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
    """A group whose help lists its commands by what a person wants."""

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
      python -m workers migrate --create-models    make the tables
      python -m workers redis                      in a terminal of its own, if none runs
      python -m workers worker                     in another one
      python -m workers doctor                     is anything missing?
      python -m workers run --wait                 start a run and watch it

    COMMAND --help has examples. Answers go to stdout: ids and tables or, with --json, JSON. What else there is to say
    goes to stderr.

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
        logging.root.setLevel(logging.WARNING)  # a command says itself what it did


def _as_typed(command: click.Command, typed: str) -> None:
    """Let examples begin with what the person typed to get here."""
    written = _written.setdefault(command, command.help or "")  # a process may be called by several names: tests are
    command.help = written.replace(_MODULE, typed)
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _as_typed(inner, typed)


def _check_arguments() -> None:
    """Refuse what no database can store, before anything is done."""
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"The argument {argument!r} is not UTF-8") from None


def _set_up_log() -> None:
    from workers import log

    with suppress(ConfigurationError):  # who needs the settings will say so; doctor must not fall over them
        log.set_up()


def _entries() -> Iterator[Later]:
    for entries in SECTIONS.values():
        yield from (Later(*entry) for entry in entries)
    yield Later("worker-process", "processes", "", hidden=True)


for _command in _entries():
    cli.add_command(_command)


def main(command: click.Command = cli, door: object = None, name: str = "sluice") -> None:
    """Run a command, and end the process with the exit code its outcome stands for.

    Parameters:
      command(click.Command): Which; default: whatever the arguments name.
      door(Door | None): Where it comes from; None: the command line.
      name(str): What was typed to get here.
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
    except SystemExit as left:  # click's own, who has completed a word, or found that nobody reads the answer
        code = 128 + signal.SIGPIPE if isinstance(left.__context__, BrokenPipeError) else left.code
    except (Exception, KeyboardInterrupt) as error:
        from workers.cli import exit_codes

        code = exit_codes.of(error)
    sys.exit(code if isinstance(code, int) else 0)
