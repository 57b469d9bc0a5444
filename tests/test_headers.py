"""Retry-After: both of its forms are read, and whatever else a server writes there says nothing and breaks nothing."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from workers.headers import retry_after_seconds

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
AT_NOON = "Sun, 01 Mar 2026 12:00:00 GMT"
A_MINUTE_LATER = "Sun, 01 Mar 2026 12:01:00 GMT"


def read(text: str, **headers: str) -> float | None:
    return retry_after_seconds(CaseInsensitiveDict({"Retry-After": text, **headers}), NOON)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 1), ("1", 2), ("120", 121), ("007", 8), (" 5 ", 6), ("2.5", 3.5), ("2.", 3), ("86400", 86401)],
)
def test_seconds_are_read_and_one_is_added_for_what_was_cut_off(text, seconds):
    assert read(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        A_MINUTE_LATER,
        "Sunday, 01-Mar-26 12:01:00 GMT",
        "Sun Mar  1 12:01:00 2026",
        "Sun, 01 Mar 2026 14:01:00 +0200",
        "Sun, 01 Mar 2026 12:01:00 -0000",
    ],
)
def test_a_date_in_any_of_its_forms_is_read(text):
    assert read(text) == 61


def test_a_date_is_taken_against_the_response_s_own_date():
    # Given a server whose clock is an hour ahead of ours
    headers = {"Date": "Sun, 01 Mar 2026 13:00:00 GMT"}

    # Then its dates are compared with each other
    assert read("Sun, 01 Mar 2026 13:00:30 GMT", **headers) == 31


def test_a_date_header_that_cannot_be_read_leaves_our_own_clock():
    assert read(A_MINUTE_LATER, Date="yesterday") == 61


def test_a_date_that_has_passed_is_no_wait_but_the_added_second():
    assert read("Sun, 01 Mar 2026 11:00:00 GMT") == 1
    assert read(AT_NOON) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "soon", "5 seconds", "5,10", "1:30", "-5", "+5", "- 5", ".5", "1e3", "0x10", "1_000"),
        *("nan", "NaN", "inf", "infinity", "-inf", "9" * 400, "٣", "５", "５.0", "²"),
        *("Sun, 01 Mar 99999999999 12:00:00 GMT", "Sun, 32 Mar 2026 12:00:00 GMT", "Sun, 01 Mar 2026 25:61:61 GMT"),
        *("Sun, 01 Mar 2026 12:00:00 +99999999999999", "Sun, ٠١ Mar 2026 12:00:00 GMT", "Mar", ",,,", "\x00"),
    ],
)
def test_what_is_neither_says_nothing(text):
    assert read(text) is None


def test_a_response_without_the_header_says_nothing():
    assert retry_after_seconds({}, NOON) is None


def test_a_huge_number_is_read_as_it_is():
    """The connector caps it; this module only reads."""
    assert read("99999999999") == 100_000_000_000.0


dates = st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 31)).map(
    lambda at: f"{at:%a, %d %b} {at.year:04} {at:%H:%M:%S} GMT"
)
almost = st.one_of(
    st.text(),
    st.from_regex(r"[-+]?[0-9]{0,30}[.eE_]?[0-9]{0,30}"),
    dates,
    st.from_regex(r"\w{3}, [0-9]{1,12} (Jan|Feb|Foo) -?[0-9]{0,12} [0-9]{0,12}:[0-9]{0,3}:[0-9]{0,3} [-+A-Z0-9]{0,20}"),
)


@given(text=almost, date=st.none() | almost)
def test_no_text_raises_or_is_read_as_less_than_nothing(text, date):
    headers = {"Retry-After": text} | ({} if date is None else {"Date": date})

    seconds = retry_after_seconds(headers, NOON)

    assert seconds is None or (math.isfinite(seconds) and seconds >= 1)
