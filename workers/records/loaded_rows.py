"""Loads the rows of items by primary key, and saves the fields that a detail response has changed."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from peewee import Model, chunked

from workers.connections import database, database_errors
from workers.connections.database_errors import Fault
from workers.records import changed_fields, existing_rows, row_updates, storable_values
from workers.records.field_errors import catchable
from workers.sources import model_keys


class RowGone(ValueError):
    """The row of an item is no longer in the table, or belongs to another item now."""


@catchable
def save_fields(rows: Sequence[Any]) -> None:
    """Within a transaction: write the changed fields of loaded rows. It never inserts a row.

    Parameters:
      rows(Sequence[peewee.Model]): From `load`, and changed since.

    Raises:
      RowGone: A row is no longer in the table, or its key belongs to another item now.
      ValueError: A value cannot be stored, or the primary key was changed.
      peewee.PeeweeException: The database refuses a value.
    """
    for model, some in groupby(sorted(rows, key=_table_name), key=type):
        _save_loaded(model, list(some))


def load(model: type[Model], primary_keys: Sequence[Any], unique_by: str | Sequence[str]) -> dict[Any, Any]:
    """Return rows by primary key. For a row that cannot be read, the value is the exception that it raised.

    Parameters:
      unique_by(str | Sequence[str]): The fields by which `save_fields` recognizes the rows.

    Raises:
      peewee.PeeweeException: The database is away, or the table does not match the model: no single row is the cause.
    """
    try:
        found = _load_rows(model, primary_keys)
    except Exception as error:
        if _concerns_no_row(error):
            raise
        found = {key: row for key in primary_keys for row in _load_one(model, key)}
    for row in found.values():
        if not isinstance(row, Exception):
            changed_fields.remember(row)
            row.__dict__["_sluice_keys"] = model_keys.fields(model, unique_by)
    return found


def is_respelled(row: Any, external_id: str) -> bool:
    """Whether the database takes an id and the key of a loaded row for the same, though they are spelled differently.

    A detail response can change the spelling, and earlier versions stored ids as the list spelled them.
    """
    keys = row.__dict__.get("_sluice_keys", ())
    if len(keys) != 1:
        return False
    try:
        return existing_rows.find(type(row), keys, [[external_id]]).get(0) == _primary_key(row)
    except Exception as error:
        if database.is_away(error):
            raise
        return False  # the id is no valid key


@catchable
def _load_rows(model: type[Model], keys: Sequence[Any]) -> dict[Any, Any]:
    return existing_rows.rows(model, keys)


def _load_one(model: type[Model], key: Any) -> list[Any]:
    try:
        return list(_load_rows(model, [key]).values())
    except Exception as error:
        if _concerns_no_row(error):
            raise
        return [error]


def _concerns_no_row(error: Exception) -> bool:
    return database.is_away(error) or database_errors.classify(error) is Fault.MISTAKE


def _save_loaded(model: type[Model], rows: Sequence[Any]) -> None:
    changes = {_primary_key(row): _changed_values(row) for row in rows}
    for some in chunked(rows, row_updates.rows_at_once(model)):
        _refuse_gone(model, some)
    if getattr(model, "save_each", False):
        for row in rows:
            for field, value in changes[_primary_key(row)].items():
                setattr(row, field.name, value)  # also those that were changed in place
            dirty = set(row._dirty)
            row.save()
            row._dirty |= dirty  # save() clears them, and this transaction can be rolled back and repeated
    else:
        row_updates.write(model, {key: values for key, values in changes.items() if values})


def _refuse_gone(model: type[Model], rows: Sequence[Any]) -> None:
    """Lock rows, and check that each is still in the table with the key that it was loaded with.

    Raises:
      RowGone: A row is not.
    """
    keys = rows[0].__dict__.get("_sluice_keys", ())
    there = existing_rows.locked_keys(model, [_primary_key(row) for row in rows], keys)
    for row in rows:
        now, then = there.get(_primary_key(row)), changed_fields.loaded(row)
        if now is None:
            raise RowGone("its row is no longer in the table")
        if then and not changed_fields.identical(now, tuple(then.get(key.name) for key in keys)):
            raise RowGone(f"its row was given another {' and '.join(key.name for key in keys)} meanwhile")


def _changed_values(row: Any) -> dict[Any, Any]:
    meta = row._meta
    found = {
        meta.fields[name]: storable_values.value_of(meta.fields[name], row.__data__[name])
        for name in changed_fields.names(row)
    }
    key = _primary_key(row)
    if not row_updates.is_stored(meta.primary_key, found.pop(meta.primary_key, key), {meta.primary_key.name: key}):
        raise ValueError(f"its primary key was changed: {meta.primary_key.name} must stay {_primary_key(row)!r}")
    return found


def _primary_key(row: Any) -> Any:
    """Return the primary key under which a row was loaded."""
    return changed_fields.loaded(row).get(row._meta.primary_key.name, row._pk)


def _table_name(row: Any) -> str:
    return f"{type(row).__qualname__} {row._meta.table_name}"
