"""Durations as people say them: 7.3 s, 42 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""

import math

#: Below it a tenth of a second of a wait matters.
_SHORT_SECONDS = 59.95


def duration(seconds: float) -> str:
    """Return how long something takes or lasted, in whole seconds or in the two units that matter."""
    if not math.isfinite(seconds):
        return "an unknown time"  # what a user's code asked for may be any number
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def wait(seconds: float) -> str:
    """Return how long a wait is: as `duration`, with tenths below a minute: 0.4 s, 58.1 s, 3 h 11 min."""
    return f"{max(0.0, seconds):.1f} s" if seconds < _SHORT_SECONDS else duration(seconds)
