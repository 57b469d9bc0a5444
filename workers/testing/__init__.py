"""Test your sources: a fake API, a moved clock, a Redis, a limiter in memory, and an installation in a folder."""

from workers.testing.fake_api import Answer, FakeApi, Request, Response, Routes, api, in_turn, serve
from workers.testing.installation import Installation, import_all, installation, items_of, reset
from workers.testing.memory_limiter import MemoryLimiter
from workers.testing.moved_clock import moved_clock
from workers.testing.served_redis import redis_server

__all__ = [
    "Answer",
    "FakeApi",
    "Installation",
    "MemoryLimiter",
    "Request",
    "Response",
    "Routes",
    "api",
    "import_all",
    "in_turn",
    "installation",
    "items_of",
    "moved_clock",
    "redis_server",
    "reset",
    "serve",
]
