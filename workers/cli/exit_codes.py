"""Exit codes: which outcome of a run and which error ends a command with which code, and the error's message."""

import signal
import traceback
from difflib import get_close_matches

import click
from peewee import PeeweeException
from redis import RedisError

from workers.cli.printing import say
from workers.connections import database, database_errors, outages, redis_errors
from workers.connections.database_errors import Fault
from workers.errors import ConfigurationError, DependencyDown, SluiceError, UnknownSource, UsageError
from workers.records.tables import Run, RunStatus
from workers.text.error_text import describe

#: The SQLSTATE of a role without the right to do it.
_NO_RIGHTS = "42501"

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_DEPENDENCY, EXIT_WITH_FAILURES = 0, 1, 2, 3, 4


def code_of(run: Run) -> int:
    """Return the exit code of a command that waited for this run."""
    if run.status == RunStatus.COMPLETED:
        return EXIT_WITH_FAILURES if run.failed_count else EXIT_DONE
    return EXIT_FAILED


def of(error: BaseException) -> int:
    """Print an error on stderr and return its exit code. An error that is none of these is raised again."""
    if isinstance(error, click.ClickException):
        error.show()
        return EXIT_USAGE
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return 128 + signal.SIGINT
    if is_outage(error):
        return _fail(_with_repair(error), EXIT_DEPENDENCY)
    if isinstance(error, UsageError):
        return _fail(f"{error}{_near(error)}{_where(error)}", EXIT_USAGE)
    if isinstance(error, SluiceError):
        return _fail(error, EXIT_FAILED)
    if database_errors.classify(error) is Fault.MISTAKE:
        return _fail(f"the database refuses it: {database.explain(error)}. To do: {_repair(error)}", EXIT_FAILED)
    raise error


def _repair(error: BaseException) -> str:
    if database_errors.sqlstate(error) == _NO_RIGHTS:
        return "GRANT the rights on it to the role that SLUICE_DATABASE_URL names"
    return "`python -m workers migrate` brings Sluice's tables up to date; you create the tables of your models"


def is_outage(error: BaseException) -> bool:
    """Whether an error says that Redis or the database is down."""
    return isinstance(error, (DependencyDown, RedisError)) or database.is_away(error)


def _fail(message: object, code: int) -> int:
    say(f"Error: {message}")
    return code


def _with_repair(error: BaseException) -> str:
    """Return what is down, and the repair."""
    if isinstance(error, RedisError):
        trouble = redis_errors.trouble(error)
        return f"{trouble.what}: {trouble.said}. To do: {trouble.repair}"
    cause = error if isinstance(error, PeeweeException) else error.__cause__
    if not isinstance(cause, PeeweeException):
        return str(error)
    trouble = outages.database_trouble(cause)
    said = f"{trouble.what}: {trouble.said}" if cause is error else str(error)
    return f"{said}. To do: {trouble.repair}"


def _near(error: UsageError) -> str:
    """Return a hint at the source that was probably meant."""
    near = get_close_matches(error.name, error.known, n=1) if isinstance(error, UnknownSource) else []
    return f" Did you mean {near[0]!r}?" if near else ""


def _where(error: UsageError) -> str:
    """Return the error in a user's own module and its line. For a terminal only: the page does not show it."""
    cause = error.__cause__ if isinstance(error, ConfigurationError) else None
    if cause is None:
        return ""
    last = traceback.extract_tb(cause.__traceback__)[-1]
    return f": {describe(cause)} ({last.filename}:{last.lineno})"
