"""Broadcast: after a run was steered, makes every process read the database again before its next request.

A notice carries no content, because the database decides: a lost, repeated or foreign notice does no harm. Notices go
through Redis's publish and subscribe, which stores nothing.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import redis

from workers import clock
from workers.connections.redis_client import quick_client, redis_client
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: How long the sender waits for the acknowledgement of every process.
_WAIT_SECONDS = 2.0
#: How often a listener checks whether it is to end, and how long it waits after an error of Redis.
_LOOK_SECONDS = 0.5

_lock = threading.Lock()
_received = 0


def received() -> int:
    """Return a counter that grows with each notice that this process receives."""
    return _received


def notify() -> bool:
    """Make every process read the database again, and wait for their acknowledgements.

    Returns:
      bool: False if a process has not acknowledged within two seconds, or Redis does not answer: then its lanes read
        the database with their next permit or commit.
    """
    _count()
    try:
        with closing(quick_client(get_settings().redis_url)) as client, closing(_pubsub(client)) as replies:
            return _notify(client, replies)
    except (redis.RedisError, ValueError) as error:  # the latter's text can hold a part of the password
        log.info("a notice was not sent (%s)", type(error).__name__)
        return False


def listen(is_over: Callable[[], bool] = clock.stop_requested.is_set) -> None:
    """Receive and acknowledge notices until `is_over`: the work of a thread."""
    while not is_over():
        try:
            with closing(redis_client(get_settings().redis_url)) as client, closing(_pubsub(client)) as notices:
                _listen(client, notices, is_over)
        except redis.RedisError as error:
            log.debug("notices cannot be received (%s); trying again", type(error).__name__)
            clock.stop_requested.wait(_LOOK_SECONDS)  # never the moved clock, which belongs to one thread


@contextmanager
def listening() -> Iterator[None]:
    """Receive notices within the block, in a thread that ends shortly after it."""
    over = threading.Event()
    threading.Thread(target=listen, args=(over.is_set,), name="listener", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _notify(client: "redis.Redis", replies: "redis.client.PubSub") -> bool:
    channel = _channel(client)
    reply_to = f"{channel}:{uuid.uuid4().hex}"
    replies.subscribe(reply_to)
    if replies.get_message(timeout=_WAIT_SECONDS) is None:  # the confirmation of the subscription
        return False
    expected: int = client.publish(channel, reply_to)
    ends_at = clock.monotonic() + _WAIT_SECONDS
    while expected and (left := ends_at - clock.monotonic()) > 0:
        if replies.get_message(timeout=left) is None:
            break
        expected -= 1
    return not expected


def _listen(client: "redis.Redis", notices: "redis.client.PubSub", is_over: Callable[[], bool]) -> None:
    notices.subscribe(_channel(client))
    while not is_over():
        message = notices.get_message(timeout=_LOOK_SECONDS)
        if message is None:
            continue
        _count()  # the confirmation of the subscription, too, because earlier notices were missed
        if message["type"] == "message":
            client.publish(message["data"], "")


def _pubsub(client: "redis.Redis") -> "redis.client.PubSub":
    return client.pubsub()  # type: ignore[no-untyped-call, unused-ignore]


def _count() -> None:
    global _received
    with _lock:
        _received += 1


def _channel(client: "redis.Redis") -> str:
    """Return the name of the channel, with the number of the database: Redis shares channels among its databases."""
    return f"{get_settings().prefix}:notices:{client.connection_pool.connection_kwargs.get('db', 0)}"
