"""Returns the connector of a run. Only this module calls a source's `get_connector`, which can fail in any way."""

from workers.connections import database
from workers.errors import PermanentError, UsageError
from workers.limiter.budget import Budget
from workers.records import model_database
from workers.sources.connector import Connector
from workers.sources.registry import get_registry
from workers.sources.source_run import SourceRun
from workers.text.error_text import describe


class SourceError(Exception):
    """A method of a source failed, and no item is the cause.

    Parameters:
      message(str): The method, and the error as text.
      kind(str): The type of that error.
    """

    def __init__(self, message: str, kind: str = "TypeError") -> None:
        super().__init__(message)
        self.kind = kind


def of(run: SourceRun) -> Connector:
    """Return the connector of a run.

    Parameters:
      run(SourceRun): A `Run`, or one that is only planned.

    Raises:
      UnknownSource: This process does not know the run's source.
      UsageError, PermanentError: Raised by `get_connector`: the run has no connector.
      SourceError: `get_connector` failed with any other error, also with one that would end the thread.
      peewee.PeeweeException, DependencyDown: `get_connector` used a database that does not answer.
    """
    source = get_registry()[run.source]
    title = f"{type(source).__name__}.get_connector"
    try:
        connector = source.get_connector(run)
    except (KeyboardInterrupt, UsageError, PermanentError):  # raised on purpose
        raise
    except BaseException as error:
        if database.is_away(error) and not model_database.answers(source.model):
            raise
        raise SourceError(f"{title} failed: {describe(error)}", type(error).__name__) from None
    if not isinstance(connector, Connector):
        raise SourceError(f"{title} must return a Connector, not {type(connector).__name__}")
    return connector


def budget_of(run: SourceRun) -> Budget | None:
    """Return the budget of a run; None where its source's `get_connector` fails, however it fails."""
    connector = connector_or_error(run)
    return connector.budget if isinstance(connector, Connector) else None


def connector_or_error(run: SourceRun) -> Connector | Exception:
    """Return the connector of a run, or the error with which its source's `get_connector` fails. It raises nothing."""
    try:
        return of(run)
    except Exception as error:  # code of the user, which can fail in any way
        return error
