"""Repeat a commit while the database is away, or after a deadlock: the requests that led to it are not repeated."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from workers import clock
from workers.connections import database, outages

Result = TypeVar("Result")

#: Waits between two tries.
_WAITS = (0.1, 0.2, 0.5, 1.0, 2.0)


def patiently(
    do: Callable[[], Result], places: Iterable[Any], seconds_left: Callable[[BaseException], float]
) -> Result:
    """Do it, and again while a database is away; not when a stop is asked for.

    Parameters:
      do(Callable): Must be safe to repeat: it may have taken effect.
      places(Iterable[peewee.Database]): Whose connections are opened anew between two tries.
      seconds_left(Callable): For how long it may go on, by the error that was met.

    Returns:
      What `do` returns.

    Raises:
      Exception: What `do` raised last, where it is no outage or the time is over.
    """
    for wait in itertools.chain(_WAITS, itertools.repeat(_WAITS[-1])):
        try:
            return do()
        except Exception as error:
            if not database.is_away(error) or wait > seconds_left(error) or clock.stop_requested.is_set():
                raise
            outages.tell(error)
        for place in set(places):
            database.reconnect(place)
        clock.sleep(wait)
    raise AssertionError("it is repeated without end")
