"""Invalid numbers for the limiter are refused before Redis is asked, and refused again by the script."""

import struct
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers.limiters import SECOND, beside, granted, limiter_on, move_to, notes, refusal, use
from workers import Budget, ConfigurationError, Connector, Limit, RateLimiter, clock
from workers.limiter.redis_ledger import _SCRIPT

NAN, INF = float("nan"), float("inf")
TEN = Limit(10, seconds=20)


class Silent(redis.Redis):
    """A client that must not be asked."""

    def execute_command(self, *arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"Redis was asked: {arguments[0]}")


WEIGHTS = [-1, 0, 1.5, 1.0, NAN, INF, "2", "", None, True, False, 11, 2**63, Decimal(2), Fraction(1, 2), [1], b"1"]


@pytest.mark.parametrize("weight", WEIGHTS, ids=repr)
def test_a_weight_that_cannot_be_is_refused_before_redis_is_asked(moved_clock, weight):
    limiter = limiter_on(Silent(), TEN)

    with pytest.raises(ConfigurationError, match="weigh"):
        limiter.permit_client().acquire(5.0, weight)
    with pytest.raises(ConfigurationError, match="weigh"), limiter.permit(weight=weight):
        raise AssertionError


def test_a_weight_above_our_share_of_a_limit_is_refused_and_one_of_it_is_not(new):
    limiter = new(TEN, Limit(100, seconds=60), share=0.8)

    with pytest.raises(ConfigurationError, match="weighs more than the limit of 8: 9"):
        limiter.permit_client().acquire(5.0, 9)
    limiter.permit_client().acquire(5.0, 8)


TIMEOUTS = ["10", (3, 10), INF, NAN, 0, -1, True, b"10", [10], 86_401, 0.0, 10**400]


@pytest.mark.parametrize("timeout", [*TIMEOUTS, None], ids=repr)
def test_a_timeout_that_cannot_be_is_refused_before_redis_is_asked(moved_clock, timeout):
    limiter = limiter_on(Silent(), TEN)

    for ask in (limiter.permit_client().acquire, limiter.permit_client().reserve):
        with pytest.raises(ConfigurationError, match=r"timeout_seconds must be a number, .*, like timeout_seconds=30"):
            ask(timeout)


@pytest.mark.parametrize("timeout", TIMEOUTS, ids=repr)
def test_a_connector_with_a_timeout_that_cannot_be_is_refused(timeout):
    with pytest.raises(ConfigurationError, match="Connector 'shop': timeout_seconds must be a number"):
        Connector("shop", base_url="http://127.0.0.1", limits=[TEN], timeout_seconds=timeout)


@pytest.mark.parametrize("timeout", [10, 0.5, 86_400])
def test_a_timeout_that_can_be_is_kept(timeout):
    connector = Connector("shop", base_url="http://127.0.0.1", limits=[TEN], timeout_seconds=timeout)
    assert connector.timeout_seconds == timeout


@pytest.mark.parametrize(
    ("requests", "seconds", "instead"),
    [
        (5_000_000, 86_400, "Write Limit(1000000, seconds=17280)"),
        (1_000_001, 10, "Write Limit(500000, seconds=5)"),
        (3_500_000, 86_400, "Write Limit(875000, seconds=21600)"),
    ],
)
def test_a_limit_above_a_million_says_what_to_write(requests, seconds, instead):
    with pytest.raises(ConfigurationError) as caught:
        Limit(requests, seconds=seconds)

    assert instead in str(caught.value)
    assert Limit(*eval(instead.removeprefix("Write Limit").replace("seconds=", "")))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda bad: Limit(bad, seconds=1),
        lambda bad: Limit(10, seconds=bad),
        lambda bad: Limit(10, seconds=1, granularity_seconds=bad),
        lambda bad: Limit(10, seconds=1, burst=bad),
        lambda bad: Budget("shop", [TEN], share=bad),
    ],
    ids=["requests", "seconds", "granularity", "burst", "share"],
)
@pytest.mark.parametrize("bad", ["2", None, True, NAN, INF, -1, [1], b"1", 10**400], ids=repr)
def test_a_limit_of_something_else_than_numbers_says_so(wrong, bad):
    with pytest.raises(ConfigurationError):
        wrong(bad)


@pytest.mark.parametrize("name", ["linger_seconds", "max_wait_seconds", "longest_pause_seconds"])
@pytest.mark.parametrize("bad", ["2", None, True, NAN, INF, -1, (3, 10), 1e300, 10**400], ids=repr)
def test_a_limiter_of_seconds_that_cannot_be_says_so(name, bad):
    with pytest.raises(ConfigurationError, match=f"{name} must be a number of seconds from 0 to"):
        RateLimiter(Budget("shop", [TEN]), Silent(), **{name: bad})


@pytest.mark.parametrize("name", ["", None, 5, "two words"], ids=repr)
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(ConfigurationError, match="name"):
        Budget(name, [TEN])


# --- the script itself ----------------------------------------------------------------------------------------------

FINE = {"share": 1.0, "profile": 0.0, "requests": 10.0, "us": 1e6, "seconds": 1.0, "burst": 0.0}
ASK = {"weight": 1.0, "ttl_us": 1e6, "patience_us": 0.0, "knock": 0.0}


def call(limiter: RateLimiter, changed: dict[str, float], age: str = "0", rare: str = "") -> Any:
    """Call the script as another client might."""
    its, ask = FINE | changed, ASK | changed
    stated = struct.pack(
        ">7d", its["share"], its["profile"], 0, its["requests"], its["us"], its["seconds"], its["burst"]
    )
    asked = struct.pack(">4d", *(ask[name] for name in ASK))
    keys = limiter.ledger.keys
    rest = [stated, "", rare, asked, "w", "", 1, "an-id", "another", age]
    return limiter.ledger.client.eval(_SCRIPT, len(keys), *keys, "1000000", "1", *rest)


@pytest.mark.parametrize(
    ("changed", "age", "rare"),
    [
        *[({"weight": weight}, "0", "") for weight in (-1, 0, 1.5, NAN, INF, 2e6)],
        *[({"ttl_us": ttl}, "0", "") for ttl in (-1, 0, 1.5, NAN, INF)],
        *[({"requests": requests}, "0", "") for requests in (0, -1, 1.5, NAN, INF, 2e6)],
        *[({"us": us}, "0", "") for us in (0, -1, NAN, INF)],
        *[({"share": share}, "0", "") for share in (0, -1, 1.5, NAN)],
        ({"profile": 7}, "0", ""),
        ({"burst": 1.5}, "0", ""),
        *[({}, age, "") for age in ("-1", "1.5", "nan", "inf", "x", "")],
        *[({}, "0", f'{{"pause": {{"id": "a", "us": {us}}}}}') for us in ("-1", "1.5", "NaN", "Infinity", "1e300")],
    ],
    ids=str,
)
def test_the_script_refuses_numbers_that_cannot_be_and_writes_nothing(new, changed, age, rare):
    # Given a budget that is used
    limiter = new(TEN)
    use(limiter.permit_client(), 3)
    before = {key: limiter.ledger.client.dump(key) for key in limiter.ledger.keys}

    # When it is asked in another way
    with pytest.raises(redis.ResponseError, match=r"^SLUICE .* cannot be: nothing was done"):
        call(limiter, changed, age, rare)

    # Then nothing has changed, and the budget still works
    assert {key: limiter.ledger.client.dump(key) for key in limiter.ledger.keys} == before
    assert granted(limiter) == 7


def test_what_the_script_refuses_is_not_delivered_again(new, monkeypatch):
    limiter = new(TEN)
    caller = limiter.permit_client()
    permit = caller.acquire(5.0)

    with pytest.raises(ConfigurationError, match="budget api: an age cannot be"):
        limiter.ledger.send({"done": [(permit.id, -1e300)]})

    use(limiter.permit_client())
    assert limiter.snapshot().granted == 2


# --- a budget that an old process has corrupted ---------------------------------------------------------------------

#: Where a number of the header stands.
AT = {"size": 3, "n": 4, "base": 5, "units": 6, "permits": 7, "last": 10, "latest": 11, "paused_until": 15, "hits": 29}


def set_number(limiter: RateLimiter, name: str, value: float) -> None:
    client, key = limiter.ledger.client, limiter.ledger.keys[0]
    stored = client.get(key)
    at = AT[name] * 8
    client.set(key, stored[:at] + struct.pack(">d", value) + stored[at + 8 :])


@pytest.mark.parametrize("who", ["a live process", "a new process"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("units", units) for units in (-1, 1.5, NAN, INF, -4294967290)],
        *[(name, value) for name in ("n", "size", "permits") for value in (-1, 4.5, NAN, INF)],
        *[(name, value) for name in ("last", "latest", "base", "paused_until", "hits") for value in (0.5, NAN, -INF)],
    ],
)
def test_a_budget_whose_numbers_cannot_be_is_made_anew_as_lost_state_is(new, name, value, who):
    # Given a budget with three requests that count, of which one number was corrupted
    limiter = new(TEN, linger_seconds=1.0)
    use(limiter.permit_client(), 3)
    set_number(limiter, name, value)
    process = limiter if who == "a live process" else beside(limiter, linger_seconds=1.0)

    # When it is asked
    wait = refusal(process.permit_client())

    # Then it opens late, but opens, and says what happened
    assert wait.reason == "api: window 10/20 s taken as full: its numbers cannot be"
    assert notes(process)[0] == "its numbers cannot be: its windows are taken as full"
    move_to(round((wait.wait_seconds + 0.001) * SECOND))
    assert wait.wait_seconds <= 7 + 20.02
    assert granted(process) == 10
    assert granted(beside(limiter)) == 10


def test_a_ring_in_disorder_is_noticed_by_the_next_process_that_comes(new):
    limiter = new(TEN)
    use(limiter.permit_client(), 3)
    ring = limiter.ledger.keys[1]
    limiter.ledger.client.setrange(ring, 16, struct.pack(">Q", 2**60))

    assert "its completions are in disorder" in refusal(beside(limiter).permit_client()).reason


@pytest.mark.parametrize("weight", [1.5, -1])
def test_a_budget_that_the_script_before_this_one_corrupted_heals(client, moved_clock, weight):
    """It took such weights: the first corrupted the budget for good, the second froze all of Redis."""
    limiter = limiter_on(client, TEN)
    use(limiter.permit_client(), 3)
    old = (Path(__file__).parent / "limiter_version_1.lua").read_text()
    keys, ledger = limiter.ledger.keys, limiter.ledger
    asked = struct.pack(">4d", weight, 1e6, 0, 0)
    with suppress(redis.ResponseError):
        stamp = str(round(clock.now().timestamp() * 1e6))
        client.eval(old, len(keys), *keys, stamp, "1", ledger._budget_argument, "", "", asked, "w", "", 1, "an-id")

    process = beside(limiter)
    wait = refusal(process.permit_client())

    assert "its numbers cannot be" in wait.reason
    move_to(round((wait.wait_seconds + 0.001) * SECOND))
    assert granted(process) == 10
