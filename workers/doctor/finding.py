"""Finding: what the doctor found out about one thing, how bad it is, and the fix."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from peewee import PeeweeException
from redis.exceptions import RedisError

from workers.connections import database, outages, redis_errors
from workers.errors import DependencyDown, SluiceError
from workers.text.error_text import describe

#: A sentence of ours ends with its fix, after a colon. What stands before it is a clause, not the name of a class.
_SHORTEST_CLAUSE = 4


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    #: It works, and something is about to go wrong, or slower than it must.
    WARNING = "warning"
    #: Something does not work.
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
      area: What it is about: python, redis, database, ...
      what: What there is, or is the matter. It holds no secret.
      fix: What a person can do, or type; empty where nothing is the matter.
      down: Whether it says that Redis or the database cannot be used.
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


def refused(area: str, why: BaseException | str, otherwise: str) -> Finding:
    """Return what a sentence of ours says, and the fix it ends with.

    Parameters:
      why(BaseException | str): The sentence.
      otherwise(str): The fix, where the sentence has none of its own.
    """
    what, _, fix = str(why).rpartition(": ")
    whole = len(what.split()) < _SHORTEST_CLAUSE
    return error(area, str(why), otherwise) if whole else error(area, what, fix)


def met(area: str, why: BaseException) -> Finding:
    """Return what an exception says that a check met with, and did not expect."""
    cause = why.__cause__ if isinstance(why, DependencyDown) and why.__cause__ else why
    if isinstance(cause, RedisError):
        return in_words(area, redis_errors.trouble(cause))
    if isinstance(why, DependencyDown) or database.is_away(cause):
        return in_words(area, outages.database_trouble(cause))
    if isinstance(why, SluiceError):
        return refused(area, why, "see docs/operations.md")
    if isinstance(why, PeeweeException):
        return error(area, f"the database refuses: {database.explain(why)}", "see its log, and the rights of its user")
    return error(
        area, f"this could not be found out: {describe(why)}", "see whether the rest of the findings tells why"
    )


def in_words(area: str, trouble: redis_errors.Trouble, variable: str = "SLUICE_REDIS_URL") -> Finding:
    """Return what is the matter with Redis or with the database.

    Parameters:
      variable(str): The setting that names this Redis.
    """
    said = f" ({trouble.said})" if trouble.said and trouble.said not in trouble.what else ""
    repair = trouble.repair.replace("SLUICE_REDIS_URL", variable)
    return error(area, f"{trouble.what}{said}".replace("SLUICE_REDIS_URL", variable), repair, down=True)
