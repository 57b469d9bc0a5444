"""Middleware around every message: opens a database connection, and delays a message that waits for a budget."""

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

#: A lane's message is delivered this much early, and the lane sleeps the rest, because delayed messages come late.
EARLY_SECONDS = 1.0
#: The same for a run's list and first lane, so that each run has a thread when a window opens.
FIRST_EARLY_SECONDS = 1.5


class DatabaseConnection(Middleware):
    """Opens a connection for each message; during an outage of Redis or the database the message ends with a log line.

    It wraps the actor itself, because dramatiq runs a message whose hook has failed. The message is not retried: the
    database has the work that it stands for, and the reaper re-sends it when the database is back.
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
            if not outages.report(wait):  # its cause can be an outage
                outages.over()
            raise
        except Exception as error:
            if not outages.report(error):
                raise
            raise DependencyDown(str(error)) from error
        outages.over()

    return work


class RateLimiterMiddleware(Middleware):
    """Turns `RateLimited` into the same message, delayed, without spending a retry.

    The connector takes the permit for each request. A hook must not be what refuses a request, because dramatiq runs a
    message whose hook has failed. Before the actor raises, it has given back its items and its unused permit.
    """

    @property
    def actor_options(self) -> set[str]:
        """`throws`: which exceptions of an actor are not logged as errors."""
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
        except BrokerConnectionError as error:  # its lane or page is due in the database: the reaper re-sends it
            log.debug("%s%r was not sent again (%s)", message.actor_name, message.args, error)


def resend_delay(wait_seconds: float, *, first: bool) -> float:
    """Return the delay in seconds after which a message that waits `wait_seconds` is delivered.

    Parameters:
      wait_seconds(float): How long it waits for its budget.
      first(bool): Whether it is for the list or the first lane of its run.
    """
    early = FIRST_EARLY_SECONDS if first else EARLY_SECONDS
    return 0.0 if clock.stop_requested.is_set() else max(0.0, wait_seconds - early)
