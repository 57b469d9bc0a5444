"""Declares the actors: the functions that messages call, and the priority of each."""

from collections.abc import Callable

import dramatiq

from workers.engine.detail import fetch_details
from workers.engine.discovery import discover
from workers.engine.finalize import finalize
from workers.errors import RateLimited
from workers.messaging.broker import QUEUE

#: By name; of the messages that a worker has fetched, those of the lower priority go first.
ACTORS: dict[str, tuple[Callable[..., None], int]] = {
    "finalize": (finalize, 0),
    "discover": (discover, 10),
    "fetch_details": (fetch_details, 20),
}


def declare(broker: dramatiq.Broker) -> None:
    """Declare every actor on a broker.

    The database retries, so dramatiq does not; turns are short, so nothing limits their time.
    """
    for name, (function, priority) in ACTORS.items():
        declared = dramatiq.actor(
            actor_name=name, queue_name=QUEUE, priority=priority, broker=broker, throws=(RateLimited,)
        )
        declared(function)
