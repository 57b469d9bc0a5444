"""Isolation: what fails for one of many is logged, and keeps none of the others from its turn."""

import logging
from collections.abc import Callable
from typing import TypeVar

from peewee import PeeweeException

from workers import clock
from workers.connections import database, database_errors
from workers.connections.database_errors import Fault
from workers.errors import SluiceError
from workers.text.error_text import describe

T = TypeVar("T")

log = logging.getLogger(__name__)

_REMIND_SECONDS = 60.0
#: Failures that are remembered, so that each is logged once a minute and not with every tick.
_MOST = 1_000

#: By name, the last failure and when it was logged (monotonic seconds).
_said: dict[str, tuple[str, float]] = {}
_failed = 0


def failures() -> int:
    """Return how many calls of `isolated` have failed in this process."""
    return _failed


def isolated(name: str, do: Callable[[], T]) -> T | None:
    """Call `do`; an error that is its own is logged once a minute.

    Parameters:
      name(str): What it is done for, as the log is to name it.

    Returns:
      T | None: What `do` returned; None where it failed.

    Raises:
      DependencyDown, peewee.PeeweeException: The database is away, which meets all of them.
    """
    try:
        done = do()
    except Exception as error:
        if is_for_all(error):
            raise
        global _failed
        _failed += 1
        _say(name, error)
        return None
    _said.pop(name, None)
    return done


def is_for_all(error: Exception) -> bool:
    """Whether an error would meet everything else that needs the database, too."""
    of_one = database.is_of_the_statement(error) or database_errors.sort(error) is Fault.CONFLICT
    return database.is_away(error) and not of_one


def _say(name: str, error: Exception) -> None:
    what, now = describe(error), clock.monotonic()
    last, at = _said.get(name, ("", 0.0))
    if last == what and now - at < _REMIND_SECONDS:
        return
    if len(_said) >= _MOST:
        _said.clear()
    _said[name] = what, now
    expected = isinstance(error, (SluiceError, PeeweeException))
    log.warning("%s: %s; the others are looked at", name, what, exc_info=None if expected else error)
