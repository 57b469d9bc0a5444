"""Origin of a command: who typed it, from which door (command line or script), and the connection for its act."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from workers.control.author import Author, author
from workers.control.database_session import tables
from workers.records import schema
from workers.sources.registry import get_registry

__all__ = ["Door", "models", "pass_door", "tables"]


@dataclass(frozen=True)
class Door:
    """Where a command comes from.

    Attributes:
      name: As the timeline records it.
      creates_models: Whether a command may create the tables of the sources' models.
    """

    name: str = "cli"
    creates_models: bool = False

    @contextmanager
    def acting(self, *, migrating: bool = False) -> Iterator[Author]:
        """Keep a database connection open for an act, and yield its author: the operating system's user.

        Parameters:
          migrating(bool): Whether to bring Sluice's tables up to date first, and create the models' where this door
            may; else a database without them is refused.

        Raises:
          DependencyDown, ConfigurationError: As `tables`.
        """
        if migrating and (self.creates_models or not schema.is_migrated()):
            schema.migrate(models() if self.creates_models else ())
        with tables():
            yield author(None, self.name)


#: Passes a command its door: the one that `main` was given, else the command line.
pass_door = click.make_pass_decorator(Door, ensure=True)


def models() -> list[Any]:
    """Return the models of the sources, each once."""
    return list({id(source.model): source.model for source in get_registry().values()}.values())
