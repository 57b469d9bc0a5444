"""Updates many rows by primary key, one UPDATE each, sent together."""

from collections.abc import Mapping, Sequence
from typing import Any

import peewee
from peewee import Model, ModelUpdate, Node

from workers.records import changed_fields, existing_rows
from workers.sources import model_keys

#: Most rows and values of one statement: Postgres accepts 65,535 values, SQLite 32,766.
_MOST_ROWS, _MOST_VALUES = 500, 30_000


def is_stored(field: Any, value: Any, stored: Mapping[str, Any]) -> bool:
    there = stored.get(field.name)
    if changed_fields.identical(there, value):
        return True
    try:  # in the form in which it would be read
        return changed_fields.identical(there, field.python_value(field.db_value(value)))
    except Exception:
        return False


def write(model: type[Model], changes: Mapping[Any, Mapping[Any, Any]]) -> None:
    """Update each row by its primary key, as `save()` does: the database gives each value the type of its column.

    One UPDATE for many rows would need typed values, and no driver knows all types: on Postgres a NULL, a number as
    text, a UUID, an enum or an empty list can fail, depending on the other rows. One statement for each row, all sent
    together, avoids this and has no limit on the number of parameters.

    Parameters:
      model(type[peewee.Model]): The class of the rows.
      changes(Mapping): Primary key -> field -> new value.
    """
    place = existing_rows.database_of(model)
    alike: dict[tuple[Any, ...], list[Any]] = {}
    for key, values in changes.items():
        alike.setdefault(tuple(values), []).append(key)
    for fields, keys in alike.items():
        sql, first = _statement(model, keys[0], changes[keys[0]])
        plain = [params for key in keys[1:] if (params := _params(model, key, changes[key])) is not None]
        if len(plain) == len(keys) - 1 and len(first) == len(fields) + 1:
            _execute_many(place, sql, [first, *plain])
            continue
        for key in keys:  # a value is an SQL expression
            place.execute_sql(*_statement(model, key, changes[key]))


def _statement(model: type[Model], key: Any, values: Mapping[Any, Any]) -> tuple[str, Sequence[Any]]:
    statement: tuple[str, Sequence[Any]] = (
        ModelUpdate(model, dict(values)).where(model_keys.primary(model) == key).sql()
    )
    return statement


def _params(model: type[Model], key: Any, values: Mapping[Any, Any]) -> list[Any] | None:
    """Return the parameters of a row's UPDATE; None if its text can differ from the other rows' UPDATE."""
    in_order = sorted(values, key=lambda field: field._sort_key)  # as Peewee writes them
    params = [*(field.db_value(values[field]) for field in in_order), model_keys.primary(model).db_value(key)]
    return None if any(isinstance(param, Node) for param in params) else params


def _execute_many(place: Any, sql: str, many: Sequence[Sequence[Any]]) -> None:
    if len(many) == 1:
        place.execute_sql(sql, many[0])
        return
    with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
        place.cursor().executemany(sql, many)


def rows_at_once(model: type[Model]) -> int:
    return max(1, min(_MOST_ROWS, _MOST_VALUES // len(model._meta.sorted_fields)))
