"""What a response's headers say about waiting: text in, seconds out. Malformed text says nothing."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Servers cut fractions off: "12" may mean 12.9.
_TRUNCATION_SECONDS = 1.0
#: float() takes more than a number of seconds: "1_000", "1e3", "infinity", the digits of every script.
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?")


def retry_after_seconds(headers: Mapping[str, str], received_at: datetime) -> float | None:
    """Return how long Retry-After asks to wait, a second added for truncation; None where it says nothing usable.

    Both forms of RFC 9110 10.2.3 are read: seconds (a decimal is tolerated) and an HTTP date, which is taken against
    the response's own Date header where there is one, because two machines have two clocks.

    Parameters:
      headers(Mapping[str, str]): The response's headers, looked up without regard to case.
      received_at(datetime): When the response arrived, UTC-aware.
    """
    text = headers.get("Retry-After", "").strip()
    seconds = _number(text)
    if seconds is None:
        then = _date(text)
        if then is None:
            return None
        seconds = (then - (_date(headers.get("Date", "")) or received_at)).total_seconds()
    return max(0.0, seconds) + _TRUNCATION_SECONDS


def _number(text: str) -> float | None:
    seconds = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return seconds if math.isfinite(seconds) else None


def _date(text: str) -> datetime | None:
    if not text.isascii():
        return None
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)
