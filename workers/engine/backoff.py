"""Decides how long an item, a list page or a lane waits before its next attempt: by its attempts, or as an API asks."""

import math

from workers.errors import BudgetClosed, BudgetUnknown, RateLimited, Refused
from workers.settings import get_settings

#: Wait while Redis gives no permits, or the database does not answer.
OUTAGE_SECONDS = 5.0

#: Bounds of a wait that is asked for: at least; at most if the source's code asks; at most if the API asks.
_LEAST_SECONDS, _LONGEST_OF_SOURCE_SECONDS, _LONGEST_OF_API_SECONDS = 1.0, 3_600.0, 90_000.0
#: Wait of a lane after its first crash: a connection was cut, or `get_connector` failed for a moment.
_AFTER_FIRST_CRASH_SECONDS = 1.0


def seconds_until_next(attempts: int) -> float | None:
    """Return in how many seconds an item or list page is attempted again; None where no attempt is left.

    Parameters:
      attempts(int): Attempts made, at least 1. A wait that an API or a source asks for is none: see `asked_seconds`.
    """
    settings = get_settings()
    return settings.backoff_seconds[attempts - 1] if attempts < settings.max_attempts else None


def asked_seconds(wait: RateLimited) -> float:
    """Return the wait that an error asks for, within bounds: 1 s to 1 h if the source asks, to 25 h if the API asks."""
    seconds = getattr(wait, "wait_seconds", None)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or math.isnan(seconds):
        return _LEAST_SECONDS
    longest = _LONGEST_OF_API_SECONDS if isinstance(wait, Refused) else _LONGEST_OF_SOURCE_SECONDS
    return float(min(max(seconds, _LEAST_SECONDS), longest))


def seconds_after_crashes(crashes: int) -> float | None:
    """Return in how many seconds a lane begins its next turn after crashes in a row; None where they are too many."""
    if crashes >= get_settings().max_attempts:
        return None
    return _AFTER_FIRST_CRASH_SECONDS if crashes == 1 else seconds_until_next(crashes - 1)


def closed_by_outage(error: BudgetUnknown) -> BudgetClosed:
    """Return the error to raise where the state of a budget cannot be read: no permit now, and no attempt spent."""
    return BudgetClosed(OUTAGE_SECONDS, str(error))
