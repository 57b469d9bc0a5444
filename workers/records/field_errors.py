"""Converts errors of a model's own code that would end the thread, SystemExit for one, into errors to catch."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from workers.text.error_text import describe

Parameters = ParamSpec("Parameters")


Result = TypeVar("Result")


class FieldError(ValueError):
    """A model's own code raised an error that would end the thread, for instance SystemExit, for a row."""


def catchable(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function: an error that is no `Exception`, except KeyboardInterrupt, is raised as FieldError."""

    @wraps(function)
    def do(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **named)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            failed = describe(error)
        raise FieldError(failed)  # outside the handler: the error, and open statements that it refers to, are freed

    return do
