"""Finds which fields of a user's row were set or changed in place, so that only these are written.

Peewee alone cannot say: a new instance has all its defaults, which look like values that were set, and a dictionary or
a list that was changed in place does not count as changed.
"""

import copy
import functools
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from peewee import Model

#: Types that cannot be changed in place.
_UNCHANGING = (str, int, float, complex, bytes, Decimal, date, time, timedelta, UUID, Enum, type(None))
_BYTES = (bytes, bytearray, memoryview)


class Defaults(dict[str, Any]):
    """The data of a new instance: its default values. `given` has the names of the fields that were set since."""

    def __init__(self, defaults: dict[str, Any], given: frozenset[str] = frozenset()) -> None:
        # Copied: Peewee gives the same default list or dictionary to every row.
        super().__init__({name: _own(value) for name, value in defaults.items()})
        self.given = set(given)
        self.before = _snapshot(defaults)

    def __setitem__(self, name: str, value: Any) -> None:
        present = self.get(name)
        # A BigBitField replaces its bytes by a buffer when it is only read.
        of_bytes = isinstance(present, bytes) and identical(present, value)
        if not isinstance(value, bytearray) or not (value is present or of_bytes):
            self.given.add(name)
        super().__setitem__(name, value)

    def names(self) -> frozenset[str]:
        """Return the names that were set, or whose value was changed in place."""
        changed = (name for name, value in self.before.items() if _is_changed(value, self.get(name)))
        return frozenset({*self.given, *changed} & self.keys())

    def copy(self) -> "Defaults":
        return Defaults(self, self.names())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Defaults":
        return Defaults({name: copy.deepcopy(value, memo) for name, value in self.items()}, self.names())

    def __reduce__(self) -> tuple[Any, ...]:
        return Defaults, (dict(self), self.names())


def prepare(model: type[Model]) -> None:
    """Make new instances of `model` record which of their fields are set. Nothing else about them changes."""
    meta: Any = model._meta
    if getattr(meta, "_sluice_prepared", False):
        return
    defaults: Callable[[], dict[str, Any]] = meta.get_default_dict
    meta.get_default_dict = functools.wraps(defaults)(lambda: Defaults(defaults()))
    meta._sluice_prepared = True


def remember(row: Any) -> None:
    """Keep a copy of the values of a loaded row, so that `names` finds what is changed in place."""
    row.__dict__["_sluice_loaded"] = _snapshot(row.__data__)


def loaded(row: Any) -> dict[str, Any]:
    """Return the values a row was loaded with; empty if `remember` was not called."""
    values: dict[str, Any] = row.__dict__.get("_sluice_loaded", {})
    return values


def names(row: Any) -> tuple[str, ...]:
    """Return the names of the fields to write, sorted.

    Parameters:
      row(peewee.Model): A new row of a `prepare`d model, for the fields that were set; or a loaded row, for the fields
        that were changed.
    """
    _adopt_relations(row)
    data = row.__data__
    if isinstance(data, Defaults):
        found = set(data.names())
    else:
        before = loaded(row)
        if before:
            found = {name for name, value in data.items() if name in before and _is_changed(before[name], value)}
        else:  # a method of the source has loaded it: every mutable value can have been changed in place
            found = {name for name, value in data.items() if not isinstance(value, _UNCHANGING)}
        found |= row._dirty
    return tuple(sorted(found & row._meta.fields.keys()))


def identical(one: Any, other: Any) -> bool:
    """Whether two values have the same type and value: 1 is not True, nor 1.0. Buffers of equal bytes are identical."""
    if isinstance(one, _BYTES) and isinstance(other, _BYTES):
        return bytes(one) == bytes(other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    return _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, float):
        return repr(one) == repr(other)  # -0.0 is not 0.0
    if type(one).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]  # for instance psycopg's Jsonb
        return _equal_inside(one, other)
    try:
        return bool(one == other)
    except Exception:  # a user's class can fail in any way
        return False


def _equal_inside(one: Any, other: Any) -> bool:
    try:
        return identical(one.__reduce_ex__(2), other.__reduce_ex__(2))
    except Exception:  # a value that cannot be copied cannot be compared
        return False


def _snapshot(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, _UNCHANGING) else _copied(value) for name, value in values.items()}


def _own(value: Any) -> Any:
    return copy.deepcopy(value) if isinstance(value, (dict, list, set, bytearray)) else value


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value.tobytes() if isinstance(value, memoryview) else value)
    except Exception:  # a value that cannot be copied counts as changed
        return object()


def _is_changed(before: Any, value: Any) -> bool:
    if before is value:
        return False
    if before is None and isinstance(value, bytearray) and not value:
        return False  # a BigBitField that was only read
    return not identical(before, value)


def _adopt_relations(row: Any) -> None:
    """Copy the key of a related row that was saved after it was assigned, as `save()` does."""
    for field in row._meta.refs:
        related = row.__rel__.get(field.name)
        if related is not None and row.__data__.get(field.name) is None:
            setattr(row, field.name, related)
