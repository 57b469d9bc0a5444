"""Serve the mock API: a rate-limited server to import from, with its own data and its own count of every request.

It imports nothing from the importer, so that a bug in the importer's limiter cannot hide behind the same bug here.

    with serve_in_thread(MockConfig(items=100, limits=parse_limits("50/2"))) as server:
        requests.get(f"{server.url}/api/items")
"""

from mock_server.app import create_app
from mock_server.clock import Clock
from mock_server.config import MockConfig
from mock_server.faults import Fault, parse_fault
from mock_server.limits import Window, parse_limits
from mock_server.server import RunningServer, serve_in_thread

__all__ = [
    "Clock",
    "Fault",
    "MockConfig",
    "RunningServer",
    "Window",
    "create_app",
    "parse_fault",
    "parse_limits",
    "serve_in_thread",
]
