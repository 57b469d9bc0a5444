"""Refuses values that SQLite or Postgres would drop, change or refuse, with the field's name and the repair."""

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from peewee import BlobField, CharField, DecimalField, FloatField, IntegerField, Node, TextField, UUIDField

from workers.sources.exact_float import ExactFloat


def value_of(field: Any, value: Any) -> Any:
    """Return a value in the form in which it is written to a field.

    Parameters:
      field(peewee.Field): The field.
      value(Any): What a user's method has set. A number with more digits than a float holds becomes an exact Decimal if
        the field is a DecimalField.

    Raises:
      ValueError: It has a NUL or half a surrogate pair, is not a finite number, or could not be read back. The message
        names the field and the repair.
    """
    if value is None or isinstance(value, (bool, Node)):
        return value
    if isinstance(value, str) and type(field) in _TEXT and value.isascii() and "\0" not in value:
        return value  # most values
    if isinstance(getattr(field, "_ArrayField__field", field), DecimalField):
        value = _exact(value)
    if isinstance(field, UUIDField) and isinstance(value, str):
        value = _uuid(value)  # SQLite would store and compare the spelling
    if not isinstance(field, BlobField):
        _refuse_unstorable(field, value)
        _refuse_unreadable(field, value)
    return value


def _exact(value: Any) -> Any:
    if isinstance(value, ExactFloat):
        return value.to_decimal()
    if isinstance(value, (list, tuple)) and any(isinstance(part, (ExactFloat, list, tuple)) for part in value):
        return [Decimal(repr(part)) if type(part) is float else _exact(part) for part in value]  # all of one type
    return value


def _uuid(text: str) -> UUID | str:
    try:
        return UUID(text)
    except ValueError:
        return text  # refused below


#: Fields that store text unchanged.
_TEXT = (CharField, TextField)


def has_unstorable(text: str) -> bool:
    """Whether a text has a character that not every database stores: a NUL, or half a surrogate pair."""
    return "\0" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text))


def _refuse_unstorable(field: Any, value: Any) -> None:
    for leaf in _leaves(field, value):
        if isinstance(leaf, str):
            if "\0" in leaf:
                raise ValueError(f"{field.name} holds a NUL character (U+0000), which no database keeps: remove it")
            if has_unstorable(leaf):
                raise ValueError(f"{field.name} holds half a surrogate pair, which is no character: replace it")
        elif isinstance(leaf, (float, Decimal)) and not math.isfinite(leaf):
            raise ValueError(f"{field.name} is {leaf}, which is no finite number: set it to None")


def _leaves(field: Any, value: Any) -> Iterator[Any]:
    """Yield the scalar values inside a value, dictionary keys included."""
    waiting = [value]
    seen = 0
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
        else:
            yield part
        seen += 1
        if seen > _MOST_PARTS:
            raise ValueError(f"{field.name} holds more than {_MOST_PARTS:,} values, or contains itself")


def _refuse_unreadable(field: Any, value: Any) -> None:
    """Refuse a value that SQLite would store but peewee could not read, because the row could not be loaded again."""
    try:
        stored = field.db_value(value)
        read = field.python_value(stored) if isinstance(stored, str) and _comes_back(field) else stored
    except (ValueError, TypeError, ArithmeticError, OSError) as error:  # an invalid IP address is an OSError
        raise ValueError(f"{field.name} cannot be {value!r:.80}: {_kind(field)} does not take it") from error
    if isinstance(value, bytes) and isinstance(stored, str):
        _refuse_unstorable(field, stored)
    if isinstance(field, (IntegerField, FloatField)) and isinstance(stored, str):
        raise ValueError(f"{field.name} cannot be {value!r:.80}: {_kind(field)} does not take it")
    if isinstance(read, (float, Decimal)) and not math.isfinite(read):
        raise ValueError(f"{field.name} is {value!r:.80}, which is no finite number: set it to None")


def _comes_back(field: Any) -> bool:
    """Whether a field reads back the text that it wrote. For other types psycopg can return other objects."""
    return type(field).python_value.__module__.startswith(("peewee", "playhouse"))


def _kind(field: Any) -> str:
    return type(field).__name__


#: Most values inside one field; a value that contains itself has no end.
_MOST_PARTS = 5_000_000
