"""Upserts the rows of list items: inserts new rows, updates rows that differ, and returns which it did to each."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from peewee import Model, ModelInsert, chunked

from workers.records import (
    changed_fields,
    existing_rows,
    row_updates,
    storable_values,
)
from workers.records.field_errors import catchable
from workers.sources import model_keys


class Change(StrEnum):
    """What the upsert of a list item did to its row."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Stored:
    """A row after its upsert, as it is stored.

    Parameters:
      row(peewee.Model): Loaded after it was written, so that its key has the stored spelling.
      change(Change): What the upsert did to it.
    """

    row: Any
    change: Change


@catchable
def upsert(model: type[Model], instances: Sequence[Any], unique_by: str | Sequence[str]) -> list[Stored]:
    """Within a transaction: insert the instances, or update the fields that were set in the rows that exist already.

    Existing rows are found and locked first, then those that differ are updated, then the rest is inserted. So an
    existing row uses up no value of a sequence. If another writer inserts a row in between, the insert updates it.

    Parameters:
      model(type[peewee.Model]): Their class, `changed_fields.prepare`d before they were made.
      instances(Sequence[peewee.Model]): Unsaved.
      unique_by(str | Sequence[str]): The unique field, or fields, by which existing rows are found.

    Returns:
      list[Stored]: In the order of `instances`. Two instances whose keys are equal for the database have one row, with
        the values of the later one. (Postgres does not accept two such new rows at once: see Raises.)

    Raises:
      ValueError: A key is missing, or a value cannot be stored. The message names the field.
      peewee.PeeweeException: The database refuses a row, or two new rows of one key. One by one, the good ones can be
        written.
    """
    keys = model_keys.fields(model, unique_by)
    return [
        stored for some in chunked(instances, row_updates.rows_at_once(model)) for stored in _upsert(model, some, keys)
    ]


def _upsert(model: type[Model], instances: Sequence[Any], keys: Sequence[Any]) -> list[Stored]:
    values = [_given_values(model, instance, keys) for instance in instances]
    wanted = [[its_values[key] for key in keys] for its_values in values]
    found = existing_rows.find(model, keys, wanted)
    before = existing_rows.rows(model, set(found.values()), lock=True)
    there = {number: key for number, key in found.items() if key in before}
    new = [number for number in range(len(instances)) if number not in there]
    inserted: list[Any] = []
    if getattr(model, "save_each", False):
        rows = existing_rows.rows(model, set(there.values()))  # separate from `before`, which `_change` compares
        written = _save_each(model, keys, instances, values, {number: rows[key] for number, key in there.items()})
    else:
        updates: dict[Any, dict[Any, Any]] = {}
        for number in sorted(there):  # of two instances with one row, the later one wins
            updates.setdefault(there[number], {}).update(values[number])
        written = _update(model, keys, before, updates)
        in_order = sorted(new, key=lambda number: _insert_order(wanted[number]))
        inserted = _insert(model, keys, [(values[number], _defaults(model, instances[number])) for number in in_order])
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


def _given_values(model: type[Model], instance: Any, keys: Sequence[Any]) -> dict[Any, Any]:
    """Return field -> value for the fields of an instance that were set, and for its keys.

    Raises:
      ValueError: A value cannot be stored, or a key is missing, so that its row could not be found again.
    """
    data, fields = instance.__data__, model._meta.fields
    names = {
        *changed_fields.names(instance),
        *(key.name for key in keys),
    } & fields.keys()  # a key can be a default value
    found = {fields[name]: storable_values.value_of(fields[name], data.get(name)) for name in sorted(names)}
    for key in keys:
        if found.get(key) is None:
            raise ValueError(f"it comes without {key.name}, by which its row is found again")
    return found


def _as_given(
    keys: Sequence[Any], wanted: Sequence[Sequence[Any]], new: Sequence[int], inserted: Sequence[Any]
) -> dict[int, Any]:
    """Return the inserted row of each new instance if every key was stored unchanged; else an empty dictionary.

    This saves two statements for most pages. Only the database can match keys that it stored differently.
    """
    rows = {repr(list(model_keys.values(row, keys))): row for row in inserted}
    found = {number: rows[key] for number in new if (key := repr(list(wanted[number]))) in rows}
    return found if len(found) == len(rows) == len(new) else {}


def _new_ones(
    model: type[Model], keys: Sequence[Any], wanted: Sequence[Sequence[Any]], new: Sequence[int]
) -> dict[int, Any]:
    found = existing_rows.find(model, keys, [wanted[number] for number in new])
    if len(found) < len(new):
        lost = next(number for position, number in enumerate(new) if position not in found)
        listed = ", ".join(f"{key.name} {value!r:.80}" for key, value in zip(keys, wanted[lost], strict=True))
        raise ValueError(f"after it was written, the table has no row with {listed}: does a trigger change it?")
    return {new[position]: key for position, key in found.items()}


def _settle_twins(
    model: type[Model], keys: Sequence[Any], there: Mapping[int, Any], values: Sequence[Any], new: set[int]
) -> None:
    """Where several instances became one new row, write the values of the last of them."""
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
    model: type[Model], keys: Sequence[Any], before: Mapping[Any, Any], wanted: Mapping[Any, Mapping[Any, Any]]
) -> bool:
    """Write the values that differ from the stored ones, except keys. Return whether any differed."""
    fixed, changes = _fixed(model, keys), {}
    for primary_key, values in wanted.items():
        stored = before[primary_key].__data__
        changes[primary_key] = {
            field: value
            for field, value in values.items()
            if field.name not in fixed and not row_updates.is_stored(field, value, stored)
        }
    changes = {key: values for key, values in changes.items() if values}
    row_updates.write(model, changes)
    return bool(changes)


def _insert_order(wanted: Sequence[Any]) -> tuple[int, str]:
    """Return the sort key of a new row: the same in each process, so that inserts cannot deadlock; "2" before "10"."""
    text = repr(wanted)
    return len(text), text


def _fixed(model: type[Model], keys: Sequence[Any]) -> set[str]:
    """Return the names of the fields that are never updated in an existing row."""
    return {model_keys.primary(model).name, *(key.name for key in keys)}


def _defaults(model: type[Model], instance: Any) -> dict[str, Any]:
    """Return the default values of an instance; a random default would differ if it was computed again."""
    if not isinstance(instance.__data__, changed_fields.Defaults):
        return {}
    return {
        name: value for name, value in instance.__data__.items() if name in model._meta.fields and value is not None
    }


def _insert(
    model: type[Model], keys: Sequence[Any], rows: Sequence[tuple[Mapping[Any, Any], dict[str, Any]]]
) -> list[Any]:
    """Insert rows, or update those that another writer has inserted since; return the stored rows."""
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
    model: type[Model],
    keys: Sequence[Any],
    instances: Sequence[Any],
    values: Sequence[Mapping[Any, Any]],
    there: Mapping[int, Any],
) -> bool:
    """Call `save()` of each row, in order, for models with `save_each = True`."""
    fixed = _fixed(model, keys)
    for number, instance in enumerate(instances):
        row = there.get(number)
        if row is None:
            made = _copied(instance)
            for field, value in values[number].items():
                made.__data__[field.name] = value
            made.save(force_insert=made._pk is not None)
            continue
        for field, value in values[number].items():
            if field.name not in fixed:
                setattr(row, field.name, value)
        row.save()
    return True


def _copied(instance: Any) -> Any:
    """Return a copy of an instance: a save that is rolled back would leave in it a key that is not its own any more."""
    made = copy.copy(instance)
    made.__data__, made.__rel__, made._dirty = instance.__data__.copy(), dict(instance.__rel__), set(instance._dirty)
    return made


def _change(before: Any, after: Any) -> Change:
    if before is None:
        return Change.CREATED
    same = before is after or changed_fields.identical(dict(before.__data__), dict(after.__data__))
    return Change.UNCHANGED if same else Change.UPDATED


def _field_names(row: tuple[Mapping[Any, Any], dict[str, Any]]) -> tuple[str, ...]:
    values, _ = row
    return tuple(sorted(field.name for field in values))
