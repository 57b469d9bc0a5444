"""How the package saves a user's rows: in bulk, writing only the fields it was given."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import Any

from peewee import chunked

from workers import database
from workers.errors import ConfigurationError

#: Rows of one INSERT: a statement takes 65,535 values on Postgres.
_CHUNK = 500

_bare: ContextVar[bool] = ContextVar("bare", default=False)


def prepare(model: type[Any]) -> None:
    """Let instances of `model` be made without their defaults inside `given_fields_only`.

    Peewee gives a new instance all its defaults, and then nothing tells a field that was given from one that was not:
    an import would put every default back over what is in the table.
    """
    meta = model._meta
    if getattr(meta, "_sluice_prepared", False):
        return
    defaults: Callable[[], dict[str, Any]] = meta.get_default_dict
    meta.get_default_dict = lambda: {} if _bare.get() else defaults()
    meta._sluice_prepared = True


@contextmanager
def given_fields_only() -> Iterator[None]:
    """Within the block, new instances hold only the fields that were given to them."""
    token = _bare.set(True)
    try:
        yield
    finally:
        _bare.reset(token)


def upsert(model: type[Any], instances: Sequence[Any], unique_by: str) -> list[Any]:
    """Insert the instances, or update the given fields of the rows that are there already.

    Parameters:
      model(type[peewee.Model]): Their class.
      instances(Sequence[peewee.Model]): Unsaved, made within `given_fields_only`; no two of one `unique_by` value.
      unique_by(str): The unique field that tells whether a row is there.

    Returns:
      list: The rows' primary keys, in the order of `instances`.
    """
    key = model._meta.fields[unique_by]
    if getattr(model, "save_each", False):
        return [_save_one(model, instance, key) for instance in instances]
    return [pk for some in chunked(instances, _CHUNK) for pk in _upsert(model, some, key)]


def _upsert(model: type[Any], instances: Sequence[Any], key: Any) -> list[Any]:
    for names, group in groupby(sorted(instances, key=_given), key=_given):
        if key.name not in names:
            raise ConfigurationError(
                f"{model.__name__} instances come without {key.name}, by which a row is known again"
            )
        insert = model.insert_many([{name: instance.__data__[name] for name in names} for instance in group])
        others = [model._meta.fields[name] for name in names if name != key.name]
        if others:
            insert = insert.on_conflict(conflict_target=[key], preserve=others)
        else:
            insert = insert.on_conflict(action="NOTHING", conflict_target=[key])
        insert.execute()
    values = [key.python_value(key.db_value(instance.__data__[key.name])) for instance in instances]
    keys = dict(model.select(key, model._meta.primary_key).where(key.in_(values)).tuples())
    return [keys[value] for value in values]


def save_fields(models: Sequence[Any]) -> None:
    """Write the changed fields of loaded rows: one statement for each set of fields that changed together."""
    for (model, names), group in groupby(sorted(models, key=_kind), key=_kind_and_fields):
        rows = list(group)
        if getattr(model, "save_each", False):
            for row in rows:
                row.save()
                row._dirty.update(names)  # save() forgets them, and this one may be rolled back and made again
        elif names:
            model.bulk_update(rows, [model._meta.fields[name] for name in names])


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


def _save_one(model: type[Any], instance: Any, key: Any) -> Any:
    existing = model.get_or_none(key == instance.__data__[key.name])
    if existing is None:
        for name, value in model._meta.get_default_dict().items():
            instance.__data__.setdefault(name, value)
        instance.save(force_insert=instance._pk is not None)
        return instance._pk
    for name in _given(instance):
        setattr(existing, name, instance.__data__[name])
    existing.save()
    return existing._pk


def _given(instance: Any) -> tuple[str, ...]:
    return tuple(sorted(instance._dirty))


def _kind(instance: Any) -> tuple[str, tuple[str, ...]]:
    return type(instance).__qualname__, _given(instance)


def _kind_and_fields(instance: Any) -> tuple[type[Any], tuple[str, ...]]:
    return type(instance), _given(instance)
