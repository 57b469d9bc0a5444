"""Creates the missing tables of a user's models, with all their indexes."""

from collections.abc import Iterable
from typing import Any

from peewee import Index, Model

from workers.records import existing_rows


def create_tables(models: Iterable[Any]) -> None:
    """Create the tables that are missing, with their indexes. Existing tables are never altered.

    Peewee names an index after the class. Of two classes with the same name the second would get no unique index, so
    its index is named after its table.
    """
    for model in models:
        model.create_table(safe=True)
        for index in model._meta.fields_to_index():
            name = getattr(index, "_name", None)
            if isinstance(index, Index) and name and _owner(model, name) != model._meta.table_name:
                index._name = f"{model._meta.table_name}_{name}"[:63]  # type: ignore[attr-defined]
                existing_rows.database_of(model).execute(model._schema._create_index(index, safe=True))


def _owner(model: type[Model], name: str) -> str:
    """Return the table of the index with this name; empty if there is none."""
    place = existing_rows.database_of(model)
    if existing_rows.is_sqlite(model):
        found = place.execute_sql("SELECT tbl_name FROM sqlite_master WHERE type = 'index' AND name = ?", (name,))
    else:
        found = place.execute_sql(
            "SELECT tablename FROM pg_catalog.pg_indexes "
            "WHERE indexname = %s AND schemaname = COALESCE(%s, current_schema())",
            (name[:63], model._meta.schema),
        )
    row = found.fetchone()
    return str(row[0]) if row else ""
