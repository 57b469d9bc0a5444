"""Checked: the numbers a user gives for permits, before Redis is asked. Each error says what to write instead."""

import sys
from typing import Any

from workers.errors import ConfigurationError

#: The longest time one request may take.
LONGEST_TIMEOUT_SECONDS = 86_400.0


def is_whole(value: object, least: int, most: int) -> bool:
    """Return whether it is a whole number in that range. True and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> bool:
    """Return whether it is a number that can be reckoned with: not NaN, not infinite, not True."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def seconds(value: Any, name: str, most: float) -> float:
    """Return a length of time as it is used.

    Parameters:
      value(Any): Seconds.
      name(str): The parameter's.
      most(float): The longest there may be.

    Raises:
      ConfigurationError: It is no number of seconds from 0 to that.
    """
    if is_number(value) and 0 <= value <= most:
        return float(value)
    raise ConfigurationError(f"{name} must be a number of seconds from 0 to {most:,.0f}, not {value!r:.40}")


def timeout(value: Any, where: str) -> float:
    """Return a request's timeout as it is used.

    Parameters:
      value(Any): Seconds.
      where(str): Whose it is, for the message.

    Raises:
      ConfigurationError: It is no number of seconds from more than 0 to a day.
    """
    if is_number(value) and 0 < value <= LONGEST_TIMEOUT_SECONDS:
        return float(value)
    raise ConfigurationError(
        f"{where}: timeout_seconds must be a number, more than 0 and at most {LONGEST_TIMEOUT_SECONDS:,.0f}, "
        f"for the whole request, like timeout_seconds=30; not {value!r:.60}"
    )


def weight(value: Any, most: int) -> int:
    """Return a request's weight as it is used.

    Parameters:
      value(Any): As how many requests the API counts it.
      most(int): The lowest of the budget's limits.

    Raises:
      ConfigurationError: It is no whole number from 1 to the lowest limit.
    """
    if not is_whole(value, 1, 10**15):
        raise ConfigurationError(
            f"A request's weight (`weigh`, or `weight=`) must be a whole number, 1 or more; not {value!r:.60}"
        )
    if value > most:
        raise ConfigurationError(f"A request weighs more than the limit of {most}: {value}. Correct it, or the limits")
    return int(value)
