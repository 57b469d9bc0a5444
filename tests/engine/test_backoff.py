"""The waits between two attempts: by the attempts made, or as an API or a source asks."""

import math

import pytest

from workers.engine import backoff
from workers.errors import BudgetClosed, BudgetUnknown, RateLimited, Refused

HOUR = 3_600.0


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 30.0), (2, 60.0), (3, 120.0), (4, 240.0), (5, None), (6, None), (50, None)]
)
def test_the_backoff_doubles_and_the_fifth_attempt_is_the_last(environment, attempts, seconds):
    assert backoff.seconds_until_next(attempts) == seconds


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 0.5), (2, None)])
def test_the_backoff_follows_the_settings(environment, attempts, seconds):
    environment.setenv("SLUICE_MAX_ATTEMPTS", "2")
    environment.setenv("SLUICE_BACKOFF_SECONDS", "0.5")

    assert backoff.seconds_until_next(attempts) == seconds


@pytest.mark.parametrize(("crashes", "seconds"), [(1, 1.0), (2, 30.0), (3, 60.0), (4, 120.0), (5, None), (6, None)])
def test_a_lane_waits_a_second_after_its_first_crash_and_then_the_backoff(environment, crashes, seconds):
    assert backoff.seconds_after_crashes(crashes) == seconds


@pytest.mark.parametrize(
    ("asked", "of_api", "of_source"),
    [
        (0.0, 1.0, 1.0),
        (-5.0, 1.0, 1.0),
        (30, 30.0, 30.0),
        (HOUR, HOUR, HOUR),
        (2 * HOUR, 2 * HOUR, HOUR),
        (25 * HOUR, 25 * HOUR, HOUR),
        (26 * HOUR, 25 * HOUR, HOUR),
        (math.inf, 25 * HOUR, HOUR),
        (math.nan, 1.0, 1.0),
        (True, 1.0, 1.0),
        ("soon", 1.0, 1.0),
        (None, 1.0, 1.0),
    ],
)
def test_a_wait_that_is_asked_for_has_bounds(asked, of_api, of_source):
    waits = []
    for kind in (Refused, RateLimited):
        wait = kind(1.0, "busy")
        wait.wait_seconds = asked
        waits.append(backoff.asked_seconds(wait))

    assert waits == [of_api, of_source]


def test_an_outage_of_redis_closes_the_budget_for_five_seconds():
    closed = backoff.closed_by_outage(BudgetUnknown("Redis does not answer"))

    assert (type(closed), closed.wait_seconds, closed.reason) == (BudgetClosed, 5.0, "Redis does not answer")
