"""Connects to SQLite or Postgres by URL, binds all tables to that database, and reads the database's clock."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from peewee import (
    Database,
    DatabaseProxy,
    Field,
    InterfaceError,
    OperationalError,
    SqliteDatabase,
)
from playhouse.db_url import parse
from playhouse.pool import PooledSqliteDatabase

from workers import clock, extras
from workers.connections import database_errors
from workers.errors import ConfigurationError, DependencyDown
from workers.settings import get_settings
from workers.text import redaction
from workers.text.error_text import message_of

#: Bound to the real database by `connect`.
db = DatabaseProxy()

_EXAMPLES = (
    "Write sqlite:////var/lib/sluice/sluice.db or postgresql://user:password@host/database, "
    "special characters of the password as %XX"
)
_connecting = threading.Lock()

#: Shorthands for the classification of database errors.
is_away, is_of_the_statement = database_errors.is_away, database_errors.is_of_the_statement

#: Called with each error that says that Postgres has no connection left.
full_listeners: list[Callable[[BaseException], object]] = []


class UTCDateTimeField(Field):
    """An instant, UTC-aware: TIMESTAMPTZ on Postgres; on SQLite ISO text with fixed microseconds, so that it sorts."""

    field_type = "TIMESTAMPTZ"

    def db_value(self, value: datetime | None) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{self.name} needs a UTC-aware datetime, not {value!r}")
        value = value.astimezone(UTC)
        return value.isoformat(" ", "microseconds") if is_sqlite() else value

    def python_value(self, value: Any) -> datetime | None:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        return value.astimezone(UTC) if value is not None else None


def connect(url: str | None = None) -> Database:
    """Bind `db` to the database at `url` (default: the settings'), once per process.

    Raises:
      ConfigurationError: The URL names neither SQLite nor Postgres, or the SQLite file cannot be written.
    """
    with _connecting:
        if db.obj is None:
            db.initialize(_make(url or get_settings().database))
    return db.obj


def disconnect() -> None:
    """Close every connection of this process and forget the database."""
    with _connecting:
        if db.obj is not None:
            db.obj.close_all()
            db.initialize(None)


def is_ours(model: type[Any]) -> bool:
    """Return whether a model uses the Sluice database, so that one transaction covers its table and Sluice's."""
    return model._meta.database in (db, db.obj)


def is_sqlite() -> bool:
    """Return whether the database in use is SQLite."""
    return isinstance(db.obj, SqliteDatabase)


@contextmanager
def connection() -> Iterator[None]:
    """Keep this thread's connection open for a block; blocks can be nested.

    Raises:
      DependencyDown: The database cannot be reached, or refuses the login.
    """
    connect()
    try:
        opened = db.connect(reuse_if_open=True)
    except (OperationalError, InterfaceError) as error:
        full = database_errors.sqlstate(error) == database_errors.TOO_MANY_CONNECTIONS
        what = "Postgres has no connection left" if full else "the database does not answer"
        raise DependencyDown(f"{what}: {explain(error)}") from error
    try:
        yield
    finally:
        if opened:
            db.close()


def now() -> datetime:
    """Return the database's time. Leases use it, because the clocks of hosts can differ."""
    if clock.current().moved or is_sqlite():
        return clock.now()
    instant: datetime = db.execute_sql("SELECT clock_timestamp()").fetchone()[0]
    return instant.astimezone(UTC)


def _make(url: str) -> Database:
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return _sqlite(url)
    if scheme in ("postgres", "postgresql"):
        return _postgres(url)
    raise ConfigurationError(f"SLUICE_DATABASE_URL must begin with sqlite:/// or postgresql://. {_EXAMPLES}")


def _postgres(url: str) -> Database:
    extras.require("postgres", "A Postgres database (SLUICE_DATABASE_URL)")
    from workers.connections.pool import Pool

    try:
        parts = urlsplit(url)
        options = parse(url, unquote_password=True, unquote_user=True)
        complete = parts.port != 0 and options.get("database") and not parts.fragment
        readable = complete and (parts.hostname or options.get("host"))
    except ValueError:
        readable = False
    if not readable:  # the message does not contain the URL, because that can contain a password
        raise ConfigurationError(f"SLUICE_DATABASE_URL cannot be read. {_EXAMPLES}") from None
    options = {"connect_timeout": 10, "application_name": "sluice"} | options
    options |= {"prefer_psycopg3": True, "pooler": get_settings().database_pooler, "refused": _report_full}
    return Pool(**options)


def _report_full(error: BaseException) -> None:
    for listener in full_listeners:
        listener(error)


def sqlite_path(url: str) -> Path | None:
    """Return the path of the SQLite file that a URL names; None where it names none that processes can share."""
    name = url.removeprefix("sqlite:///").partition("?")[0]
    return Path(name) if url.startswith("sqlite:///") and name and name != ":memory:" else None


def _sqlite(url: str) -> Database:
    path = sqlite_path(url)
    if path is None:
        raise ConfigurationError(f"SLUICE_DATABASE_URL must name a file that processes can share. {_EXAMPLES}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"The database file {path} cannot be written ({error.strerror})",
            repair="make its folder writable, or set SLUICE_DATA_DIR",
        ) from None
    return PooledSqliteDatabase(
        str(path),
        max_connections=512,
        timeout=30,
        lock_type="IMMEDIATE",  # deferred transactions that read and then write fail with "database is locked"
        pragmas={"journal_mode": "wal", "synchronous": "normal", "busy_timeout": 30_000, "foreign_keys": 1},
        check_same_thread=False,
        cached_statements=32,  # the default, 128, takes megabytes in a process with many threads
    )


def reconnect(place: Database | DatabaseProxy | None = None) -> None:
    """Drop this thread's connection, outside of any transaction; the next use opens another.

    Parameters:
      place(peewee.Database | None): The database; Sluice's when None.
    """
    obj = connect() if place is None or place is db else place
    if obj.is_closed() or obj.in_transaction():
        return
    with suppress(Exception):  # closing a broken connection can fail
        getattr(obj, "manual_close", obj.close)()


def storable(text: str | None, length: int = 500) -> str:
    """Return text that both databases accept: cut to `length` characters, without NULs and half surrogates."""
    return (text or "").replace("\0", "").encode("utf-8", "replace").decode()[:length]


def explain(error: BaseException) -> str:
    """Return the first line of a database driver's message, without secrets."""
    return redaction.excerpt((message_of(error).strip().splitlines() or [type(error).__name__])[0], 200)
