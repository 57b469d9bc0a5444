"""Repeats a commit while the database is away, or after a deadlock. The requests before it are not repeated."""

import itertools
from collections.abc import Callable, Iterable
from typing import TypeVar

from peewee import Database

from workers import clock
from workers.connections import database, outages

Result = TypeVar("Result")

#: Waits between two tries.
_WAITS_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)


def retry_commit(
    do: Callable[[], Result], databases: Iterable[Database], seconds_left: Callable[[BaseException], float]
) -> Result:
    """Call `do` until it succeeds, while a database is away; give up when the process is asked to stop.

    Parameters:
      do(Callable): Must be safe to repeat, because a failed commit can have taken effect.
      databases(Iterable[peewee.Database]): Their connections are opened again between two tries.
      seconds_left(Callable): How long the retries can last, by the error.

    Returns:
      What `do` returns.

    Raises:
      Exception: What `do` raised last, where that is not an outage or the time is over.
    """
    for wait in itertools.chain(_WAITS_SECONDS, itertools.repeat(_WAITS_SECONDS[-1])):
        try:
            return do()
        except Exception as error:
            if not database.is_away(error) or wait > seconds_left(error) or clock.stop_requested.is_set():
                raise
            outages.report(error)
        for one in set(databases):
            database.reconnect(one)
        clock.sleep(wait)
    raise AssertionError("the waits never end")
