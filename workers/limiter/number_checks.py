"""Checks the numbers that a user passes to the limiter (seconds, timeouts, weights); errors say what to write."""

import sys
from typing import TypeGuard

from workers.errors import ConfigurationError

#: The longest timeout of one request.
LONGEST_TIMEOUT_SECONDS = 86_400.0


def is_whole(value: object, least: int, most: int) -> TypeGuard[int]:
    """Return whether `value` is a whole number in this range. True and 1.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether `value` is a finite number: not NaN, not infinite, not True."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def seconds(value: object, name: str, most: float) -> float:
    """Return a length of time as a float.

    Parameters:
      value(object): Seconds.
      name(str): The name of the parameter, for the message.
      most(float): The most seconds.

    Raises:
      ConfigurationError: It is not a number of seconds from 0 to `most`.
    """
    if is_number(value) and 0 <= value <= most:
        return float(value)
    raise ConfigurationError(f"{name} must be a number of seconds from 0 to {most:,.0f}, not {value!r:.40}")


def timeout(value: object, where: str) -> float:
    """Return a request's timeout as a float.

    Parameters:
      value(object): Seconds.
      where(str): The budget or the connector, for the message.

    Raises:
      ConfigurationError: It is not a number of seconds, more than 0 and at most a day.
    """
    if is_number(value) and 0 < value <= LONGEST_TIMEOUT_SECONDS:
        return float(value)
    raise ConfigurationError(
        f"{where}: timeout_seconds must be a number, more than 0 and at most {LONGEST_TIMEOUT_SECONDS:,.0f}, "
        f"for the whole request, like timeout_seconds=30; not {value!r:.60}"
    )


def weight(value: object, most: int) -> int:
    """Return a request's weight as a whole number.

    Parameters:
      value(object): As how many requests the API counts it.
      most(int): The lowest of the budget's limits.

    Raises:
      ConfigurationError: It is not a whole number from 1 to the lowest limit.
    """
    if not is_whole(value, 1, 10**15):
        raise ConfigurationError(
            f"A request's weight (`weigh`, or `weight=`) must be a whole number, 1 or more; not {value!r:.60}"
        )
    if value > most:
        raise ConfigurationError(
            f"A request weighs more than the limit of {most}: {value}. Correct the weight or the limits"
        )
    return value
