"""The schema: Sluice's tables brought up to date by migrations, and those of users' models created."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peewee import DatabaseError, InterfaceError
from playhouse.migrations import Runner

from workers.connections import database
from workers.errors import DependencyDown
from workers.records.model_tables import create_tables

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK_ID = 0x51_01_CE  # one advisory lock for all who migrate


def migrate(models: Iterable[Any] = ()) -> list[str]:
    """Bring Sluice's tables up to date, and create those of `models` that are missing; one process at a time does it.

    Parameters:
      models(Iterable[type[peewee.Model]]): A user's models whose tables may be created. Theirs are never altered.

    Returns:
      list[str]: The migrations that were applied just now.
    """
    found = list(models)
    with database.connection(), database.db.atomic():
        ours, theirs = [m for m in found if database.is_ours(m)], [m for m in found if not database.is_ours(m)]
        if not database.is_sqlite():
            database.db.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK_ID,))
        applied: list[str] = _runner().up()
        create_tables(ours)
    for model in theirs:
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
