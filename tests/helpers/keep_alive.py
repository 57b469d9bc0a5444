"""Serve connections that are kept alive and then closed in every way that real servers do. Below HTTP, on loopback."""

import contextlib
import math
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from workers import clock

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"


@dataclass
class Server:
    """A server that keeps its connections.

    Attributes:
      idle_seconds: After how long without a request it closes a connection.
      answers: How many requests of one connection it answers; the next one is received and never answered.
      swallows_after_seconds: It also swallows what comes after so long an idleness, by our clock.
      swallows: What it does with that one: "FIN", "RST", or "hang".
      before_closing: What it sends then: a piece of an answer, perhaps.
      closes_after_each: Whether it closes after each answer, without having said so.
      header: A line that each answer has.
      body: Makes the body of the next answer.
      received: Connection and method of each request that came.
    """

    idle_seconds: float = 5.0
    idle_close: str = "FIN"
    answers: int = 1_000_000
    swallows_after_seconds: float = math.inf
    swallows: str = "FIN"
    before_closing: bytes = b""
    closes_after_each: bool = False
    header: bytes = b""
    body: Callable[[], bytes] = lambda: b"{}"
    received: list[tuple[int, str]] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    context: ssl.SSLContext | None = None

    def serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), sock if self.context is None else self._secured(sock) as connection:
            idle_since = clock.monotonic()
            for _ in range(self.answers):
                method = self._receive(connection, number)
                if not method:
                    return
                if clock.monotonic() - idle_since > self.swallows_after_seconds:
                    self._swallow(connection)
                    return
                idle_since = clock.monotonic()
                body = self.body()
                connection.sendall(HEAD % (len(body), self.header) + (b"" if method == "HEAD" else body))
                if self.closes_after_each:
                    return
            if self._receive(connection, number):
                self._swallow(connection)

    def _secured(self, sock: socket.socket) -> ssl.SSLSocket:
        assert self.context
        return self.context.wrap_socket(sock, server_side=True)

    def _receive(self, connection: socket.socket, number: int) -> str:
        connection.settimeout(self.idle_seconds)
        text = b""
        try:
            while b"\r\n\r\n" not in text:
                piece = connection.recv(65_536)
                if not piece:
                    return ""
                text += piece
        except TimeoutError:
            if self.idle_close == "RST":
                _reset(connection)
            return ""
        length = re.search(rb"content-length: (\d+)", text, re.IGNORECASE)
        missing = int(length[1]) - len(text.partition(b"\r\n\r\n")[2]) if length else 0
        while missing > 0:
            missing -= len(connection.recv(missing))
        method = text.partition(b" ")[0].decode()
        self.received.append((number, method))
        return method

    def _swallow(self, connection: socket.socket) -> None:
        if self.before_closing:
            connection.sendall(self.before_closing)
        if self.swallows == "RST":
            _reset(connection)
        elif self.swallows == "hang":
            select.select([connection], [], [], 5)  # until the client leaves


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def keep_alive_server(**options: object) -> Iterator[Server]:
    """Serve for the length of a block; the options are a `Server`'s."""
    server = Server(**options)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    server.url = f"http{'s' if server.context else ''}://localhost:{listener.getsockname()[1]}"

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                server.connections += 1
                _start(server.serve, sock, server.connections)

    _start(accept)
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _start(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
