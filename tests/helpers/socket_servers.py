"""Servers below HTTP: a function gets each connection and can send bytes slowly, cut it off or reset it."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def behaving(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server below HTTP: `behave` gets each connection, once the request has been read; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(5)
                    if connection.recv(65_536):
                        behave(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def drip(*pieces: bytes, times: int = 200, pause_seconds: float = 0.05) -> Callable[[socket.socket], None]:
    """Send the first pieces at once, and the last one again and again."""

    def behave(connection: socket.socket) -> None:
        *first, last = pieces
        connection.sendall(b"".join(first))
        for _ in range(times):
            connection.sendall(last)
            time.sleep(pause_seconds)

    return behave


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
