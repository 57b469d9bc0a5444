"""Consumer: how a process takes messages from Redis, and goes on taking them whatever Redis does.

dramatiq's own consumers survive a lost connection only. After any other refusal (out of memory, a replica, a timeout)
the one that holds delayed messages ends for good; and after a lost connection what a process had fetched stays noted
as its own until it ends. Here a consumer waits for Redis in its place, and puts back what it does not know of.
"""

import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.common import current_millis, dq_name
from dramatiq.errors import BrokerConnectionError, ConnectionClosed, DecodeError

from workers import clock
from workers.connections import outages, redis_errors

log = logging.getLogger(__name__)

#: How often a consumer asks a Redis that refuses.
_AGAIN_SECONDS = 1.0
#: How often it looks for messages that are noted as its own and that it does not have.
_LOOK_SECONDS = 10.0
#: How often each process puts back what killed processes had fetched.
_MAINTENANCE_SECONDS = 5.0


class SteadyRedisBroker(RedisBroker):
    """dramatiq's Redis broker, for which every error of Redis is a lost connection.

    Attributes:
      in_hand: By queue, the messages that were fetched and are not done.
      done: By queue, those that are done, and of which Redis could not be told.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.in_hand: defaultdict[str, set[str]] = defaultdict(set)
        self.done: defaultdict[str, set[str]] = defaultdict(set)
        self._maintained = threading.local()

    @property
    def consumer_class(self) -> type["SteadyConsumer"]:
        return SteadyConsumer

    def noted(self, queue_name: str) -> set[str]:
        """Return the messages of a queue that Redis has noted as this process's own.

        Raises:
          dramatiq.errors.BrokerConnectionError: Redis does not answer, or refuses.
        """
        key = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        members: set[bytes] = _told(self.client.smembers)(key)
        return {member.decode() for member in members}

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """As dramatiq's own; but the message's id in Redis begins with what it asks for, which `waiting` returns."""
        queue = message.queue_name
        message_id = f"{name_of(message.actor_name, message.args)}:{uuid.uuid4().hex}"
        options: dict[str, Any] = {"redis_message_id": message_id}
        if delay is not None:
            queue = dq_name(queue)
            options["eta"] = current_millis() + delay
        message = message.copy(queue_name=queue, options=options)
        self.emit_before("enqueue", message, delay)
        self.do_enqueue(queue, message_id, message.encode())
        self.emit_after("enqueue", message, delay)
        return message

    def waiting(self, queue_name: str) -> Collection[str]:
        """Return the names of the messages of a queue that are due and that no process has fetched.

        Raises:
          dramatiq.errors.BrokerConnectionError: Redis does not answer, or refuses.
        """
        ids: list[bytes] = _told(self.client.lrange)(f"{self.namespace}:{queue_name}", 0, -1)
        return {message_id.decode("utf-8", "replace").rpartition(":")[0] for message_id in ids}

    def data_of(self, queue_name: str, message_ids: Sequence[str]) -> dict[str, bytes | None]:
        """Return messages of a queue as Redis has them, by id.

        Raises:
          dramatiq.errors.BrokerConnectionError: Redis does not answer, or refuses.
        """
        data = _told(self.client.hmget)(f"{self.namespace}:{queue_name}.msgs", list(message_ids))
        return dict(zip(message_ids, data, strict=True))

    def _should_do_maintenance(self, command: str) -> int:
        """Say whether this command is to put back what killed processes had fetched: by time, not by chance.

        A consumer fetches from one queue, in a thread of its own: so each queue has its turn.
        """
        now = clock.monotonic()
        if command != "fetch" or now < getattr(self._maintained, "next_at", 0.0):
            return 0
        self._maintained.next_at = now + _MAINTENANCE_SECONDS
        return 1

    def _dispatch(self, command: str) -> Callable[..., Any]:
        return _told(super()._dispatch(command))  # type: ignore[no-untyped-call]


class SteadyConsumer(_RedisConsumer):
    """Takes the messages of one queue. Its thread ends only when the worker does."""

    def __init__(self, broker: SteadyRedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        self._look_at = clock.monotonic()
        if queue_name in broker.delay_queues:
            broker.in_hand[queue_name].clear()  # dramatiq has forgotten what the consumer before this one delayed

    def __next__(self) -> Any:
        while True:
            try:
                self._put_back_strays()
                message = super().__next__()  # type: ignore[no-untyped-call]
            except BrokerConnectionError:
                self._look_at = clock.monotonic()
                if clock.sleep(_AGAIN_SECONDS):
                    clock.pause(self.timeout / 1000)  # the worker is not told to stop yet: it asks again at once
                    return None
                continue
            except DecodeError:
                continue  # it is noted as our own, and found with the strays
            if message is None:
                return None
            if not isinstance(message.options.get("redis_message_id"), str):
                self.queued_message_ids.discard(message.message_id)
                continue  # so is this one
            self.broker.in_hand[self.queue_name].add(_id_of(message))
            return message

    def ack(self, message: Any) -> None:
        self._finish(super().ack, message)

    def nack(self, message: Any) -> None:
        self._finish(super().nack, message)

    def _finish(self, tell: Callable[[Any], None], message: Any) -> None:
        """Tell Redis that a message is done, now or later: no thread waits for that."""
        try:
            tell(message)
        except BrokerConnectionError:
            self.broker.done[self.queue_name].add(_id_of(message))
        self.broker.in_hand[self.queue_name].discard(_id_of(message))

    def _put_back_strays(self) -> None:
        """Put back what was fetched and never arrived, and tell Redis of what is done.

        It may be fetched a second time by somebody else meanwhile: a message that comes twice does nothing.
        """
        if self.message_cache or clock.monotonic() < self._look_at:
            return
        self._look_at = clock.monotonic() + _LOOK_SECONDS
        noted = self.broker.noted(self.queue_name)
        in_hand = set(self.broker.in_hand[self.queue_name])  # before those that are done: a message goes that way
        told = set(self.broker.done[self.queue_name])
        for message_id in told & noted:
            self.broker.do_ack(self.queue_name, message_id)
        strays = noted - told - in_hand
        if strays:
            strays -= self._set_unreadable_aside(sorted(strays))
        if strays:
            self.broker.do_requeue(self.queue_name, *strays)
        self.broker.done[self.queue_name] -= told

    def _set_unreadable_aside(self, strays: Sequence[str]) -> set[str]:
        """Move those that are no messages to dramatiq's dead letters: put back, they would come again for ever."""
        found = self.broker.data_of(self.queue_name, strays)
        unreadable = {message_id for message_id, data in found.items() if data is not None and not _is_message(data)}
        for message_id in sorted(unreadable):
            self.broker.do_nack(self.queue_name, message_id)
            log.warning("message %.100s cannot be read: it is a dead letter now, and kept for seven days", message_id)
        return unreadable


def name_of(actor_name: str, args: Sequence[Any]) -> str:
    """Name what a message asks for; two that ask for the same have the same name."""
    return ":".join((actor_name, *map(str, args)))


def _is_message(data: bytes) -> bool:
    try:
        return isinstance(Message.decode(data).options["redis_message_id"], str)
    except (DecodeError, KeyError, TypeError):
        return False


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command, so that an error of Redis is told of and is a lost connection to dramatiq."""

    def told(*args: Any) -> Any:
        try:
            reply = command(*args)
        except redis.RedisError as error:
            outages.broker().met(redis_errors.trouble(error))
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]
        outages.broker().over()
        return reply

    return told


def _id_of(message: Any) -> str:
    return str(message.options["redis_message_id"])
