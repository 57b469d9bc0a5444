"""Parse and hold the limits: at most N requests in S seconds, written as "N/S"."""

import math
import re
from dataclasses import dataclass

NANOSECONDS = 1_000_000_000
MAX_LIMIT = 10_000_000
MAX_WINDOW_SECONDS = 30 * 86400

_LIMIT = re.compile(r"([0-9]{1,8})/([0-9]{1,8}(?:\.[0-9]{1,6})?)")


@dataclass(frozen=True)
class Window:
    """At most `limit` requests in `seconds`.

    Parameters:
      limit: How many requests one window takes.
      seconds: How long it lasts.

    Raises:
      ValueError: A number is out of range.
    """

    limit: int
    seconds: float

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_LIMIT:
            raise ValueError(f"a limit of {self.limit} requests: give 1 to {MAX_LIMIT:,}")
        if not math.isfinite(self.seconds) or not 0.001 <= self.seconds <= MAX_WINDOW_SECONDS:
            raise ValueError(f"a window of {self.seconds} s: give 0.001 to {MAX_WINDOW_SECONDS:,} seconds")

    @property
    def length_ns(self) -> int:
        """The window's length in nanoseconds: whole numbers, so that no rounding moves an edge."""
        return round(self.seconds * NANOSECONDS)

    def __str__(self) -> str:
        return f"{self.limit}/{self.seconds:g} s"


DEFAULT_LIMITS = (Window(500, 20), Window(2000, 100))


def parse_limits(text: str) -> tuple[Window, ...]:
    """Read limits as the command line writes them.

    Parameters:
      text: `50/2,200/10` (requests/seconds, any number of them), or `none`.

    Returns:
      The windows in the order given; empty for `none`.

    Raises:
      ValueError: The text is not of that form.
    """
    if text.strip().lower() == "none":
        return ()
    return tuple(_parse_limit(part.strip()) for part in text.split(","))


def _parse_limit(text: str) -> Window:
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no limit: write REQUESTS/SECONDS, such as 50/2 or 50/2,200/10, or none")
    return Window(int(match[1]), float(match[2]))
