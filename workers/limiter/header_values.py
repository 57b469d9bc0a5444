"""Parses the values of rate-limit headers: numbers, lengths of time, instants. Malformed text is ignored."""

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: A window or a reset that is longer is a mistake or an attack.
LONGEST_SECONDS = 31 * 86_400.0
#: A number in this range is an instant: epoch seconds (or, times 1,000, milliseconds) of the years 2001 to 2100.
_EPOCH = range(10**9, 4_102_444_800)
#: A number without a unit that is smaller cannot be milliseconds.
_LEAST_MILLISECONDS = 1_000.0

#: float() accepts more than a plain number: "1_000", "1e3", "infinity", the digits of every script.
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
#: 8s, 8 sec, 1m30s (as Go writes it), 250ms.
_LENGTH = re.compile(
    r"([0-9]{1,15}(?:\.[0-9]{0,15})?)\s?"
    r"(ms|millis(?:econds?)?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])\s?",
    re.IGNORECASE,
)
#: PT8S, P1DT2H: a duration of ISO 8601, whose letters for days and below are those of the units.
_ISO = re.compile(r"P([0-9]{1,3}D)?(?:T([0-9HMS.]{2,40}))?", re.IGNORECASE)
#: A comma between two values, but not the comma in an HTTP date.
_COMMA = re.compile(r",(?!\s?[0-9]{1,2}[ -][A-Za-z]{3})")
_MOST_VALUES = 16


def values(text: str) -> list[str]:
    """Return the values of a header that was sent several times: its lines were joined with commas."""
    return [part.strip(' \t"') for part in _COMMA.split(text)[:_MOST_VALUES]]


def number(text: str) -> float | None:
    """Return a decimal number, zero or above."""
    value = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def wait_seconds(text: str, now: datetime, unit_seconds: float = 1.0) -> float | None:
    """Return how long one value asks to wait, from `now`; 0 for an instant in the past.

    Parameters:
      text(str): A number of seconds, unless it can only be epoch seconds or milliseconds; a length with its unit
        ("8s", "1m30s"); an HTTP date; a date of ISO 8601.
      now(datetime): The current instant by the clock that set the date.
      unit_seconds(float): The unit of a number, in seconds: 0.001 where the header's name says milliseconds.
    """
    value = number(text)
    seconds = _length(text) if value is None else _of_number(value * unit_seconds, now)
    if seconds is None:
        then = instant(text)
        seconds = None if then is None or value is not None else (then - now).total_seconds()
    return None if seconds is None else max(0.0, seconds)


def may_be_milliseconds(text: str) -> bool:
    """Whether a value can be seconds as well as milliseconds: "5000"."""
    value = number(text)
    return value is not None and _LEAST_MILLISECONDS <= value <= LONGEST_SECONDS


def instant(text: str) -> datetime | None:
    """Return the instant of an HTTP date, a date as JavaScript prints it, or ISO 8601 (UTC where it names no zone)."""
    try:
        then = datetime.fromisoformat(text) if text.isascii() else None
    except ValueError:
        # JavaScript's Date prints "GMT+0100"; the e-mail parser would drop its offset.
        return date(text.replace("GMT+", "+").replace("GMT-", "-"))
    return then.replace(tzinfo=then.tzinfo or UTC) if then else None


def date(text: str) -> datetime | None:
    """Return the instant of an HTTP date."""
    if not text.isascii():
        return None
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def _of_number(value: float, now: datetime) -> float | None:
    for epoch in (value, value / 1000):
        if int(epoch) in _EPOCH:
            seconds = epoch - now.timestamp()
            return seconds if seconds >= -LONGEST_SECONDS else None
    return value / 1000 if LONGEST_SECONDS < value < _EPOCH.start else value


def _length(text: str) -> float | None:
    if duration := _ISO.fullmatch(text):
        text = f"{duration[1] or ''}{duration[2] or ''}"
    seconds, end = 0.0, 0
    while match := _LENGTH.match(text, end):
        unit = match[2].lower()
        seconds += float(match[1]) * _UNITS["ms" if unit.startswith(("ms", "mill")) else unit[0]]
        end = match.end()
    return seconds if end and end == len(text) else None
