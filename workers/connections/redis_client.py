"""Makes all Redis clients: one for work, one for pages and commands, one to probe. No other module makes a client."""

from functools import lru_cache

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry


def redis_client(url: str) -> "redis.Redis":
    """Return a client for work: bounded waits, and a few quick retries.

    Parameters:
      url(str): redis://, rediss:// or unix://.

    Raises:
      ValueError: The URL cannot be read; the text can contain a part of the password.

    *Warning:* send only commands that are safe to repeat.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=5,
        socket_connect_timeout=3,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3),
    )


def quick_client(url: str) -> "redis.Redis":
    """Return a client for pages and commands: it gives up after 0.3 s, because a person waits."""
    return redis.Redis.from_url(url, socket_timeout=0.3, socket_connect_timeout=0.3, retry=Retry(NoBackoff(), 1))


@lru_cache(maxsize=4)
def shared_quick_client(url: str) -> "redis.Redis":
    """Return the one quick client of this process for `url`. Threads share it; each uses its own connection."""
    return quick_client(url)


def probe_client(url: str, timeout_seconds: float) -> "redis.Redis":
    """Return a client that tries once, to test whether a Redis answers.

    Parameters:
      url(str): redis://, rediss:// or unix://.
      timeout_seconds(float): To wait for the connection, and for each reply.
    """
    once = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, retry=once)
