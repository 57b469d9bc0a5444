"""Which fields of a user's row were set, or changed in place: only these are written.

Peewee gives a new instance all its defaults, so a field that was given looks like one that was not. And a
dictionary or a list that is changed in place is no change to it at all.
"""

import copy
import functools
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

#: What cannot be changed in place.
_UNCHANGING = (str, int, float, complex, bytes, Decimal, date, time, timedelta, UUID, Enum, type(None))
_BYTES = (bytes, bytearray, memoryview)


class Defaults(dict[str, Any]):
    """The values of an instance that began with its defaults; `given` names those that were set since."""

    def __init__(self, defaults: dict[str, Any], given: frozenset[str] = frozenset()) -> None:
        # Of its own: Peewee hands the one list or dictionary of a column's default to every row.
        super().__init__({name: _own(value) for name, value in defaults.items()})
        self.given = set(given)
        self.before = _snapshot(defaults)

    def __setitem__(self, name: str, value: Any) -> None:
        there = self.get(name)
        # A BigBitField puts a buffer in place of its bytes when it is merely read.
        of_bytes = isinstance(there, bytes) and identical(there, value)
        if not isinstance(value, bytearray) or not (value is there or of_bytes):
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


def prepare(model: type[Any]) -> None:
    """Let new instances of `model` know which of their fields were given to them. Nothing else about them changes."""
    meta = model._meta
    if getattr(meta, "_sluice_prepared", False):
        return
    defaults: Callable[[], dict[str, Any]] = meta.get_default_dict
    meta.get_default_dict = functools.wraps(defaults)(lambda: Defaults(defaults()))
    meta._sluice_prepared = True


def remember(row: Any) -> None:
    """Keep the values of a row as it was loaded, so that `names` finds what was changed in place."""
    row.__dict__["_sluice_loaded"] = _snapshot(row.__data__)


def loaded(row: Any) -> dict[str, Any]:
    """Return the values a row was loaded with; empty where `remember` was not called."""
    values: dict[str, Any] = row.__dict__.get("_sluice_loaded", {})
    return values


def names(row: Any) -> tuple[str, ...]:
    """Return the names of the fields to write, sorted.

    Parameters:
      row(peewee.Model): New, of a model that was `prepare`d: what was given to it. Or loaded: what was changed.
    """
    _adopt_relations(row)
    data = row.__data__
    if isinstance(data, Defaults):
        found = set(data.names())
    else:
        before = loaded(row)
        if before:
            found = {name for name, value in data.items() if name in before and _is_changed(before[name], value)}
        else:  # a source's method has loaded it: what can be changed in place may have been
            found = {name for name, value in data.items() if not isinstance(value, _UNCHANGING)}
        found |= row._dirty
    return tuple(sorted(found & row._meta.fields.keys()))


def identical(one: Any, other: Any) -> bool:
    """Whether two values are the same in type and value: 1 is not True, nor 1.0; bytes are bytes in whatever buffer."""
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
    if type(one).__eq__ is object.__eq__:  # type: ignore[comparison-overlap]  # as of psycopg's Jsonb
        return _alike_inside(one, other)
    try:
        return bool(one == other)
    except Exception:  # a class of a user's own may compare in any way
        return False


def _alike_inside(one: Any, other: Any) -> bool:
    try:
        return identical(one.__reduce_ex__(2), other.__reduce_ex__(2))
    except Exception:  # what cannot be copied cannot be compared
        return False


def _snapshot(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, _UNCHANGING) else _copied(value) for name, value in values.items()}


def _own(value: Any) -> Any:
    return copy.deepcopy(value) if isinstance(value, (dict, list, set, bytearray)) else value


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value.tobytes() if isinstance(value, memoryview) else value)
    except Exception:  # what cannot be copied is taken for changed
        return object()


def _is_changed(before: Any, value: Any) -> bool:
    if before is value:
        return False
    if before is None and isinstance(value, bytearray) and not value:
        return False  # a BigBitField that was merely read
    return not identical(before, value)


def _adopt_relations(row: Any) -> None:
    """Take over the key of a related row that was assigned first and saved then, as `save()` does."""
    for field in row._meta.refs:
        related = row.__rel__.get(field.name)
        if related is not None and row.__data__.get(field.name) is None:
            setattr(row, field.name, related)
