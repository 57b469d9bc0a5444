"""Checks and reads the two keys of a user's table: the primary key that items refer to, and the `unique_by` key."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from peewee import (
    BinaryUUIDField,
    BitField,
    Field,
    ForeignKeyField,
    IntegerField,
    IPField,
    Model,
    MySQLDatabase,
    TimestampField,
    UUIDField,
)
from peewee import _StringField as StringField

from workers.errors import ConfigurationError

#: The longest primary key that an item can refer to, in characters of its text.
LENGTH = 255

#: Primary keys whose text identifies the row exactly. IPField and TimestampField are subclasses of IntegerField.
_EXACT = (IntegerField, StringField, UUIDField, BinaryUUIDField)
_INEXACT = (TimestampField, BitField)


def names(unique_by: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of the fields in a source's `unique_by`, which is one name or several."""
    return (unique_by,) if isinstance(unique_by, str) else tuple(unique_by)


def fields(model: type[Model], unique_by: str | Iterable[str]) -> tuple[Field, ...]:
    """Return the fields that `unique_by` names."""
    return tuple(model._meta.fields[name] for name in names(unique_by))


def primary(model: type[Model]) -> Any:
    """Return the primary key field of a model that `check` has accepted. Peewee types it as `Any | Literal[False]`."""
    return model._meta.primary_key


def text(key: Any) -> str:
    """Return a primary key as text, as items store it.

    Raises:
      ValueError: It is missing, or too long.
    """
    stored = "" if key is None else str(key)
    if not stored:
        raise ValueError("its row has no primary key")
    if len(stored) > LENGTH:
        raise ValueError(f"its primary key has {len(stored):,} characters, and {LENGTH} can be kept")
    return stored


def from_text(model: type[Model], stored: str) -> Any:
    """Return the primary key that `text` has converted."""
    return _parser(primary(model))(stored)


def check(title: str, model: type[Model], unique_by: str | Iterable[str]) -> None:
    """Refuse a model whose rows could not be found again.

    Parameters:
      title(str): The source, for messages.

    Raises:
      ConfigurationError: Its database, its primary key or its `unique_by` cannot be used; the message says the repair.
    """
    _check_database(title, model)
    _check_primary_key(title, model)
    _check_unique(title, model, unique_by)


def _check_database(title: str, model: type[Model]) -> None:
    theirs = model._meta.database
    if theirs is None:
        raise ConfigurationError(
            f"{title}: the model {model.__name__} has no database: write `class Meta: database = db` in it, "
            f"with `from workers import db`"
        )
    if isinstance(getattr(theirs, "obj", theirs), MySQLDatabase):
        raise ConfigurationError(
            f"{title}: the model {model.__name__} is on MySQL, and rows are written to SQLite and Postgres only"
        )


def _check_primary_key(title: str, model: type[Model]) -> None:
    key = model._meta.primary_key
    if model._meta.composite_key or not isinstance(key, Field):
        kind = "a primary key of several columns" if model._meta.composite_key else "no primary key"
        raise ConfigurationError(
            f"{title}: {model.__name__} has {kind}, and an item refers to its row by one column: give it "
            f"`id = AutoField()`, and let unique_by name the columns that are unique together"
        )
    base = _target(key)
    if not isinstance(base, _EXACT) or isinstance(base, _INEXACT):
        raise ConfigurationError(
            f"{title}: the primary key of {model.__name__} is a {type(base).__name__}, whose text does not identify "
            f"the row exactly: give it `id = AutoField()`, and let unique_by name {key.name!r}"
        )


def _check_unique(title: str, model: type[Model], unique_by: str | Iterable[str]) -> None:
    wanted = names(unique_by)
    known = model._meta.fields
    missing = [name for name in wanted if name not in known]
    if not wanted or missing or len(set(wanted)) != len(wanted):
        raise ConfigurationError(
            f"{title}: unique_by={unique_by!r} must name one field of {model.__name__}, or several, each once"
        )
    if set(wanted) not in _unique_sets(model):
        fix = (
            f"a field of {model.__name__} with unique=True"
            if len(wanted) == 1
            else f"the fields of a unique index: `class Meta: indexes = (({wanted!r}, True),)`"
        )
        raise ConfigurationError(
            f"{title}: unique_by={unique_by!r} must be {fix}, or a second import would double every row"
        )


def _unique_sets(model: type[Model]) -> list[set[str]]:
    """Return the sets of fields that the model declares as unique, without a condition."""
    meta = model._meta
    alone = [{field.name} for field in meta.sorted_fields if field.unique or field.primary_key]
    together = [
        {field.name for field in index._expressions}
        for index in meta.fields_to_index()
        if getattr(index, "_unique", False)
        and getattr(index, "_where", None) is None
        and all(isinstance(field, Field) for field in index._expressions)
    ]
    return alone + together


def _target(field: Any) -> Any:
    """Return the field that a foreign key refers to."""
    while isinstance(field, ForeignKeyField):
        field = field.rel_field
    return field


def _parser(field: Any) -> Callable[[str], Any]:
    base = _target(field)
    if isinstance(base, (BinaryUUIDField, UUIDField)):
        return UUID
    if isinstance(base, IPField):
        return str
    return base.python_value


def values(row: Any, keys: Sequence[Any]) -> tuple[Any, ...]:
    """Return the values of a row in these fields; None for a field that is not set."""
    return tuple(row.__data__.get(field.name) for field in keys)
