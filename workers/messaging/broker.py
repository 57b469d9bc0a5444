"""Makes the message broker from its URL, and sends messages. A lost message does no harm: the reaper re-sends it."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import redis
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import BrokerConnectionError

from workers.connections.redis_client import redis_client
from workers.connections.redis_url import is_redis
from workers.errors import ConfigurationError, DependencyDown
from workers.messaging.consumer import SteadyRedisBroker
from workers.messaging.middleware import DatabaseConnection, RateLimiterMiddleware
from workers.settings import get_settings

log = logging.getLogger(__name__)

QUEUE = "sluice"


def make_broker(url: str) -> dramatiq.Broker:
    """Return the broker that `url` names.

    Parameters:
      url(str): redis://, rediss://, unix:// or amqp(s)://; stub:// keeps messages in memory, for tests.

    Raises:
      ConfigurationError: The URL has another scheme, or cannot be read.
    """
    scheme = urlsplit(url).scheme
    middleware = [DatabaseConnection(), RateLimiterMiddleware()]
    if is_redis(url):
        return SteadyRedisBroker(
            client=_client(url),
            namespace=f"{get_settings().prefix}:queue",
            heartbeat_timeout=20_000,
            middleware=middleware,
        )
    if scheme in ("amqp", "amqps"):
        try:
            from dramatiq.brokers.rabbitmq import RabbitmqBroker
        except ImportError:
            raise ConfigurationError("RabbitMQ needs one more package: pip install 'dramatiq[rabbitmq]'") from None

        return RabbitmqBroker(url=url, confirm_delivery=True, middleware=middleware)
    if scheme == "stub":
        return StubBroker(middleware=middleware)
    variable = "SLUICE_BROKER_URL" if get_settings().broker_url else "SLUICE_REDIS_URL"
    raise ConfigurationError(f"{variable} must begin with redis://, rediss://, unix:// or amqp://, not {scheme!r}")


def _client(url: str) -> "redis.Redis":
    try:
        return redis_client(url)
    except ValueError:  # its text can hold a part of the password
        raise ConfigurationError(
            "The broker's URL cannot be read: write redis://:password@host:port/0, "
            "with the special characters of the password as %XX"
        ) from None


@lru_cache(maxsize=1)
def get_broker() -> dramatiq.Broker:
    """Return the broker of this process. Workers declare the actors on it; a process that only sends does not."""
    broker = make_broker(get_settings().broker)
    broker.declare_queue(QUEUE)
    return broker


def waiting() -> Collection[str] | None:
    """Return the names of the messages that no worker has fetched yet: see `consumer.name_of`.

    Returns:
      Collection[str] | None: Empty if the broker cannot list them, None if it does not answer.
    """
    broker = get_broker()
    try:
        return broker.waiting(QUEUE) if isinstance(broker, SteadyRedisBroker) else ()
    except BrokerConnectionError:
        return None


_capture: ContextVar[Callable[[str, tuple[Any, ...], float], None] | None] = ContextVar("capture", default=None)


@contextmanager
def captured(put: Callable[[str, tuple[Any, ...], float], None]) -> Iterator[None]:
    """Within the block, pass what this thread sends to `put(name, args, delay_seconds)` instead of the broker."""
    token = _capture.set(put)
    try:
        yield
    finally:
        _capture.reset(token)


def send(name: str, *args: Any, delay_seconds: float = 0.0) -> bool:
    """Send a message to an actor. It fails fast, because the reaper re-sends what was not sent.

    Returns:
      bool: Whether the broker has accepted it.
    """
    if captured_by := _capture.get():
        captured_by(name, args, delay_seconds)
        return True
    delay = round(delay_seconds * 1000) if delay_seconds > 0 else None
    try:
        get_broker().enqueue(dramatiq.Message(QUEUE, name, args, {}, {}), delay=delay)
    except ConfigurationError as error:
        log.warning("%s%r was not sent: %s", name, args, error)
        return False
    except (DependencyDown, BrokerConnectionError) as error:
        log.debug("%s%r was not sent (%s); the reaper re-sends it", name, args, error)
        return False
    return True
