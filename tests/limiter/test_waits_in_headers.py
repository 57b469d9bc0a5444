"""Waits in headers, in every form that APIs send: never shorter than meant, and never an hour for 5 s."""

from datetime import UTC, datetime

import pytest
from requests.structures import CaseInsensitiveDict

from workers import Budget, Limit
from workers.limiter.rate_limit_headers import Quota, quotas, retry_after_seconds
from workers.limiter.response import read_response

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
EPOCH = int(NOON.timestamp())
AT_NOON = "Sun, 01 Mar 2026 12:00:00 GMT"
A_MINUTE_LATER = "Sun, 01 Mar 2026 12:01:00 GMT"
TWO_MINUTES_LATER = "Sun, 01 Mar 2026 12:02:00 GMT"
WINDOWS = Budget("api", [Limit(500, seconds=20), Limit(5000, seconds=3600)])


def wait(**headers: str) -> float | None:
    """Read headers whose names are written with underscores; return the wait without the second that is added."""
    named = CaseInsensitiveDict({name.replace("_", "-"): text for name, text in headers.items()})
    seconds = retry_after_seconds(named, NOON)
    return None if seconds is None else seconds - 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("8", 8), ("8.0", 8), ("1.5", 1.5), ("0", 0), (" 8 ", 8)],
        *[("8s", 8), ("8 s", 8), ("8S", 8), ("8 sec", 8), ("8 secs", 8), ("5 seconds", 5), ("1 second", 1)],
        *[("250ms", 0.25), ("250 milliseconds", 0.25), ("2m", 120), ("2 minutes", 120), ("1m30s", 90), ("6m0s", 360)],
        *[("PT8S", 8), ("PT1M30.5S", 90.5), ("P1DT2H", 93_600), ("pt1h", 3600), ('"8"', 8), ('"8s", "9s"', 9)],
        *[("1h2m3.5s", 3723.5), ("1 hour", 3600), ("1d", 86400)],
        *[("8, 8", 8), ("8,8", 8), ("5, 10", 10), ("10, 5", 10), ("8, soon", 8), ("soon, 8", 8), ("8s, 9", 9)],
        *[(A_MINUTE_LATER, 60), (f"{A_MINUTE_LATER}, {A_MINUTE_LATER}", 60), (f"{A_MINUTE_LATER},8", 60)],
        *[(f"8, {TWO_MINUTES_LATER}", 120), (f"{TWO_MINUTES_LATER}, {A_MINUTE_LATER}", 120)],
        *[("Sunday, 01-Mar-26 12:01:00 GMT", 60), ("Sunday, 01-Mar-26 12:01:00 GMT, 90", 90)],
        *[(str(EPOCH + 90), 90), (f"{EPOCH + 90}.5", 90.5), (str(EPOCH * 1000 + 90_000), 90), (str(EPOCH - 90), 0)],
        *[("2026-03-01T12:01:30Z", 90), ("2026-03-01T14:01:30+02:00", 90), ("2026-03-01 12:01:30", 90)],
        *[("2026-03-01T12:01Z", 60), ("2026-03-01T11:00:00Z", 0), ("2026-03-01T12:00:01.250Z", 1.25)],
        *[("86400", 86400), ("2678400", 2678400), ("3600000", 3600), ("86400000", 86400)],
    ],
)
def test_retry_after_is_read_in_every_form(text, seconds):
    assert wait(Retry_After=text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("-5", "-5, -5", "", " ", "soon", "soon, later", "s", "8 sheep", "5s5", "1:30", "1e3", "0x10", "nan", "+5"),
        *("8 months", "m", ",", ",,", "Mar", "2026-13-01T00:00:00Z", "1000000001", "\x00", "8\x00"),
    ],
)
def test_a_malformed_wait_says_nothing(text):
    assert wait(Retry_After=text) is None


def test_a_date_of_either_form_is_taken_against_the_response_s_own():
    ahead = {"Date": "Sun, 01 Mar 2026 13:00:00 GMT"}

    assert wait(Retry_After="Sun, 01 Mar 2026 13:00:30 GMT", **ahead) == 30
    assert wait(Retry_After="2026-03-01T13:00:30Z", **ahead) == 30
    assert wait(Retry_After=str(EPOCH + 3630), **ahead) == 30


@pytest.mark.parametrize("name", ["Retry_After_Ms", "X_Retry_After_Ms", "retry_after_ms", "x_ms_retry_after_ms"])
def test_a_name_that_says_milliseconds_is_believed(name):
    assert wait(**{name: "1500"}) == 1.5
    assert wait(**{name: "250, 750"}) == 0.75


@pytest.mark.parametrize(
    "name", ["X_Retry_After", "X_RateLimit_Retry_After", "X_Rate_Limit_Retry_After", "X_Rate_Limit_Retry_After_Seconds"]
)
def test_another_name_for_it_is_read_too(name):
    assert wait(**{name: "7"}) == 7


def test_of_several_headers_the_longest_wait_holds():
    assert wait(Retry_After="1", retry_after_ms="20") == 1
    assert wait(Retry_After="soon", retry_after_ms="2500") == 2.5
    assert wait(X_Retry_After="7", Retry_After="5") == 7


SPENT = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "0"}

#: What an API sends with its 429, and how long the budget then waits (without the second that is added).
RESETS = {
    "GitHub": ({**SPENT, "X-RateLimit-Reset": str(EPOCH + 1800)}, 1800),
    "Twitter": (
        {"x-rate-limit-limit": "500", "x-rate-limit-remaining": "0", "x-rate-limit-reset": str(EPOCH + 900)},
        900,
    ),
    "Discord": (
        {
            "X-RateLimit-Limit": "5",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": f"{EPOCH + 64}.57",
            "X-RateLimit-Reset-After": "1.25",
        },
        1.25,
    ),
    "Linear": (
        {
            "X-RateLimit-Requests-Limit": "1500",
            "X-RateLimit-Requests-Remaining": "0",
            "X-RateLimit-Requests-Reset": str((EPOCH + 1800) * 1000),
        },
        1800,
    ),
    "OpenAI": (
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m30s",
        },
        90,
    ),
    "Anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-03-01T12:00:45Z",
        },
        45,
    ),
    "Jira": ({**SPENT, "X-RateLimit-Reset": "2026-03-01T12:05Z"}, 300),
    "BigCommerce": (
        {
            "X-Rate-Limit-Requests-Left": "0",
            "X-Rate-Limit-Requests-Quota": "150",
            "X-Rate-Limit-Time-Reset-Ms": "15000",
            "X-Rate-Limit-Time-Window-Ms": "30000",
        },
        15,
    ),
    "a time of its own that is behind": ({**SPENT, "X-RateLimit-Reset": str(EPOCH - 5)}, 0),
    "seconds": ({**SPENT, "X-RateLimit-Reset": "5"}, 5),
    "a fraction": ({**SPENT, "X-RateLimit-Reset": "5.3"}, 5.3),
    "with a unit": ({**SPENT, "X-RateLimit-Reset": "1500ms"}, 1.5),
    "milliseconds, said so": ({**SPENT, "X-RateLimit-Reset-Ms": "5000"}, 5),
    "surely milliseconds": ({**SPENT, "X-RateLimit-Reset": "3600000"}, 3600),
    "seconds that fit into the window of that limit": ({**SPENT, "X-RateLimit-Reset": "3000"}, 3000),
    "sent twice": ({"X-RateLimit-Remaining": "0, 0", "X-RateLimit-Reset": "5, 5"}, 5),
}


@pytest.mark.parametrize("api", RESETS)
def test_a_429_without_retry_after_waits_until_what_is_spent_returns(api):
    headers, seconds = RESETS[api]

    answer = read_response(WINDOWS, 429, CaseInsensitiveDict({"Date": AT_NOON, **headers}), NOON)

    assert answer.refused
    assert answer.wait_seconds == pytest.approx(seconds + 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Limit": "500", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5000"},  # of 20 s
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5000"},
        {"X-RateLimit-Limit": "7", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "600000"},
    ],
)
def test_a_reset_that_may_be_of_milliseconds_and_fits_no_window_is_not_believed(headers):
    # Then the pause is as long as one without a word on its length
    assert read_response(WINDOWS, 429, CaseInsensitiveDict(headers), NOON).wait_seconds is None


def test_hubspot_names_its_window_in_milliseconds():
    headers = {
        "X-HubSpot-RateLimit-Max": "100",
        "X-HubSpot-RateLimit-Remaining": "3",
        "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
    }

    assert quotas(CaseInsensitiveDict(headers), NOON) == (Quota(100, 10, 3, None, "X-HubSpot-RateLimit-Remaining"),)
