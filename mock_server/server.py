"""Run the app under waitress in a thread, on a real socket, with a way to reset a connection."""

import contextlib
import http.client
import logging
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self

from waitress import create_server, wasyncore  # type: ignore[import-untyped, unused-ignore]
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped, unused-ignore]
from waitress.task import WSGITask  # type: ignore[import-untyped, unused-ignore]

from mock_server.app import CALLER_IS_GONE, create_app
from mock_server.clock import Clock
from mock_server.config import MockConfig
from mock_server.faults import RESET_CONNECTION

START_SECONDS = 5.0
STOP_SECONDS = 2.0
BACKLOG = 1024
MAX_CONNECTIONS = 2000
# Flask refuses a body above its own, smaller limit with a clear answer; this one only guards the memory.
MAX_BODY_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024


def serve_in_thread(config: MockConfig, clock: Clock | None = None) -> "RunningServer":
    """Start a mock server and wait until it answers.

    Parameters:
      config: What to serve and where; port 0 takes a free port.
      clock: The time it lives in; the machine's when None.

    Returns:
      The running server. Stop it, or use it as a context manager.

    Raises:
      OSError: The address cannot be listened on: in use, not this machine's, or not allowed.
    """
    listener = _listen(config.host, config.port)
    clock = clock or Clock()
    # Waitress would warn of every request that queues, and of those a stop cuts off: both are ordinary here.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    waitress = create_server(
        create_app(config, clock),
        sockets=[listener],
        threads=config.threads,
        backlog=BACKLOG,
        connection_limit=MAX_CONNECTIONS,
        asyncore_use_poll=True,
        log_socket_errors=False,
        max_request_body_size=MAX_BODY_BYTES,
        max_request_header_size=MAX_HEADER_BYTES,
    )
    waitress.channel_class = _Channel
    return RunningServer(waitress, config.host, clock)


class RunningServer:
    """A mock server at work; made by `serve_in_thread`.

    Attributes:
      url: Where it answers, without a path: `http://127.0.0.1:8001`.
      port: The port it listens on.
    """

    def __init__(self, waitress: Any, host: str, clock: Clock) -> None:
        self._waitress = waitress
        self._clock = clock
        self.port = int(waitress.effective_port)
        self.url = f"http://{_address_to_call(host)}:{self.port}"
        self._thread = threading.Thread(target=waitress.run, name=f"mock-{self.port}", daemon=True)
        self._thread.start()
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Free the port, end what is being answered, and end the threads. Stopping twice does nothing."""
        if not self._thread.is_alive():
            return
        self._clock.stop()
        # Waitress's loop owns the sockets: the listener is closed by it, so that nothing new comes in. What is
        # left is closed with the loop and the answering threads gone, when no thread can write to a closed number.
        self._in_the_loop(lambda: wasyncore.dispatcher.close(self._waitress))
        self._waitress.task_dispatcher.shutdown(timeout=STOP_SECONDS)
        left: dict[int, Any] = {}
        self._in_the_loop(lambda: _move_all(self._waitress._map, left))
        self._thread.join()
        wasyncore.close_all(left)

    def _in_the_loop(self, act: Callable[[], None]) -> None:
        self._waitress.trigger.pull_trigger(act)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_answers(self) -> None:
        host = self.url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=START_SECONDS)) as connection:
            connection.request("GET", "/health")
            connection.getresponse().read()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def _address_to_call(host: str) -> str:
    """Return the address at which this machine reaches a server listening on `host`."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _move_all(source: dict[int, Any], target: dict[int, Any]) -> None:
    """Empty waitress's map of sockets, which ends its loop."""
    target.update(source)
    source.clear()


class _Task(WSGITask):  # type: ignore[misc, unused-ignore]
    """One request, whose app may ask whether its caller is gone, or reset its connection."""

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[RESET_CONNECTION] = self.channel.reset_connection
        environ[CALLER_IS_GONE] = self.channel.caller_is_gone
        return environ


class _Channel(HTTPChannel):  # type: ignore[misc, unused-ignore]
    """One connection."""

    task_class = _Task

    def reset_connection(self) -> NoReturn:
        """Have the connection end with a TCP reset instead of a goodbye, and stop answering."""
        # Lingering for zero seconds makes close() send RST; waitress closes once this error reaches it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ClientDisconnected

    def caller_is_gone(self) -> bool:
        """Look whether the caller has closed the connection, taking nothing from it."""
        # Waitress reads nothing while a request is answered, so only the socket itself shows it.
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
        except BlockingIOError:
            return False
        except OSError:
            return True
