"""Formats durations in their two largest units, also infinite ones and NaN, in errors as well."""

import math

import pytest

from workers.errors import LongWait, RateLimited
from workers.text.durations import duration, wait


@pytest.mark.parametrize(
    ("seconds", "said", "as_a_wait"),
    [
        (0, "0 s", "0.0 s"),
        (-3, "0 s", "0.0 s"),
        (0.4, "0 s", "0.4 s"),
        (2, "2 s", "2.0 s"),
        (9.96, "10 s", "10.0 s"),
        (59.4, "59 s", "59.4 s"),
        (59.6, "1 min 0 s", "59.6 s"),
        (3_599.7, "1 h 0 min", "1 h 0 min"),
        (11_493.5, "3 h 11 min", "3 h 11 min"),
        (86_400, "1 d 0 h", "1 d 0 h"),
        (1e15, "11574074074 d 1 h", "11574074074 d 1 h"),
        (math.inf, "an unknown time", "an unknown time"),
        (math.nan, "an unknown time", "an unknown time"),
    ],
)
def test_a_duration_is_said_in_the_two_units_that_matter(seconds: float, said: str, as_a_wait: str) -> None:
    assert (duration(seconds), wait(seconds)) == (said, as_a_wait)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RateLimited(11_493.5, "window 2000/86400 s full"), "window 2000/86400 s full: try again in 3 h 11 min"),
        (RateLimited(0.25, "paced"), "paced: try again in 0.2 s"),
        (RateLimited(math.inf, "asked by a source"), "asked by a source: try again in an unknown time"),
        (LongWait(60, "429", 90_000), "429: a wait of 1 d 1 h; resume the run to try again"),
    ],
)
def test_an_error_that_asks_to_wait_says_for_how_long(error: RateLimited, said: str) -> None:
    assert str(error) == said
