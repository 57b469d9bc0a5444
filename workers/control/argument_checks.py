"""Checks the arguments of a public function against its annotations, before it opens or changes anything."""

import inspect
import typing
from collections.abc import Callable, Sequence
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from pydantic import TypeAdapter, ValidationError

from workers.errors import UsageError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: What a column of both databases can hold.
_LARGEST = 2**63 - 1


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return the function with its arguments checked: no text for a number, no NUL or half surrogate in a text.

    Parameters:
      function(Callable): Its parameters are annotated with types that pydantic knows.

    Raises:
      UsageError: An argument is of another type, or no database can store it. The message names the parameter.
      TypeError: A parameter is missing, or there is none of this name: Python's own error.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Parameters.args, **named: Parameters.kwargs) -> Result:
        for name, value in signature.bind(*args, **named).arguments.items():
            _check(name, value, _adapters(function)[name])
        return function(*args, **named)

    return call


@cache
def _adapters(function: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """Return what checks each parameter. Made at the first call: importing the package must stay quick."""
    return {name: TypeAdapter(hint) for name, hint in typing.get_type_hints(function).items() if name != "return"}


def _check(name: str, value: Any, adapter: TypeAdapter[Any]) -> None:
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[-1]["msg"]
        raise UsageError(f"{name} cannot be {repr(value)[:60]}: {wrong[0].lower()}{wrong[1:]}") from None
    for part in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        if isinstance(part, str) and ("\0" in part or (not part.isascii() and _has_surrogate(part))):
            raise UsageError(f"{name} cannot be {part[:60]!r}: no database stores a NUL or half a surrogate pair")
        if isinstance(part, int) and abs(part) > _LARGEST:
            raise UsageError(f"{name} cannot be {repr(part)[:60]}: the number is too large")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
