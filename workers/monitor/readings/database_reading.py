"""Reading what a page shows from the database; or saying what keeps it from being read."""

from collections.abc import Callable
from typing import TypeVar

from peewee import InterfaceError, OperationalError, PeeweeException

from workers.connections import database
from workers.errors import ConfigurationError, DependencyDown
from workers.monitor.readings.log_throttle import complain
from workers.monitor.readings.unavailable import Unreadable
from workers.records import schema

T = TypeVar("T")

_MIGRATE = (
    "The database has no, or older, Sluice tables: `python -m workers migrate` makes them. This page goes on by itself."
)
_START = "Start it, or correct SLUICE_DATABASE_URL; the monitor's log has the reason. This page goes on by itself."


def reading(read: Callable[[], T]) -> T:
    """Return what `read` returns, with a connection to the database.

    Raises:
      Unreadable: The database is away, or has no tables yet.
    """
    try:
        with database.connection():
            return read()
    except ConfigurationError as error:
        raise Unreadable("The database cannot be used", str(error)) from error
    except (DependencyDown, PeeweeException) as error:
        raise _why_unreadable(error) from error


def _why_unreadable(error: DependencyDown | PeeweeException) -> Exception:
    """Return what to raise: errors of a connection and of missing tables are the operator's, any other one is ours."""
    try:
        if not isinstance(error, DependencyDown) and not schema.is_migrated():
            return Unreadable("Waiting for migrations", _MIGRATE, tone="warn")
    except (DependencyDown, PeeweeException):
        pass
    if not isinstance(error, (DependencyDown, OperationalError, InterfaceError)):
        return error
    complain("the page cannot read the database", error)
    return Unreadable("The database does not answer", _START)
