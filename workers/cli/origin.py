"""Door: where a command comes from, who came, and the tables it needs to do anything."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from workers.connections import database
from workers.errors import ConfigurationError
from workers.records import schema
from workers.sources.registry import get_registry


@dataclass(frozen=True)
class Door:
    """Where a command comes from, and whether it may make the models' tables."""

    name: str = "cli"
    creates_models: bool = False

    def prepare(self) -> None:
        """Bring our tables up to date, and make the models' where this door may."""
        if not schema.is_migrated() or self.creates_models:
            schema.migrate(models() if self.creates_models else ())


#: Gives a command its door; the command line's where `main` was not told of another.
pass_door = click.make_pass_decorator(Door, ensure=True)


@contextmanager
def tables() -> Iterator[None]:
    """Hold a connection to a database that has our tables.

    Raises:
      ConfigurationError: It has none, or those of an older version.
    """
    with database.connection():
        if not schema.is_migrated():
            raise ConfigurationError(
                "The database has no, or older, Sluice tables: `python -m workers migrate --create-models` makes them"
            )
        yield


def models() -> list[Any]:
    """Return the models of the sources, each once."""
    return list({id(source.model): source.model for source in get_registry().values()}.values())


def me() -> str:
    """Return who types, as the timeline is to name them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
