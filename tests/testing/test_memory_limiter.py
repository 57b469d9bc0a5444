"""The limiter in memory keeps the rule of the real one: no server that enforces its limits refuses a request."""

import threading

import pytest

from tests.helpers.limiter_traffic import Traffic
from tests.helpers.limiters import SECOND
from tests.helpers.reference_servers import FixedWindows, SlidingLog
from workers import Budget, ConfigurationError, Limit, RateLimited, clock, testing
from workers.errors import Refused

LIMITS = (Limit(5, seconds=2), Limit(20, seconds=10))


def limiter(*limits: Limit, **options: float) -> testing.MemoryLimiter:
    return testing.MemoryLimiter(Budget("api", limits or LIMITS), **({"max_wait_seconds": 0.0} | options))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [SlidingLog, FixedWindows])
def test_a_server_that_enforces_its_limits_refuses_nothing(moved_clock, kind, seed):
    # Given requests that are counted anywhere between their sending and the end of their linger
    servers = [kind(limit.requests, round(limit.seconds * SECOND)) for limit in LIMITS]
    traffic = Traffic(
        limiter(), servers, requests=80, latency_us=SECOND, straggles=0.2, never_answered=0.1, heaviest=3, seed=seed
    )

    # When callers send as fast as they get permits
    traffic.go()

    # Then
    assert (len(traffic.sent), traffic.refused) == (80, 0)


def test_permits_are_granted_up_to_the_limit_and_again_one_window_after_the_response(moved_clock):
    three = limiter(Limit(3, seconds=10))
    client = three.permit_client()
    permits = [client.acquire(5.0) for _ in range(3)]
    moved_clock.advance(2)
    for permit in permits:
        client.answered(permit)

    with pytest.raises(RateLimited) as closed:
        client.acquire(5.0)
    moved_clock.advance(closed.value.wait_seconds)

    assert closed.value.wait_seconds == pytest.approx(10, rel=0.01)
    assert client.acquire(5.0).fresh


def test_a_short_wait_is_slept(moved_clock):
    one = limiter(Limit(1, seconds=1), max_wait_seconds=5.0)
    for _ in range(3):
        with one.permit():
            pass

    assert moved_clock.elapsed_seconds == pytest.approx(2, rel=0.01)


def test_a_refusal_pauses_the_budget_for_as_long_as_the_api_asks(moved_clock):
    many = limiter(Limit(100, seconds=1))
    client = many.permit_client()

    with pytest.raises(Refused) as refused:
        client.report(client.acquire(5.0), 429, {"Retry-After": "30"})
    with pytest.raises(RateLimited, match="paused"):
        client.acquire(5.0)

    state = many.snapshot()
    assert refused.value.wait_seconds == state.paused_for_seconds == pytest.approx(30, abs=1.1)
    assert (state.granted, state.hits, client.usage.hits) == (1, 1, 1)


def test_a_request_that_was_not_sent_does_not_count_and_one_without_a_response_counts_until_its_deadline(moved_clock):
    one = limiter(Limit(1, seconds=1), linger_seconds=3.0)
    client = one.permit_client()
    client.unsent(client.acquire(5.0))
    client.acquire(5.0)

    moved_clock.advance(9.9)
    with pytest.raises(RateLimited):
        client.acquire(5.0)
    moved_clock.advance(0.2)

    assert client.acquire(5.0)
    assert one.snapshot().in_flight == 1


def test_a_weight_above_the_limit_is_refused(moved_clock):
    with pytest.raises(ConfigurationError):
        limiter().permit_client().acquire(5.0, weight=6)


def test_threads_together_get_no_more_than_the_limit():
    fifty = limiter(Limit(50, seconds=60))
    granted: list[int] = []

    def take() -> None:
        client = fifty.permit_client()
        for _ in range(20):
            try:
                client.acquire(5.0)
            except RateLimited:
                return
            granted.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(granted) == 50
    assert isinstance(clock.current(), clock.Clock)
