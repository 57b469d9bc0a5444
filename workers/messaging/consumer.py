"""Consumer: takes messages from Redis for a worker, and recovers after any error of Redis.

dramatiq's own consumers recover only from a lost connection. After any other error (out of memory, a replica, a
timeout) the consumer of delayed messages ends for good; and after a lost connection, fetched messages stay assigned to
their process until it ends. These consumers wait until Redis answers, and requeue messages that they do not know.
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

#: How often a consumer asks a Redis that returns errors.
_AGAIN_SECONDS = 1.0
#: How often it looks for messages that Redis has assigned to it and that it does not have.
_LOOK_SECONDS = 10.0
#: How often each process requeues what killed processes had fetched.
_MAINTENANCE_SECONDS = 5.0


class SteadyRedisBroker(RedisBroker):
    """dramatiq's Redis broker, which treats every error of Redis as a lost connection.

    Attributes:
      unfinished: By queue, the messages that were fetched and are not done.
      unacknowledged: By queue, messages that are done and that Redis has not acknowledged yet.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.unfinished: defaultdict[str, set[str]] = defaultdict(set)
        self.unacknowledged: defaultdict[str, set[str]] = defaultdict(set)
        self._maintained = threading.local()

    @property
    def consumer_class(self) -> type["SteadyConsumer"]:
        return SteadyConsumer

    def assigned(self, queue_name: str) -> set[str]:
        """Return the ids of the messages of a queue that Redis has assigned to this process.

        Raises:
          dramatiq.errors.BrokerConnectionError: Redis does not answer, or returns an error.
        """
        key = f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}"
        members: set[bytes] = _reporting(self.client.smembers)(key)
        return {member.decode() for member in members}

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """As dramatiq's own; but the message's id in Redis begins with its name, which `waiting` returns."""
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
        """Return the names of the due messages of a queue that no process has fetched.

        Raises:
          dramatiq.errors.BrokerConnectionError: Redis does not answer, or returns an error.
        """
        ids: list[bytes] = _reporting(self.client.lrange)(f"{self.namespace}:{queue_name}", 0, -1)
        return {message_id.decode("utf-8", "replace").rpartition(":")[0] for message_id in ids}

    def data_of(self, queue_name: str, message_ids: Sequence[str]) -> dict[str, bytes | None]:
        """Return messages of a queue as Redis stores them, by id.

        Raises:
          dramatiq.errors.BrokerConnectionError: Redis does not answer, or returns an error.
        """
        data = _reporting(self.client.hmget)(f"{self.namespace}:{queue_name}.msgs", list(message_ids))
        return dict(zip(message_ids, data, strict=True))

    def _should_do_maintenance(self, command: str) -> int:
        """Return whether this command also requeues what killed processes had fetched: at intervals, not at random.

        Each queue is fetched by a consumer with a thread of its own, so each has its own interval.
        """
        now = clock.monotonic()
        if command != "fetch" or now < getattr(self._maintained, "next_at", 0.0):
            return 0
        self._maintained.next_at = now + _MAINTENANCE_SECONDS
        return 1

    def _dispatch(self, command: str) -> Callable[..., Any]:
        return _reporting(super()._dispatch(command))  # type: ignore[no-untyped-call]


class SteadyConsumer(_RedisConsumer):
    """Takes the messages of one queue. Its thread ends only with the worker."""

    def __init__(self, broker: SteadyRedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)  # type: ignore[no-untyped-call]
        self._look_at = clock.monotonic()
        if queue_name in broker.delay_queues:
            broker.unfinished[queue_name].clear()  # dramatiq forgets what the previous consumer delayed

    def __next__(self) -> Any:
        while True:
            try:
                self._requeue_strays()
                message = super().__next__()  # type: ignore[no-untyped-call]
            except BrokerConnectionError:
                self._look_at = clock.monotonic()
                if clock.sleep(_AGAIN_SECONDS):
                    clock.pause(self.timeout / 1000)  # the worker does not stop yet, and asks again at once
                    return None
                continue
            except DecodeError:
                continue  # it is assigned to this process, and handled with the strays
            if message is None:
                return None
            if not isinstance(message.options.get("redis_message_id"), str):
                self.queued_message_ids.discard(message.message_id)
                continue  # so is this one
            self.broker.unfinished[self.queue_name].add(_id_of(message))
            return message

    def ack(self, message: Any) -> None:
        self._finish(super().ack, message)

    def nack(self, message: Any) -> None:
        self._finish(super().nack, message)

    def _finish(self, acknowledge: Callable[[Any], None], message: Any) -> None:
        """Acknowledge a message, now or, after an error of Redis, later: no thread waits for that."""
        try:
            acknowledge(message)
        except BrokerConnectionError:
            self.broker.unacknowledged[self.queue_name].add(_id_of(message))
        self.broker.unfinished[self.queue_name].discard(_id_of(message))

    def _requeue_strays(self) -> None:
        """Requeue messages that were fetched and never arrived, and acknowledge those that are done.

        Another process can fetch one a second time: a duplicate message does nothing.
        """
        if self.message_cache or clock.monotonic() < self._look_at:
            return
        self._look_at = clock.monotonic() + _LOOK_SECONDS
        assigned = self.broker.assigned(self.queue_name)
        unfinished = set(self.broker.unfinished[self.queue_name])  # before the next set: messages move into it
        done = set(self.broker.unacknowledged[self.queue_name])
        for message_id in done & assigned:
            self.broker.do_ack(self.queue_name, message_id)
        strays = assigned - done - unfinished
        if strays:
            strays -= self._set_unreadable_aside(sorted(strays))
        if strays:
            self.broker.do_requeue(self.queue_name, *strays)
        self.broker.unacknowledged[self.queue_name] -= done

    def _set_unreadable_aside(self, strays: Sequence[str]) -> set[str]:
        """Move what cannot be read to dramatiq's dead letters, because it would be fetched again and again."""
        found = self.broker.data_of(self.queue_name, strays)
        unreadable = {message_id for message_id, data in found.items() if data is not None and not _is_message(data)}
        for message_id in sorted(unreadable):
            self.broker.do_nack(self.queue_name, message_id)
            log.warning(
                "message %.100s cannot be read: it is moved to the dead letters, which are kept for seven days",
                message_id,
            )
        return unreadable


def name_of(actor_name: str, args: Sequence[Any]) -> str:
    """Return the name of a message: its actor and arguments. Duplicates have the same name."""
    return ":".join((actor_name, *map(str, args)))


def _is_message(data: bytes) -> bool:
    try:
        return isinstance(Message.decode(data).options["redis_message_id"], str)
    except (DecodeError, KeyError, TypeError):
        return False


def _reporting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command; it reports an error of Redis, and raises it as the lost connection that dramatiq expects."""

    def reporting(*args: Any) -> Any:
        try:
            reply = command(*args)
        except redis.RedisError as error:
            outages.broker().met(redis_errors.trouble(error))
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]
        outages.broker().over()
        return reply

    return reporting


def _id_of(message: Any) -> str:
    return str(message.options["redis_message_id"])
