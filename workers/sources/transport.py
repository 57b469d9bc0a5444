"""Sends one HTTP request under one deadline, on pooled connections, with no redirects, retries or cookies."""

import http.client
import io
import math
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from email import errors as defects
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family, create_connection

from workers import clock

#: The minimum socket timeout: zero would mean "do not wait at all".
_LEAST_SECONDS = 0.001
#: Most interim responses (100 Continue, 103 Early Hints) before the final one.
_MOST_INTERIM = 20
#: Defects of the standard library's parser for lines that are not headers.
_NO_HEADERS = (
    defects.MissingHeaderBodySeparatorDefect,
    defects.FirstHeaderLineIsContinuationDefect,
    defects.MisplacedEnvelopeHeaderDefect,
)


#: A connection that was idle for longer is not used again. Servers close idle connections after 5 s (Node, Apache,
#: uvicorn) to 75 s (nginx), mostly with a FIN; firewalls and proxies often drop them silently, from 20 s on.
IDLE_SECONDS = 15.0
#: How long a shorter idle time is used after a server or proxy has dropped a connection earlier than that.
_SHORTENED_FOR_SECONDS = 600.0
#: The part of the server's keep-alive time that is used: in the last fifth a request could arrive too late.
_KEEP_ALIVE_PART = 0.8
_KEEP_ALIVE = re.compile(r"(?:^|[\s,;])timeout\s?=\s?([0-9]{1,6})(?![0-9.])", re.IGNORECASE)

#: Errors of a connection that the other side has closed; http.client's RemoteDisconnected is a ConnectionError.
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

_sent_by: ContextVar[float] = ContextVar("sent_by", default=math.inf)
_new_only: ContextVar[bool] = ContextVar("anew", default=False)


@contextmanager
def sent_by(ends_at: float) -> Iterator[None]:
    """Within the block, send nothing after `ends_at` (of `clock.monotonic`)."""
    token = _sent_by.set(ends_at)
    try:
        yield
    finally:
        _sent_by.reset(token)


@contextmanager
def new_connection() -> Iterator[None]:
    """Within the block, use no pooled connection."""
    token = _new_only.set(True)
    try:
        yield
    finally:
        _new_only.reset(token)


class StaleConnection(ConnectionResetError):
    """A reused connection was closed without a byte of the next response.

    Most probably the server had closed it before; but it can have received the request, and counted it.
    """


class _NoByte(http.client.RemoteDisconnected):
    """The connection was closed without a byte of a response."""


class NotHTTP(http.client.HTTPException):
    """The response is not valid HTTP."""


class _Reader(io.RawIOBase):
    """Reads from a socket until its current timeout is over, counted for all reads together and not for each."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._ends_at = clock.monotonic() + (sock.gettimeout() or 0.0)
        self.has_begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends_at - clock.monotonic()
        if left <= 0:  # a server that sends slowly lets no single read time out
            raise TimeoutError("the response took too long")
        self._sock.settimeout(max(_LEAST_SECONDS, left))
        count = self._raw.readinto(buffer)
        self.has_begun = self.has_begun or bool(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Buffer(io.BufferedReader):
    """Refuses to read without a size: a chunk with the length -1 would ask for that, and fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise NotHTTP("a negative length")
        return super().read(size)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _Reader(self.fp.detach(), sock)
        self.fp = _Buffer(self._reader)

    def begin(self) -> None:
        try:
            super().begin()
        except _CLOSED as error:
            raise error if self._reader.has_begun else _NoByte(str(error)) from error
        broken = [defect for defect in self.msg.defects if isinstance(defect, _NO_HEADERS)]
        if broken or (not self.msg.is_multipart() and self.msg.get_payload()):
            # The headers after the invalid line are lost, perhaps Retry-After, too; and urllib3 would log the URL.
            raise NotHTTP("an invalid header")
        self.msg.defects = []  # these concern a multipart body that is not read yet

    def _read_status(self) -> tuple[str, int, str]:
        """Read until the final response. The standard library skips 100 only, and no other interim response."""
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise NotHTTP("too many interim responses")


def first_that_answers(addresses: Sequence[tuple[str, int]], ends_at: float, **options: Any) -> socket.socket:
    """Connect to the first address that accepts. Each address gets an equal share of the remaining time.

    Parameters:
      addresses(Sequence[tuple[str, int]]): Numeric hosts and ports, in the order of the attempts.
      ends_at(float): The deadline for all of them, by `clock.monotonic`.
      options(Any): As urllib3's `create_connection` takes them.

    Returns:
      socket.socket: Its timeout is the remaining time.

    Raises:
      TimeoutError: None accepted in time.
      OSError: The error of the last address.
    """
    error: OSError = TimeoutError("no time is left to connect")
    for position, address in enumerate(addresses):
        left = ends_at - clock.monotonic()
        if left <= 0:
            break
        try:
            sock = create_connection(address, left / (len(addresses) - position), **options)
        except OSError as why:
            error = why
            continue
        sock.settimeout(max(_LEAST_SECONDS, ends_at - clock.monotonic()))
        return sock
    raise error


class _DeadlineConnection(HTTPConnection):
    """A connection with one deadline for name resolution, connecting, TLS and sending.

    *Warning:* the system's name resolution cannot be interrupted. It can exceed the deadline, by its own timeout at
    most (often 5 to 30 s); then nothing is sent.
    """

    response_class = _Response
    _ends_at: float | None = None
    _has_answered = False
    _keep_seconds = IDLE_SECONDS
    _idle_since = 0.0
    idled_seconds = 0.0

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._deadline()
        try:
            super().request(*args, **kwargs)
        except _CLOSED as error:  # urllib3 handles the cases in which a response can still come
            if self._has_answered and isinstance(error, ssl.SSLError):
                raise StaleConnection(str(error)) from error
            raise

    def send(self, data: Any) -> None:
        if self.sock is not None:
            left = self._deadline() - clock.monotonic()
            if left <= 0:  # the process was suspended, or the body came slowly
                raise TimeoutError("no time is left to send")
            self.sock.settimeout(max(_LEAST_SECONDS, left))
        super().send(data)

    def getresponse(self) -> Any:
        self._ends_at = None  # for the next request; urllib3 has set the remaining timeout of this one
        has_answered = self._has_answered  # `close` resets it
        try:
            response = super().getresponse()
        except _NoByte as error:
            if has_answered:
                raise StaleConnection(str(error)) from error
            raise
        self._has_answered = self.sock is not None  # else it was the last response of the connection
        self._keep_seconds = _kept_seconds(response.headers.get("Keep-Alive", ""))
        return response

    def close(self) -> None:
        self._ends_at, self._has_answered = None, False
        super().close()

    def rest(self) -> None:
        """Record that it is idle from now on."""
        self._idle_since = clock.monotonic()

    def lend(self, keep_seconds: float) -> None:
        """Close it if the server or a proxy can have dropped it, so that the next request connects again.

        Parameters:
          keep_seconds(float): The longest idle time, if the server's Keep-Alive does not name a shorter one.
        """
        if self.sock is None:
            return
        self.idled_seconds = clock.monotonic() - self._idle_since
        if _new_only.get() or self.idled_seconds > min(keep_seconds, self._keep_seconds):
            self.close()

    def _deadline(self) -> float:
        if self._ends_at is None:
            self._ends_at = min(clock.monotonic() + (self.timeout or 0.0), _sent_by.get())
        return self._ends_at

    def _new_conn(self) -> socket.socket:
        ends_at = self._deadline()
        try:
            return first_that_answers(
                self._addresses(), ends_at, source_address=self.source_address, socket_options=self.socket_options
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection to {self.host} within {self.timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, f"no connection to {self.host}") from error

    def _addresses(self) -> list[tuple[str, int]]:
        host = self._dns_host.strip("[]")
        try:
            found = socket.getaddrinfo(host, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except UnicodeError as error:  # a host name with an empty or too long label
            raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
        return [(str(address[0]), self.port) for *_, address in found]


def _kept_seconds(keep_alive: str) -> float:
    """Return the longest idle time of a connection: from `Keep-Alive: timeout=5`, or the default if that is shorter."""
    timeout = _KEEP_ALIVE.search(keep_alive[:200])
    return min(IDLE_SECONDS, _KEEP_ALIVE_PART * int(timeout[1])) if timeout else IDLE_SECONDS


class _DeadlineTLSConnection(_DeadlineConnection, HTTPSConnection):
    pass


class _IdleLimitedPool(HTTPConnectionPool):
    """A pool that does not reuse connections after a long idle time. urllib3 itself discards those known as closed.

    After a reused connection proved to be closed, connections idle for half that time are not used for ten minutes.
    """

    _keep_seconds = IDLE_SECONDS
    _keeps_so_until = -math.inf

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.rest()
        super()._put_conn(conn)

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)
        conn.lend(self._idle_seconds())
        return conn

    def _idle_seconds(self) -> float:
        return self._keep_seconds if clock.monotonic() < self._keeps_so_until else IDLE_SECONDS

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._make_request(conn, *args, **kwargs)
        except StaleConnection:
            self._keep_seconds = min(self._idle_seconds(), conn.idled_seconds / 2)
            self._keeps_so_until = clock.monotonic() + _SHORTENED_FOR_SECONDS
            raise


class _HTTPPool(_IdleLimitedPool):
    ConnectionCls = _DeadlineConnection


class _HTTPSPool(_IdleLimitedPool, HTTPSConnectionPool):
    ConnectionCls = _DeadlineTLSConnection


class DeadlineAdapter(HTTPAdapter):
    """Sends one request. Threads can share it; it has no cookies, redirects, retries or hooks."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
