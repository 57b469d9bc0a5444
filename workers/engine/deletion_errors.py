"""Explains why a database refuses to delete a row: which table refers to it, by the driver's error or the schema."""

from typing import Any

from peewee import IntegrityError, PeeweeException

from workers.connections import database, database_errors

#: SQLSTATE of an exception that a trigger of Postgres raises.
_RAISED = "P0001"


def is_refusal(error: PeeweeException) -> bool:
    """Whether an error means that a constraint, or a trigger, has refused the deletion of a row."""
    return isinstance(error, IntegrityError) or getattr(database_errors.original_of(error), "sqlstate", None) == _RAISED


def explain(error: PeeweeException, model: type[Any]) -> str:
    """Return what refused the deletion of a row of `model`, as a sentence for the run's timeline."""
    diag = getattr(database_errors.original_of(error), "diag", None)
    if not is_refusal(error):
        return database.explain(error)
    if diag is None:
        return _by_schema(model) + database.explain(error)  # SQLite says no more than that a constraint failed
    if diag.constraint_name:
        return f"the table {diag.table_name!r} refers to it (constraint {diag.constraint_name!r})"
    return database.explain(error)


def _by_schema(model: type[Any]) -> str:
    """Name the tables that have a foreign key to the table of `model`; empty where none has."""
    place, table = model._meta.database, model._meta.table_name
    names = [
        name for name in place.get_tables() if any(key.dest_table == table for key in place.get_foreign_keys(name))
    ]
    if not names:
        return ""
    return f"{'the table' if len(names) == 1 else 'the tables'} {' and '.join(map(repr, names))} may refer to it: "
