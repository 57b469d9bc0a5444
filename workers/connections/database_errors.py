"""Classifies database errors by their code: the fault is in the row, the statement, the session or the server.

The code is an SQLSTATE or a result code of SQLite, because texts are translated and reworded. An error without a code
is classified by its class, and by the state of the connection that raised it.
"""

import sqlite3
import traceback
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from peewee import Database, DatabaseError, InterfaceError, OperationalError, PeeweeException

if TYPE_CHECKING:
    import psycopg
else:
    try:
        import psycopg
    except ImportError:  # the extra `postgres` is not installed: no error can be psycopg's
        psycopg = None


class Fault(StrEnum):
    """What caused an error, and so what to do about it."""

    #: A row's values or a constraint: this row fails, the others do not.
    ROW = "row"
    #: The statement can never work: syntax, a missing table, rights. The program or the schema must change.
    MISTAKE = "mistake"
    #: The statement is too large or too complex: a smaller one can work. Spends attempts.
    STATEMENT = "statement"
    #: The server ended this statement, because it ran or waited too long. Repeat it; spends attempts.
    TIMEOUT = "timeout"
    #: The state of this session (prepared statements, an aborted transaction). Repeat it on another connection; spends
    #: attempts, because a user's own code can cause it each time.
    SESSION = "session"
    #: The connection is gone. Repeat on another one.
    CONNECTION = "connection"
    #: A deadlock or a serialization failure. Repeat the transaction, never the request before it.
    CONFLICT = "conflict"
    #: The server, or the file, cannot be used now. Repeat later.
    OUTAGE = "outage"


#: The SQLSTATE of a server that has no free connection.
TOO_MANY_CONNECTIONS = "53300"

_DRIVER_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, psycopg.Error) if psycopg else (sqlite3.Error,)

_AWAY = {Fault.TIMEOUT, Fault.SESSION, Fault.CONNECTION, Fault.CONFLICT, Fault.OUTAGE}
_OF_THE_STATEMENT = {Fault.STATEMENT, Fault.TIMEOUT, Fault.SESSION}

#: The longest prefix of an SQLSTATE counts (https://www.postgresql.org/docs/current/errcodes-appendix.html). An
#: unknown state is a mistake.
_BY_SQLSTATE = {
    "08": Fault.CONNECTION,  # poolers also answer with 08P01
    "08001": Fault.OUTAGE,  # no connection was made
    "08004": Fault.OUTAGE,
    "21": Fault.ROW,  # one statement would write a row twice
    "22": Fault.ROW,
    "23": Fault.ROW,
    "24": Fault.SESSION,
    "25": Fault.SESSION,
    "25006": Fault.OUTAGE,  # a standby, or default_transaction_read_only
    "25P03": Fault.CONNECTION,  # the server closed a session that was idle in a transaction
    "25P04": Fault.CONNECTION,
    "26": Fault.SESSION,  # the prepared statement is in another session: a pooler
    "28": Fault.OUTAGE,  # the login is refused
    "34": Fault.SESSION,
    "38": Fault.ROW,
    "3B": Fault.SESSION,
    "3D": Fault.OUTAGE,  # there is no such database
    "40": Fault.CONFLICT,
    "42P03": Fault.SESSION,
    "42P05": Fault.SESSION,  # another client of a pooler prepared a statement of this name
    "44": Fault.ROW,
    "53": Fault.OUTAGE,
    "54": Fault.STATEMENT,
    "55": Fault.TIMEOUT,
    "57": Fault.OUTAGE,
    "57014": Fault.TIMEOUT,
    "57P01": Fault.CONNECTION,  # ended by an administrator; a shutdown fails the next connect
    "57P05": Fault.CONNECTION,
    "58": Fault.OUTAGE,
    "72": Fault.CONFLICT,
    "F0": Fault.OUTAGE,
    "P0001": Fault.ROW,  # a trigger refuses the row
    "XX001": Fault.OUTAGE,
    "XX002": Fault.OUTAGE,
}
#: 0A000 has many causes. Raised in this function, an ALTER TABLE made the plan of a prepared statement obsolete.
_STALE_PLAN = ("0A000", "RevalidateCachedQuery")

#: By SQLite's primary result code; an unknown code is a mistake.
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_BUSY: Fault.OUTAGE,
    sqlite3.SQLITE_CANTOPEN: Fault.OUTAGE,
    sqlite3.SQLITE_CORRUPT: Fault.OUTAGE,
    sqlite3.SQLITE_FULL: Fault.OUTAGE,
    sqlite3.SQLITE_IOERR: Fault.OUTAGE,
    sqlite3.SQLITE_LOCKED: Fault.OUTAGE,
    sqlite3.SQLITE_NOLFS: Fault.OUTAGE,
    sqlite3.SQLITE_NOMEM: Fault.OUTAGE,
    sqlite3.SQLITE_NOTADB: Fault.OUTAGE,
    sqlite3.SQLITE_PERM: Fault.OUTAGE,
    sqlite3.SQLITE_PROTOCOL: Fault.OUTAGE,
    sqlite3.SQLITE_READONLY: Fault.OUTAGE,
    sqlite3.SQLITE_CONSTRAINT: Fault.ROW,
    sqlite3.SQLITE_MISMATCH: Fault.ROW,
    sqlite3.SQLITE_TOOBIG: Fault.ROW,
    sqlite3.SQLITE_RANGE: Fault.ROW,
    sqlite3.SQLITE_ABORT: Fault.TIMEOUT,
    sqlite3.SQLITE_INTERRUPT: Fault.TIMEOUT,
    sqlite3.SQLITE_SCHEMA: Fault.SESSION,
}


def classify(error: BaseException) -> Fault | None:
    """Return the fault of a database error; None for any other error.

    Parameters:
      error(BaseException): Of peewee or of a driver, from the Sluice database or from a user's own.
    """
    if not isinstance(error, (DatabaseError, InterfaceError, *_DRIVER_ERRORS)):
        return None
    original = original_of(error)
    if isinstance(original, sqlite3.Error):
        return _of_sqlite(original)
    if psycopg and isinstance(original, psycopg.Error):
        return _of_psycopg(original)
    return _by_sqlstate(sqlstate(original), original) if sqlstate(original) else _by_class(error, original)


def is_away(error: BaseException) -> bool:
    """Return whether to repeat later, or on another connection: no row and no request caused the error."""
    return classify(error) in _AWAY


def is_of_the_statement(error: BaseException) -> bool:
    """Return whether an error can come back at each try, so that each try must spend an attempt."""
    return classify(error) in _OF_THE_STATEMENT


def original_of(error: BaseException) -> BaseException | None:
    """Return what the driver raised. peewee wraps it, twice where a connection is opened for a statement."""
    original: BaseException | None = error
    while isinstance(original, PeeweeException):
        original = getattr(original, "orig", None)
    return original


def sqlstate(error: BaseException | None) -> str:
    """Return the SQLSTATE of a driver's or of peewee's error; empty where it has none."""
    original = original_of(error) if isinstance(error, PeeweeException) else error
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""


def sqlite_code(error: BaseException | None) -> int:
    """Return the primary result code of an error of SQLite; 0 where it has none."""
    original = original_of(error) if isinstance(error, PeeweeException) else error
    return (getattr(original, "sqlite_errorcode", None) or 0) & 0xFF


def is_of_no_connection(error: BaseException) -> bool:
    """Return whether no connection could be opened."""
    original = original_of(error)
    if psycopg and isinstance(original, psycopg.errors.ConnectionTimeout):
        return True
    failed = getattr(original, "pgconn", None) is not None  # psycopg leaves it at failed connects
    return failed or sqlstate(original).startswith("08001")


def _by_sqlstate(state: str, original: BaseException | None) -> Fault:
    if (state, getattr(getattr(original, "diag", None), "source_function", None)) == _STALE_PLAN:
        return Fault.SESSION
    return _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2], Fault.MISTAKE)


def _of_sqlite(original: sqlite3.Error) -> Fault:
    code = getattr(original, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_BUSY_SNAPSHOT:
        return Fault.CONFLICT
    if code is not None:
        return _BY_SQLITE_CODE.get(code & 0xFF, Fault.MISTAKE)
    return (
        Fault.CONNECTION if _is_cut(original) else Fault.ROW
    )  # raised by Python: a value that it cannot bind or decode


def _of_psycopg(original: "psycopg.Error") -> Fault:
    if is_of_no_connection(original):
        return Fault.OUTAGE  # with any code: 55000 is a database that allows no connections
    if original.sqlstate:
        return _by_sqlstate(original.sqlstate, original)
    # psycopg or libpq raised it: the server sent no error.
    if isinstance(original, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Fault.CONNECTION if _is_cut(original) else Fault.STATEMENT  # such as more than 65,535 parameters
    if isinstance(original, (psycopg.InternalError, psycopg.NotSupportedError)):
        return Fault.MISTAKE
    return Fault.ROW  # a value it cannot adapt, a NUL


def _by_class(error: BaseException, original: BaseException | None) -> Fault:
    """Classify an error without a code: of another driver, of peewee or of a user's code."""
    if original is None and _is_raised_by_peewee(error):
        return Fault.MISTAKE  # such as "Connection already opened"
    return Fault.OUTAGE if isinstance(error, (OperationalError, InterfaceError)) else Fault.ROW


def _is_cut(original: BaseException) -> bool:
    """Return whether the connection that raised an error is closed, or was never open."""
    for actor in _actors(original):
        if psycopg and isinstance(actor, psycopg.Cursor):
            return actor.connection.closed
        if psycopg and isinstance(actor, psycopg.Connection):
            return actor.closed
        if isinstance(actor, Database) and _is_closed(actor):
            return True
    return False


def _is_closed(place: Database) -> bool:
    """Return whether this thread has no open connection to a database."""
    if place.is_closed():
        return True
    connection = place.connection()  # type: ignore[no-untyped-call]
    if not isinstance(connection, sqlite3.Connection):
        return False
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:
        return True
    return False


def _actors(error: BaseException) -> Iterator[Any]:
    """Yield the objects whose methods an error passed through, innermost first: one is the driver's connection."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        yield frame.f_locals.get("self")


def _is_raised_by_peewee(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__") == "peewee"
