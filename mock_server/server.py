"""The server: the app under waitress in a thread, on a real socket, with a way to reset a connection."""

import http.client
import logging
import socket
import struct
import threading
from types import TracebackType
from typing import Any, NoReturn, Self

from waitress import create_server, wasyncore  # type: ignore[import-untyped]
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]
from waitress.task import WSGITask  # type: ignore[import-untyped]

from mock_server.app import CALLER_IS_GONE, create_app
from mock_server.clock import Clock
from mock_server.config import MockConfig
from mock_server.faults import RESET_CONNECTION

STOP_SECONDS = 2.0
START_SECONDS = 5.0
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
    clock = clock or Clock()
    app = create_app(config, clock)
    listener = _listen(config.host, config.port)
    # A queue is what this server is for; waitress would warn of each request in it.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    waitress = create_server(
        app,
        sockets=[listener],
        threads=config.threads,
        connection_limit=MAX_CONNECTIONS,
        asyncore_use_poll=True,
        log_socket_errors=False,
        max_request_body_size=MAX_BODY_BYTES,
        max_request_header_size=MAX_HEADER_BYTES,
        ident=None,
    )
    waitress.channel_class = _Channel
    return RunningServer(config.host, waitress, clock)
