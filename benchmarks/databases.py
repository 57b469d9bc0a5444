"""Make a fresh database for one fleet, and query it with plain SQL instead of the code that is measured."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

_SECONDS = 10


@contextmanager
def fresh(url: str, folder: Path) -> Iterator[str]:
    """Make an empty database for the length of a block.

    Parameters:
      url: A server, as postgresql://user:password@host:port/postgres: a database of its own is created beside the named
        one, and dropped afterwards. Empty: an SQLite file in `folder`.
      folder: Where the SQLite file goes.

    Returns:
      The new database's URL.

    Raises:
      psycopg.Error: The URL is not one, or the server does not let us in.
    """
    if not url:
        yield f"sqlite:///{folder}/sluice.db"
        return
    name = f"sluice_bench_{uuid.uuid4().hex[:12]}"
    _administer(url, f"CREATE DATABASE {name}")
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        _administer(url, f"DROP DATABASE {name} WITH (FORCE)")


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows a SELECT finds, on a connection of its own."""
    if url.startswith("sqlite:"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_SECONDS)) as connection:
            return connection.execute(sql).fetchall()
    with psycopg.connect(url, autocommit=True, connect_timeout=_SECONDS) as connection:
        return connection.execute(sql).fetchall()


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True, connect_timeout=_SECONDS) as connection:
        connection.execute(statement)
