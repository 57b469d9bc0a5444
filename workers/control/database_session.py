"""Opens a database connection for an act, and refuses a database without Sluice's current tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from workers.connections import database
from workers.errors import ConfigurationError
from workers.records import schema


@contextmanager
def tables() -> Iterator[None]:
    """Keep this thread's connection open for a block; blocks can be nested.

    Raises:
      DependencyDown: The database does not answer.
      ConfigurationError: SLUICE_DATABASE_URL cannot be used, or its database lacks Sluice's tables or their newest
        migration.
    """
    with database.connection():
        if not schema.is_migrated():
            raise ConfigurationError(
                "The database has no Sluice tables, or older ones: "
                "`python -m workers migrate --create-models` creates them"
            )
        yield
