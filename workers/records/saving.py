"""How the package saves a user's rows: many at a time, writing only the fields they were given."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from itertools import groupby
from typing import Any, ParamSpec, TypeVar

import peewee
from peewee import Model, ModelInsert, ModelUpdate, Node, chunked

from workers.connections import database, database_errors
from workers.connections.database_errors import Fault
from workers.records import changed_fields, existing_rows, storable_values
from workers.sources import model_keys
from workers.text.error_text import describe

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: Rows of one statement, and values: it takes 65,535 on Postgres, 32,766 on SQLite.
_MOST_ROWS, _MOST_VALUES = 500, 30_000


class Change(StrEnum):
    """What writing an item of a list did to its row."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Stored:
    """A row as the database has it.

    Parameters:
      row(peewee.Model): Loaded after it was written: its key is in the spelling that is stored.
      change(Change): What became of it.
    """

    row: Any
    change: Change


class RowGone(ValueError):
    """The row of an item is no longer in the table, or has become another item's."""


class FieldError(ValueError):
    """A model's own code raised what would end a thread, SystemExit say, where a row was written or read."""


def _contained(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Let a function end in an error that can be caught, whatever a user's fields raise."""

    @wraps(function)
    def do(*arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **named)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            failed = describe(error)
        raise FieldError(failed)  # outside of the handler: what the error holds, an open statement say, is let go

    return do


@_contained
def upsert(model: type[Any], instances: Sequence[Any], unique_by: str | Sequence[str]) -> list[Stored]:
    """Within a transaction: insert the instances, or update the given fields of the rows that are there already.

    The rows that are there are found and locked first, then those that differ are updated, and the rest is inserted:
    so a row that is known costs no value of a sequence. An insert meets the row of another writer as an update.

    Parameters:
      model(type[peewee.Model]): Their class, `changed_fields.prepare`d before they were made.
      instances(Sequence[peewee.Model]): Unsaved.
      unique_by(str | Sequence[str]): The unique field, or fields, that tell whether a row is there.

    Returns:
      list[Stored]: In the order of `instances`. Two whose keys the database takes for the same have one row; what the
        later was given is what it holds. (Postgres takes no two such new rows at once: see Raises.)

    Raises:
      ValueError: A key is missing, or a value cannot be kept. The message names the field.
      peewee.PeeweeException: The database refuses a row, or two new ones of one key; one by one they can be written.
    """
    keys = model_keys.fields(model, unique_by)
    return [stored for some in chunked(instances, _rows_at_once(model)) for stored in _upsert(model, some, keys)]


@_contained
def save_fields(rows: Sequence[Any]) -> None:
    """Within a transaction: write the changed fields of loaded rows. Nothing is ever inserted.

    Parameters:
      rows(Sequence[peewee.Model]): As `load` returned them, and changed since.

    Raises:
      RowGone: A row is no longer there, or its key is another's now.
      ValueError: A value cannot be kept; or the primary key was changed.
      peewee.PeeweeException: The database refuses a value.
    """
    for model, some in groupby(sorted(rows, key=_table_name), key=type):
        _save_loaded(model, list(some))


def load(model: type[Any], primary_keys: Sequence[Any], unique_by: str | Sequence[str]) -> dict[Any, Any]:
    """Return rows by their primary keys; a row that cannot be read stands as the exception that reading it raised.

    Parameters:
      unique_by(str | Sequence[str]): What `save_fields` knows them again by.

    Raises:
      peewee.PeeweeException: The database is away, or the table is not what the model says: no row is to blame.
    """
    try:
        found = _load_rows(model, primary_keys)
    except Exception as error:
        if _is_of_no_row(error):
            raise
        found = {key: row for key in primary_keys for row in _load_one(model, key)}
    for row in found.values():
        if not isinstance(row, Exception):
            changed_fields.remember(row)
            row.__dict__["_sluice_keys"] = model_keys.fields(model, unique_by)
    return found


def is_respelled(row: Any, external_id: str) -> bool:
    """Whether an id is another spelling of a loaded row's key, as the database compares it.

    A detail may have changed the spelling; and earlier versions kept ids as the list gave them.
    """
    keys = row.__dict__.get("_sluice_keys", ())
    if len(keys) != 1:
        return False
    try:
        return existing_rows.find(type(row), keys, [[external_id]]).get(0) == _primary_key(row)
    except Exception as error:
        if database.is_away(error):
            raise
        return False  # it is no such key at all


def answers(model: type[Any]) -> bool:
    """Whether our database and a model's can be asked now, outside of any transaction."""
    places = {database.db.obj, model._meta.database if issubclass(model, Model) else database.db.obj}
    try:
        for place in places:
            database.reconnect(place)  # one connection that was cut is no outage
            place.execute_sql("SELECT 1").fetchall()
    except Exception:
        return False
    return True


@contextmanager
def connected(model: type[Any]) -> Iterator[None]:
    """Hold this thread's connection to a model's database for a block, where it is another than ours."""
    if database.is_ours(model):
        yield
        return
    theirs = model._meta.database
    opened = theirs.connect(reuse_if_open=True)
    try:
        yield
    finally:
        if opened and not theirs.is_closed():
            theirs.close()


@_contained
def _load_rows(model: type[Any], keys: Sequence[Any]) -> dict[Any, Any]:
    return existing_rows.rows(model, keys)


def _load_one(model: type[Any], key: Any) -> list[Any]:
    try:
        return list(_load_rows(model, [key]).values())
    except Exception as error:
        if _is_of_no_row(error):
            raise
        return [error]


def _is_of_no_row(error: Exception) -> bool:
    return database.is_away(error) or database_errors.sort(error) is Fault.MISTAKE


# --- a list's rows


def _upsert(model: type[Any], instances: Sequence[Any], keys: Sequence[Any]) -> list[Stored]:
    values = [_given_values(model, instance, keys) for instance in instances]
    wanted = [[given_here[key] for key in keys] for given_here in values]
    found = existing_rows.find(model, keys, wanted)
    before = existing_rows.rows(model, set(found.values()), lock=True)
    there = {number: key for number, key in found.items() if key in before}
    new = [number for number in range(len(instances)) if number not in there]
    inserted: list[Any] = []
    if getattr(model, "save_each", False):
        rows = existing_rows.rows(model, set(there.values()))  # not those of `before`, which `_change` looks at
        written = _save_each(model, keys, instances, values, {number: rows[key] for number, key in there.items()})
    else:
        known: dict[Any, dict[Any, Any]] = {}
        for number in sorted(there):  # of two with one row, what the later was given counts
            known.setdefault(there[number], {}).update(values[number])
        written = _update(model, keys, before, known)
        in_line = sorted(new, key=lambda number: _place_in_line(wanted[number]))
        inserted = _insert(model, keys, [(values[number], _defaults(model, instances[number])) for number in in_line])
    after = existing_rows.rows(model, set(there.values())) if written else dict(before)
    if new:
        made = _as_given(keys, wanted, new, inserted)
        if not made:
            there |= _new_ones(model, keys, wanted, new)
            _settle_twins(model, keys, there, values, set(new))
            after = existing_rows.rows(model, set(there.values()))
        there |= {number: row._pk for number, row in made.items()}
        after |= {row._pk: row for row in made.values()}
    return [Stored(after[there[n]], _change(before.get(there[n]), after[there[n]])) for n in range(len(instances))]


def _given_values(model: type[Any], instance: Any, keys: Sequence[Any]) -> dict[Any, Any]:
    """Return field -> value of what an instance was given.

    Raises:
      ValueError: A value cannot be kept, or a key is missing, and so its row could not be found again.
    """
    data, fields = instance.__data__, model._meta.fields
    names = {
        *changed_fields.names(instance),
        *(key.name for key in keys),
    } & fields.keys()  # a default is a part of the key, too
    found = {fields[name]: storable_values.value_of(fields[name], data.get(name)) for name in sorted(names)}
    for key in keys:
        if found.get(key) is None:
            raise ValueError(f"it comes without {key.name}, by which its row is found again")
    return found


def _as_given(
    keys: Sequence[Any], wanted: Sequence[Sequence[Any]], new: Sequence[int], inserted: Sequence[Any]
) -> dict[int, Any]:
    """Return the inserted row of each new one, where every key is stored as it was given; else nothing.

    It spares two statements for most pages; what is stored otherwise the database has to find.
    """
    rows = {repr(list(model_keys.values(row, keys))): row for row in inserted}
    found = {number: rows[key] for number in new if (key := repr(list(wanted[number]))) in rows}
    return found if len(found) == len(rows) == len(new) else {}


def _new_ones(
    model: type[Any], keys: Sequence[Any], wanted: Sequence[Sequence[Any]], new: Sequence[int]
) -> dict[int, Any]:
    found = existing_rows.find(model, keys, [wanted[number] for number in new])
    if len(found) < len(new):
        lost = next(number for position, number in enumerate(new) if position not in found)
        said = ", ".join(f"{key.name} {value!r:.80}" for key, value in zip(keys, wanted[lost], strict=True))
        raise ValueError(f"after it was written, the table has no row with {said}: does a trigger change it?")
    return {new[position]: key for position, key in found.items()}


def _settle_twins(
    model: type[Any], keys: Sequence[Any], there: Mapping[int, Any], values: Sequence[Any], new: set[int]
) -> None:
    """Where several instances came to one new row, let it hold what the last of them was given."""
    twins: dict[Any, list[int]] = {}
    for number, key in sorted(there.items()):
        twins.setdefault(key, []).append(number)
    again = {
        key: {field: value for number in numbers for field, value in values[number].items()}
        for key, numbers in twins.items()
        if len(numbers) > 1 and new & set(numbers)
    }
    if again and not getattr(model, "save_each", False):
        _update(model, keys, existing_rows.rows(model, again), again)


def _update(
    model: type[Any], keys: Sequence[Any], before: Mapping[Any, Any], wanted: Mapping[Any, Mapping[Any, Any]]
) -> bool:
    """Write the values that differ from what is stored; the keys stay as they are. Return whether any differed."""
    fixed, changes = _fixed(model, keys), {}
    for primary_key, values in wanted.items():
        stored = before[primary_key].__data__
        changes[primary_key] = {
            field: value
            for field, value in values.items()
            if field.name not in fixed and not _is_stored(field, value, stored)
        }
    changes = {key: values for key, values in changes.items() if values}
    _write(model, changes)
    return bool(changes)


def _place_in_line(wanted: Sequence[Any]) -> tuple[int, str]:
    """Return by what new rows are ordered: alike in each process that has them, and "2" before "10"."""
    said = repr(wanted)
    return len(said), said


def _fixed(model: type[Any], keys: Sequence[Any]) -> set[str]:
    """Return the names of the fields that stay as they are in a row that is there."""
    return {model._meta.primary_key.name, *(key.name for key in keys)}


def _is_stored(field: Any, value: Any, stored: Mapping[str, Any]) -> bool:
    there = stored.get(field.name)
    if changed_fields.identical(there, value):
        return True
    try:  # in the form in which it would be read
        return changed_fields.identical(there, field.python_value(field.db_value(value)))
    except Exception:
        return False


def _defaults(model: type[Any], instance: Any) -> dict[str, Any]:
    """Return the defaults that an instance has, for a random one is made anew by each who asks for it."""
    if not isinstance(instance.__data__, changed_fields.Defaults):
        return {}
    return {
        name: value for name, value in instance.__data__.items() if name in model._meta.fields and value is not None
    }


def _insert(
    model: type[Any], keys: Sequence[Any], rows: Sequence[tuple[Mapping[Any, Any], dict[str, Any]]]
) -> list[Any]:
    """Insert rows, or update those that another writer has inserted meanwhile; return them as they are stored."""
    fixed, inserted = _fixed(model, keys), list[Any]()
    for fields, group in groupby(sorted(rows, key=_field_names), key=_field_names):
        some = [defaults | {field.name: value for field, value in row.items()} for row, defaults in group]
        others = [model._meta.fields[name] for name in fields if name not in fixed]
        insert = ModelInsert(model, some)
        if others:
            insert = insert.on_conflict(conflict_target=list(keys), preserve=others)
        else:
            insert = insert.on_conflict(action="NOTHING", conflict_target=list(keys))
        inserted += insert.returning(*model._meta.sorted_fields).execute()
    return inserted


def _save_each(
    model: type[Any],
    keys: Sequence[Any],
    instances: Sequence[Any],
    values: Sequence[Mapping[Any, Any]],
    there: Mapping[int, Any],
) -> bool:
    """Let each row save itself, in their order."""
    fixed = _fixed(model, keys)
    for number, instance in enumerate(instances):
        row = there.get(number)
        if row is None:
            made = _again(instance)
            for field, value in values[number].items():
                made.__data__[field.name] = value
            made.save(force_insert=made._pk is not None)
            continue
        for field, value in values[number].items():
            if field.name not in fixed:
                setattr(row, field.name, value)
        row.save()
    return True


def _again(instance: Any) -> Any:
    """Return an instance as it is: a save that is rolled back leaves the key that it was given, now another's."""
    made = copy.copy(instance)
    made.__data__, made.__rel__, made._dirty = instance.__data__.copy(), dict(instance.__rel__), set(instance._dirty)
    return made


def _change(before: Any, after: Any) -> Change:
    if before is None:
        return Change.CREATED
    same = before is after or changed_fields.identical(dict(before.__data__), dict(after.__data__))
    return Change.UNCHANGED if same else Change.UPDATED


# --- rows that were loaded


def _save_loaded(model: type[Any], rows: Sequence[Any]) -> None:
    changes = {_primary_key(row): _changed_values(row) for row in rows}
    for some in chunked(rows, _rows_at_once(model)):
        _refuse_gone(model, some)
    if getattr(model, "save_each", False):
        for row in rows:
            for field, value in changes[_primary_key(row)].items():
                setattr(row, field.name, value)  # changed in place, and made exact
            dirty = set(row._dirty)
            row.save()
            row._dirty |= dirty  # save() forgets them, and this one may be rolled back and made again
    else:
        _write(model, {key: values for key, values in changes.items() if values})


def _refuse_gone(model: type[Any], rows: Sequence[Any]) -> None:
    """Lock rows; refuse one that is no longer there, or whose key is no longer what it was when it was loaded.

    Raises:
      RowGone: There is such a row.
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
    if not _is_stored(meta.primary_key, found.pop(meta.primary_key, key), {meta.primary_key.name: key}):
        raise ValueError(f"its primary key was changed: {meta.primary_key.name} must stay {_primary_key(row)!r}")
    return found


def _primary_key(row: Any) -> Any:
    """Return the primary key under which a row was loaded."""
    return changed_fields.loaded(row).get(row._meta.primary_key.name, row._pk)


# --- statements


def _write(model: type[Any], changes: Mapping[Any, Mapping[Any, Any]]) -> None:
    """Update each row by its primary key, as `save()` would: each value has the type of its column.

    One UPDATE for many rows needs types for its values that no driver knows: a NULL, a number as text, a UUID, an enum
    or an empty list fail in it on Postgres, and which do depends on the other rows. One statement for each row, sent
    together, has no such trouble, and no limit to its parameters.
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
        for key in keys:  # a value is an SQL expression of its own
            place.execute_sql(*_statement(model, key, changes[key]))


def _statement(model: type[Any], key: Any, values: Mapping[Any, Any]) -> tuple[str, Sequence[Any]]:
    statement: tuple[str, Sequence[Any]] = ModelUpdate(model, dict(values)).where(model._meta.primary_key == key).sql()
    return statement


def _params(model: type[Any], key: Any, values: Mapping[Any, Any]) -> list[Any] | None:
    """Return the parameters of a row's statement, which has the text of the others; None where it may have another."""
    in_order = sorted(values, key=lambda field: field._sort_key)  # as Peewee writes them
    params = [*(field.db_value(values[field]) for field in in_order), model._meta.primary_key.db_value(key)]
    return None if any(isinstance(param, Node) for param in params) else params


def _execute_many(place: Any, sql: str, many: Sequence[Sequence[Any]]) -> None:
    if len(many) == 1:
        place.execute_sql(sql, many[0])
        return
    with peewee.__exception_wrapper__:  # type: ignore[attr-defined]
        place.cursor().executemany(sql, many)


def _rows_at_once(model: type[Any]) -> int:
    return max(1, min(_MOST_ROWS, _MOST_VALUES // len(model._meta.sorted_fields)))


def _field_names(row: tuple[Mapping[Any, Any], dict[str, Any]]) -> tuple[str, ...]:
    values, _ = row
    return tuple(sorted(field.name for field in values))


def _table_name(row: Any) -> str:
    return f"{type(row).__qualname__} {row._meta.table_name}"
