"""Finding: the result of one check of `doctor`: its level, what was found, and the fix."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from peewee import PeeweeException
from redis.exceptions import RedisError

from workers.connections import database, outages, redis_errors
from workers.connections.trouble import Trouble
from workers.errors import DependencyDown, SluiceError
from workers.text.error_text import describe


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    #: It works, but is about to fail, or is slower than necessary.
    WARNING = "warning"
    #: Something does not work.
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
      area: What it is about: python, redis, database, ...
      what: The state, or the problem. It holds no secret.
      fix: What a person can do, or type; empty where there is no problem.
      down: Whether Redis or the database cannot be used.
    """

    area: str
    level: Level
    what: str
    fix: str = ""
    down: bool = False


Check = Callable[[], Iterator[Finding]]


def ok(area: str, what: str) -> Finding:
    return Finding(area, Level.OK, what)


def warning(area: str, what: str, fix: str) -> Finding:
    return Finding(area, Level.WARNING, what, fix)


def error(area: str, what: str, fix: str, *, down: bool = False) -> Finding:
    return Finding(area, Level.ERROR, what, fix, down)


def refused(area: str, why: SluiceError, otherwise: str) -> Finding:
    """Return what an error says, and its repair.

    Parameters:
      otherwise(str): The fix, where the error names none.
    """
    return error(area, why.what, why.repair or otherwise)


def met(area: str, why: BaseException) -> Finding:
    """Return the finding for an exception that a check did not expect."""
    cause = why.__cause__ if isinstance(why, DependencyDown) and why.__cause__ else why
    if isinstance(cause, RedisError):
        return in_words(area, redis_errors.trouble(cause))
    if isinstance(why, DependencyDown) or database.is_away(cause):
        return in_words(area, outages.database_trouble(cause))
    if isinstance(why, SluiceError):
        return refused(area, why, "see docs/operations.md")
    if isinstance(why, PeeweeException):
        return error(area, f"the database refuses: {database.explain(why)}", "see its log, and the rights of its user")
    return error(area, f"this check failed: {describe(why)}", "see whether another finding explains it")


def in_words(area: str, trouble: Trouble, variable: str = "SLUICE_REDIS_URL") -> Finding:
    """Return the finding for a trouble of Redis or the database.

    Parameters:
      variable(str): The setting that names this Redis.
    """
    said = f" ({trouble.said})" if trouble.said and trouble.said not in trouble.what else ""
    repair = trouble.repair.replace("SLUICE_REDIS_URL", variable)
    return error(area, f"{trouble.what}{said}".replace("SLUICE_REDIS_URL", variable), repair, down=True)
