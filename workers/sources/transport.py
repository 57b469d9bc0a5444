"""How a request travels: one deadline for all of it, and nothing is sent that the connector did not ask for."""

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

#: What leaves less than this of a deadline is given this much: a socket takes zero for "do not wait at all".
_LEAST_SECONDS = 0.001
#: So many interim answers (100 Continue, 103 Early Hints) may come before the one that counts.
_MOST_INTERIM = 20
#: Lines that are no header, by what the standard library calls them.
_NO_HEADERS = (
    defects.MissingHeaderBodySeparatorDefect,
    defects.FirstHeaderLineIsContinuationDefect,
    defects.MisplacedEnvelopeHeaderDefect,
)


#: A connection that was idle for longer is not used again. Servers close theirs after 5 s (Node, Apache, uvicorn) to
#: 75 s (nginx), mostly so that it shows; what stands between often drops them without a word, from 20 s on.
IDLE_SECONDS = 15.0
#: How long it is remembered that a server, or what stands between, drops connections sooner.
_LEARNT_FOR_SECONDS = 600.0
#: Of the time that a server says it keeps an idle connection open; the last fifth may be over before a request arrives.
_KEPT_PART = 0.8
_KEPT = re.compile(r"(?:^|[\s,;])timeout\s?=\s?([0-9]{1,6})(?![0-9.])", re.IGNORECASE)

#: How a connection shows that the other side has closed it; an end without an answer is a ConnectionError as well.
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

_sent_by: ContextVar[float] = ContextVar("sent_by", default=math.inf)
_anew: ContextVar[bool] = ContextVar("anew", default=False)


@contextmanager
def sent_by(ends_at: float) -> Iterator[None]:
    """Within the block, send nothing after `ends_at` (of `clock.monotonic`), however late it is begun."""
    token = _sent_by.set(ends_at)
    try:
        yield
    finally:
        _sent_by.reset(token)


@contextmanager
def new_connection() -> Iterator[None]:
    """Within the block, use no connection that was used before."""
    token = _anew.set(True)
    try:
        yield
    finally:
        _anew.reset(token)


class StaleConnection(ConnectionResetError):
    """A connection that had answered before was closed without a byte of the next answer.

    The server may have received the request, and counted it. Most probably it had closed the connection before.
    """


class _NoByte(http.client.RemoteDisconnected):
    """The connection was closed before anything came."""


class NotHTTP(http.client.HTTPException):
    """What came back does not follow the rules of HTTP."""


class _Reader(io.RawIOBase):
    """Reads from a socket until the timeout that it has now is over: all reads together, where a socket counts each."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        self._ends_at = clock.monotonic() + (sock.gettimeout() or 0.0)
        self.has_begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends_at - clock.monotonic()
        if left <= 0:  # a server that never stops sending lets no single read time out
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(max(_LEAST_SECONDS, left))
        count = self._raw.readinto(buffer)
        self.has_begun = self.has_begun or bool(count)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Buffer(io.BufferedReader):
    """Never reads "all there is": a chunk that says it is -1 bytes long would ask for that, and fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise NotHTTP("a length below zero")
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
            # The lines after the broken one are lost, Retry-After perhaps among them; urllib3 would log the URL.
            raise NotHTTP("a header that is none")
        self.msg.defects = []  # of a multipart body that is still to come

    def _read_status(self) -> tuple[str, int, str]:
        """Read on until an answer that is not an interim one; the standard library knows only 100."""
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise NotHTTP("one interim answer after the other")


def first_that_answers(addresses: Sequence[tuple[str, int]], ends_at: float, **options: Any) -> socket.socket:
    """Connect to the first address that takes the connection. Each has an equal share of the time that is left.

    Parameters:
      addresses(Sequence[tuple[str, int]]): Numeric hosts, and ports, in the order in which they are to be tried.
      ends_at(float): When, by `clock.monotonic`, all of them together must be through.
      options(Any): As urllib3's `create_connection` takes them.

    Returns:
      socket.socket: Its timeout is what is left then.

    Raises:
      TimeoutError: None took it in time.
      OSError: What the last one said.
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


class _OnTime(HTTPConnection):
    """A connection for which finding the host, connecting, TLS and sending share the request's deadline.

    Warning: the system's name resolution cannot be interrupted. A slow one may pass the deadline (by at most what the
    resolver allows itself, often 5 to 30 s); then nothing is sent any more.
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
        except _CLOSED as error:  # but where an answer may have come all the same, which urllib3 then reads
            if self._has_answered and isinstance(error, ssl.SSLError):
                raise StaleConnection(str(error)) from error
            raise

    def send(self, data: Any) -> None:
        if self.sock is not None:
            left = self._deadline() - clock.monotonic()
            if left <= 0:  # we were stopped, or the body was slow to come
                raise TimeoutError("no time is left to send")
            self.sock.settimeout(max(_LEAST_SECONDS, left))
        super().send(data)

    def getresponse(self) -> Any:
        self._ends_at = None  # the next request on this connection has its own; urllib3 has set what is left of this
        has_answered = self._has_answered  # which `close` forgets
        try:
            response = super().getresponse()
        except _NoByte as error:
            if has_answered:
                raise StaleConnection(str(error)) from error
            raise
        self._has_answered = self.sock is not None  # else the answer was the connection's last
        self._keep_seconds = _kept_seconds(response.headers.get("Keep-Alive", ""))
        return response

    def close(self) -> None:
        self._ends_at, self._has_answered = None, False
        super().close()

    def rest(self) -> None:
        """Note that it is idle from now on."""
        self._idle_since = clock.monotonic()

    def lend(self, keep_seconds: float) -> None:
        """Close it where its server, or what stands between, may have dropped it; it then connects anew.

        Parameters:
          keep_seconds(float): How long it may have been idle, beside what its server said.
        """
        if self.sock is None:
            return
        self.idled_seconds = clock.monotonic() - self._idle_since
        if _anew.get() or self.idled_seconds > min(keep_seconds, self._keep_seconds):
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
        except UnicodeError as error:  # a label that is empty, or too long
            raise socket.gaierror(socket.EAI_NONAME, "no name of a host") from error
        return [(str(address[0]), self.port) for *_, address in found]


def _kept_seconds(keep_alive: str) -> float:
    """Return how long a connection may be idle, from `Keep-Alive: timeout=5`, if that is less than we allow."""
    said = _KEPT.search(keep_alive[:200])
    return min(IDLE_SECONDS, _KEPT_PART * int(said[1])) if said else IDLE_SECONDS


class _OnTimeTLS(_OnTime, HTTPSConnection):
    pass


class _Resting(HTTPConnectionPool):
    """A pool whose connections do not rest for long. That those it lends are not closed, urllib3 looks itself.

    Where one turns out to have been closed, connections that rested half as long are not used for some minutes.
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
            self._keeps_so_until = clock.monotonic() + _LEARNT_FOR_SECONDS
            raise


class _HTTPPool(_Resting):
    ConnectionCls = _OnTime


class _HTTPSPool(_Resting, HTTPSConnectionPool):
    ConnectionCls = _OnTimeTLS


class DeadlineAdapter(HTTPAdapter):
    """Sends one request: it can be shared by threads, and has no cookies, redirects, retries or hooks of its own."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
