"""Parses Retry-After and quota headers in every known form; a malformed header is ignored and breaks nothing."""

import math
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from workers.limiter.rate_limit_headers import Quota, quotas, retry_after_seconds

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
    # Given a server whose clock is an hour ahead
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
        *("", " ", "soon", "5 sheep", "s", "5s5", "1:30", "-5", "+5", "- 5", ".5", "1e3", "0x10", "1_000"),
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


# --- quotas -----------------------------------------------------------------------------------------------------------

EPOCH = int(NOON.timestamp())
X, POLICY = "X-RateLimit-Remaining", "RateLimit-Policy"
MONTH = 31 * 86_400


def quotas_of(**headers: str) -> list[tuple]:
    """Read headers whose names are written with underscores; return tuples, for they are easier to compare."""
    return [astuple(quota) for quota in said({name.replace("_", "-"): text for name, text in headers.items()})]


def astuple(quota: Quota) -> tuple:
    return quota.limit, quota.seconds, quota.remaining, quota.reset_seconds, quota.header


def said(headers: dict[str, str]) -> tuple[Quota, ...]:
    return quotas(CaseInsensitiveDict(headers), NOON)


REAL = {
    "GitHub": (
        {
            "Date": AT_NOON,
            "x-ratelimit-limit": "5000",
            "x-ratelimit-remaining": "4987",
            "x-ratelimit-reset": str(EPOCH + 1800),
            "x-ratelimit-used": "13",
            "x-ratelimit-resource": "core",
        },
        [(5000, None, 4987, 1800, X)],
    ),
    "Shopify": (
        {"X-Shopify-Shop-Api-Call-Limit": "32/40"},
        [(40, None, 8, None, "X-Shopify-Shop-Api-Call-Limit")],
    ),
    "Stripe, which names a reason but no quota": (
        {"Stripe-Rate-Limited-Reason": "endpoint-rate", "Stripe-Should-Retry": "true", "Request-Id": "req_1"},
        [],
    ),
    "Kong": (
        {
            "RateLimit-Limit": "10",
            "RateLimit-Remaining": "9",
            "RateLimit-Reset": "47",
            "X-RateLimit-Limit-Minute": "10",
            "X-RateLimit-Remaining-Minute": "9",
            "X-RateLimit-Limit-Hour": "500",
            "X-RateLimit-Remaining-Hour": "123",
        },
        [
            (10, 60, 9, None, "X-RateLimit-Remaining-Minute"),
            (500, 3600, 123, None, "X-RateLimit-Remaining-Hour"),
            (10, None, 9, 47, "RateLimit-Remaining"),
        ],
    ),
    "Reddit": (
        {"x-ratelimit-remaining": "595.0", "x-ratelimit-reset": "373", "x-ratelimit-used": "5"},
        [(None, None, 595, 373, X)],
    ),
    "Whoop": (
        {
            "X-RateLimit-Limit": "100, 100;window=60, 10000;window=86400",
            "X-RateLimit-Remaining": "98",
            "X-RateLimit-Reset": "3",
        },
        [(100, 60, 98, 3, X), (10000, 86400, None, None, "X-RateLimit-Limit")],
    ),
    "Lemlist": (
        {
            "Date": "Tue, 16 Feb 2021 08:02:40 GMT",
            "X-RateLimit-Limit": "20",
            "X-RateLimit-Remaining": "7",
            "X-RateLimit-Reset": "Tue Feb 16 2021 09:02:42 GMT+0100 (Central European Standard Time)",
        },
        [(20, None, 7, 2, X)],
    ),
    "draft -06": (
        {
            "RateLimit-Limit": "100",
            "RateLimit-Policy": '100;w=10, 1000;w=3600;comment="a, b;w=1"',
            "RateLimit-Remaining": "50",
            "RateLimit-Reset": "5",
        },
        [(100, 10, 50, 5, "RateLimit-Remaining"), (1000, 3600, None, None, POLICY)],
    ),
    "draft -03, whose limit carries the policies": (
        {"RateLimit-Limit": "100, 100;w=10, 1000;w=60", "RateLimit-Remaining": "50", "RateLimit-Reset": "5"},
        [(100, 10, 50, 5, "RateLimit-Remaining"), (1000, 60, None, None, "RateLimit-Limit")],
    ),
    "draft -07": (
        {"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit-Policy": "100;w=10, 1000;w=60"},
        [(100, 10, 50, 5, "RateLimit"), (1000, 60, None, None, POLICY)],
    ),
    "draft -11": (
        {
            "RateLimit-Policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
            "RateLimit": '"daily";r=900;t=40000, "burst";r=50;t=30',
        },
        [(100, 60, 50, 30, "RateLimit"), (1000, 86400, 900, 40000, "RateLimit")],
    ),
    "the draft after -11, as proposed": (
        {"RateLimit-Policy": '"default";q=100;w=60', "RateLimit": '"default";a=50;w=30;c=2'},
        [(100, 60, 50, 30, "RateLimit")],
    ),
}


@pytest.mark.parametrize("api", REAL)
def test_what_real_apis_say_is_read(api):
    headers, expected = REAL[api]

    assert [astuple(quota) for quota in said(headers)] == expected


@pytest.mark.parametrize("letters", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("api", REAL)
def test_a_header_s_name_is_the_same_name_in_any_case(api, letters):
    headers, expected = REAL[api]

    read = quotas({letters(name): text for name, text in headers.items()}, NOON)

    assert [astuple(quota) for quota in read] == expected


@pytest.mark.parametrize(
    ("suffix", "seconds"), [("-Second", 1), ("-Minute", 60), ("-Hour", 3600), ("-Day", 86400), ("", None)]
)
@pytest.mark.parametrize("prefix", ["X-RateLimit", "X-Rate-Limit", "RateLimit"])
def test_the_name_s_end_names_the_window(prefix, suffix, seconds):
    headers = {f"{prefix}-Limit{suffix}": "100", f"{prefix}-Remaining{suffix}": "7", f"{prefix}-Reset{suffix}": "5"}

    assert said(headers) == (Quota(100, seconds, 7, 5, f"{prefix}-Remaining{suffix}"),)


def test_each_part_is_worth_something_alone():
    assert quotas_of(X_RateLimit_Limit="100") == [(100, None, None, None, "X-RateLimit-Limit")]
    assert quotas_of(X_RateLimit_Remaining="7") == [(None, None, 7, None, X)]
    assert quotas_of(X_RateLimit_Reset="5") == [(None, None, None, 5, "X-RateLimit-Reset")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0), ("5", 5), ("2.5", 2.5), ("007", 7), (" 5 ", 5), ("-5", 0), ("-0.5", 0), (str(MONTH), MONTH)),
        *((str(EPOCH + 90), 90), (f"{EPOCH}.5", 0.5), (str(EPOCH - 90), 0), (str((EPOCH + 90) * 1000), 90)),
        *(("2026-03-01T12:01:30Z", 90), ("2026-03-01T14:01:30.5+02:00", 90.5), ("2026-03-01 12:01:30", 90)),
        *((A_MINUTE_LATER, 60), ("Sun Mar  1 12:01:00 2026", 60), ("Sun, 01 Mar 2026 11:00:00 GMT", 0)),
        *(("Sun Mar 01 2026 13:01:00 GMT+0100 (CET)", 60), ("Sun Mar 01 2026 10:01:00 GMT-0200", 60)),
    ],
)
def test_a_reset_is_read_in_all_its_forms(text, seconds):
    assert quotas_of(X_RateLimit_Reset=text) == [(None, None, None, seconds, "X-RateLimit-Reset")]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "soon",
            "5 sheep",
            "1m30",
            "+5",
            "--5",
            "-",
            "- 5",
            "1e3",
            "nan",
            "inf",
            "-inf",
            "٣",
            "５",
            "1_0",
            "9" * 400,
        ),
        *("1000000000", str(EPOCH + MONTH + 1), str(EPOCH * 1000 * 1000), "2027-03-01T12:00:00Z"),
        *(
            "2026-03-01T25:00:00Z",
            "٢026-03-01T12:00:00Z",
            "0001-01-01T00:00:00+99:00",
            "T",
            "Sun, 32 Mar 2026 12:00:00 GMT",
        ),
    ],
)
def test_a_reset_that_cannot_be_is_lost_alone(text):
    read = quotas_of(X_RateLimit_Limit="100", X_RateLimit_Remaining="7", X_RateLimit_Reset=text)

    assert read == [(100, None, 7, None, X)]


@pytest.mark.parametrize("reset", [str(EPOCH + 3630), str((EPOCH + 3630) * 1000), "2026-03-01T13:00:30Z"])
def test_an_instant_is_taken_against_the_response_s_own_date(reset):
    # Given a server whose clock is an hour ahead
    assert quotas_of(Date="Sun, 01 Mar 2026 13:00:00 GMT", X_RateLimit_Reset=reset)[0][3] == 30
    # And one whose clock cannot be read
    assert quotas_of(Date="yesterday", X_RateLimit_Reset=reset)[0][3] == 3630


@pytest.mark.parametrize("age", ["1", "86400", "0.5", " 7 ", "9" * 400])
def test_what_comes_from_a_cache_says_nothing(age):
    assert quotas_of(Age=age, X_RateLimit_Limit="100", X_RateLimit_Remaining="7") == []


@pytest.mark.parametrize("age", ["0", "000", "", "-1", "old", "nan", "٣"])
def test_no_age_is_no_cache(age):
    assert quotas_of(Age=age, X_RateLimit_Limit="100", X_RateLimit_Remaining="7") == [(100, None, 7, None, X)]


NO_NUMBERS = [
    *(
        "",
        " ",
        "-1",
        "+1",
        "1.5",
        ".5",
        "1e3",
        "1_000",
        "0x10",
        "nan",
        "inf",
        "-inf",
        "٣",
        "５",
        "²",
        "\u00a05",
        "\x00",
    ),
    *(
        "1000000001",
        "9" * 15,
        "9" * 400,
        "0" * 4000 + "5",
        "5,000",
        "60, 5000",
        "5 requests",
        '"5"',
        "5/6",
        "[5]",
        "None",
    ),
]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_header_that_is_no_number_is_lost_alone(text):
    assert quotas_of(X_RateLimit_Limit=text, X_RateLimit_Remaining="7") == [(None, None, 7, None, X)]
    assert quotas_of(X_RateLimit_Limit="100", X_RateLimit_Remaining=text) == [
        (100, None, None, None, "X-RateLimit-Limit")
    ]


@pytest.mark.parametrize("text", [text for text in NO_NUMBERS if "," not in text])
def test_a_parameter_that_is_no_number_is_lost_alone(text):
    assert quotas_of(RateLimit_Policy=f'"a";q={text};w=60, "b";q=9', RateLimit='"a";r=7') == [
        (9, None, None, None, POLICY),
        (None, None, 7, None, "RateLimit"),
    ]
    assert quotas_of(RateLimit_Policy='"a";q=100;w=60', RateLimit=f'"a";r={text};t=3, "b";r=9') == [
        (100, 60, None, None, POLICY),
        (None, None, 9, None, "RateLimit"),
    ]


@pytest.mark.parametrize("text", ["0", "-1", "", "x", "nan", str(MONTH + 1), '"60"', "?1", "9" * 400])
def test_a_window_that_cannot_be_is_not_named(text):
    assert quotas_of(RateLimit_Policy=f'"a";q=100;w={text}') == [(100, None, None, None, POLICY)]
    assert quotas_of(RateLimit_Policy=f"100;w={text}, 200;w=5") == [(200, 5, None, None, POLICY)]


def test_more_remaining_than_the_limit_is_no_remaining():
    assert quotas_of(X_RateLimit_Limit="100", X_RateLimit_Remaining="101") == [
        (100, None, None, None, "X-RateLimit-Limit")
    ]
    assert quotas_of(RateLimit_Policy='"a";q=100', RateLimit='"a";r=101;t=3')[0][:3] == (100, None, None)
    assert quotas_of(RateLimit="limit=100, remaining=101")[0][:3] == (100, None, None)


def test_the_largest_numbers_are_still_read():
    assert quotas_of(X_RateLimit_Limit="1000000000", X_RateLimit_Remaining="1000000000")[0][:3] == (10**9, None, 10**9)
    assert quotas_of(RateLimit_Policy=f"5;w={MONTH}")[0][:2] == (5, MONTH)


def test_a_gigantic_header_says_nothing_and_the_rest_does():
    assert quotas_of(X_RateLimit_Limit="100", RateLimit_Policy='"a";q=5;w=1,' * 400) == [
        (100, None, None, None, "X-RateLimit-Limit")
    ]


def test_a_response_has_16_quotas_at_most():
    assert len(quotas_of(RateLimit_Policy=",".join(f"{limit};w=10" for limit in range(1, 101)))) == 16


# --- structured fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        *('"a";q=100;w=60', '"a";w=60;q=100', "a;q=100;w=60", '  "a" ; q=100;\tw=60  ', '"a";q=1;q=100;w=60'),
        *('"a";qu="requests";q=100;w=60', '"a";qu=requests;q=100;w=60;pk=:YWJj:', '"a";q=100;w=60;;x=",";y'),
        *(
            '"a";q=100;w=60,',
            ',,"a";q=100;w=60',
            '"b";q=-1;w=1, "a";q=100;w=60',
            '"a";q=100;w=60.0',
        ),
        *('(1 2);q=5, "a";q=100;w=60', '"é";q=5;w=5, "a";q=100;w=60', ':YQ==:;q=5, "a";q=100;w=60, "c;q=4;w=2'),
    ],
)
def test_a_policy_is_found_in_every_way_to_write_it(policy):
    assert quotas_of(RateLimit_Policy=policy, RateLimit='x;r=x, "a";t=30;r=50;z') == [(100, 60, 50, 30, "RateLimit")]


def test_a_name_may_hold_what_otherwise_separates():
    name = r'"a, \"b\"; q=1 \\ c"'

    assert quotas_of(RateLimit_Policy=f"{name};q=100;w=60", RateLimit=f"{name};r=5") == [
        (100, 60, 5, None, "RateLimit")
    ]


@pytest.mark.parametrize("unit", ['"content-bytes"', '"concurrent-requests"', "bytes", "5", "", '"Requests"', "?1"])
def test_what_does_not_count_requests_is_neither_a_limit_nor_a_remaining(unit):
    read = quotas_of(RateLimit_Policy=f'"a";q=100;w=60;qu={unit}, "b";q=7;w=1', RateLimit='"a";r=50;t=30, "b";r=3;t=1')

    assert read == [(7, 1, 3, 1, "RateLimit")]


def test_a_policy_of_bytes_takes_its_state_along_even_where_its_limit_cannot_be_read():
    assert quotas_of(RateLimit_Policy='"a";q=lots;qu="content-bytes"', RateLimit='"a";r=50;t=30') == []


def test_what_follows_the_64th_member_is_not_read():
    assert quotas_of(RateLimit="," * 63 + '"a";r=5') == [(None, None, 5, None, "RateLimit")]
    assert quotas_of(RateLimit="," * 64 + '"a";r=5') == []


def test_a_state_without_its_policy_and_a_policy_without_its_state_are_read():
    assert quotas_of(RateLimit='"a";r=50;t=30') == [(None, None, 50, 30, "RateLimit")]
    assert quotas_of(RateLimit_Policy='"a";q=100;w=60') == [(100, 60, None, None, POLICY)]
    assert quotas_of(RateLimit_Policy='"a";q=100;w=60', RateLimit='"A";r=5') == [
        (100, 60, None, None, POLICY),
        (None, None, 5, None, "RateLimit"),
    ]


def test_of_a_quota_s_partitions_the_least_holds():
    read = quotas_of(RateLimit_Policy='"a";q=100;w=60', RateLimit='"a";r=50;t=3;pk=:YQ==:, "a";r=5;t=2;pk=:Yg==:')

    assert read == [(100, 60, 5, 2, "RateLimit")]


def test_a_limit_that_two_windows_have_is_in_neither():
    assert quotas_of(RateLimit="limit=100, remaining=50", RateLimit_Policy="100;w=1, 100;w=60") == [
        (100, None, 50, None, "RateLimit"),
        (100, 1, None, None, POLICY),
        (100, 60, None, None, POLICY),
    ]


def test_the_drafts_policies_do_not_name_the_window_of_an_x_header():
    assert quotas_of(X_RateLimit_Limit="100", RateLimit_Policy="100;w=60") == [
        (100, None, None, None, "X-RateLimit-Limit"),
        (100, 60, None, None, POLICY),
    ]


@pytest.mark.parametrize("text", ["", "32", "/40", "32/", "a/b", "-1/40", "32/-40", "3/4/5", "32/1000000001", "３/40"])
def test_a_call_limit_that_is_no_fraction_says_nothing(text):
    assert quotas_of(X_Shopify_Shop_Api_Call_Limit=text) == []


def test_a_call_limit_overdrawn_leaves_nothing():
    assert quotas_of(X_Shopify_Shop_Api_Call_Limit="45/40") == [(40, None, 0, None, "X-Shopify-Shop-Api-Call-Limit")]


# --- several headers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "draft", "kept"),
    [
        (("7", "5"), ("6", "4"), (6, 4)),
        (("6", "4"), ("7", "5"), (6, 4)),
        (("7", "5"), ("", "9"), (7, 5)),
        (("", "9"), ("7", ""), (7, None)),
        (("7", "5"), ("7", "9"), (7, 9)),
        (("7", "0"), ("7", ""), (7, 0)),
    ],
)
def test_of_two_words_on_one_window_the_smaller_holds_and_then_the_longer_wait(x, draft, kept):
    headers = {"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": x[0], "X-RateLimit-Reset": x[1]}
    headers |= {"RateLimit-Limit": "100", "RateLimit-Remaining": draft[0], "RateLimit-Reset": draft[1]}

    assert [(quota.remaining, quota.reset_seconds) for quota in said(headers)] == [kept]


# --- properties -------------------------------------------------------------------------------------------------------

NAMES = [
    *("Age", "Date", "RateLimit", "RateLimit-Policy", "X-Shopify-Shop-Api-Call-Limit"),
    *(
        f"{prefix}-{part}{suffix}"
        for prefix in ("X-RateLimit", "X-Rate-Limit", "RateLimit")
        for part in ("Limit", "Remaining", "Reset")
        for suffix in ("", "-Second", "-Day")
    ),
]
tokens = st.sampled_from(
    [
        *(
            '"',
            "\\",
            ",",
            ";",
            "=",
            " ",
            "\t",
            '"a"',
            '"b"',
            "a",
            "q=",
            "r=",
            "w=",
            "t=",
            "qu=",
            "limit=",
            "remaining=",
            "reset=",
        ),
        *(
            "-",
            ".",
            "/",
            "0",
            "1",
            "60",
            "100",
            "1000000000",
            "1000000001",
            "2678401",
            "٣",
            "nan",
            "inf",
            "é",
            "\x00",
            "(",
            ":",
            "?1",
        ),
        *(str(EPOCH), f"{EPOCH}000", "2026-03-01T12:01:00Z", A_MINUTE_LATER),
    ]
)
anything = st.one_of(st.text(max_size=60), st.lists(tokens, max_size=30).map("".join), almost)


def is_within_bounds(quota: Quota) -> bool:
    return (
        any(part is not None for part in (quota.limit, quota.remaining, quota.reset_seconds))
        and (quota.limit is None or 0 <= quota.limit <= 10**9)
        and (quota.remaining is None or 0 <= quota.remaining <= (10**9 if quota.limit is None else quota.limit))
        and (quota.seconds is None or 0 < quota.seconds <= MONTH)
        and (quota.reset_seconds is None or 0 <= quota.reset_seconds <= MONTH)
    )


@given(headers=st.dictionaries(st.sampled_from(NAMES), anything, max_size=8))
def test_no_text_raises_or_is_read_as_more_than_can_be(headers):
    read = said(headers)

    assert len(read) <= 16
    assert all(is_within_bounds(quota) for quota in read)
    assert len({(quota.limit, quota.seconds) for quota in read}) == len(read)
    assert {quota.header for quota in read} <= set(NAMES)


@given(rest=st.dictionaries(st.sampled_from(NAMES[2:5]), anything), junk=anything)
def test_junk_beside_a_well_formed_header_does_not_loosen_it(rest, junk):
    headers = {
        "X-RateLimit-Limit-Hour": "100",
        "X-RateLimit-Remaining-Hour": "7",
        "X-RateLimit-Reset-Hour": junk,
        **rest,
    }

    of_the_hour = [quota for quota in said(headers) if (quota.limit, quota.seconds) == (100, 3600)]

    assert len(of_the_hour) == 1 and of_the_hour[0].remaining <= 7


@pytest.mark.parametrize(
    "piece", ['"', "\\", '\\"', ",", ";", "=", '"a', "a;", '"a";r=1,', "0", " ", '"\\\\', "1;w=1,", "GMT+"]
)
def test_the_worst_text_is_read_in_no_time(piece):
    text = (piece * 4096)[:4096]
    start = time.perf_counter()

    said(dict.fromkeys(NAMES[2:], text))

    assert time.perf_counter() - start < 1


limits = st.integers(min_value=0, max_value=10**9)
windows = st.integers(min_value=1, max_value=MONTH)
resets = st.integers(min_value=0, max_value=MONTH)


@st.composite
def well_formed(draw) -> Quota:
    limit = draw(limits)
    remaining = draw(st.integers(min_value=0, max_value=limit))
    return Quota(limit, draw(windows), remaining, draw(resets), "")


names = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_x(quota: Quota) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": f"{quota.limit}, {quota.limit};w={quota.seconds}",
        "X-RateLimit-Remaining": f"{quota.remaining}",
        "X-RateLimit-Reset": f"{EPOCH + quota.reset_seconds}",
    }


def write_06(quota: Quota) -> dict[str, str]:
    return {
        "RateLimit-Limit": f"{quota.limit}",
        "RateLimit-Policy": f"{quota.limit};w={quota.seconds}",
        "RateLimit-Remaining": f"{quota.remaining}",
        "RateLimit-Reset": f"{quota.reset_seconds}",
    }


def write_07(quota: Quota) -> dict[str, str]:
    return {
        "RateLimit": f"limit={quota.limit}, remaining={quota.remaining}, reset={quota.reset_seconds}",
        "RateLimit-Policy": f"{quota.limit};w={quota.seconds}",
    }


@pytest.mark.parametrize("write", [write_x, write_06, write_07])
@given(quota=well_formed())
def test_a_quota_of_an_older_form_is_read_as_it_was_written(write, quota):
    assert [astuple(read)[:4] for read in said(write(quota))] == [astuple(quota)[:4]]


@given(written=st.dictionaries(names, well_formed(), min_size=1, max_size=6), data=st.data())
def test_the_quotas_of_draft_11_are_read_as_they_were_written(written, data):
    # Given policies of different windows, and their parameters and members in any order
    written = {name: quota for name, quota in written.items() if quota.seconds not in seen_before(written, name)}
    policies = [
        ";".join([quoted(name), *data.draw(st.permutations([f"q={quota.limit}", f"w={quota.seconds}"]))])
        for name, quota in written.items()
    ]
    states = [
        ";".join([quoted(name), *data.draw(st.permutations([f"r={quota.remaining}", f"t={quota.reset_seconds}"]))])
        for name, quota in data.draw(st.permutations(list(written.items())))
    ]

    read = said({"RateLimit-Policy": ", ".join(policies), "RateLimit": ",".join(states)})

    assert [astuple(quota)[:4] for quota in read] == [astuple(quota)[:4] for quota in written.values()]


def seen_before(written: dict[str, Quota], name: str) -> set[float | None]:
    earlier = list(written)[: list(written).index(name)]
    return {written[other].seconds for other in earlier}


@given(quota=well_formed())
def test_a_call_limit_is_read_as_it_was_written(quota):
    read = said({"X-Shopify-Shop-Api-Call-Limit": f"{quota.limit - quota.remaining}/{quota.limit}"})

    assert [(q.limit, q.seconds, q.remaining, q.reset_seconds) for q in read] == [
        (quota.limit, None, quota.remaining, None)
    ]
