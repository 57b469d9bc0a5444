"""Finds which rows exist already. The database compares the keys, because its rules can differ from Python's.

A column can ignore case (NOCASE, CITEXT) or trailing blanks, round (NUMERIC(10, 2)), or have another type than the API
sends. So the keys are joined with the table, cast to the column types of the database's catalogue.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from peewee import (
    SQL,
    Cast,
    CommaNodeList,
    EnclosedNodeList,
    Entity,
    Field,
    Model,
    ModelSelect,
    NodeList,
    SqliteDatabase,
)

from workers import clock
from workers.sources import model_keys

#: The type of each column, without its length: CAST('abcdef' AS varchar(5)) would silently cut what an INSERT refuses.
#: Types that round keep their modifiers, so that a key is rounded as an INSERT rounds it. A domain counts as its base.
_TYPES = """
WITH RECURSIVE kind(name, oid, modifier) AS (
    SELECT attname, atttypid, atttypmod FROM pg_catalog.pg_attribute
    WHERE attrelid = CAST(%s AS regclass) AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT kind.name, typbasetype, CASE WHEN typtypmod = -1 THEN modifier ELSE typtypmod END
    FROM kind JOIN pg_catalog.pg_type AS domain ON domain.oid = kind.oid WHERE domain.typtype = 'd'
)
SELECT name, pg_catalog.format_type(kind.oid, CASE
    WHEN typname IN ('numeric', 'timestamp', 'timestamptz', 'time', 'timetz', 'interval') THEN modifier ELSE -1 END)
FROM kind JOIN pg_catalog.pg_type AS base ON base.oid = kind.oid WHERE base.typtype <> 'd'
"""


_TYPES_SECONDS = 60.0
#: The name of the wanted keys in a statement; it hides a user's table of the same name.
_WANTED = "sluice_wanted"


def database_of(model: type[Model]) -> Any:
    """Return the database object of a model, also if the model refers to it by a proxy."""
    theirs = model._meta.database
    return getattr(theirs, "obj", theirs)


def is_sqlite(model: type[Model]) -> bool:
    """Whether a model's table is on SQLite."""
    return isinstance(database_of(model), SqliteDatabase)


def find(model: type[Model], keys: Sequence[Field], wanted: Sequence[Sequence[Any]]) -> dict[int, Any]:
    """Find the rows that have the wanted keys.

    Parameters:
      keys(Sequence[peewee.Field]): The key fields.
      wanted(Sequence[Sequence]): For each row, the values of these fields.

    Returns:
      dict[int, Any]: Position in `wanted` -> primary key, for rows that exist. Two positions can have the same primary
        key, if their keys are equal for the database.
    """
    if not wanted:
        return {}
    place = database_of(model)
    types = {} if is_sqlite(model) else _types(place, model)
    rows = [
        EnclosedNodeList(
            [SQL(str(number)), *(_typed(field, value, types) for field, value in zip(keys, row, strict=True))]
        )
        for number, row in enumerate(wanted)
    ]
    names = [f"k{number}" for number in range(len(keys))]
    same = [
        NodeList((Entity("t", field.column_name), SQL(" = "), Entity(_WANTED, name)), glue="")
        for field, name in zip(keys, names, strict=True)
    ]
    primary = model_keys.primary(model)
    query = NodeList(
        (
            SQL(f"WITH {_WANTED}(n, {', '.join(names)}) AS (VALUES "),
            CommaNodeList(rows),
            SQL(f") SELECT {_WANTED}.n, "),
            Entity("t", primary.column_name),
            SQL(f" FROM {_WANTED} JOIN "),
            table(model),
            SQL(" AS t ON "),
            NodeList(same, glue=" AND "),
        ),
        glue="",
    )
    return {number: primary.python_value(key) for number, key in place.execute(query).fetchall()}


def rows(model: type[Model], primary_keys: Iterable[Any], *, lock: bool = False) -> dict[Any, Any]:
    """Return rows by primary key, also rows that the model's own `select` filters out.

    Parameters:
      lock(bool): Lock them until the transaction ends, in the order of their keys, so that two writers with the same
        rows cannot deadlock.
    """
    key, wanted = model_keys.primary(model), list(primary_keys)
    if not wanted:
        return {}
    query = ModelSelect(model, model._meta.sorted_fields).where(key.in_(wanted))
    found: Any = _locking(model, query) if lock else query
    return {row._pk: row for row in found}


def locked_keys(model: type[Model], primary_keys: Iterable[Any], keys: Sequence[Field]) -> dict[Any, tuple[Any, ...]]:
    """Lock rows as `rows` does; return primary key -> the values of the fields in `keys`."""
    key = model_keys.primary(model)
    query = ModelSelect(model, [key, *keys]).where(key.in_(list(primary_keys)))
    return {primary: tuple(values) for primary, *values in _locking(model, query).tuples()}


def _locking(model: type[Model], query: Any) -> Any:
    ordered = query.order_by(model_keys.primary(model))
    if is_sqlite(model):
        return ordered  # its transaction locks the whole file
    return ordered.for_update("FOR NO KEY UPDATE")  # so that other transactions can insert rows that refer to these


def _types(place: Any, model: type[Model]) -> dict[str, str]:
    """Return column -> type. The catalogue is read again after a minute: a table can be altered while it is used."""
    name, _ = place.get_sql_context().sql(table(model)).query()
    known: dict[str, tuple[float, dict[str, str]]] = place.__dict__.setdefault("_sluice_types", {})
    if name not in known or clock.monotonic() - known[name][0] > _TYPES_SECONDS:
        known[name] = clock.monotonic(), dict(place.execute_sql(_TYPES, (name,)).fetchall())
    return known[name][1]


def _typed(field: Any, value: Any, types: dict[str, str]) -> Any:
    node = field.to_value(value)
    kind = types.get(field.column_name)
    return Cast(node, kind) if kind else node


def table(model: type[Model]) -> Any:
    """Return a model's table as an SQL node."""
    meta = model._meta
    return Entity(meta.schema, meta.table_name) if meta.schema else Entity(meta.table_name)
