"""Notices: who steers a run makes every process at work look at the database again before its next request.

A notice carries no news, for the database decides: one that is lost, repeated or meant for others does no harm. They go
through Redis's publish and subscribe, which keeps nothing of them.
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

#: How long a door waits for every process to say that it has heard.
_WAIT_SECONDS = 2.0
#: How often a listener looks whether it is to end, and how long it stays away from a Redis that does not answer.
_LOOK_SECONDS = 0.5

_lock = threading.Lock()
_heard = 0


def received() -> int:
    """Return a number that is another one after each notice that this process has heard."""
    return _heard


def notify() -> bool:
    """Make every process at work look again, and wait until each has heard of it.

    Returns:
      bool: False where one has not said so within two seconds, or Redis does not answer: then its lanes hear of it with
        their next permit or commit.
    """
    _hear()
    try:
        with closing(quick_client(get_settings().redis_url)) as client, closing(_pubsub(client)) as answers:
            return _notify(client, answers)
    except (redis.RedisError, ValueError) as error:  # the text of the latter may hold a piece of the password
        log.info("a notice was not sent (%s)", type(error).__name__)
        return False


def listen(is_over: Callable[[], bool] = clock.stop_requested.is_set) -> None:
    """Hear notices, and say so, until it is over: a thread's work."""
    while not is_over():
        try:
            with closing(redis_client(get_settings().redis_url)) as client, closing(_pubsub(client)) as notices:
                _listen(client, notices, is_over)
        except redis.RedisError as error:
            log.debug("notices are not heard (%s); tried again", type(error).__name__)
            clock.stop_requested.wait(_LOOK_SECONDS)  # never the moved clock, which is one thread's


@contextmanager
def listening() -> Iterator[None]:
    """Hear notices within the block; the thread that does it ends a little later."""
    over = threading.Event()
    threading.Thread(target=listen, args=(over.is_set,), name="listener", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _notify(client: "redis.Redis", answers: "redis.client.PubSub") -> bool:
    channel = _channel(client)
    reply_to = f"{channel}:{uuid.uuid4().hex}"
    answers.subscribe(reply_to)
    if answers.get_message(timeout=_WAIT_SECONDS) is None:  # that it is subscribed
        return False
    expected: int = client.publish(channel, reply_to)
    ends_at = clock.monotonic() + _WAIT_SECONDS
    while expected and (left := ends_at - clock.monotonic()) > 0:
        if answers.get_message(timeout=left) is None:
            break
        expected -= 1
    return not expected


def _listen(client: "redis.Redis", notices: "redis.client.PubSub", is_over: Callable[[], bool]) -> None:
    notices.subscribe(_channel(client))
    while not is_over():
        message = notices.get_message(timeout=_LOOK_SECONDS)
        if message is None:
            continue
        _hear()  # that it is subscribed, too: what came before was missed
        if message["type"] == "message":
            client.publish(message["data"], "")


def _pubsub(client: "redis.Redis") -> "redis.client.PubSub":
    return client.pubsub()  # type: ignore[no-untyped-call, unused-ignore]


def _hear() -> None:
    global _heard
    with _lock:
        _heard += 1


def _channel(client: "redis.Redis") -> str:
    """Name the channel: Redis has one set of them for all of its databases."""
    return f"{get_settings().prefix}:notices:{client.connection_pool.connection_kwargs.get('db', 0)}"
