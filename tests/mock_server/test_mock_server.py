"""The mock API: what it serves, how it limits, what it counts, and its faults."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

import mock_server
from mock_server import (
    Clock,
    Fault,
    MockConfig,
    Window,
    create_app,
    parse_fault,
    parse_limits,
    serve_in_thread,
)
from mock_server.algorithms import ALGORITHMS, count_in
from mock_server.delays import Delays
from mock_server.headers import STYLES
from mock_server.limiter import MAX_CALLERS, Limiter
from tests.helpers import reference_servers as servers

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 1_800_000_000
PROPERTY = settings(max_examples=50, deadline=None)


class MovedClock(Clock):
    """A clock that moves only when it is advanced or slept on."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.slept: list[float] = []

    def monotonic_ns(self) -> int:
        return round(self.seconds * 1e9)

    def epoch_ns(self) -> int:
        return EPOCH * 1_000_000_000 + self.monotonic_ns()

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.seconds += seconds
        return True


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


def client_of(clock: Clock | None = None, **settings: Any) -> FlaskClient:
    return create_app(MockConfig(**settings), clock).test_client()


def hits(client: FlaskClient, times: int, **headers: str) -> list[int]:
    return [client.get("/api/items/1", headers=headers).status_code for _ in range(times)]


# The list


def test_a_page_carries_ids_and_names_and_where_it_stands() -> None:
    body = client_of(items=25).get("/api/items?page=2&perPage=10").json

    assert [item["id"] for item in body["data"]] == list(range(11, 21))
    assert all(set(item) == {"id", "name"} for item in body["data"])
    del body["data"]
    assert body == {
        "current_page": 2,
        "per_page": 10,
        "total": 25,
        "last_page": 3,
        "next_page_url": "/api/items?page=3&perPage=10",
    }


def test_following_next_page_url_meets_every_item_once() -> None:
    client = client_of(items=25)
    url, ids = "/api/items?perPage=7", []
    while url:
        body = client.get(url).json
        ids += [item["id"] for item in body["data"]]
        url = body["next_page_url"]

    assert ids == list(range(1, 26))


@pytest.mark.parametrize(("items", "page", "count", "last_page"), [(0, 1, 0, 1), (20, 2, 10, 2), (20, 3, 0, 2)])
def test_the_last_page_and_those_beyond_it_name_no_next(items: int, page: int, count: int, last_page: int) -> None:
    body = client_of(items=items).get(f"/api/items?page={page}").json

    assert len(body["data"]) == count
    assert (body["last_page"], body["next_page_url"]) == (last_page, None)


def test_a_page_size_above_100_becomes_100() -> None:
    body = client_of(items=500).get("/api/items?perPage=100000").json

    assert (body["per_page"], len(body["data"]), body["last_page"]) == (100, 100, 5)


@pytest.mark.parametrize("query", ["page=0", "page=-1", "page=x", "page=1.5", "page=", "perPage=0", "perPage=%D9%A3"])
def test_a_bad_page_number_is_refused_with_the_repair(query: str) -> None:
    answer = client_of().get(f"/api/items?{query}")

    assert answer.status_code == 422
    assert f"{query.partition('=')[0]} must be a whole number from 1 up" in answer.json["message"]


def test_a_page_number_of_any_length_is_refused_calmly() -> None:
    client = client_of()

    assert client.get("/api/items?page=9999999999").status_code == 422
    assert client.get("/api/items?page=" + "9" * 5000).status_code == 422


# Items


def test_an_item_has_a_name_a_description_and_a_price_and_the_list_names_it_the_same() -> None:
    client = client_of()
    item = client.get("/api/items/42").json

    assert list(item) == ["id", "name", "description", "price"]
    assert item["price"] == round(item["price"], 2) > 0
    assert client.get("/api/items?page=42&perPage=1").json["data"] == [{"id": 42, "name": item["name"]}]


def test_the_catalogue_is_the_same_for_a_seed_and_another_for_another_seed() -> None:
    first, again, other = (client_of(seed=seed).get("/api/items?perPage=50").json["data"] for seed in (1, 1, 2))

    assert first == again
    assert first != other


@pytest.mark.parametrize("item_id", ["0", "11", "-1", "007", "1e3", "x", "%D9%A3", "9" * 5000, "1%00"])
def test_an_unknown_item_is_404_in_json(item_id: str) -> None:
    answer = client_of(items=10).get(f"/api/items/{item_id}")

    assert answer.status_code == 404
    assert "ids are the whole numbers from 1 to 10" in answer.json["message"]


def test_a_million_items_start_at_once() -> None:
    started = time.monotonic()
    client = client_of(items=1_000_000)

    assert client.get("/api/items/1000000").json["id"] == 1_000_000
    assert client.get("/api/items?page=10000&perPage=100").json["next_page_url"] is None
    assert time.monotonic() - started < 1


# Changing items


def test_a_put_keeps_what_it_sets_and_leaves_the_rest() -> None:
    client = client_of()
    before = client.get("/api/items/7").json

    answer = client.put("/api/items/7", json={"id": 7, "name": "Lamp", "price": 9.5})

    assert answer.status_code == 200
    assert answer.json == before | {"name": "Lamp", "price": 9.5}
    assert client.get("/api/items/7").json == answer.json
    assert client.get("/api/items?page=7&perPage=1").json["data"] == [{"id": 7, "name": "Lamp"}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 20_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ('{"price": ' + "9" * 5000 + "}", "not JSON"),
        ("[1]", "not an object"),
        ("{}", "nothing to change"),
        ('{"id": 8, "name": "x"}', "id differs"),
        ('{"colour": "red"}', "unknown"),
        ('{"name": 5}', "name must be a text"),
        ('{"name": ""}', "name must be a text"),
        ('{"name": null}', "name must be a text"),
        (json.dumps({"name": "x" * 201}), "name must be a text"),
        ('{"description": []}', "description must be a text"),
        (json.dumps({"description": "x" * 5001}), "description must be a text"),
        ('{"price": "9.5"}', "price must be a number"),
        ('{"price": true}', "price must be a number"),
        ('{"price": -1}', "price must be a number"),
        ('{"price": NaN}', "price must be a number"),
        ('{"price": Infinity}', "price must be a number"),
        ('{"price": ' + "9" * 400 + "}", "price must be a number"),
    ],
)
def test_a_bad_put_is_422_with_the_repair_and_changes_nothing(body: str | bytes, words: str) -> None:
    client = client_of()
    before = client.get("/api/items/7").json

    answer = client.put("/api/items/7", data=body, content_type="application/json")

    assert answer.status_code == 422
    assert words in answer.json["message"]
    assert client.get("/api/items/7").json == before


def test_a_body_too_large_is_refused() -> None:
    answer = client_of().put("/api/items/7", data=b'"' + b"x" * 40_000 + b'"')

    assert answer.status_code == 413
    assert "message" in answer.json


def test_a_put_to_an_unknown_item_is_404_and_a_wrong_method_says_which_are_right() -> None:
    client = client_of(items=10)

    assert client.put("/api/items/11", json={"price": 1}).status_code == 404
    refused = client.delete("/api/items/1")
    assert (refused.status_code, "PUT" in refused.headers["Allow"]) == (405, True)
    assert "message" in refused.json


# The windows


def test_a_window_starts_at_its_first_hit_and_lasts_its_whole_length(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(3, 2),))
    clock.seconds = 7.9
    assert hits(client, 4) == [200, 200, 200, 429]

    clock.seconds = 9.899
    assert hits(client, 1) == [429]

    clock.seconds = 9.9
    assert hits(client, 4) == [200, 200, 200, 429]


def test_a_request_must_pass_every_window(clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("2/1,3/10"))
    assert hits(client, 3) == [200, 200, 429]

    clock.seconds = 1
    assert hits(client, 2) == [200, 429]

    clock.seconds = 9.9
    assert hits(client, 1) == [429]

    clock.seconds = 10
    assert hits(client, 3) == [200, 200, 429]


def test_a_refused_request_is_counted_in_no_window(clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("1/1,3/100"))
    hits(client, 20)
    clock.seconds = 1
    hits(client, 20)
    clock.seconds = 2

    assert hits(client, 2) == [200, 429]
    assert client.get("/stats").json["windows"][1]["max_seen"] == 3


def test_callers_are_told_apart_by_key_and_else_by_address(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(1, 10),))

    assert hits(client, 2) == [200, 429]
    assert hits(client, 2, Authorization="Bearer a") == [200, 429]
    assert hits(client, 2, Authorization="Bearer b") == [200, 429]
    assert hits(client, 2, **{"X-Api-Key": "a"}) == [200, 429]
    assert client.get("/api/items/1", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 200


def test_made_up_keys_cannot_fill_the_memory(clock: MovedClock) -> None:
    windows = Limiter((Window(1, 10),), clock)
    for number in range(MAX_CALLERS):
        windows.admit(f"key {number}")

    # Given a full table, newcomers share one count.
    assert [windows.admit("new").accepted, windows.admit("newer").accepted] == [True, False]

    # When all windows are over, there is room again.
    clock.seconds = 10
    assert [windows.admit("new").accepted, windows.admit("newer").accepted] == [True, True]


def test_the_headers_speak_of_the_tightest_window(clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("2/1,3/10"))
    clock.seconds = 0.25

    def stated() -> tuple[str, ...]:
        headers = client.get("/api/items/1").headers
        return tuple(headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset"))

    assert stated() == ("2", "1", str(EPOCH + 2))
    clock.seconds = 1.25
    # Both have one left now: the one that ends later decides.
    assert stated() == ("3", "1", str(EPOCH + 11))
    assert stated() == ("3", "0", str(EPOCH + 11))


def test_a_429_says_when_to_come_back_and_coming_back_then_works(clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("1/2.5"))
    clock.seconds = 0.1
    hits(client, 1)
    clock.seconds = 0.3
    refused = client.get("/api/items")

    assert refused.status_code == 429
    assert refused.json == {"message": "Too Many Requests", "retry_after": 3}
    assert refused.headers["Retry-After"] == "3"
    assert (refused.headers["X-RateLimit-Remaining"], refused.headers["X-RateLimit-Reset"]) == (
        "0",
        str(EPOCH + 3),
    )
    clock.seconds += 3
    assert hits(client, 1) == [200]


def test_retry_after_is_at_least_one_second_and_no_rounding_makes_it_longer(clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("1/20"))
    clock.seconds = 1000.1
    hits(client, 1)
    assert client.get("/api/items").headers["Retry-After"] == "20"

    clock.seconds += 19.999
    assert client.get("/api/items").headers["Retry-After"] == "1"


@pytest.mark.parametrize("path", ["/api/items", "/api/items?page=x", "/api/items/999999", "/api/nothing"])
def test_every_answer_below_api_is_counted_and_carries_the_headers(path: str, clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(1, 10),))

    assert client.get(path).headers["X-RateLimit-Remaining"] == "0"
    assert client.get(path).status_code == 429


def test_health_and_stats_are_never_limited(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(1, 10),), faults=(Fault("500", 1),), latency_seconds=5)

    answers = [client.get(path) for path in ("/health", "/stats") * 5]

    assert {answer.status_code for answer in answers} == {200}
    assert not any("X-RateLimit-Limit" in answer.headers for answer in answers)
    assert clock.slept == []


def test_without_limits_nothing_is_refused_and_no_headers_are_sent(clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("none"))

    assert set(hits(client, 3000)) == {200}
    assert "X-RateLimit-Limit" not in client.get("/api/items").headers
    assert client.get("/stats").json["windows"] == []


# The algorithms

#: Each algorithm's twin, written without a look at it: (requests, window in us) -> a server in microseconds since 1970.
TWINS = {
    "windows": ({"algorithm": "windows"}, servers.FirstHitWindows),
    "fixed": ({"algorithm": "fixed"}, servers.FixedWindows),
    "log": ({"algorithm": "log"}, servers.SlidingLog),
    "log, refused counted": ({"algorithm": "log", "recount_rejected": True}, servers.CountsRejected),
    "token-bucket": ({"algorithm": "token-bucket"}, servers.TokenBucket),
    "gcra": ({"algorithm": "gcra"}, servers.Gcra),
    "gcra, burst 2": (
        {"algorithm": "gcra", "burst": 2},
        lambda requests, window_us: servers.SmallBurstGcra(requests, window_us, 2),
    ),
    "counter": ({"algorithm": "counter"}, servers.SlidingCounter),
}

GAPS = st.lists(st.sampled_from([0, 0, 0, 1, 7, 100, 333, 1000, 2500, 9999]), max_size=40)


def test_every_algorithm_has_a_twin() -> None:
    assert {settings["algorithm"] for settings, _ in TWINS.values()} == set(ALGORITHMS)


@pytest.mark.parametrize("name", TWINS)
@PROPERTY
@given(requests=st.integers(2, 6), window_ms=st.integers(1, 7000), gaps_ms=GAPS)
def test_an_algorithm_and_its_twin_agree_on_every_request(
    name: str, requests: int, window_ms: int, gaps_ms: list[int]
) -> None:
    clock, (how, twin_of) = MovedClock(), TWINS[name]
    limiter, twin = Limiter((Window(requests, window_ms / 1000),), clock, **how), twin_of(requests, window_ms * 1000)

    for now_ms in accumulate(gaps_ms):
        clock.seconds = now_ms / 1000
        verdict = limiter.admit("another")

        instant_us = EPOCH * 1_000_000 + now_ms * 1000
        assert verdict.accepted == twin.accepts(instant_us)
        assert verdict.readings[0].remaining == twin.remaining(instant_us)


@dataclass
class NanosecondWindow:
    limit: int
    length_ns: int


@pytest.mark.parametrize("name", TWINS)
@PROPERTY
@given(requests=st.integers(2, 6), length=st.integers(1, 40), gaps=st.lists(st.integers(0, 15), max_size=40))
def test_retry_and_reset_are_exact_to_the_nanosecond(name: str, requests: int, length: int, gaps: list[int]) -> None:
    # Given a count after any requests, with windows so short that every nanosecond can be tried
    how, _ = TWINS[name]
    count = count_in(NanosecondWindow(requests, length), how["algorithm"], how.get("burst"))
    now = EPOCH * 1_000_000_000
    for gap in gaps:
        now += gap
        if count.remaining(now) or how.get("recount_rejected"):
            count.take(now)

    retry, reset = count.retry_ns(now), count.reset_ns(now)

    assert [deepcopy(count).remaining(now + after) > 0 for after in range(retry + 1)] == [False] * retry + [True]
    assert deepcopy(count).remaining(now + reset) == count.capacity
    # An unused window can end later than it is free.
    assert count.remaining(now) == count.capacity or deepcopy(count).remaining(now + reset - 1) < count.capacity


@pytest.mark.parametrize("name", TWINS)
@PROPERTY
@given(gaps_ms=GAPS)
def test_whoever_waits_as_long_as_retry_after_says_gets_in(name: str, gaps_ms: list[int]) -> None:
    clock, (how, _) = MovedClock(), TWINS[name]
    limiter = Limiter(parse_limits("3/1.5,5/7"), clock, **how)

    for gap_ms in gaps_ms:
        clock.seconds += gap_ms / 1000
        verdict = limiter.admit("another")
        if not verdict.accepted:
            clock.seconds += verdict.retry_after_seconds
            assert limiter.admit("another").accepted


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        ({"algorithm": "windows"}, {9: "yn", 10: "n", 19: "yn", 20: "n"}),
        ({"algorithm": "fixed"}, {9: "yn", 10: "yn", 19: "n", 20: "y"}),
        ({"algorithm": "log"}, {9: "yn", 10: "n", 18.999: "n", 19: "yn"}),
        ({"algorithm": "log", "recount_rejected": True}, {9: "yn", 18: "n", 27: "n", 37: "yn"}),
        ({"algorithm": "counter"}, {9: "yn", 10: "n", 19.999: "n", 20: "y"}),
    ],
)
def test_one_request_in_ten_seconds_is_counted_as_the_algorithm_says(
    options: dict[str, Any], answers: dict[float, str], clock: MovedClock
) -> None:
    client = client_of(clock, limits=(Window(1, 10),), **options)

    assert answered(client, clock, answers) == answers


@pytest.mark.parametrize(
    ("options", "answers"),
    [
        ({"algorithm": "token-bucket"}, {0: "yyyyn", 2.499: "n", 2.5: "yn", 100: "yyyyn"}),
        ({"algorithm": "gcra"}, {0: "yyyyn", 2.499: "n", 2.5: "yn", 100: "yyyyn"}),
        ({"algorithm": "gcra", "burst": 1}, {0: "yn", 2.499: "n", 2.5: "yn", 100: "yn"}),
        # At 10 s the last window's four count whole, at 12.5 s three of them do, at 15 s two.
        ({"algorithm": "counter"}, {5: "yyyyn", 10: "n", 12.499: "n", 12.5: "yn", 15: "yn", 20: "yyn"}),
    ],
)
def test_four_requests_in_ten_seconds_are_counted_as_the_algorithm_says(
    options: dict[str, Any], answers: dict[float, str], clock: MovedClock
) -> None:
    client = client_of(clock, limits=(Window(4, 10),), **options)

    assert answered(client, clock, answers) == answers


def answered(client: FlaskClient, clock: MovedClock, asked: dict[float, str]) -> dict[float, str]:
    found = {}
    for seconds, letters in asked.items():
        clock.seconds = seconds
        found[seconds] = "".join("y" if status == 200 else "n" for status in hits(client, len(letters)))
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_request_that_one_window_refuses_is_counted_by_none(algorithm: str, clock: MovedClock) -> None:
    client = client_of(clock, limits=parse_limits("1/1,3/100"), algorithm=algorithm)
    for _ in range(3):
        hits(client, 20)
        # Two lengths, so that the counter has forgotten too
        clock.seconds += 2

    windows = client.get("/stats").json["windows"]
    assert [window["max_seen"] for window in windows] == [1, 3]
    assert client.get("/stats").json["accepted"] == 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stats_tell_the_same_of_every_algorithm(algorithm: str, clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(2, 10),), algorithm=algorithm)
    hits(client, 3)
    clock.seconds = 0.5
    client.get("/api/items?page=2")

    stats = client.get("/stats").json
    assert (stats["requests"], stats["accepted"], stats["rejected"]) == (4, 2, 2)
    assert (stats["items"], stats["pages"], stats["span_seconds"]) == ({"1": 2}, {}, 0)
    assert stats["windows"] == [{"limit": 2, "seconds": 10, "max_seen": 2, "max_in_any_window": 2}]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_with_every_algorithm_a_full_table_of_callers_gets_room_again(algorithm: str, clock: MovedClock) -> None:
    limiter = Limiter((Window(1, 10),), clock, algorithm)
    for number in range(MAX_CALLERS):
        limiter.admit(f"key {number}")
    assert [limiter.admit("new").accepted, limiter.admit("newer").accepted] == [True, False]

    clock.seconds = 20
    assert [limiter.admit("new").accepted, limiter.admit("newer").accepted] == [True, True]


def test_a_date_that_is_set_moves_no_window(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(1, 10),), algorithm="fixed")
    clock.seconds = 1
    hits(client, 1)

    # When the machine's date is set
    clock.epoch_ns = lambda: (EPOCH + 7200) * 1_000_000_000

    assert hits(client, 1) == [429]


# The headers


@pytest.mark.parametrize(
    ("options", "stated"),
    [
        ({}, {"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": str(EPOCH + 3)}),
        (
            {"headers": "ratelimit"},
            {
                "RateLimit-Policy": '"3-per-2.5s";q=3;w=3, "9-per-100s";q=9;w=100',
                "RateLimit": '"3-per-2.5s";r=1;t=3, "9-per-100s";r=7;t=100',
            },
        ),
        (
            {"headers": "ratelimit-07"},
            {"RateLimit-Policy": "3;w=3, 9;w=100", "RateLimit": "limit=3, remaining=1, reset=3"},
        ),
        ({"headers": "shopify"}, {"X-Shopify-Shop-Api-Call-Limit": "2/3"}),
        ({"headers": "none"}, {}),
        # A burst is what the remaining is measured against; the policy states the limit.
        (
            {"headers": "ratelimit-07", "algorithm": "gcra", "burst": 2},
            {"RateLimit-Policy": "3;w=3, 9;w=100", "RateLimit": "limit=2, remaining=0, reset=23"},
        ),
    ],
)
def test_the_second_answer_tells_the_limits_in_the_style_asked_for(
    options: dict[str, Any], stated: dict[str, str], clock: MovedClock
) -> None:
    client = client_of(clock, limits=parse_limits("3/2.5,9/100"), **options)
    hits(client, 1)

    headers = client.get("/api/items/1").headers

    assert {name: value for name, value in headers.items() if "Limit" in name} == stated


@pytest.mark.parametrize("style", STYLES)
def test_a_429_says_retry_after_in_every_style(style: str, clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(1, 10),), headers=style)
    hits(client, 1)

    assert client.get("/api/items/1").headers["Retry-After"] == "10"


@pytest.mark.parametrize("style", STYLES)
def test_without_limits_no_style_has_headers(style: str) -> None:
    headers = client_of(limits=(), headers=style).get("/api/items/1").headers

    assert not any("Limit" in name for name, _ in headers)


# What it counts


def test_stats_tell_what_was_asked(clock: MovedClock) -> None:
    client = client_of(clock, items=30, limits=(Window(8, 10),))
    clock.seconds = 1.5
    client.get("/api/items")
    client.get("/api/items?page=2")
    client.get("/api/items?page=99")
    client.get("/api/items/5")
    client.get("/api/items/5")
    client.put("/api/items/6", json={"price": 1})
    client.get("/api/items/31")
    clock.seconds = 4.0
    client.get("/api/items?page=x")
    client.get("/api/items/7")

    assert client.get("/stats").json == {
        "requests": 9,
        "accepted": 8,
        "rejected": 1,
        "statuses": {"200": 6, "404": 1, "422": 1, "429": 1},
        "faults": {},
        "first_request_at": EPOCH + 1.5,
        "last_request_at": EPOCH + 4.0,
        "first_request_seconds": 1.5,
        "last_request_seconds": 4.0,
        "span_seconds": 2.5,
        "pages": {"1": 1, "2": 1},
        "pages_beyond_last": 1,
        "items": {"5": 2},
        "puts": {"6": 1},
        "unknown_items": 1,
        "windows": [{"limit": 8, "seconds": 10, "max_seen": 8, "max_in_any_window": 8}],
    }


def test_the_sliding_maximum_sees_the_burst_around_a_fixed_edge(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(5, 10),))
    hits(client, 1)
    clock.seconds = 9.5
    hits(client, 9)
    clock.seconds = 10
    hits(client, 9)

    # Given 4 at 9.5 s and 5 at 10 s; the hit at 0 s is exactly one length away, and so outside.
    assert client.get("/stats").json["windows"] == [{"limit": 5, "seconds": 10, "max_seen": 5, "max_in_any_window": 9}]


def test_a_reset_clears_the_counts_and_the_windows_but_only_from_this_machine(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(1, 10),))
    hits(client, 3)
    assert client.post("/stats/reset", environ_base={"REMOTE_ADDR": "10.0.0.9"}).status_code == 403
    assert client.get("/stats").json["requests"] == 3

    assert client.post("/stats/reset").status_code == 200

    empty = client.get("/stats").json
    assert (empty["requests"], empty["statuses"], empty["items"], empty["first_request_at"]) == (
        0,
        {},
        {},
        None,
    )
    assert empty["windows"][0]["max_seen"] == empty["windows"][0]["max_in_any_window"] == 0
    assert hits(client, 2) == [200, 429]


# Delays


def test_a_delay_is_spent_partly_before_the_count_and_partly_before_the_answer(clock: MovedClock) -> None:
    client = client_of(clock, latency_seconds=2, jitter_seconds=1)
    hits(client, 1)

    before, after = clock.slept
    assert before > 0 and after > 0 and 2 <= before + after <= 3
    assert client.get("/stats").json["first_request_seconds"] == pytest.approx(before)


def test_delays_fill_their_range_and_repeat_with_their_seed() -> None:
    draws, again = ([delays.draw() for _ in range(500)] for delays in (Delays(1, 2, 5), Delays(1, 2, 5)))
    totals = [delay.before_count_seconds + delay.before_answer_seconds for delay in draws]

    assert draws == again
    assert 1 <= min(totals) < 1.1 and 2.9 < max(totals) <= 3
    assert min(delay.before_count_seconds for delay in draws) < 0.1
    assert min(delay.before_answer_seconds for delay in draws) < 0.1


# Faults


@pytest.mark.parametrize(("kind", "status"), [("500", 500), ("503", 503)])
def test_an_error_fault_answers_json_with_the_limit_headers_and_no_retry_after(kind: str, status: int) -> None:
    answer = client_of(faults=(Fault(kind, 1),)).get("/api/items/1")

    assert answer.status_code == status
    assert "message" in answer.json
    assert "Retry-After" not in answer.headers
    assert answer.headers["X-RateLimit-Remaining"] == "499"


def test_malformed_is_200_with_json_that_does_not_parse() -> None:
    for path in ("/api/items", "/api/items/1", "/api/items/999999"):
        answer = client_of(faults=(Fault("malformed", 1),)).get(path)

        assert (answer.status_code, answer.mimetype) == (200, "application/json")
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            json.loads(answer.data)


def test_html_is_200_with_a_page_for_people() -> None:
    answer = client_of(faults=(Fault("html", 1),)).get("/api/items")

    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert b"<h1>" in answer.data


def test_a_fault_spoils_the_answer_but_the_request_was_carried_out_and_counted(clock: MovedClock) -> None:
    client = client_of(clock, limits=(Window(2, 10),), faults=(Fault("500", 1),))

    statuses = [client.put("/api/items/1", json={"price": 1}).status_code for _ in range(3)]

    # A refused request meets no fault.
    assert statuses == [500, 500, 429]
    stats = client.get("/stats").json
    assert (stats["puts"], stats["faults"], stats["statuses"]) == ({"1": 2}, {"500": 2}, {"500": 2, "429": 1})


def test_a_seed_decides_the_faults_and_their_share_is_as_asked() -> None:
    def statuses(seed: int) -> list[int]:
        return hits(client_of(limits=(), seed=seed, faults=parse_faults("500:0.2", "503:0.1")), 1000)

    first = statuses(1)

    assert first == statuses(1) != statuses(2)
    assert 150 < first.count(500) < 250
    assert 65 < first.count(503) < 135


def parse_faults(*texts: str) -> tuple[Fault, ...]:
    return tuple(map(parse_fault, texts))


def test_timeout_sends_the_right_answer_late(clock: MovedClock) -> None:
    client = client_of(clock, faults=(Fault("timeout", 1),), timeout_seconds=30)

    assert client.get("/api/items/3").json["id"] == 3
    assert sum(clock.slept) == pytest.approx(30, abs=0.3)


def test_reset_breaks_the_connection_in_the_middle_of_the_answer() -> None:
    with serve_in_thread(MockConfig(faults=(Fault("reset", 1),))) as server:
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            requests.get(f"{server.url}/api/items", timeout=5)

        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(b"GET /api/items HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                while raw.recv(65536):
                    pass

        assert requests.get(f"{server.url}/stats", timeout=5).json()["faults"] == {"reset": 2}


def test_a_caller_who_hangs_up_frees_the_thread_that_held_its_answer() -> None:
    config = MockConfig(threads=1, faults=(Fault("timeout", 1),), timeout_seconds=60)
    with serve_in_thread(config) as server:
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{server.url}/api/items", timeout=0.2)

        assert requests.get(f"{server.url}/stats", timeout=5).json()["faults"] == {"timeout": 1}


def test_a_request_whose_caller_hung_up_is_counted_all_the_same() -> None:
    with serve_in_thread(MockConfig(latency_seconds=0.6)) as server:
        with pytest.raises(requests.ReadTimeout):
            requests.get(f"{server.url}/api/items/1", timeout=0.1)

        assert eventually(lambda: requests.get(f"{server.url}/stats", timeout=5).json()["items"] == {"1": 1})


# The server


def test_32_threads_at_a_limit_of_50_get_exactly_50_through() -> None:
    with serve_in_thread(MockConfig(limits=parse_limits("50/20"), jitter_seconds=0.01)) as server:

        def ask(_: int) -> list[int]:
            with requests.Session() as session:
                return [session.get(f"{server.url}/api/items/1", timeout=10).status_code for _ in range(5)]

        with ThreadPoolExecutor(32) as pool:
            statuses = [status for answers in pool.map(ask, range(32)) for status in answers]
        stats = requests.get(f"{server.url}/stats", timeout=5).json()

    assert (statuses.count(200), statuses.count(429)) == (50, 110)
    assert (stats["requests"], stats["accepted"], stats["items"]) == (160, 50, {"1": 50})
    assert stats["windows"] == [{"limit": 50, "seconds": 20.0, "max_seen": 50, "max_in_any_window": 50}]


def test_a_real_window_reopens_after_its_seconds() -> None:
    with serve_in_thread(MockConfig(limits=parse_limits("2/0.5"))) as server, requests.Session() as session:

        def statuses(times: int) -> list[int]:
            return [session.get(f"{server.url}/api/items/1", timeout=5).status_code for _ in range(times)]

        assert statuses(3) == [200, 200, 429]
        time.sleep(0.5)
        assert statuses(3) == [200, 200, 429]


def test_connections_are_kept_alive_through_answers_errors_and_refusals() -> None:
    with (
        serve_in_thread(MockConfig(limits=parse_limits("3/20"))) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw,
        raw.makefile("rb") as reader,
    ):
        statuses = []
        for path in ("/api/items", "/api/items/1", "/api/items/0", "/api/items", "/health"):
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            statuses.append(read_status(reader))

    assert statuses == [200, 200, 404, 429, 200]


def read_status(reader: Any) -> int:
    head = b"".join(iter(reader.readline, b"\r\n")).decode()
    reader.read(int(re.search(r"Content-Length: (\d+)", head)[1]))
    return int(head.split()[1])


def test_stop_frees_the_port_ends_the_threads_and_cuts_every_sleep() -> None:
    before = set(threading.enumerate())
    config = MockConfig(latency_seconds=60, faults=(Fault("timeout", 0.5),))
    server = serve_in_thread(config)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask_quietly, f"{server.url}/api/items") for _ in range(8)]
        time.sleep(0.3)
        started = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - started < 2
        assert all(answer.result(timeout=5) is None for answer in answers)

    assert eventually(lambda: set(threading.enumerate()) <= before)
    with serve_in_thread(MockConfig(port=server.port)) as again:
        assert requests.get(f"{again.url}/health", timeout=5).status_code == 200


def ask_quietly(url: str) -> None:
    with contextlib.suppress(requests.RequestException):
        requests.get(url, timeout=10)


def eventually(is_so: Any, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(is_so())


def test_two_servers_stand_side_by_side_and_share_nothing() -> None:
    with serve_in_thread(MockConfig(items=1)) as one, serve_in_thread(MockConfig(items=2)) as two:
        totals = [requests.get(f"{server.url}/api/items", timeout=5).json()["total"] for server in (one, two)]

    assert totals == [1, 2]


# Settings and the command line


@pytest.mark.parametrize(
    "settings",
    [
        {"items": -1},
        {"port": 65536},
        {"threads": 0},
        {"latency_seconds": -0.1},
        {"jitter_seconds": float("nan")},
        {"timeout_seconds": float("inf")},
        {"faults": (Fault("500", 0.6), Fault("503", 0.6))},
        {"algorithm": "gcra", "burst": 0},
        {"algorithm": "gcra", "burst": 501},
        {"faults": (Fault("500", 0.1), Fault("500", 0.1))},
    ],
)
def test_a_setting_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give a number|lower them|once"):
        MockConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "leaky"},
        {"headers": "github"},
        {"burst": 5},
        {"recount_rejected": True},
        {"algorithm": "gcra", "recount_rejected": True},
    ],
)
def test_a_choice_that_does_not_exist_or_fit_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"choose"):
        MockConfig(**settings)


def test_limits_and_faults_are_read_as_the_command_line_writes_them() -> None:
    assert parse_limits("50/2,200/10") == (Window(50, 2), Window(200, 10))
    assert parse_limits(" 5/0.5 ") == (Window(5, 0.5),)
    assert parse_limits("none") == ()
    assert parse_fault("reset:0.25") == Fault("reset", 0.25)


@pytest.mark.parametrize("text", ["", "50", "50/", "/2", "0/2", "50/0", "-5/2", "50/2,", "50/nan", "5 0/2", "٣/2"])
def test_a_bad_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write REQUESTS/SECONDS|give"):
        parse_limits(text)


@pytest.mark.parametrize("text", ["", "500", "500:", "500:x", "500:1.1", "500:-1", "500:nan", "418:0.5"])
def test_a_bad_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write KIND:PROBABILITY|give 0 to 1|choose from"):
        parse_fault(text)


def test_the_mock_imports_nothing_of_the_importer() -> None:
    code = "import mock_server.__main__, sys; print({'workers', 'models', 'sources'} & set(sys.modules))"

    assert run("-c", code).stdout == "set()\n"


def test_the_public_names_are_frozen() -> None:
    assert sorted(mock_server.__all__) == [
        "Clock",
        "Fault",
        "MockConfig",
        "RunningServer",
        "Window",
        "create_app",
        "parse_fault",
        "parse_limits",
        "serve_in_thread",
    ]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


@contextlib.contextmanager
def started(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mock_server", "--port", "0", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_is_and_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    with started("--latency", "30") as process:
        greeting = process.stdout.readline()
        found = re.fullmatch(
            r"mock API: (http://127\.0\.0\.1:\d+)/api/items \(1,000 items; 500/20 s, 2000/100 s\)\n", greeting
        )
        assert found, greeting
        # Given a request that is being held
        asking = threading.Thread(target=ask_quietly, args=(f"{found[1]}/api/items",))
        asking.start()
        time.sleep(0.2)

        signalled = time.monotonic()
        process.send_signal(number)

        assert process.wait(timeout=5) == 0
        assert time.monotonic() - signalled < 2
        assert process.stderr.read() == ""
        asking.join()


def test_the_command_counts_and_tells_as_its_options_say() -> None:
    options = ("--limits", "500/20", "--algorithm", "gcra", "--burst", "10", "--headers", "ratelimit")
    with started(*options) as process:
        greeting = process.stdout.readline()
        url = re.search(r"(http://\S+) \(1,000 items; 500/20 s; gcra\)\n", greeting)[1]

        headers = requests.get(url, timeout=5).headers

    assert headers["RateLimit"] == '"500-per-20s";r=9;t=1'


def test_a_port_in_use_is_one_sentence_with_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(MockConfig()) as server:
        monkeypatch.setenv("SLUICE_MOCK_PORT", str(server.port))  # which is the default of --port
        done = run("-m", "mock_server")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {server.port} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limits", "fast"], "write REQUESTS/SECONDS"),
        (["--fault", "500:2"], "give 0 to 1"),
        (["--items", "-1"], "items is -1"),
        (["--algorithm", "leaky"], "'leaky' is not one of 'windows', 'fixed', 'log'"),
        (["--headers", "github"], "'github' is not one of 'x-ratelimit', 'ratelimit'"),
        (["--burst", "5"], "burst is for the algorithm gcra"),
        (["--algorithm", "gcra", "--burst", "501"], "burst is 501: give a number from 1 to 500"),
        (["--recount-rejected"], "recount-rejected is for the algorithm log"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
def test_a_bad_option_is_refused_with_the_repair(options: list[str], words: str) -> None:
    done = run("-m", "mock_server", *options)

    assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (2, True, False)


def test_help_teaches() -> None:
    text = run("-m", "mock_server", "--help").stdout

    for word in (
        "--limits 50/2,200/10",
        "curl",
        "Retry-After",
        "malformed",
        "--timeout-seconds",
        "token-bucket",
        "shopify",
    ):
        assert word in text
