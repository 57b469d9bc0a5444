"""What holds around every message: a database connection, and that waiting for a budget is not failing."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import dramatiq
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Middleware

from workers import clock
from workers.connections import database, outages
from workers.errors import DependencyDown, RateLimited

log = logging.getLogger(__name__)

#: A lane comes back this much before its time, and sleeps the rest exactly: delayed messages are a little late.
EARLY_SECONDS = 1.0
#: The first lane of a run, and its list, come before the other lanes: each run has a thread when a window opens.
FIRST_EARLY_SECONDS = 1.5


class DatabaseConnection(Middleware):
    """A connection for each message; and where Redis or the database is away, the message ends with nothing but a word.

    It stands around the actor itself: a hook that fails lets the message run. The message is not sent again: the
    database knows what it stood for, and the reaper sends it when the database is back.
    """

    def before_declare_actor(self, broker: dramatiq.Broker, actor: Any) -> None:
        actor.fn = _within_a_connection(actor.fn)
        actor.options["throws"] = (*actor.options.get("throws", ()), DependencyDown)


def _within_a_connection(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def work(*args: Any) -> None:
        try:
            with database.connection():
                function(*args)
        except RateLimited as wait:
            if not outages.tell(wait):  # an outage may be what it waits for
                outages.over()
            raise
        except Exception as error:
            if not outages.tell(error):
                raise
            raise DependencyDown(str(error)) from error
        outages.over()

    return work


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
        try:
            broker.enqueue(message.copy(), delay=round(delay * 1000) if delay else None)
        except BrokerConnectionError as error:  # its lane, or its page, is due in the database: the reaper sends it
            log.debug("%s%r was not sent again (%s)", message.actor_name, message.args, error)


def resend_delay(wait_seconds: float, *, first: bool) -> float:
    """Return after how many seconds a message that must wait `wait_seconds` is to be delivered.

    Parameters:
      first(bool): Whether it is its run's first in line: its list, or its first lane.
    """
    early = FIRST_EARLY_SECONDS if first else EARLY_SECONDS
    return 0.0 if clock.stop_requested.is_set() else max(0.0, wait_seconds - early)
