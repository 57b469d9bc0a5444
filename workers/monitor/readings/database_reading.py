"""Reads from the database for a page, and turns outages and missing tables into `Unreadable` with a repair."""

from collections.abc import Callable
from typing import TypeVar

from peewee import InterfaceError, OperationalError, PeeweeException

from workers.connections import database
from workers.errors import ConfigurationError, DependencyDown
from workers.monitor.readings.log_throttle import log_throttled
from workers.monitor.readings.unreadable import Unreadable
from workers.records import schema

T = TypeVar("T")

_MIGRATE = (
    "The Sluice tables are missing or outdated: run `python -m workers migrate`. This page recovers automatically."
)
_START = "Start it, or correct SLUICE_DATABASE_URL; the monitor's log has the reason. This page recovers automatically."


def read_database(read: Callable[[], T]) -> T:
    """Return what `read` returns, with a connection to the database.

    Raises:
      Unreadable: The database does not answer, or has no tables yet.
    """
    try:
        with database.connection():
            return read()
    except ConfigurationError as error:
        raise Unreadable("The database cannot be used", str(error)) from error
    except (DependencyDown, PeeweeException) as error:
        raise _why_unreadable(error) from error


def _why_unreadable(error: DependencyDown | PeeweeException) -> Exception:
    """Return what to raise: `Unreadable` for a lost connection or missing tables, else the error itself."""
    try:
        if not isinstance(error, DependencyDown) and not schema.is_migrated():
            return Unreadable("Waiting for migrations", _MIGRATE, tone="warn")
    except (DependencyDown, PeeweeException):
        pass
    if not isinstance(error, (DependencyDown, OperationalError, InterfaceError)):
        return error
    log_throttled("the page cannot read the database", error)
    return Unreadable("The database does not answer", _START)
