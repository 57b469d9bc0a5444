"""Profiles: paced for servers that refuse bursts, auto that learns it; shares, weights, several permits at a time."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.limiter_traffic import Traffic
from tests.helpers.limiters import (
    SECOND,
    ask,
    beside,
    fall_asleep,
    granted,
    hear,
    limiter_on,
    move_by,
    move_to,
    notes,
    now_us,
    refusal,
    use,
)
from tests.helpers.machine import wait_until
from tests.helpers.reference_servers import COUNTERS, KINDS, SMALL_BURST, WHOLE_SECONDS, SlidingCounter
from workers import ConfigurationError, Limit, RateLimiter, clock
from workers.connections.redis_client import redis_client
from workers.errors import RateLimited
from workers.limiter.permits import PermitClient
from workers.records.watermark import Watermark

PROPERTY = settings(
    max_examples=int(os.environ.get("SCENARIOS", "15")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
UNEXPLAINED = "the API refused a request though every window had room"


@pytest.fixture
def client_of_threads(redis_server: str, environment: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    with redis_client(redis_server) as client:
        yield client


def at_work(limiter: RateLimiter) -> tuple[str, float]:
    """The profile, and by how much windows are longer."""
    state = limiter.snapshot()
    return state.profile, state.widened_seconds


# --- burst and paced --------------------------------------------------------------------------------------------------


def test_burst_gives_the_whole_limit_at_once_and_again_when_it_has_aged(new):
    limiter = new(Limit(50, seconds=2), profile="burst")

    assert granted(limiter) == 50
    use(limiter.permit_client(), 50)
    assert granted(limiter) == 0
    move_to(2_002_000)
    assert granted(limiter) == 50
    assert (limiter.snapshot().profile, limiter.snapshot().profile_why) == ("burst", "")


@pytest.mark.parametrize(
    ("limit", "at_once", "in_flight", "interval_seconds"),
    [
        (Limit(1, seconds=10), 1, 1, 20.02),
        (Limit(2, seconds=10), 1, 1, 10.01),
        (Limit(5, seconds=10), 1, 1, 10.01 / 4),
        (Limit(9, seconds=10), 1, 1, 10.01 / 8),
        (Limit(10, seconds=10), 1, 1, 10.01 / 9),
        (Limit(50, seconds=10), 2, 5, 10.01 / 43),
        (Limit(2000, seconds=10), 40, 200, 10.01 / 1760),
        (Limit(50, seconds=10, burst=1), 1, 1, 10.01 / 49),
        (Limit(50, seconds=10, burst=2), 1, 1, 10.01 / 49),
        (Limit(50, seconds=10, burst=4), 2, 2, 10.01 / 46),
        (Limit(2000, seconds=10, burst=100), 40, 50, 10.01 / 1910),
    ],
    ids=lambda value: f"{value}, burst {value.burst}" if isinstance(value, Limit) else "",
)
def test_paced_keeps_a_rate_a_burst_and_few_in_flight(new, limit, at_once, in_flight, interval_seconds):
    # Given a budget that is paced, and callers whose requests are not answered
    limiter = new(limit, profile="paced")
    callers, permits = [limiter.permit_client() for _ in range(in_flight)], []

    # When they take what there is
    for number, caller in enumerate(callers):
        if number >= at_once:
            assert wait_as_told(caller, 500.0) == pytest.approx(interval_seconds, abs=1e-4)
        permits.append(caller.acquire(500.0))

    # Then it is a burst at once, the others at the steady rate, and no more are out at a time
    move_by(100 * SECOND)
    assert refusal(limiter.permit_client()).reason in ("api: paced", f"api: window {limit} full")
    assert limiter.snapshot().in_flight == in_flight

    # And when each is answered at once, one comes after the other at that rate
    for caller, permit in zip(callers, permits, strict=True):
        caller.answered(permit)
        caller.flush()
    move_by(100 * SECOND)
    use(limiter.permit_client(), at_once)
    for _ in range(5):
        assert wait_as_told(callers[0], 5.0) == pytest.approx(interval_seconds, abs=1e-4)
        use(callers[0])


def wait_as_told(caller: PermitClient, timeout_seconds: float) -> float:
    """Wait until a permit is to be had; the seconds that took."""
    began = now_us()
    while True:
        move_by(max(1, round(refusal(caller, timeout_seconds).wait_seconds * SECOND)))
        with suppress(RateLimited):
            caller.reserve(timeout_seconds)
            return (now_us() - began) / SECOND


ALL_KINDS = KINDS | COUNTERS | SMALL_BURST
BURST_OF = {
    "GCRA, burst 1": lambda limit: 1,
    "GCRA, burst 4": lambda limit: min(4, limit),
    "GCRA, burst a tenth": lambda limit: max(1, limit // 10),
}


@PROPERTY
@given(
    kind=st.sampled_from(sorted(ALL_KINDS)),
    stated=st.builds(
        lambda limit, seconds, longer: [(limit, seconds), (limit * 2 + 1, seconds * 3)][: 1 + longer],
        st.one_of(st.integers(1, 12), st.sampled_from([20, 50, 99])),
        st.sampled_from([1.0, 2.0, 20.0]),
        st.booleans(),
    ),
    shape=st.fixed_dictionaries(
        {
            "callers": st.integers(1, 12),
            "requests": st.integers(5, 80),
            "latency_us": st.sampled_from([0, 5_000, 300_000, 2 * SECOND]),
            "straggles": st.sampled_from([0.0, 0.1, 0.5]),
            "never_answered": st.sampled_from([0.0, 0.05]),
            "seed": st.integers(0, 2**32),
        }
    ),
)
def test_no_server_of_any_kind_refuses_a_paced_fleet(client, kind, stated, shape):
    # Given a fleet that is paced, and an API that estimates, takes little at once, or counts as others do
    clock.use(clock.MovedClock())
    limits = [Limit(n, length, burst=BURST_OF.get(kind, lambda limit: 0)(n)) for n, length in stated]
    limiter = limiter_on(client, *limits, profile="paced")
    servers = [ALL_KINDS[kind](n, round(length * SECOND)) for n, length in stated]

    # When it sends as fast as it may
    traffic = Traffic(limiter, servers, **shape).go()

    # Then nothing is refused
    assert traffic.refused == 0
    client.delete(*limiter.ledger.keys)
    clock.use(clock.Clock())


@pytest.mark.parametrize("kind", sorted(COUNTERS | SMALL_BURST))
def test_the_simulation_sees_that_these_servers_refuse_a_burst(client, moved_clock, kind):
    limiter = limiter_on(client, Limit(20, seconds=2), profile="burst")

    traffic = Traffic(limiter, [(COUNTERS | SMALL_BURST)[kind](20, 2 * SECOND)], callers=20, requests=200).go()

    assert traffic.refused > 0


def test_requests_that_weigh_more_keep_to_the_pace_too(client, moved_clock):
    limiter = limiter_on(client, Limit(50, seconds=2), profile="paced")

    traffic = Traffic(
        limiter, [SlidingCounter(50, 2 * SECOND)], callers=12, requests=200, heaviest=2, latency_us=300_000
    ).go()

    assert traffic.refused == 0
    assert sum(weight for _, weight in traffic.counted) > 250


def test_paced_is_little_slower_than_the_limits_allow(client, moved_clock):
    limiter = limiter_on(client, Limit(50, seconds=2), Limit(200, seconds=10), profile="paced")

    Traffic(limiter, [], callers=4, requests=410).go()

    assert 20.0 <= now_us() / SECOND <= 22.0  # the floor of a log is 20


@pytest.mark.parametrize("kind", sorted(WHOLE_SECONDS))
def test_a_server_that_counts_in_whole_seconds_needs_the_granularity_that_says_so(client, moved_clock, kind):
    refused = {}
    for granularity in (0.0, 1.0):
        move_to(0)
        limiter = limiter_on(client, Limit(10, seconds=2, granularity_seconds=granularity))
        server = WHOLE_SECONDS[kind](10, 2 * SECOND)
        refused[granularity] = Traffic(limiter, [server], callers=5, requests=200, latency_us=90_000).go().refused

    assert refused[0.0] > 0
    assert refused[1.0] == 0


# --- auto -------------------------------------------------------------------------------------------------------------


def test_auto_becomes_paced_with_the_first_refusal_that_nothing_explains_and_longer_with_the_second(new):
    # Given a budget with room
    limiter = new(Limit(10, seconds=20), profile="auto")
    use(limiter.permit_client(), 3)
    assert at_work(limiter) == ("burst", 0.0)

    # When the API refuses
    ask(limiter, 429, {"Retry-After": "3"})

    # Then the budget is paced, for every process, and says why
    assert at_work(limiter) == at_work(beside(limiter)) == ("paced", 0.0)
    assert limiter.snapshot().profile_why == UNEXPLAINED
    assert notes(limiter) == [
        f"{UNEXPLAINED}: paced until none was refused for 600 s",
        "the API answered 429, Retry-After 3",
    ]

    # When it refuses again, after it had answered
    move_to(60 * SECOND)
    ask(limiter, 200, {})
    move_to(120 * SECOND)
    ask(limiter, 429, {"Retry-After": "3"})

    # Then windows are a second longer, once
    assert at_work(limiter) == at_work(beside(limiter)) == ("paced", 1.0)
    longer = f"{UNEXPLAINED} again: windows are a second longer, too, until none was refused for 600 s"
    assert notes(limiter)[0] == longer
    move_to(180 * SECOND)
    ask(limiter, 200, {})
    move_to(240 * SECOND)
    ask(limiter, 429, {"Retry-After": "3"})
    move_to(843 * SECOND)
    assert at_work(limiter) == ("paced", 1.0)


def test_what_was_sent_before_the_switch_counts_as_if_it_had_been_paced(new):
    # Given nine of ten sent at once, and the ninth refused
    limiter = new(Limit(10, seconds=20), profile="auto")
    use(limiter.permit_client(), 8)
    ask(limiter, 429, {"Retry-After": "0"})

    # When the pause is over, and its canary too
    opens = limiter.snapshot().opens_in_seconds

    # Then the pace is behind by what was sent
    assert opens >= 9 * 20.02 / 9


@pytest.mark.parametrize("how", ["canary", "straggler", "503", "configured"])
def test_auto_stays_where_a_refusal_proves_nothing(new, how):
    limiter = new(Limit(10, seconds=20), profile="burst" if how == "configured" else "auto")
    if how == "503":  # overload: it says nothing of windows
        ask(limiter, 503, {"Retry-After": "3"})
    elif how == "configured":
        ask(limiter, 429, {"Retry-After": "3"})
    else:  # a refusal that others explain, then the canary's, or one of the same burst
        slow = limiter.permit_client()
        permit = slow.acquire(30.0)
        explained = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "0"}
        ask(limiter, 429, {"Retry-After": "15", **explained})
        if how == "canary":
            slow.unsent(permit)
            move_to(21 * SECOND)
            ask(limiter, 429, {"Retry-After": "3"})
        else:
            move_to(14 * SECOND)
            hear(slow, permit, 429, {"Retry-After": "3"})

    assert at_work(limiter) == ("burst", 0.0)
    assert any(note.startswith("the API answered") for note in notes(limiter))


@pytest.mark.parametrize("kind", sorted(COUNTERS))
def test_auto_meets_a_counter_with_one_hit_and_then_never_again(client, moved_clock, kind):
    # Given an API with a sliding counter that sends no headers
    limiter = limiter_on(client, Limit(20, seconds=2), profile="auto")

    # When a fleet meets it
    traffic = Traffic(limiter, [COUNTERS[kind](20, 2 * SECOND)], callers=8, requests=200, latency_us=50_000).go()

    # Then it learns its lesson at the first refusal: those of the same burst are all
    assert limiter.snapshot().hits == 1
    assert traffic.refused <= 8
    assert at_work(limiter) == ("paced", 0.0)


@pytest.mark.parametrize("widened", [False, True])
def test_what_auto_learned_outlives_redis(house, client, moved_clock, widened):
    # Given a budget that became paced, and its watermark in the database
    limit = Limit(10, seconds=20)
    limiter = limiter_on(client, limit, profile="auto", watermark=Watermark("api"))
    ask(limiter, 429, {"Retry-After": "3"})
    if widened:
        move_to(60 * SECOND)
        ask(limiter, 200, {})
        move_to(120 * SECOND)
        ask(limiter, 429, {"Retry-After": "3"})
    move_to(200 * SECOND)
    use(limiter.permit_client())
    kept = Watermark("api").lesson()
    assert (kept.profile, kept.why, kept.widened_seconds) == ("paced", UNEXPLAINED, float(widened))
    assert (kept.seconds_ago, kept.lasts_seconds) == (80.0 if widened else 200.0, 600.0)

    # When Redis has lost everything, and a new process asks
    client.delete(*limiter.ledger.keys)
    fresh = beside(limiter, watermark=Watermark("api"))
    wait = refusal(fresh.permit_client())

    # Then the budget is what it was, the very first answer included: full, for a second more if windows are longer
    state = fresh.snapshot()
    assert at_work(fresh) == ("paced", float(widened))
    assert state.profile_why == UNEXPLAINED
    assert wait.wait_seconds == pytest.approx(36.02 + widened)


# --- shares and weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests_", "share", "ours"), [(10, 0.8, 8), (10, 0.85, 8), (10, 0.3, 3), (10, 0.05, 1), (1, 0.5, 1), (3, 1.0, 3)]
)
def test_a_share_is_rounded_down_and_never_below_one(new, requests_, share, ours):
    limiter = new(Limit(requests_, seconds=20), share=share)

    assert granted(limiter) == ours


@pytest.mark.parametrize("profile", ["burst", "paced"])
def test_weights_are_summed_not_counted(new, profile):
    # Given ten units
    limiter = new(Limit(10, seconds=20), profile="burst")
    caller = limiter.permit_client()

    # When three requests of three are out, nothing fits that weighs more than one
    permits = [caller.acquire(5.0, 3) for _ in range(3)]
    assert limiter.snapshot().in_flight == 9
    assert refusal(caller, weight=2).reason == "api: window 10/20 s full"
    permits.append(caller.acquire(5.0))

    # Then they count as ten when they have been answered, and ten are free when they have aged
    for permit in permits:
        caller.answered(permit)
    caller.flush()
    assert [window.used for window in limiter.snapshot().windows] == [10]
    move_to(20_020_000)
    caller.acquire(5.0, 10)


def test_a_request_that_weighs_more_than_a_limit_is_refused_at_once_and_nothing_is_lost(new):
    # Given a client with a completion that is not reported yet, and a share of eight of a limit of ten
    limiter = new(Limit(10, seconds=20), Limit(100, seconds=60), share=0.8)
    caller = limiter.permit_client()
    caller.answered(caller.acquire(5.0))

    # When it asks for too much
    with pytest.raises(ConfigurationError, match="weighs more than the limit of 8"):
        caller.acquire(5.0, 9)

    # Then Redis was not asked; the completion is reported later, and the client takes a permit that it can use
    caller.flush()
    state = limiter.snapshot()
    assert (state.in_flight, state.windows[0].used, state.granted) == (0, 1, 1)
    assert granted(limiter) == 7


def test_a_permit_taken_ahead_does_not_stand_in_the_way_of_a_heavier_request(new):
    # Given a lane that knocked, of an API in which its requests weigh all there is
    limiter = new(Limit(3, seconds=10))
    caller = limiter.permit_client()
    caller.reserve(5.0)

    # When it takes the permit of its request
    permit = caller.acquire(5.0, 3)

    # Then the one it held went back
    assert (permit.weight, limiter.snapshot().in_flight) == (3, 3)
    caller.unsent(permit)
    assert granted(limiter) == 3


# --- several permits at a time ----------------------------------------------------------------------------------------


def fast_lane(limiter: RateLimiter):
    """A caller that has a hundred more requests to make, as fast as it can."""
    caller = limiter.permit_client()
    caller.expects = 100
    caller.answered(caller.acquire(5.0))
    return caller


def test_far_from_a_limit_several_permits_are_taken_at_once_and_near_it_one(new):
    # Given a limit of 40, of which a quarter is to stay free
    limiter = new(Limit(40, seconds=20))
    caller, steps = fast_lane(limiter), []

    # When a lane takes them all
    for _ in range(39):
        before = limiter.snapshot().granted
        caller.answered(caller.acquire(5.0))
        steps.append(limiter.snapshot().granted - before)

    # Then they came eight at a time up to 30, and one by one from there
    assert [step for step in steps if step] == [8, 8, 8] + [1] * 15
    assert granted(limiter) == 0


def test_several_permits_are_never_taken_where_the_pace_or_a_pause_forbids(new):
    # Given a paced budget, and one that pauses
    paced, pausing = new(Limit(2000, seconds=20), profile="paced"), new(Limit(2000, seconds=20))
    ask(pausing, 429, {"Retry-After": "1"})
    move_to(2 * SECOND)

    # When fast lanes take permits
    for limiter in (paced, pausing):
        caller = limiter.permit_client()
        caller.expects = 100
        caller._interval_seconds = 0.0

        # Then they come one by one
        before = limiter.snapshot().granted
        permit = caller.acquire(5.0)
        assert limiter.snapshot().granted == before + 1

    # And again several when the canary was answered
    caller.answered(permit)
    caller.acquire(5.0)
    assert pausing.snapshot().in_flight == 8


def test_permits_taken_ahead_are_used_within_a_second_or_given_back(new):
    limiter = new(Limit(100, seconds=20))
    caller = fast_lane(limiter)
    permit = caller.acquire(5.0)
    assert limiter.snapshot().in_flight == 8

    # When the lane's request takes longer than a second
    move_to(1_100_000)
    caller.answered(permit)
    caller.expects = 1
    fresh = caller.acquire(5.0)

    # Then none of those it held is used
    state = limiter.snapshot()
    assert fresh.fresh
    assert (state.in_flight, state.windows[0].used) == (1, 3)


def test_a_pause_that_the_process_knows_of_gives_back_what_was_taken_ahead(new):
    # Given a lane with unused permits
    limiter = new(Limit(100, seconds=20))
    caller = fast_lane(limiter)
    caller.answered(caller.acquire(5.0))
    caller.flush()
    caller = fast_lane(limiter)
    caller.answered(caller.acquire(5.0))
    assert limiter.snapshot().in_flight == 8

    # When another thread of its process is refused
    ask(limiter, 429, {"Retry-After": "5"})
    wait = refusal(caller)

    # Then it does not send, and holds nothing
    assert wait.reason == "api: paused: the API answered 429, Retry-After 5"
    assert limiter.snapshot().in_flight == 0


def test_a_lane_that_is_slow_takes_no_more_than_it_will_use_in_time(new):
    # Given a lane that makes a request every four tenths of a second
    limiter = new(Limit(1000, seconds=20))
    caller = limiter.permit_client()
    caller.expects = 100
    for _ in range(20):
        permit = caller.acquire(5.0)
        assert permit.fresh
        caller.answered(permit)
        move_by(400_000)
    caller.flush()

    # Then it never threw a permit away
    assert limiter.snapshot().granted == 20


# --- threads, in real time --------------------------------------------------------------------------------------------


def test_sixty_four_requests_refused_at_once_are_one_hit(client_of_threads, mock_api):
    # Given an API that takes ten, and 64 threads that believe it takes a hundred
    server = mock_api(items=100, limits="10/20", threads=64)
    limiter = limiter_on(client_of_threads, Limit(100, seconds=20), profile="auto")
    all_granted = threading.Barrier(64)

    def send(number: int) -> tuple[int, int]:
        caller = limiter.permit_client(run_id=1)
        permit = caller.acquire(30.0)
        all_granted.wait(30)
        response = requests.get(f"{server.url}/api/items/{number}", timeout=30)
        hear(caller, permit, response.status_code, {"Retry-After": response.headers.get("Retry-After", "")})
        return response.status_code, caller.usage.hits

    # When all send at once
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(send, range(1, 65)))

    # Then 54 are refused, and it is one hit, of one thread, one pause and one lesson
    assert sum(status == 429 for status, _ in answers) == 54
    assert sum(hits for _, hits in answers) == 1
    state = limiter.snapshot()
    assert (state.hits, state.in_flight, state.profile, state.widened_seconds) == (1, 0, "paced", 0.0)
    assert 0 < state.paused_for_seconds <= 22


@pytest.mark.parametrize("closed", ["a full window", "a pause", "a canary"])
def test_a_stop_signal_ends_every_wait_within_a_second_and_gives_the_places_back(client_of_threads, closed):
    # Given 64 threads that wait
    limiter = limiter_on(client_of_threads, Limit(1, seconds=20), max_wait_seconds=30.0)
    if closed == "a full window":
        use(limiter.permit_client())
    else:
        ask(limiter, 429, {"Retry-After": "20" if closed == "a pause" else "-"})
    ended: list[RateLimited] = []

    def wait() -> None:
        try:
            limiter.permit_client().acquire(5.0)
        except RateLimited as error:
            ended.append(error)

    threads = [threading.Thread(target=wait) for _ in range(64)]
    for thread in threads:
        thread.start()
    wait_until(lambda: limiter.snapshot().waiting == 64, what="that all wait")

    # When the process is asked to stop
    began = clock.monotonic()
    clock.stop_requested.set()
    for thread in threads:
        thread.join(5.0)

    # Then each wait ends at once, as a wait does and not as an error, and the queue is empty
    assert clock.monotonic() - began < 1.0
    assert len(ended) == 64
    assert limiter.snapshot().waiting == 0


def test_a_wait_above_max_wait_is_told_and_not_slept(new):
    limiter = new(Limit(1, seconds=2), name="shop", max_wait_seconds=1.0)
    use(limiter.permit_client())
    sleeps: list[int] = []
    caller = limiter.permit_client()
    caller.before_sleep = lambda: sleeps.append(now_us())

    # Two seconds are too long
    wait = refusal(caller)
    assert (wait.wait_seconds, wait.reason) == (2.002, "shop: window 1/2 s full")
    assert (sleeps, now_us(), limiter.snapshot().waiting) == ([], 0, 1)

    # One is not
    move_to(1_002_000)
    caller.acquire(5.0)
    assert (sleeps, now_us()) == ([1_002_000], 2_002_000)


def test_a_caller_told_to_fall_asleep_holds_its_place(new):
    limiter = new(Limit(1, seconds=2), max_wait_seconds=5.0)
    use(limiter.permit_client())
    caller = limiter.permit_client()
    caller.before_sleep = fall_asleep

    refusal(caller)

    assert limiter.snapshot().waiting == 1


def test_a_429_that_asks_for_longer_than_every_window_speaks_of_another_limit(new):
    # Given a budget of ten seconds
    limiter = new(Limit(100, seconds=10), profile="auto")
    caller = limiter.permit_client()

    # When the API asks for an hour
    with suppress(RateLimited):
        caller.report(caller.acquire(5.0), 429, {"Retry-After": "3000"})

    # Then it pauses, and a steady pace, which would not have helped, is not begun
    state = limiter.snapshot()
    assert state.paused_for_seconds == pytest.approx(3001)
    assert state.profile == "burst"
