"""Connection pool for Postgres: reuses connections, closes idle ones, and waits where the server has none left.

Behind a pooler that gives each transaction another session (PgBouncer in transaction mode), no statement is prepared.
"""

import logging
import math
import re
import secrets
import select
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import psycopg
from peewee import OperationalError, PeeweeException, PostgresqlDatabase
from playhouse.pool import PoolConnection, PooledPostgresqlDatabase
from psycopg import conninfo, pq
from psycopg.pq.abc import PGconn

from workers import clock
from workers.connections import database_errors
from workers.connections.database_errors import Fault

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.Connection[Any]

#: A connection that was not used for that long is closed.
IDLE_SECONDS = 30.0
#: An older connection is closed when it is given back: behind a load balancer another server can be nearer by now.
_OLD_SECONDS = 300
#: Where the server has no connection left: how often a thread tries again, and how long it waits before each try.
_TRIES, _WAIT_SECONDS = 12, 1.0
#: How long after that a process keeps one connection fewer than it had.
_FEWER_SECONDS = 10.0
#: The SQLSTATE of a failed connect where the server sent none.
_NOT_CONNECTED = "08001"
#: The SQLSTATEs of a prepared statement that is used in another session than its own.
_OTHER_SESSION = ("26000", "42P05", "25P01")
#: An error in libpq's trace of what the server sent.
_REFUSAL = re.compile(rb'\tErrorResponse\t S "[^"]*"(?: V "[^"]*")? C "([0-9A-Z]{5})"')
_SET_POOLER = "set SLUICE_DATABASE_POOLER=transaction, so that no process tries"


class Pool(PooledPostgresqlDatabase):
    """Peewee's pool that also closes idle connections, waits for a full server, and detects poolers.

    Parameters:
      pooler(str): none, transaction, or auto: each new connection tests for one.
      refused(Callable): Called with each error that says that the server has no connection left.
    """

    def __init__(self, *args: Any, pooler: str, refused: Callable[[BaseException], object], **kwargs: Any) -> None:
        self.pooler = pooler
        self._refused = refused
        #: The most connections of this process, and until when: set where the server had none left.
        self._share, self._share_until = 1, -math.inf
        self._given_back_at: dict[int, float] = {}
        self._sweeper: threading.Timer | None = None
        super().__init__(*args, **{"stale_timeout": _OLD_SECONDS, **kwargs, "max_connections": None})

    # --- connecting

    def connect(self, reuse_if_open: bool = False) -> bool:
        """Open this thread's connection. Where the server has none left, wait for one, 12 s at most.

        Raises:
          peewee.OperationalError: The server cannot be reached, or has none left.
        """
        for _ in range(_TRIES):
            if not self.is_closed() or self._can_open_another():
                try:
                    return bool(super().connect(reuse_if_open))
                except OperationalError as error:
                    if database_errors.sqlstate(error) != database_errors.TOO_MANY_CONNECTIONS:
                        raise
                    self._keep_fewer()
                    self._refused(error)
            if clock.stop_requested.is_set():
                break
            with self._pool_available:  # another thread can give one back in the meantime
                self._pool_available.wait(_WAIT_SECONDS)
        return bool(super().connect(reuse_if_open))

    def _keep_fewer(self) -> None:
        """Keep one connection fewer for 10 s: the scheduler, or a command that shows the status, can need it."""
        with self._pool_lock:
            self._share = max(1, len(self._in_use) + len(self._connections) - 1)
            self._share_until = clock.monotonic() + _FEWER_SECONDS

    def _can_open_another(self) -> bool:
        with self._pool_lock:
            fewer = clock.monotonic() < self._share_until
            return bool(self._connections) or not fewer or len(self._in_use) < self._share

    def _connect(self) -> Connection:
        with self._pool_lock:
            self._sweep()
            while self._connections:
                # The one used last, so that connections that are not needed become idle and are closed.
                chosen = max(self._connections, key=lambda entry: int(entry[1]))
                self._connections.remove(chosen)
                made_at, _, connection = chosen
                if not self._is_closed(connection) and not self._is_stale(made_at):
                    return self._lend(connection, made_at)
                self._close_raw(connection)
        connection = self._open()
        with self._pool_lock:
            return self._lend(connection, clock.monotonic())

    def _lend(self, connection: Connection, made_at: float) -> Connection:
        self._in_use[self.conn_key(connection)] = PoolConnection(made_at, connection, clock.monotonic())
        return connection

    def _is_stale(self, made_at: float) -> bool:
        return bool(clock.monotonic() - made_at > self._stale_timeout)

    def _open(self) -> Connection:
        connection = self._log_in()
        if self.pooler == "auto" and is_pooled(connection):
            self.pooler = "transaction"
            log.info("a pooler is in front of Postgres: statements are not prepared; %s", _SET_POOLER)
        if self.pooler == "transaction":
            connection.prepare_threshold = None
        # psycopg counts names from 0 on each connection: behind a pooler, another client's statement would run.
        connection._prepared._prepared_idx = secrets.randbits(48)
        return connection

    def _log_in(self) -> Connection:
        try:
            return PostgresqlDatabase._connect(self)  # type: ignore[attr-defined]
        except psycopg.OperationalError as error:
            code = error.sqlstate or _code_of_refusal(error)
            if code is None:
                return PostgresqlDatabase._connect(self)  # type: ignore[attr-defined]
            error.sqlstate = code
            raise

    # --- idle connections

    def _close(self, conn: Connection, close_conn: bool = False) -> None:
        with self._pool_lock:
            super()._close(conn, close_conn)
            self._given_back_at[self.conn_key(conn)] = clock.monotonic()
            if clock.monotonic() < self._share_until and len(self._in_use) + len(self._connections) > self._share:
                self.close_idle()
            self._sweep()
            self._sweep_later()

    def _sweep(self) -> None:
        """Close connections that have been idle for long. The caller has the pool's lock."""
        oldest = clock.monotonic() - IDLE_SECONDS
        last_used = {self.conn_key(entry[2]): entry for entry in self._connections}
        self._given_back_at = {key: at for key, at in self._given_back_at.items() if key in last_used}
        for key, at in self._given_back_at.items():
            if at < oldest:
                self._connections.remove(last_used[key])
                self._close_raw(last_used[key][2])

    def _sweep_later(self) -> None:
        if self._sweeper is None and self._connections:
            self._sweeper = threading.Timer(IDLE_SECONDS, self._sweep_now)
            self._sweeper.daemon = True
            self._sweeper.start()

    def _sweep_now(self) -> None:
        with self._pool_lock:
            self._sweeper = None
            self._sweep()
            self._sweep_later()

    # --- prepared statements

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        return self._retry_on_another_connection(partial(super().execute_sql, sql, params))

    def begin(self, isolation_level: Any = None) -> None:
        self._retry_on_another_connection(partial(super().begin, isolation_level))

    def _retry_on_another_connection(self, do: Callable[[], T]) -> T:
        """Call `do`; after an error of the session, outside of a transaction, call it again on another connection."""
        try:
            return do()
        except PeeweeException as error:
            if database_errors.classify(error) is not Fault.SESSION:
                raise
            if database_errors.sqlstate(error) in _OTHER_SESSION:
                self._stop_preparing(error)
            if self.in_transaction():
                raise
            self.manual_close()
            return do()

    def _stop_preparing(self, error: BaseException) -> None:
        if self.pooler != "transaction":
            self.pooler = "transaction"
            log.warning("a pooler changed the session (%s): statements are no longer prepared; %s", error, _SET_POOLER)
        with self._pool_lock:
            connections = [entry.connection for entry in self._in_use.values()]
            for connection in connections + [entry[2] for entry in self._connections]:
                connection.prepare_threshold = None


def is_pooled(connection: Connection) -> bool:
    """Return whether a pooler is in between: at the login it sends another process id than the server's own.

    Parameters:
      connection(psycopg.Connection): An open one; it runs one query.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is not None and bool(connection.info.backend_pid != row[0])


#: The SQLSTATE of each error text: the same text from the same server has the same code, in any language.
_codes: dict[str, str] = {}
_MOST_CODES = 100


def _code_of_refusal(error: psycopg.OperationalError) -> str | None:
    """Return the SQLSTATE of a failed connect, which psycopg does not have; None where a connect works by now."""
    text = str(error)
    if text not in _codes:
        code = _ask_again(error)
        if code is None:
            return None
        if len(_codes) >= _MOST_CODES:
            _codes.clear()
        _codes[text] = code
    return _codes[text]


def _ask_again(error: psycopg.OperationalError) -> str | None:
    """Connect once more, and read the code in libpq's trace: libpq shows it nowhere else."""
    if error.pgconn is None or isinstance(error, psycopg.errors.ConnectionTimeout):
        return _NOT_CONNECTED
    given = {option.keyword.decode(): option.val.decode() for option in error.pgconn.info if option.val is not None}
    try:
        attempt = pq.PGconn.connect_start(conninfo.make_conninfo(**given).encode())
        with tempfile.TemporaryFile() as trace:
            attempt.trace(trace.fileno())
            connected = _poll(attempt)
            attempt.untrace()
            attempt.finish()
            trace.seek(0)
            refusal = _REFUSAL.search(trace.read())
    except (psycopg.Error, OSError, ValueError):  # libpq can trace on Linux only
        return _NOT_CONNECTED
    if connected:
        return None
    return refusal[1].decode() if refusal else _NOT_CONNECTED


def _poll(attempt: PGconn, seconds: float = 5.0) -> bool:
    """Run a connect to its end; return whether it succeeded."""
    while True:
        state = attempt.connect_poll()
        if state not in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
            return bool(state == pq.PollingStatus.OK)
        reads = [attempt.socket] if state == pq.PollingStatus.READING else []
        writes = [] if reads else [attempt.socket]
        if not any(select.select(reads, writes, [], seconds)):
            return False
