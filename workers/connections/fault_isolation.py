"""Fault isolation: of many independent tasks, the failure of one is logged and the others run."""

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
_MOST_REMEMBERED = 1_000

#: By task name, the last failure and when it was logged (monotonic seconds).
_logged: dict[str, tuple[str, float]] = {}
_failed = 0


def failures() -> int:
    """Return how many calls of `isolated` have failed in this process."""
    return _failed


def isolated(name: str, do: Callable[[], T]) -> T | None:
    """Call `do`. An error that concerns this task alone is logged, once a minute.

    Parameters:
      name(str): The task, as the log names it.
      do(Callable): The task.

    Returns:
      T | None: What `do` returned; None where it failed.

    Raises:
      DependencyDown, peewee.PeeweeException: The database is away, so that every task would fail.
    """
    try:
        done = do()
    except Exception as error:
        if is_for_all(error):
            raise
        global _failed
        _failed += 1
        _log(name, error)
        return None
    _logged.pop(name, None)
    return done


def is_for_all(error: Exception) -> bool:
    """Return whether everything else that needs the database would fail with this error, too."""
    of_one = database.is_of_the_statement(error) or database_errors.classify(error) is Fault.CONFLICT
    return database.is_away(error) and not of_one


def _log(name: str, error: Exception) -> None:
    what, now = describe(error), clock.monotonic()
    last, at = _logged.get(name, ("", 0.0))
    if last == what and now - at < _REMIND_SECONDS:
        return
    if len(_logged) >= _MOST_REMEMBERED:
        _logged.clear()
    _logged[name] = what, now
    expected = isinstance(error, (SluiceError, PeeweeException))
    log.warning("%s: %s; the others are not affected", name, what, exc_info=None if expected else error)
