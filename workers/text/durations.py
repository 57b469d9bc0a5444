"""Formats durations for people: 7.3 s, 42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h. No other module formats a duration."""

import math

#: A wait shorter than this is shown with tenths of a second.
_SHORT_SECONDS = 59.95


def duration(seconds: float) -> str:
    """Return a length of time in whole seconds, or in its two largest units.

    Parameters:
      seconds(float): Any number; a negative one is 0, an infinite one or NaN is "an unknown time".
    """
    if not math.isfinite(seconds):
        return "an unknown time"  # a user's code can ask for any number
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    if total < 86_400:
        return f"{total // 3600} h {total % 3600 // 60} min"
    return f"{total // 86_400} d {total % 86_400 // 3600} h"


def wait(seconds: float) -> str:
    """Return the length of a wait: as `duration`, with tenths below a minute: 0.4 s, 58.1 s, 3 h 11 min."""
    return f"{max(0.0, seconds):.1f} s" if seconds < _SHORT_SECONDS else duration(seconds)
