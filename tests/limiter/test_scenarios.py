"""No server refuses: generated fleets, in simulated time, on a real Redis, against every reference server.

`make scenarios` tries 10,000 of them, at random; without SCENARIOS some hundreds, the same each time. Each property
takes its part of the number. oracle.py answers each call of the script too, in every one of them.
"""

import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.limiter_oracle import Disagreement, Oracle
from tests.helpers.limiter_simulation import (
    ALL_KINDS,
    FIRST,
    Fleet,
    Join,
    Mishap,
    Scenario,
    Wire,
    mutated,
    refusals,
    too_many,
)
from tests.helpers.limiters import SECOND, limiter_on, move_to, now_us
from tests.helpers.reference_servers import COUNTERS, KINDS, SMALL_BURST, WHOLE_SECONDS
from workers import Limit, clock
from workers.errors import RateLimited

ASKED_FOR = int(os.environ.get("SCENARIOS", "0"))
#: How many were tried, by property.
TRIED: Counter[str] = Counter()
PROPERTIES = 16


def property_of(percent: int) -> Callable:
    """How many of a hundred scenarios are tried with this property."""
    return settings(
        max_examples=math.ceil((ASKED_FOR or 300) * percent / 100),
        derandomize=not ASKED_FOR,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def run(client: redis.Redis, scenario: Scenario, **wrong) -> Fleet:
    return Fleet(client, scenario, **wrong).run()


# --- what may happen --------------------------------------------------------------------------------------------------

chances = st.sampled_from([0.0, 0.02, 0.1, 0.3])
latencies = st.sampled_from([0, 5_000, 300_000, 2 * SECOND])
instants = st.integers(1, 30 * SECOND)
spans = st.sampled_from([1, 1_000, SECOND, 5 * SECOND, 20 * SECOND])


@st.composite
def nested_limits(draw: st.DrawFn, most: int = 15, seconds: tuple[float, ...] = (0.25, 1, 2, 7.5, 20)) -> tuple:
    """One to three limits, each longer than the one before and stricter than its multiple."""
    requests, length = draw(st.integers(1, most)), draw(st.sampled_from(seconds))
    limits = [Limit(requests, float(length))]
    for _ in range(draw(st.integers(0, 2))):
        times = draw(st.integers(2, 4))
        requests, length = draw(st.integers(requests + 1, requests * times)), length * times
        limits.append(Limit(requests, float(length)))
    return tuple(draw(st.permutations(limits)))


def fleets(**more: st.SearchStrategy) -> st.SearchStrategy[Scenario]:
    """Fleets with the luck that every scenario may have."""
    luck = {
        "limits": nested_limits(),
        "processes": st.integers(1, 3),
        "callers": st.integers(1, 8),
        "requests": st.integers(5, 30),
        "latency_us": latencies,
        "timeout_us": st.sampled_from([2 * SECOND, 8 * SECOND]),
        "linger_us": st.sampled_from([0, 3 * SECOND]),
        "straggles": chances,
        "never_answered": chances,
        "given_back": chances,
        "crashes": chances,
        "repeated": chances,
        "replies_lost": chances,
        "hesitates": chances,
        "seed": st.integers(0, 2**32),
    }
    return st.builds(Scenario, **luck | more)


def mishaps(*what: str, amounts: st.SearchStrategy[int] = spans, most: int = 3) -> st.SearchStrategy[tuple]:
    return st.lists(st.builds(Mishap, instants, st.sampled_from(what), amounts), max_size=most).map(tuple)


# --- the rule ---------------------------------------------------------------------------------------------------------


@property_of(17)
@given(
    scenario=fleets(
        weights=st.sampled_from([1, 1, 5]),
        expects=st.sampled_from([1, 1, 12]),
        runs=st.integers(1, 2),
        watermark=st.booleans(),
        mishaps=mishaps("forget scripts", "restart", "away", "die", "freeze", "relearn"),
    )
)
def test_no_server_that_keeps_its_word_refuses_a_request(client, scenario):
    # Given a fleet, its limits and its luck; at each call the oracle answers too
    TRIED["the rule"] += 1

    # When it sends as fast as it gets permits
    fleet = run(client, scenario)

    # Then no kind of server, under any of the limits, had to refuse
    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(15)
@given(
    scenario=fleets(
        weights=st.sampled_from([1, 1, 5]),
        watermark=st.just(True),
        mishaps=mishaps("flush", "lose state", "lose ring", "lose flight", "roll back", "die", "away", "freeze"),
    )
)
def test_a_redis_that_forgets_bursts_nothing_where_the_database_remembers(client, scenario):
    TRIED["lost state, with a watermark"] += 1

    fleet = run(client, scenario)

    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(8)
@given(
    scenario=fleets(
        replies_lost=st.just(0.0),
        mishaps=mishaps("flush", "lose state", "lose ring", "lose flight", "roll back", "away", "freeze"),
    )
)
def test_a_redis_that_forgets_bursts_nothing_while_those_live_who_used_it(client, scenario):
    TRIED["lost state, with live processes"] += 1

    fleet = run(client, scenario)

    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(4)
@given(scenario=fleets(processes=st.just(1), watermark=st.booleans(), mishaps=mishaps("fall back", "roll back")))
def test_a_state_that_goes_back_is_noticed_by_who_saw_a_later_one(client, scenario):
    TRIED["fallen back"] += 1

    fleet = run(client, scenario)

    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(8)
@given(
    scenario=fleets(
        replies_lost=st.just(0.0),
        mishaps=mishaps(
            "clock", amounts=st.sampled_from([SECOND, 7 * SECOND, 3600 * SECOND, -1, -SECOND, -3600 * SECOND])
        ),
    )
)
def test_a_clock_that_is_set_opens_no_window_early(client, scenario):
    TRIED["clocks that are set"] += 1

    fleet = run(client, scenario)

    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(4)
@given(scenario=fleets(limits=nested_limits(most=12)), at_us=instants, data=st.data())
def test_a_rolling_deploy_keeps_the_larger_limits(client, scenario, at_us, data):
    # Given an API, and a process that believes in less than it allows
    TRIED["a rolling deploy"] += 1
    smaller = tuple(replace(limit, requests=data.draw(st.integers(1, limit.requests))) for limit in scenario.limits)
    first, second = data.draw(st.permutations([scenario.limits, smaller]))

    # When it joins the others, or they join it
    fleet = run(client, replace(scenario, joins=(Join(at_us, second),)), believed=first)

    # Then the API's limits are kept
    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(4)
@given(scenario=fleets(), others=nested_limits(most=30), at_us=instants)
def test_limits_that_are_changed_for_all_are_kept_from_then_on(client, scenario, others, at_us):
    TRIED["changed limits"] += 1

    # Given processes that all end, and one with other limits that takes their place
    fleet = run(client, replace(scenario, joins=(Join(at_us, others, alone=True),)))

    # Then those before kept theirs, and what came after was not too much with all that was counted before
    if others != scenario.limits:
        assert too_many([c for c in fleet.counted if c.limits == scenario.limits], scenario.limits) == 0
        assert too_many(fleet.counted, others) == 0


@property_of(4)
@given(
    scenario=fleets(
        weights=st.sampled_from([1, 1, 3]),
        share=st.sampled_from([0.5, 0.8, 0.95]),
        foreign=st.just("within"),
        foreign_gap_us=st.sampled_from([50_000, SECOND]),
    )
)
def test_others_who_keep_to_their_share_are_not_refused_and_neither_are_we(client, scenario):
    TRIED["shares"] += 1

    fleet = run(client, scenario)

    assert refusals(fleet.counted, scenario.limits) == {}


@property_of(4)
@given(
    scenario=fleets(
        limits=nested_limits().map(lambda ls: tuple(replace(limit, granularity_seconds=1.0) for limit in ls))
    )
)
def test_a_server_that_counts_in_whole_seconds_refuses_nothing_to_who_knows_it(client, scenario):
    TRIED["whole seconds"] += 1

    fleet = run(client, scenario)

    assert refusals(fleet.counted, scenario.limits, tuple(KINDS | WHOLE_SECONDS)) == {}


# --- profiles ---------------------------------------------------------------------------------------------------------


def bursts_of(kind: str, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """The same limits, with the most that this kind of server takes at once."""
    most = {
        "GCRA, burst 1": lambda n: 1,
        "GCRA, burst 4": lambda n: min(4, n),
        "GCRA, burst a tenth": lambda n: n // 10,
    }
    return tuple(
        replace(limit, burst=max(1, most[kind](limit.requests))) if kind in most else limit for limit in limits
    )


@property_of(8)
@given(
    scenario=fleets(
        limits=nested_limits(most=120),
        requests=st.integers(5, 20),
        kind=st.sampled_from(sorted(COUNTERS | SMALL_BURST)),
        profile=st.just("paced"),
        weights=st.sampled_from([1, 1, 3]),
        watermark=st.booleans(),
        mishaps=mishaps("away", "freeze", "die", "restart"),
    )
)
def test_a_paced_budget_is_never_refused_by_servers_that_estimate_or_take_small_bursts(client, scenario):
    TRIED["paced"] += 1
    limits = bursts_of(scenario.kind, scenario.limits)

    fleet = run(client, replace(scenario, limits=limits))

    assert (fleet.refused, fleet.incidents) == ([], 0)


def relapses(fleet: Fleet) -> int:
    """How often, at most, what auto learned was forgotten meanwhile: after ten minutes, and twice as long each time."""
    seconds = (fleet.counted[-1].at_us - fleet.counted[0].at_us) / SECOND if fleet.counted else 0.0
    return math.floor(math.log2(seconds / 600 + 1))


@property_of(5)
@given(
    scenario=fleets(
        limits=nested_limits(most=60),
        requests=st.integers(20, 60),
        kind=st.sampled_from(sorted(COUNTERS)),
        profile=st.just("auto"),
        watermark=st.booleans(),
        retry_after=st.sampled_from(["none", "exact", "rounded"]),
        mishaps=mishaps("away", "freeze", "die"),
    )
)
def test_an_auto_budget_meets_a_counting_server_once_and_is_paced_from_then_on(client, scenario):
    TRIED["auto"] += 1

    fleet = run(client, scenario)

    assert fleet.incidents <= 1 + relapses(fleet)


@property_of(3)
@given(
    scenario=fleets(
        limits=nested_limits(most=60, seconds=(2, 7.5, 20)),
        requests=st.integers(20, 60),
        kind=st.sampled_from(sorted(WHOLE_SECONDS)),
        profile=st.just("auto"),
        retry_after=st.sampled_from(["none", "exact", "rounded"]),
    )
)
def test_an_auto_budget_meets_a_server_that_counts_in_whole_seconds_twice_at_most(client, scenario):
    # Given a server whose clock is coarser than configured: the first refusal paces the budget, a second one widens it
    TRIED["auto, in whole seconds"] += 1

    fleet = run(client, scenario)

    assert fleet.incidents <= 2 + relapses(fleet)


# --- servers that refuse ----------------------------------------------------------------------------------------------


@property_of(6)
@given(
    scenario=fleets(
        limits=nested_limits(most=20),
        kind=st.sampled_from(sorted(ALL_KINDS)),
        profile=st.sampled_from(["burst", "auto", "paced"]),
        retry_after=st.sampled_from(["none", "exact", "rounded"]),
        headers=st.sampled_from(["", "x-ratelimit"]),
        runs=st.integers(1, 2),
        requests=st.integers(5, 25),
        repeated=st.just(0.0),
        replies_lost=st.just(0.0),
    ),
    data=st.data(),
)
def test_each_burst_of_refusals_is_one_hit_and_all_wait_for_its_canary(client, scenario, data):
    # Given an API that allows less than configured
    TRIED["servers that refuse"] += 1
    api = tuple(replace(limit, requests=data.draw(st.integers(1, limit.requests))) for limit in scenario.limits)

    # When the fleet sends, and obeys; the oracle checks that no permit is granted while it pauses, and then one canary
    fleet = run(client, replace(scenario, api_limits=api))

    # Then an onlooker counts as many bursts as Redis does
    assert fleet.snapshot.hits == fleet.incidents


@property_of(4)
@given(
    scenario=fleets(
        limits=nested_limits(seconds=(1, 2, 20)),
        kind=st.sampled_from(sorted(KINDS)),
        headers=st.sampled_from(["x-ratelimit", "draft"]),
        share=st.sampled_from([1.0, 0.8]),
    )
)
def test_headers_of_an_api_that_only_we_use_debit_nothing(client, scenario):
    TRIED["headers"] += 1

    fleet = run(client, scenario)

    assert fleet.refused == []
    assert fleet.snapshot is None or fleet.snapshot.foreign == 0


@property_of(3)
@given(
    scenario=fleets(
        limits=nested_limits(seconds=(1, 2, 20)),
        processes=st.just(1),
        callers=st.just(1),
        latency_us=st.just(0),
        straggles=st.just(0.0),
        never_answered=st.just(0.0),
        crashes=st.just(0.0),
        replies_lost=st.just(0.0),
        hesitates=st.just(0.0),
        repeated=st.just(0.0),
        kind=st.just("sliding log"),
        headers=st.just("draft"),
        foreign=st.just("beyond"),
    )
)
def test_after_a_header_has_told_of_others_nothing_goes_beyond_what_it_left(client, scenario):
    # Given others who spend as they like, and one caller: no request of its own is on its way when a header is written
    TRIED["headers that show others"] += 1

    fleet = run(client, scenario)

    # Then refusals are due to others who came after the last header, or whom it could not show
    assert fleet.surprises == []


# --- promised waits --------------------------------------------------------------------------------------------------


@property_of(3)
@given(
    limits=nested_limits(),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "answer", "give back", "wait", "wait as promised"]), st.integers(0, 10**7)
        ),
        max_size=60,
    ),
)
def test_what_a_refused_caller_is_told_is_what_the_oracle_says(client, limits, steps):
    # Given one client, so that no other waits before it
    TRIED["promised waits"] += 1
    clock.use(clock.MovedClock())
    fleet = Fleet(client, Scenario(limits))
    wire = Wire(connection_pool=client.connection_pool)
    wire.fleet = fleet
    limiter, oracle = limiter_on(wire, *limits, linger_seconds=1.0), fleet.oracle
    assert isinstance(oracle, Oracle)
    caller, promised_us, exact, out = limiter.permit_client(), 0, False, []

    # When it takes, answers, gives back and waits in any order
    for step, number in steps:
        now = now_us()
        if step == "take":
            try:
                out.append(caller.acquire(2.0))
            except RateLimited as wait:
                # Then the refusal says when the budget opens: exactly, where completions decide
                promised_us = round(wait.wait_seconds * SECOND)
                assert promised_us == max(1000, oracle.opens_in_us(1))
                exact = len(out) < min(limit.requests for limit in limits)
        elif step in ("answer", "give back") and out:
            permit = out.pop(number % len(out))
            caller.answered(permit) if step == "answer" else caller.unsent(permit)
            caller.flush()
            exact = exact and step == "give back"
        elif step == "wait":
            move_to(now + number)
            exact = False
        elif step == "wait as promised" and promised_us:
            deadlines = [permit.deadline for permit in oracle.state.flight.values()]
            move_to(now + promised_us)
            if exact and not any(deadline - oracle.now <= promised_us for deadline in deadlines):
                out.append(caller.acquire(2.0))
            promised_us, exact = 0, False
    clock.use(clock.Clock())
    client.delete(*limiter.ledger.keys)


# --- the simulation sees what is wrong --------------------------------------------------------------------------------


@pytest.fixture
def control(client: redis.Redis) -> Callable[..., tuple[Fleet, Fleet]]:
    """control(scenario, **wrong): the same scenario, right and wrong, without the oracle."""
    return lambda scenario, **wrong: (run(client, scenario), run(client, scenario, listens=False, **wrong))


UNLUCKY = Scenario((Limit(10, 2.0), Limit(30, 10.0)), callers=6, requests=150, latency_us=300_000, straggles=0.1)
BUSY = Scenario((Limit(10, 10.0),), processes=2, callers=6, requests=60, latency_us=2 * SECOND)
BELIEVES_CLOCKS = {"on_hire": lambda limiter: setattr(limiter.ledger, "_jumped", lambda *_: 0.0)}
GROWING = Scenario((Limit(20, 10.0),), requests=150, joins=(Join(25 * SECOND, (Limit(50, 60.0),), alone=True),))


def overstate_ages(arguments: tuple) -> tuple:
    """Every response is reported a second too early."""
    first_done = FIRST + 9 + int(arguments[FIRST + 8])
    done = list(arguments[first_done:])
    done[1::2] = [age + SECOND for age in done[1::2]]
    return (*arguments[:first_done], *done)


WRONG = {
    "a limit one too high": (
        replace(UNLUCKY, latency_us=0),
        {"believed": (Limit(11, 2.0), Limit(31, 10.0))},
    ),
    "completed when sent": (UNLUCKY, {"completes_when_sent": True}),
    "completed when timed out": (
        replace(UNLUCKY, callers=12, timeout_us=SECOND, linger_us=6 * SECOND, never_answered=0.9),
        {"completes_when_timed_out": True},
    ),
    "each process stamps by a clock of its own": (BUSY, {"skews_us": (0, 3 * SECOND)} | BELIEVES_CLOCKS),
    "ages are overstated": (
        BUSY,
        {
            "retold": overstate_ages,
            "script": mutated(
                (
                    "complete(math.max(now - age_us, granted_at), weight, granted_at)",
                    "complete(now - age_us, weight, granted_at)",
                )
            ),
        },
    ),
    "lost state opens empty": (
        replace(BUSY, mishaps=(Mishap(SECOND, "flush"),)),
        {"script": mutated(("  covers = math.max(covers, 0)\n", "  covers = 0\n"))},
    ),
    "a state that went back is not noticed": (
        replace(BUSY, processes=1, mishaps=(Mishap(2 * SECOND, "fall back", 1_999_999),)),
        {"script": mutated(("seen[2] > head.seq then", "false then"))},
    ),
    "a rolling deploy shrinks the ring": (
        replace(BUSY, joins=(Join(SECOND, (Limit(5, 10.0),)),)),
        {
            "script": mutated(
                (
                    "if largest > head.size and not request.look then grow(largest) end",
                    "if largest < head.size and not request.look then redis.call('SET', ring_key, "
                    "string.rep(instant_bytes(0), largest)) head.size, head.n, head.base = largest, largest, largest "
                    "elseif largest > head.size and not request.look then grow(largest) end",
                ),
            )
        },
    ),
    "a clock set forward is believed": (
        replace(BUSY, mishaps=(Mishap(2 * SECOND, "clock", 3600 * SECOND),)),
        BELIEVES_CLOCKS,
    ),
}


@pytest.mark.parametrize(("scenario", "wrong"), WRONG.values(), ids=WRONG)
def test_the_simulation_sees_a_client_that_is_wrong(control, scenario, wrong):
    # Given the same fleet, right and wrong
    right, mistaken = control(scenario, **wrong)

    # Then only the wrong one is refused, by a log of each request
    assert refusals(right.counted, scenario.limits) == {}
    assert refusals(mistaken.counted, scenario.limits, ("sliding log",))


def test_the_simulation_sees_a_ring_that_grows_with_what_was_long_ago(control):
    # Given limits that are changed for all, and a ring that has forgotten what now counts again
    changed = GROWING.joins[0].limits

    right, mistaken = control(
        GROWING,
        script=mutated(("string.rep(string.sub(ordered, 1, 8), forgotten)", "string.rep(instant_bytes(0), forgotten)")),
    )

    assert too_many(right.counted, changed) == 0
    assert too_many(mistaken.counted, changed) > 0


def test_the_simulation_sees_a_pace_without_a_cap_on_what_is_in_flight(control):
    # Given a server that takes four at once, and stragglers
    slow = Scenario((Limit(40, 10.0, burst=4),), callers=30, requests=120, straggles=0.9, kind="GCRA, burst 4")

    right, mistaken = control(
        replace(slow, profile="paced"),
        script=mutated(("head.permits >= pace().flight", "false")),
    )

    assert right.refused == []
    assert mistaken.refused


REFUSING = Scenario(
    (Limit(20, 10.0),), requests=60, kind="sliding log", api_limits=(Limit(10, 10.0),), latency_us=5_000
)


@pytest.mark.parametrize(
    ("scenario", "script"),
    [
        (REFUSING, mutated(("  head.canary = WANTED\n  return rare().hit_id", "  return rare().hit_id"))),
        (
            replace(BUSY, repeated=0.3),
            mutated(("    if redis.call('HEXISTS', flight_key, id) == 1 then return granted_before(ask) end\n", "")),
        ),
        (
            replace(BUSY, mishaps=(Mishap(SECOND, "clock", -5 * SECOND),)),
            mutated(("  head.offset = head.offset + head.last - now\n  now = head.last\n", "")),
        ),
        (BUSY, mutated(("and entry(index) + window.us or now", "and entry(index) + window.us - 1 or now"))),
    ],
    ids=[
        "all go after a pause",
        "who asks twice for one permit takes two",
        "a clock set back goes back",
        "a window opens a microsecond early",
    ],
)
def test_the_oracle_sees_a_script_that_is_wrong(client, scenario, script):
    # Given a script that is wrong in what a server need not notice
    run(client, scenario)

    # Then the oracle does not agree
    with pytest.raises(Disagreement):
        run(client, scenario, script=script)


def test_as_many_scenarios_were_tried_as_were_asked_for(capsys):
    with capsys.disabled():
        print(f"\n{TRIED.total():,} scenarios:", ", ".join(f"{count:,} of {what}" for what, count in TRIED.items()))
    assert len(TRIED) < PROPERTIES or TRIED.total() >= ASKED_FOR
