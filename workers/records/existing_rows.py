"""Which rows are there already: the database compares the keys, for it may do so otherwise than Python.

A column may ignore case (NOCASE, CITEXT) or trailing blanks, round (NUMERIC(10, 2)), or hold another type than the API
sends. So the given keys are joined with the table, cast to what the catalogue says the column holds.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from peewee import SQL, Cast, CommaNodeList, EnclosedNodeList, Entity, ModelSelect, NodeList, SqliteDatabase

from workers import clock

#: The type of each column. Without its modifiers: CAST('abcdef' AS varchar(5)) would cut silently what an INSERT
#: refuses. But where an INSERT rounds, the key is rounded alike. A domain stands for what it is made of.
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
#: What the given keys are called in a statement: a user's table of that name could not be seen in it.
_WANTED = "sluice_wanted"


def database_of(model: type[Any]) -> Any:
    """Return the database object of a model, whatever proxy it is reached through."""
    theirs = model._meta.database
    return getattr(theirs, "obj", theirs)


def is_sqlite(model: type[Any]) -> bool:
    """Whether a model's table is on SQLite."""
    return isinstance(database_of(model), SqliteDatabase)


def find(model: type[Any], keys: Sequence[Any], wanted: Sequence[Sequence[Any]]) -> dict[int, Any]:
    """Return which rows have the wanted keys.

    Parameters:
      keys(Sequence[peewee.Field]): The fields by which rows are found.
      wanted(Sequence[Sequence]): For each row wanted, the values of these fields.

    Returns:
      dict[int, Any]: Position in `wanted` -> primary key; nothing where there is no such row. Two positions may have
        one primary key: the database takes their keys for the same.
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
    primary = model._meta.primary_key
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


def rows(model: type[Any], primary_keys: Iterable[Any], *, lock: bool = False) -> dict[Any, Any]:
    """Return rows by their primary keys, whatever the model's own `select` hides.

    Parameters:
      lock(bool): Hold them until the transaction ends, in the order of their keys: of two writers with the same rows
        in another order, none waits for the other crosswise.
    """
    key, wanted = model._meta.primary_key, list(primary_keys)
    if not wanted:
        return {}
    query = ModelSelect(model, model._meta.sorted_fields).where(key.in_(wanted))
    found: Any = _locking(model, query) if lock else query
    return {row._pk: row for row in found}


def locked_keys(model: type[Any], primary_keys: Iterable[Any], keys: Sequence[Any]) -> dict[Any, tuple[Any, ...]]:
    """Lock rows as `rows` does; return primary key -> the values of the fields in `keys`."""
    key = model._meta.primary_key
    query = ModelSelect(model, [key, *keys]).where(key.in_(list(primary_keys)))
    return {primary: tuple(values) for primary, *values in _locking(model, query).tuples()}


def _locking(model: type[Any], query: Any) -> Any:
    ordered = query.order_by(model._meta.primary_key)
    if is_sqlite(model):
        return ordered  # the transaction holds the whole file
    return ordered.for_update("FOR NO KEY UPDATE")  # rows that refer to these may be inserted meanwhile


def _types(place: Any, model: type[Any]) -> dict[str, str]:
    """Return column -> type, read from the catalogue at most once a minute: a table may be altered while it is used."""
    name, _ = place.get_sql_context().sql(table(model)).query()
    known: dict[str, tuple[float, dict[str, str]]] = place.__dict__.setdefault("_sluice_types", {})
    if name not in known or clock.monotonic() - known[name][0] > _TYPES_SECONDS:
        known[name] = clock.monotonic(), dict(place.execute_sql(_TYPES, (name,)).fetchall())
    return known[name][1]


def _typed(field: Any, value: Any, types: dict[str, str]) -> Any:
    node = field.to_value(value)
    kind = types.get(field.column_name)
    return Cast(node, kind) if kind else node


def table(model: type[Any]) -> Any:
    """Return a model's table as it stands in a statement."""
    meta = model._meta
    return Entity(meta.schema, meta.table_name) if meta.schema else Entity(meta.table_name)
