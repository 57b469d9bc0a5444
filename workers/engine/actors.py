"""The actors: which functions messages call, and who goes first."""

from collections.abc import Callable

import dramatiq

from workers.engine.detail import fetch_details
from workers.engine.discovery import discover
from workers.engine.finalize import finalize
from workers.engine.unknown_source import left_to_others
from workers.errors import RateLimited
from workers.messaging.broker import QUEUE

#: By name; the lower priority goes first among the messages a worker holds.
ACTORS: dict[str, tuple[Callable[..., None], int]] = {
    "finalize": (finalize, 0),
    "discover": (discover, 10),
    "fetch_details": (fetch_details, 20),
}


def declare(broker: dramatiq.Broker) -> None:
    """Declare every actor on a broker. Messages of sources that this process does not know are left to others.

    The database retries, so dramatiq does not; turns are short, so nothing limits their time.
    """
    for name, (function, priority) in ACTORS.items():
        declared = dramatiq.actor(
            actor_name=name, queue_name=QUEUE, priority=priority, broker=broker, throws=(RateLimited,)
        )
        declared(left_to_others(name, function))
