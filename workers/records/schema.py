"""Migrates Sluice's own tables, and creates the missing tables of users' models."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peewee import DatabaseError, InterfaceError
from playhouse.migrations import Runner

from workers.connections import database
from workers.errors import DependencyDown
from workers.records.model_tables import create_tables

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_ID = 0x51_01_CE  # one advisory lock for all processes that migrate


def migrate(models: Iterable[Any] = ()) -> list[str]:
    """Apply missing migrations to Sluice's tables, and create the missing tables of `models`; one process at a time.

    Parameters:
      models(Iterable[type[peewee.Model]]): A user's models. Their existing tables are never altered.

    Returns:
      list[str]: The migrations that this call applied.
    """
    found = list(models)
    with database.connection(), database.db.atomic():
        own, others = [m for m in found if database.is_ours(m)], [m for m in found if not database.is_ours(m)]
        if not database.is_sqlite():
            database.db.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK_ID,))
        applied: list[str] = _runner().up()
        create_tables(own)
    for model in others:
        with model._meta.database.connection_context():
            create_tables([model])
    return applied


def is_migrated() -> bool:
    """Whether every migration has been applied.

    Raises:
      DependencyDown: The database does not answer.
    """
    with database.connection():
        try:
            return all(m.applied for m in _runner().status())
        except (DatabaseError, InterfaceError) as error:
            if not database.is_away(error):
                raise
            raise DependencyDown(f"the database does not answer: {database.explain(error)}") from error


def _runner() -> Runner:
    return Runner(database.db.obj, str(_MIGRATIONS), table_name="sluice_migrations")
