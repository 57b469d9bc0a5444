"""A run's connector: the one place that calls a source's `get_connector`, which may fail in any way."""

from typing import Any

from workers.connections import database
from workers.errors import PermanentError, UsageError
from workers.records import saving
from workers.sources.connector import Connector
from workers.sources.registry import get_registry
from workers.text.error_text import describe


class SourceError(Exception):
    """A method of a source failed outside of any item.

    Parameters:
      message(str): Which method, and the error as text.
      kind(str): The type of that error.
    """

    def __init__(self, message: str, kind: str = "TypeError") -> None:
        super().__init__(message)
        self.kind = kind


def of(run: Any) -> Connector:
    """Return the connector of a run.

    Parameters:
      run(Run): Or what a source's `get_connector` takes for one.

    Raises:
      UnknownSource: This process does not know the run's source.
      UsageError, PermanentError: Its `get_connector` says that there is none.
      SourceError: Its `get_connector` failed, be it by an error that would otherwise be one of the database, or one
        that ends a thread.
      peewee.PeeweeException, DependencyDown: It asked a database that does not answer.
    """
    source = get_registry()[run.source]
    title = f"{type(source).__name__}.get_connector"
    try:
        connector = source.get_connector(run)
    except (KeyboardInterrupt, UsageError, PermanentError):  # what it says itself needs no second try
        raise
    except BaseException as error:
        if database.is_away(error) and not saving.answers(source.model):
            raise
        raise SourceError(f"{title} failed: {describe(error)}", type(error).__name__) from None
    if not isinstance(connector, Connector):
        raise SourceError(f"{title} must return a Connector, not {type(connector).__name__}")
    return connector
