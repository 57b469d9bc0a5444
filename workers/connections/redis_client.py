"""The clients of Redis: one that waits for it, and a quick one for pages and commands."""

from functools import lru_cache

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry


def redis_client(url: str) -> "redis.Redis":
    """Return a client for `url` with bounded waits and a few quick retries.

    Every operation that goes through it is safe to repeat.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=5,
        socket_connect_timeout=3,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3),
    )


def quick_client(url: str) -> "redis.Redis":
    """Return a client for pages and commands: a person who looks or acts must not wait long where Redis hangs."""
    return redis.Redis.from_url(url, socket_timeout=0.3, socket_connect_timeout=0.3, retry=Retry(NoBackoff(), 1))


@lru_cache(maxsize=4)
def shared_quick_client(url: str) -> "redis.Redis":
    """Return the process's one quick client for `url`, which all who look share: each has a connection of its own."""
    return quick_client(url)
