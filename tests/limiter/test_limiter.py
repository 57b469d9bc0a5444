"""Permits on a real Redis, in simulated time, one behaviour per test. Whole fleets are in test_scenarios.py."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import requests
from redis.crc import key_slot

from tests.helpers.limiter_simulation import Fleet, Scenario
from tests.helpers.limiters import SECOND, fall_asleep, granted, limiter_on, move_to, now_us, refusal, use
from tests.helpers.machine import wait_until
from tests.helpers.own_redis import OwnRedis
from workers import Budget, ConfigurationError, Limit, RateLimiter, clock
from workers.errors import DependencyDown, RateLimited
from workers.limiter.permits import Permit, PermitClient
from workers.limiter.run_signals import RunSignals


def hear_429(caller: PermitClient, permit: Permit, pause_seconds: float) -> None:
    """The API refuses the request of this permit; a second is added to what it asks for."""
    with suppress(RateLimited):
        caller.report(permit, 429, {"Retry-After": f"{pause_seconds - 1:g}"})


# --- how fast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("callers", [1, 40])
@pytest.mark.parametrize(
    ("limits", "requests"),
    [
        ((Limit(1, 1.0),), 30),
        ((Limit(7, 3.0),), 71),
        ((Limit(50, 2.0), Limit(200, 10.0)), 1010),
        ((Limit(10, 2.0), Limit(30, 10.0)), 151),
        ((Limit(500, 20.0), Limit(2000, 100.0)), 2501),
        ((Limit(20, 1.0), Limit(60, 10.0), Limit(100, 60.0)), 421),
    ],
    ids=lambda value: " + ".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_a_greedy_fleet_is_as_fast_as_the_limits_allow(client, limits, requests, callers):
    # Given an API that answers at once, and the least time in which a log of requests can take this many
    least, left = 0.0, requests - 1
    for limit in reversed(limits):
        least, left = least + limit.seconds * (left // limit.requests), left % limit.requests

    # When the fleet sends them, a thread working without a pause
    fleet = Fleet(client, Scenario(limits, callers=callers, requests=requests, hesitates=0.0, most_asked=20_000)).run()
    first, last = fleet.counted[0].at_us, fleet.counted[-1].at_us

    # Then it takes a thousandth more: the windows are taken that much longer than they are
    assert len(fleet.counted) == requests
    assert least <= (last - first) / SECOND <= least * 1.002


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_short_wait_is_slept_and_ends_with_a_permit(new):
    limiter = new(Limit(3, seconds=1.5), max_wait_seconds=2.0)
    caller = limiter.permit_client()
    use(caller, 3)

    caller.acquire(5.0)

    assert now_us() == 1_501_500


def test_a_long_wait_is_told_instead_with_the_window_that_decides(new):
    # Given two windows, of which the longer one is full
    caller = new(Limit(3, seconds=1), Limit(6, seconds=60), name="shop", max_wait_seconds=2.0).permit_client()
    use(caller, 3)
    move_to(2 * SECOND)
    use(caller, 3)

    # When the next permit is asked for
    wait = refusal(caller)

    # Then it says how long and why, and no time has passed
    assert wait.wait_seconds == 58.06
    assert wait.reason == "shop: window 6/60 s full"
    assert str(wait) == "shop: window 6/60 s full: try again in 58.1 s"
    assert now_us() == 2 * SECOND


def test_many_waiters_are_told_distinct_instants_and_each_is_served_at_its_own(new):
    # Given ten requests answered a tenth of a second apart, which fill the window
    limiter = new(Limit(10, seconds=5), max_wait_seconds=10.0)
    for tenth in range(10):
        move_to(tenth * SECOND // 10)
        use(limiter.permit_client())

    # When eight callers ask
    callers = [limiter.permit_client() for _ in range(8)]
    for caller in callers:
        caller.before_sleep = fall_asleep
    waits = [(refusal(caller).wait_seconds, caller) for caller in callers]

    # Then each is refused until the next of the ten no longer counts
    start = now_us()
    assert [round(wait * SECOND) + start for wait, _ in waits] == [5_005_000 + n * SECOND // 10 for n in range(8)]
    assert limiter.snapshot().waiting == 8

    # And each that comes back then is granted
    for wait, caller in waits:
        move_to(start + round(wait * SECOND))
        caller.acquire(5.0)


def test_a_stop_request_ends_the_wait_and_gives_the_place_back(client, environment):
    # Given a caller that sleeps in real time for a window of two seconds
    limiter = limiter_on(client, Limit(1, seconds=2), max_wait_seconds=5.0)
    use(limiter.permit_client())
    raised: list[RateLimited] = []

    def wait() -> None:
        try:
            limiter.permit_client().acquire(5.0)
        except RateLimited as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: limiter.snapshot().waiting == 1, what="the wait")

    # When the process is asked to stop
    clock.stop_requested.set()
    thread.join(1.0)

    # Then the wait ends at once, and no client is in the queue
    assert not thread.is_alive()
    assert raised and raised[0].wait_seconds <= 2.002
    assert limiter.snapshot().waiting == 0


def test_a_permit_that_was_slept_past_is_given_back_and_another_one_taken(new):
    # Given a permit taken ahead of its request
    limiter = new(Limit(5, seconds=10))
    caller = limiter.permit_client()
    caller.reserve(5.0)

    # When the thread sleeps for more than a second
    move_to(1_500_000)
    permit = caller.acquire(5.0)

    # Then it does not send with it
    assert permit.fresh
    assert limiter.snapshot().in_flight == 1
    assert limiter.snapshot().granted == 2


class SlowClient(redis.Redis):
    """Its replies take longer than a permit is good for."""

    def execute_command(self, *arguments, **options):
        reply = super().execute_command(*arguments, **options)
        clock.sleep(1.2 if arguments[0] == "EVALSHA" else 0)
        return reply


def test_a_permit_whose_grant_arrives_late_is_not_used(client, new):
    limiter = new(Limit(5, seconds=10))
    slow = RateLimiter(limiter.budget, SlowClient(connection_pool=client.connection_pool), prefix="slow")

    wait = refusal(slow.permit_client())

    assert wait.reason == "Redis answers too slowly"
    assert slow.snapshot().in_flight == 0


def test_what_is_taken_ahead_and_not_used_goes_back(new):
    limiter = new(Limit(1, seconds=10))
    caller = limiter.permit_client()
    caller.reserve(5.0)

    caller.flush()

    assert granted(limiter) == 1


def test_a_clock_set_back_opens_no_window_early_and_none_late(new, moved_clock):
    # Given a full window, ten seconds into the day
    limiter = new(Limit(3, seconds=5))
    move_to(10 * SECOND)
    use(limiter.permit_client(), 3)

    # When Redis's clock is set back by an hour
    moved_clock.step(-3600)

    # Then time continues from its last instant
    assert refusal(limiter.permit_client()).wait_seconds == 5.005
    move_to(15_004_999)
    assert granted(limiter) == 0
    move_to(15_005_000)
    assert granted(limiter) == 3


@pytest.mark.parametrize("seconds", [0.5, 6.0, 3600.0])
def test_a_clock_set_forward_opens_no_window_early(new, moved_clock, seconds):
    # Given a full window, and two processes
    one = new(Limit(3, seconds=5), prefix="forward" + uuid.uuid4().hex)
    other = limiter_on(one.ledger.client, Limit(3, seconds=5), prefix=one.ledger.keys[0].split(":")[0])
    use(one.permit_client(), 2)
    use(other.permit_client())
    move_to(SECOND)
    refusal(one.permit_client())

    # When Redis's clock is set forward
    moved_clock.step(seconds)

    # Then either of them notices, and the windows open when they would have
    assert refusal(other.permit_client()).wait_seconds == pytest.approx(4.005, abs=0.01)
    assert refusal(one.permit_client()).wait_seconds == pytest.approx(4.005, abs=0.01)
    assert "s ahead: not believed" in one.snapshot().notes[0].text
    move_to(4_990_000)
    assert granted(one) == 0
    move_to(5_020_000)
    assert granted(one) == 3


# --- sleeps -----------------------------------------------------------------------------------------------------------


def test_a_closing_is_one_sleep_for_the_budget_and_one_for_each_run_that_waits(new):
    # Given a budget that is used up
    limiter = new(Limit(6, seconds=10))
    callers = [limiter.permit_client(run_id) for run_id in (1, 1, 1, 2, 2, 2)]
    for caller in callers:
        use(caller)

    # When three lanes of each of two runs wait through two closings, a second after each other
    for round_ in range(1, 3):
        waits = []
        for caller in callers:
            move_to(now_us() + SECOND)
            waits.append((now_us() + round(refusal(caller).wait_seconds * SECOND), caller))
        for instant, caller in waits:
            move_to(max(now_us(), instant))
            use(caller)

        # Then each closing is counted once for a run, however many lanes wait in it, and once for the budget
        counts = Counter({run: sum(c.usage.sleeps for c in callers if c.run_id == run) for run in (1, 2)})
        assert counts == {1: round_, 2: round_}
        assert limiter.snapshot().sleeps == round_


def test_the_length_of_a_sleep_is_counted_once_and_not_for_each_thread(new):
    # Given five lanes of run 1 that wait from the first second on, and one of run 2 from the sixth
    limiter = new(Limit(6, seconds=10))
    use(limiter.permit_client(), 6)
    lanes, other = [limiter.permit_client(1) for _ in range(5)], limiter.permit_client(2)
    move_to(SECOND)
    for lane in lanes:
        refusal(lane)
    move_to(6 * SECOND)
    refusal(other)

    # When the budget opens to all of them
    move_to(10_010_000)
    for caller in (other, *lanes):
        caller.acquire(5.0)

    # Then the sleep is as long as from the first question to the first permit
    assert sum(lane.usage.slept_seconds for lane in lanes) == pytest.approx(9.01)
    assert other.usage.slept_seconds == pytest.approx(4.01)
    assert limiter.snapshot().slept_seconds == pytest.approx(9.01)
    assert lanes[0].take_usage().sleeps == 1
    assert lanes[0].usage.sleeps == 0


def test_a_run_that_stays_away_longer_than_it_was_told_has_not_slept_meanwhile(new):
    # Given a run that had to wait ten seconds, and was then paused for an hour by its owner
    limiter = new(Limit(1, seconds=10))
    use(limiter.permit_client())
    caller = limiter.permit_client(7)
    refusal(caller)
    move_to(3600 * SECOND)

    # When it comes back, first to a closed budget, and then for good
    use(limiter.permit_client())
    refusal(caller)
    move_to(3700 * SECOND)
    caller.acquire(5.0)

    # Then it has slept twice the ten seconds
    assert caller.usage.slept_seconds == pytest.approx(20.02)
    assert limiter.snapshot().slept_seconds == pytest.approx(20.02)


def test_a_sleep_ends_where_its_run_is_stopped_and_the_pause_is_none(new):
    # Given a run that has waited for 4 s of 20, and is stopped
    limiter = new(Limit(1, seconds=20))
    use(limiter.permit_client())
    caller = limiter.permit_client(7)
    move_to(SECOND)
    refusal(caller)
    move_to(5 * SECOND)

    # When it is stopped, then the signal returns that wait, once; of a run that does not wait, nothing
    assert RunSignals(limiter.ledger).stop(7) == pytest.approx(4.0)
    assert RunSignals(limiter.ledger).stop(7) == 0.0
    assert RunSignals(limiter.ledger).stop(8) == 0.0
    state = limiter.snapshot()
    assert (state.slept_seconds, state.sleeping_seconds) == (pytest.approx(4.0), 0.0)

    # When it is resumed 10 s later, and waits for the rest
    move_to(15 * SECOND)
    RunSignals(limiter.ledger).resume(7)
    refusal(caller)
    move_to(20_100_000)
    caller.acquire(5.0)

    # Then only that wait is reported
    assert caller.usage.slept_seconds == pytest.approx(5.0, abs=0.11)
    assert limiter.snapshot().slept_seconds == pytest.approx(9.0, abs=0.11)


# --- 429 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def paused(new) -> tuple[RateLimiter, list[PermitClient]]:
    """A budget of which thirty requests were refused at once, with Retry-After: 5; their callers, and an idle one."""
    limiter = new(Limit(100, seconds=10), max_wait_seconds=10.0)
    callers = [limiter.permit_client(1) for _ in range(31)]
    for caller in callers:
        caller.before_sleep = fall_asleep
    idle = callers.pop()
    permits = [caller.acquire(5.0) for caller in callers]
    move_to(SECOND)
    for caller, permit in zip(callers, permits, strict=True):
        hear_429(caller, permit, 5.0)
    return limiter, [*callers, idle]


def test_thirty_requests_refused_by_one_burst_are_one_hit(paused):
    limiter, callers = paused

    assert sum(caller.usage.hits for caller in callers) == 1
    assert limiter.snapshot().hits == 1


def test_while_the_budget_pauses_nobody_sends(paused):
    limiter, callers = paused

    # When they ask, at once and just before the end
    *callers, idle = callers
    waits = [refusal(caller) for caller in callers]
    move_to(5_999_999)
    late = refusal(idle)

    # Then all wait until the end, a little apart, and hear why
    assert waits[0].wait_seconds == 5.0
    assert len({wait.wait_seconds for wait in waits}) == 30
    assert max(wait.wait_seconds for wait in waits) < 5.1
    assert waits[0].reason == "api: paused: the API answered 429, Retry-After 4"
    assert late.wait_seconds < 0.1
    state = limiter.snapshot()
    assert (state.paused_for_seconds, state.paused_why) == (pytest.approx(1e-6), "the API answered 429, Retry-After 4")
    assert state.sleeps == 1


def test_after_a_pause_one_request_goes_first_and_the_others_follow_its_answer(paused):
    # Given the end of the pause
    limiter, (first, *others) = paused
    move_to(6 * SECOND)

    # When all ask, one is let through
    canary = first.acquire(5.0)
    waits = [refusal(other) for other in others]
    assert {wait.reason for wait in waits} == {"api: one request is out to see whether the API answers again"}
    assert len({wait.wait_seconds for wait in waits}) == 30

    # Then its answer opens the budget to the others
    first.answered(canary)
    first.flush()
    for other in others:
        other.acquire(5.0)
    assert limiter.snapshot().hits == 1


def test_those_who_wait_for_the_canary_ask_ever_more_seldom(paused):
    # Given a canary that is not answered for eight seconds
    _, (first, other, *_) = paused
    move_to(6 * SECOND)
    first.acquire(30.0)

    # When another client asks whenever its wait is over
    waits = []
    while now_us() < 14 * SECOND:
        waits.append(refusal(other).wait_seconds)
        move_to(now_us() + round(waits[-1] * SECOND))

    # Then it waits half as long as the canary has been out: from 20 ms to a second
    assert waits[0] == 0.02
    assert waits[-1] == 1.0
    assert len(waits) < 25


def test_a_canary_that_is_refused_is_a_second_hit(paused):
    limiter, (first, *_) = paused
    move_to(6 * SECOND)
    canary = first.acquire(5.0)
    first.usage.hits = 0

    hear_429(first, canary, 5.0)

    assert first.usage.hits == 1
    assert limiter.snapshot().hits == 2
    assert refusal(first).wait_seconds == 10.0, "what the API asked for was too short"


def test_a_straggler_of_the_first_burst_is_no_second_hit_but_pauses_again(new):
    # Given two requests, one refused at once
    limiter = new(Limit(100, seconds=10))
    quick, slow = limiter.permit_client(), limiter.permit_client()
    refused_soon, refused_late = quick.acquire(5.0), slow.acquire(5.0)
    hear_429(quick, refused_soon, 2.0)

    # When the other's refusal arrives after the pause, with a canary out
    move_to(3 * SECOND)
    canary = quick.acquire(5.0)
    hear_429(slow, refused_late, 2.0)

    # Then it is the same hit, the pause begins anew, and so does the search for a canary
    assert (quick.usage.hits, slow.usage.hits) == (1, 0)
    quick.answered(canary)
    quick.flush()
    move_to(5 * SECOND)
    quick.acquire(5.0)
    assert "one request is out" in refusal(slow).reason


@pytest.mark.parametrize("crashed", [True, False], ids=["crashed", "never sent"])
def test_a_canary_that_is_lost_makes_room_for_another(paused, crashed):
    # Given a canary
    _, (first, other, *_) = paused
    move_to(6 * SECOND)
    canary = first.acquire(5.0)

    # When its process dies, or gives it back
    if crashed:
        move_to(6 * SECOND + 16 * SECOND)  # a second, its timeout, the linger
    else:
        first.unsent(canary)

    # Then the next one to ask is the canary
    other.acquire(5.0)
    assert "one request is out" in refusal(first).reason


def test_a_longer_retry_after_extends_the_pause_and_a_shorter_does_not_shorten_it(new):
    limiter = new(Limit(100, seconds=10))
    caller = limiter.permit_client(1)
    permits = [caller.acquire(5.0) for _ in range(3)]

    for permit, seconds in zip(permits, (5.0, 8.0, 1.0), strict=True):
        hear_429(caller, permit, seconds)

    assert limiter.snapshot().paused_for_seconds == 8.0
    assert limiter.snapshot().paused_why == "the API answered 429, Retry-After 7"


def test_a_pause_that_is_extended_while_a_run_waits_is_still_one_sleep(new):
    # Given a run that waits for the end of a pause
    limiter = new(Limit(100, seconds=10))
    caller = limiter.permit_client(1)
    first, straggler = caller.acquire(5.0), caller.acquire(5.0)
    hear_429(caller, first, 5.0)
    refusal(caller)

    # When a straggler extends it
    move_to(3 * SECOND)
    hear_429(caller, straggler, 5.0)
    move_to(5 * SECOND)
    refusal(caller)

    # Then it is one closing, of eight seconds
    move_to(8 * SECOND)
    caller.acquire(5.0)
    assert caller.usage.sleeps == 1
    assert caller.usage.slept_seconds == pytest.approx(8.0)


# --- limits that change -----------------------------------------------------------------------------------------------


def test_a_limit_that_grows_keeps_what_is_known_and_never_allows_too_much(new):
    # Given a budget of 20, used up twice within a minute, so that the ring has forgotten the first twenty
    small = new(Limit(20, seconds=10), prefix="grows" + uuid.uuid4().hex)
    use(small.permit_client(), 20)
    move_to(11 * SECOND)
    use(small.permit_client(), 20)

    # When the limit becomes 50 a minute
    move_to(12 * SECOND)
    large = limiter_on(small.ledger.client, Limit(50, seconds=60), prefix=small.ledger.keys[0].split(":")[0])

    # Then ten more are allowed: what was forgotten counts, as young as the oldest that is known
    assert granted(large) == 10
    assert large.snapshot().windows[0].used == 40
    move_to(60_060_001)
    assert granted(large) == 10

    # And when all that is known has aged, all 50 are free
    move_to(11 * SECOND + 60_060_000)
    assert granted(large) == 50


def test_a_limit_that_grows_before_the_ring_was_full_allows_exactly_the_difference(new):
    small = new(Limit(20, seconds=10), prefix="grows" + uuid.uuid4().hex)
    use(small.permit_client(), 15)

    large = limiter_on(small.ledger.client, Limit(50, seconds=10), prefix=small.ledger.keys[0].split(":")[0])

    assert granted(large) == 35


def test_callers_with_smaller_limits_do_not_make_the_others_forget(new):
    # Given a deploy in progress: old processes know 50, new ones 20
    old = new(Limit(50, seconds=10), prefix="shrinks" + uuid.uuid4().hex)
    new_ = limiter_on(old.ledger.client, Limit(20, seconds=10), prefix=old.ledger.keys[0].split(":")[0])
    use(old.permit_client(), 40)

    # Then each keeps to its own limit, and all that was sent counts for both
    assert granted(new_) == 0
    assert granted(old) == 10
    assert new_.snapshot().windows[0].used == 40
    use(old.permit_client(), 10)
    assert granted(old) == 0
    move_to(10_010_000)
    assert (granted(new_), granted(old)) == (20, 50)


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_redis(tmp_path: Path, moved_clock: clock.MovedClock) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    yield server
    server.client.close()
    server.kill()


def test_without_redis_there_is_no_permit(own_redis):
    limiter = limiter_on(own_redis.client, Limit(5, seconds=10))
    own_redis.kill()

    with pytest.raises(DependencyDown, match="Redis does not answer"):
        limiter.permit_client().acquire(5.0)
    with pytest.raises(DependencyDown):
        limiter.snapshot()

    # And there are permits again once it is back
    own_redis.start()
    assert granted(limiter) == 5


def test_what_redis_could_not_be_told_rides_on_the_next_call(own_redis):
    # Given three requests on their way, and a Redis that hangs
    limiter = limiter_on(own_redis.client, Limit(5, seconds=10))
    answered, unused, lost = (limiter.permit_client() for _ in range(3))
    permits = [caller.acquire(5.0) for caller in (answered, unused)]
    with own_redis.stopped():
        # When one is answered, one never sent, and one more permit asked for in vain
        answered.answered(permits[0])
        answered.flush()
        unused.unsent(permits[1])
        with pytest.raises(DependencyDown):
            lost.acquire(5.0)

    # Then the next call reports everything to Redis: one completed, none in flight
    limiter.permit_client().acquire(5.0).client.flush()
    state = limiter.snapshot()
    assert (state.in_flight, state.windows[0].used) == (1, 2)


def test_a_429_that_redis_could_not_be_told_still_pauses_the_budget(own_redis):
    # Given a request that is refused while Redis is away
    limiter = limiter_on(own_redis.client, Limit(5, seconds=10))
    caller, other = limiter.permit_client(1), limiter.permit_client(1)
    permit = caller.acquire(5.0)
    own_redis.kill()
    with pytest.raises(DependencyDown):
        hear_429(caller, permit, 5.0)

    # When it is back
    own_redis.start()
    wait = refusal(other)

    # Then the pause begins, and the hit is counted
    assert (wait.wait_seconds, wait.reason) == (5.0, "api: paused: the API answered 429, Retry-After 4")
    assert other.usage.hits == 1


def test_a_redis_that_cannot_write_gives_no_permit(own_redis):
    limiter = limiter_on(own_redis.client, Limit(5, seconds=10))
    use(limiter.permit_client())
    own_redis.client.replicaof("127.0.0.1", "1")

    with pytest.raises(DependencyDown, match="read only"):
        limiter.permit_client().acquire(5.0)

    own_redis.client.replicaof("NO", "ONE")
    assert granted(limiter) == 4


def test_a_redis_that_forgets_its_scripts_is_told_again(own_redis):
    limiter = limiter_on(own_redis.client, Limit(5, seconds=10))
    use(limiter.permit_client(), 2)

    own_redis.client.script_flush()

    assert granted(limiter) == 3


@pytest.mark.parametrize("part", ["state", "ring", "flight"])
def test_a_key_that_is_lost_alone_neither_bursts_nor_blocks_the_budget(new, part):
    # Given a budget with requests in flight, requests completed, and a waiting client
    limiter = new(Limit(5, seconds=10))
    caller = limiter.permit_client(1)
    use(caller, 2)
    for _ in range(3):
        caller.acquire(5.0)
    refusal(caller)

    # When one of its keys is evicted
    assert limiter.ledger.client.delete(limiter.ledger.keys[0].replace("state", part)) == 1

    # Then nothing is granted that the rule would not grant
    assert granted(limiter) == 0
    state = limiter.snapshot()
    assert state.windows[0].used == 5

    # And the budget opens as it would have at the latest
    move_to(now_us() + (1 + 5 + 10 + 10) * SECOND + 10_000)
    assert granted(limiter) == 5


def test_a_budget_takes_little_memory_whatever_its_traffic(new):
    # Given a budget of 2,000
    limiter = new(Limit(2000, seconds=20))
    caller = limiter.permit_client(1)

    # When 20,000 permits have been taken
    for number in range(20_000):
        move_to(number * 10_100)
        caller.answered(caller.acquire(5.0))
    refused_, client_ = limiter.permit_client(2), limiter.ledger.client
    with suppress(RateLimited):
        refused_.acquire(5.0)

    # Then its keys are small
    assert limiter.snapshot().granted >= 20_000
    assert sum(client_.memory_usage(key) or 0 for key in limiter.ledger.keys) < 40_000


def test_the_keys_of_a_budget_share_one_slot_of_a_cluster(new):
    limiter = new(Limit(2, seconds=10), name="shop.example")
    use(limiter.permit_client(1), 1)
    limiter.permit_client(1).acquire(5.0)
    refusal(limiter.permit_client(1))

    keys = limiter.ledger.client.keys(f"{limiter.ledger.keys[0].split(':')[0]}:*")

    assert {key.decode().split(":")[-1] for key in keys} == {"state", "ring", "flight", "waiting", "runs"}
    assert all(b":{shop.example}:" in key for key in keys)
    assert len({key_slot(key) for key in keys}) == 1


# --- what is shown, and the door --------------------------------------------------------------------------------------


def test_a_snapshot_tells_what_a_budget_is_doing(new):
    # Given a budget of two windows, with three requests answered, one out, and two callers that wait
    limits = (Limit(4, seconds=10), Limit(100, seconds=60))
    limiter = new(*limits, name="shop")
    use(limiter.permit_client(), 3)
    limiter.permit_client().acquire(5.0)
    move_to(2 * SECOND)
    for _ in range(2):
        refusal(limiter.permit_client())

    # Then
    state = limiter.snapshot()
    assert state.name == "shop"
    assert [(str(w.limit), w.used) for w in state.windows] == [("4/10 s", 4), ("100/60 s", 4)]
    assert (state.in_flight, state.waiting, state.granted, state.hits, state.sleeps) == (1, 2, 4, 0, 1)
    assert state.opens_in_seconds == pytest.approx(8.01)
    assert (state.paused_for_seconds, state.paused_why) == (0, "")

    # And to look changes nothing
    assert limiter.snapshot() == state


def test_a_permit_around_a_request_keeps_any_script_within_the_limits(client, moved_clock, mock_api):
    server = mock_api(items=12, limits="5/2")
    budget = Budget("rate-test", [Limit(5, seconds=2)])
    limiter = RateLimiter(budget, client, prefix=f"t{uuid.uuid4().hex}", max_wait_seconds=5.0)

    for number in range(1, 13):
        with limiter.permit(timeout_seconds=30):
            response = requests.get(f"{server.url}/api/items/{number}", timeout=30)
        assert response.status_code == 200

    assert requests.get(f"{server.url}/stats", timeout=5).json()["rejected"] == 0
    assert moved_clock.elapsed_seconds == pytest.approx(4, rel=0.002)


def test_a_block_that_ends_in_an_error_leaves_its_permit_in_flight_until_nobody_can_count_it(new):
    # Given a block around a request that can have arrived or not
    limiter = new(Limit(1, seconds=20), linger_seconds=10)
    with pytest.raises(requests.ConnectionError), limiter.permit(timeout_seconds=5):
        raise requests.ConnectionError

    # Then its permit counts for a second, the timeout and the linger, and then for the window
    assert limiter.snapshot().in_flight == 1
    move_to(16 * SECOND)
    assert limiter.snapshot().in_flight == 0
    assert granted(limiter) == 0
    move_to(16 * SECOND + 20_020_000)
    assert granted(limiter) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda: Limit(0, seconds=1),
        lambda: Limit(1_000_001, seconds=1),
        lambda: Limit(1, seconds=0),
        lambda: Limit(1, seconds=float("nan")),
        lambda: Limit(1, seconds=32 * 86_400),
        lambda: Limit(1, seconds=1, granularity_seconds=-1),
        lambda: Limit(1, seconds=1, granularity_seconds=float("nan")),
        lambda: Limit(1.5, seconds=1),
        lambda: Budget("", [Limit(1, seconds=1)]),
        lambda: Budget("a b", [Limit(1, seconds=1)]),
        lambda: Budget("a{b", [Limit(1, seconds=1)]),
        lambda: Budget("a", []),
    ],
)
def test_a_limit_or_a_budget_that_cannot_be_says_so(nonsense):
    with pytest.raises(ConfigurationError):
        nonsense()


def test_redis_s_own_time_is_used_where_no_clock_is_moved(client, environment):
    # Given a window of a fifth of a second, in the machine's time
    limiter = limiter_on(client, Limit(2, seconds=0.2), max_wait_seconds=1.0)
    started = time.monotonic()

    # When five permits are taken
    use(limiter.permit_client(), 5)

    # Then two windows have passed
    assert 0.4 <= time.monotonic() - started < 5
