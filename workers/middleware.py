"""What holds around every message: a database connection, and that waiting for a budget is not failing."""

import logging
from typing import Any

import dramatiq
from dramatiq.middleware import Middleware

from workers import clock, database
from workers.errors import RateLimited

log = logging.getLogger(__name__)

#: A lane comes back this much before its time, and sleeps the rest exactly: delayed messages are a little late.
EARLY_SECONDS = 1.0
#: The first lane of a run, and its list, come before the other lanes: each run has a thread when a window opens.
FIRST_EARLY_SECONDS = 1.5


class DatabaseConnection(Middleware):
    """A connection for each message, taken before everything else and given back after it."""

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        database.connect().connect(reuse_if_open=True)

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        obj = database.connect()
        if not obj.is_closed():
            obj.close()

    after_skip_message = after_process_message


class RateLimiterMiddleware(Middleware):
    """Turns `RateLimited` into the same message, later, with no retry spent.

    The permit itself is taken by the connector, for each request: a hook that fails lets the message run, so a hook
    must never be what refuses. The actor has given its items and its unused permit back before it raises.
    """

    @property
    def actor_options(self) -> set[str]:
        """`throws`: what an actor may raise without it being an error in the log."""
        return {"throws"}

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if not isinstance(exception, RateLimited):
            return
        first = message.actor_name != "fetch_details" or message.args[1] == 0
        delay = resend_delay(exception.wait_seconds, first=first)
        broker.enqueue(message.copy(), delay=round(delay * 1000) if delay else None)


def resend_delay(wait_seconds: float, *, first: bool) -> float:
    """Return after how many seconds a message that must wait `wait_seconds` is to be delivered.

    Parameters:
      first(bool): Whether it is its run's first in line: its list, or its first lane.
    """
    early = FIRST_EARLY_SECONDS if first else EARLY_SECONDS
    return 0.0 if clock.stop_requested.is_set() else max(0.0, wait_seconds - early)
