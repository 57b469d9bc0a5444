"""Effects of responses on a budget: headers only tighten it, refusals pause it, and each decision is noted."""

import os
from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.limiter_traffic import Traffic
from tests.helpers.limiters import (
    SECOND,
    ask,
    beside,
    granted,
    hear,
    limiter_on,
    move_by,
    move_to,
    notes,
    refusal,
    use,
)
from tests.helpers.reference_servers import KINDS
from workers import Budget, Limit, RateLimiter, clock, testing
from workers.control import runner
from workers.errors import LongWait
from workers.limiter.response import read_response
from workers.records.tables import ItemStatus, RunItem, RunStatus
from workers.reports.run_stats import run_stats

TEN = Limit(10, seconds=20)
TWO = (Limit(500, seconds=20), Limit(2000, seconds=100))


def left(remaining: int, limit: int = 10, **more: str) -> dict[str, str]:
    return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(remaining), **more}


def policy(limit: int, seconds: int = 20, remaining: int | None = None) -> dict[str, str]:
    state = {} if remaining is None else {"RateLimit": f'"a";r={remaining};t=5'}
    return {"RateLimit-Policy": f'"a";q={limit};w={seconds}', **state}


def used(limiter: RateLimiter) -> list[int]:
    return [window.used for window in limiter.snapshot().windows]


def in_force(limiter: RateLimiter) -> list[int]:
    return [window.in_force for window in limiter.snapshot().windows]


# --- which window a header speaks of ----------------------------------------------------------------------------------


def test_a_header_speaks_of_the_window_whose_limit_it_names(new):
    # Given an API whose headers describe its tightest window, now the one and now the other, as the mock's do
    limiter = new(*TWO)

    # When one response speaks of the 500, and a later one of the 2,000
    ask(limiter, 200, left(400, limit=500))
    assert used(limiter) == [100, 1]
    ask(limiter, 200, left(1500, limit=2000))

    # Then each was measured against its own: what others spent counts in the window that was spoken of
    assert used(limiter) == [101, 500]
    assert limiter.snapshot().foreign == 99 + 498
    assert notes(limiter) == ["99 of window 500/20 s spent by others, says X-RateLimit-Remaining"]


def test_a_header_speaks_of_the_window_whose_length_it_names(new):
    # Given two windows of one limit
    limiter = new(Limit(10, seconds=20), Limit(10, seconds=60))

    # When a header names the longer one
    ask(limiter, 200, policy(10, seconds=60, remaining=4))

    # Then it is that one that others use
    assert notes(limiter) == ["5 of window 10/60 s spent by others, says RateLimit"]


def test_a_header_that_may_speak_of_either_of_two_windows_is_ignored_and_noted_once(new):
    limiter = new(Limit(10, seconds=20), Limit(10, seconds=60))

    for _ in range(3):
        ask(limiter, 200, left(0))

    assert used(limiter) == [3, 3]
    assert notes(limiter) == ["X-RateLimit-Remaining says 10: of either window, ignored"]


def test_a_header_that_names_another_length_is_ignored_though_its_limit_is_ours(new):
    # Given a header about 10 requests a minute, of an API that we know as 10 in 20 s
    limiter = new(TEN)

    ask(limiter, 200, policy(10, seconds=60, remaining=0))
    ask(limiter, 200, {"X-RateLimit-Limit-Hour": "10", "X-RateLimit-Remaining-Hour": "0"})

    # Then it says nothing of our window
    assert used(limiter) == [2]
    assert notes(limiter) == [
        "X-RateLimit-Remaining-Hour says 10: no window of ours, ignored",
        "RateLimit says 10: no window of ours, ignored",
    ]


def test_a_limit_that_is_no_window_of_ours_is_only_noted_and_not_for_ever(new):
    limiter = new(TEN)

    for limit in range(100, 130):
        ask(limiter, 200, left(0, limit=limit))
        move_by(3 * SECOND)

    assert in_force(limiter) == [10]
    assert len(notes(limiter)) == 10


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (left(3), (0, 10, 3, 0, "X-RateLimit-Remaining", -1)),
        (policy(10, 20, 3), (1, 10, 3, 1, "RateLimit", 5_000_000)),
        (policy(7, 60), (2, 7, -1, 1, "RateLimit-Policy", -1)),
        (policy(7, 3600), (0, 7, -1, 1, "RateLimit-Policy", -1)),
        ({"X-Shopify-Shop-Api-Call-Limit": "32/40"}, (0, 40, 8, 0, "X-Shopify-Shop-Api-Call-Limit", -1)),
    ],
)
def test_an_answer_tells_the_script_which_window_how_many_and_who_said_so(headers, said):
    budget = Budget("api", [TEN, Limit(30, seconds=60)])

    assert read_response(budget, 200, headers, clock.now()).statements == (said,)


@pytest.mark.parametrize(
    "headers",
    [
        left(-1),
        left(11),
        {"X-RateLimit-Limit": "ten", "X-RateLimit-Remaining": "0"},
        {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "none"},
        {"X-RateLimit-Limit": "1,0", "X-RateLimit-Remaining": "0"},
        {"X-RateLimit-Limit": "NaN", "X-RateLimit-Remaining": "Infinity"},
        {"X-RateLimit-Remaining": "0"},
        {"RateLimit-Policy": '"a";q=0;w=20', "RateLimit": '"a'},
        {"RateLimit-Policy": '"a";q=5;w=-20'},
        {"RateLimit": "limit=10, remaining=0x0"},
        {"X-Shopify-Shop-Api-Call-Limit": "32/"},
        {"X-RateLimit-Limit": "9" * 5000, "X-RateLimit-Remaining": "0"},
        left(0, Age="30"),
    ],
    ids=lambda headers: str(headers)[:60],
)
def test_a_header_that_makes_no_sense_changes_nothing(new, headers):
    limiter = new(TEN)

    ask(limiter, 200, headers)

    state = limiter.snapshot()
    assert (in_force(limiter), used(limiter), state.foreign, state.granted) == ([10], [1], 0, 1)
    assert granted(limiter) == 9


# --- less than we know of ---------------------------------------------------------------------------------------------


def test_what_others_spend_of_our_quota_is_debited_at_once(new):
    # Given two requests
    limiter = new(TEN)
    use(limiter.permit_client(), 2)

    # When the third one's response says that four are left
    ask(limiter, 200, left(4))

    # Then three are of other programs: four more can be sent, and the three count for a window from now
    state = limiter.snapshot()
    assert (used(limiter), state.foreign) == ([6], 3)
    assert notes(limiter) == ["3 of window 10/20 s spent by others, says X-RateLimit-Remaining"]
    assert granted(limiter) == 4
    move_to(20_020_000)
    assert granted(limiter) == 10


def test_the_same_news_is_debited_once(new):
    limiter = new(TEN)
    caller = limiter.permit_client()
    first, second = caller.acquire(5.0), caller.acquire(5.0)

    hear(caller, first, 200, left(4))
    hear(caller, second, 200, left(4))

    assert limiter.snapshot().foreign == 4


def test_our_own_requests_in_flight_are_not_taken_for_others(new):
    # Given six requests out, all of which the server has counted
    limiter = new(TEN)
    callers = [limiter.permit_client() for _ in range(6)]
    permits = [caller.acquire(5.0) for caller in callers]

    # When the responses arrive, the last one first
    for number in (5, 3, 4, 0, 2, 1):
        hear(callers[number], permits[number], 200, left(9 - number))

    # Then no other program was found
    assert limiter.snapshot().foreign == 0


def test_an_old_response_that_arrives_late_is_measured_against_what_was_sent_then(new):
    # Given a request that was counted after nine others, and is answered when those no longer count
    limiter = new(TEN)
    use(limiter.permit_client(), 9)
    slow = limiter.permit_client()
    permit = slow.acquire(30.0)
    move_to(25 * SECOND)

    hear(slow, permit, 200, left(0))

    assert limiter.snapshot().foreign == 0
    assert granted(limiter) == 9


@settings(
    max_examples=int(os.environ.get("SCENARIOS", "30")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    limits=st.builds(
        lambda limit, seconds, long: [Limit(limit, seconds), Limit(limit * 2 + 1, seconds * 3)][: 1 + long],
        st.integers(1, 15),
        st.sampled_from([1.0, 2.0, 20.0]),
        st.booleans(),
    ),
    named=st.booleans(),
    shape=st.fixed_dictionaries(
        {
            "callers": st.integers(1, 12),
            "requests": st.integers(5, 80),
            "latency_us": st.sampled_from([0, 5_000, 300_000, 2 * SECOND]),
            "straggles": st.sampled_from([0.0, 0.1, 0.5]),
            "never_answered": st.sampled_from([0.0, 0.05]),
            "heaviest": st.sampled_from([1, 3]),
            "seed": st.integers(0, 2**32),
        }
    ),
)
def test_a_fleet_that_is_alone_is_never_told_of_others(client, kind, limits, named, shape):
    # Given a fleet alone on an API whose headers say what remains: of one window, or of a longer second one, too
    clock.use(clock.MovedClock())
    shape = shape | {"heaviest": min(shape["heaviest"], limits[0].requests)}

    def headers(remaining):
        tightest = min(range(len(limits)), key=lambda i: remaining[i])
        if named:
            window = limits[tightest]
            return {
                "RateLimit-Policy": f'"a";q={window.requests};w={window.seconds:g}',
                "RateLimit": f'"a";r={remaining[tightest]};t=1',
            }
        return left(remaining[tightest], limits[tightest].requests)

    limiter = limiter_on(client, *limits, profile="auto")
    servers = [KINDS[kind](window.requests, round(window.seconds * SECOND)) for window in limits]

    # When it sends, its responses arriving in any order, or never
    traffic = Traffic(limiter, servers, headers=headers, **shape).go()

    # Then nothing was ever debited, and nothing refused
    state = limiter.snapshot()
    assert (state.foreign, traffic.refused, state.notes) == (0, 0, ())
    client.delete(*limiter.ledger.keys)
    clock.use(clock.Clock())


def test_with_a_share_only_what_goes_beyond_the_others_part_is_debited(new):
    # Given four fifths of 10: two are for others
    limiter = new(TEN, share=0.8)
    assert in_force(beside(limiter, share=0.8)) == [8]

    # When others have spent their two, then it is their right
    ask(limiter, 200, left(7))
    assert (limiter.snapshot().foreign, granted(limiter)) == (0, 7)

    # When they have spent five, then three of our share are gone
    ask(limiter, 200, left(3))
    assert (limiter.snapshot().foreign, granted(limiter)) == (3, 3)


def test_shopify_s_call_limit_tells_what_others_used(new):
    limiter = new(Limit(40, seconds=20))

    ask(limiter, 200, {"X-Shopify-Shop-Api-Call-Limit": "32/40"})

    assert (used(limiter), limiter.snapshot().foreign) == ([32], 31)


# --- limits that the API names ----------------------------------------------------------------------------------------


def test_a_lower_limit_is_adopted_at_once_where_its_window_is_named(new):
    # Given eight requests that count
    limiter = new(TEN)
    use(limiter.permit_client(), 8)

    # When a response says that six are allowed
    ask(limiter, 200, policy(6))

    # Then it holds, from now on, and says who said so
    assert (in_force(limiter), granted(limiter)) == ([6], 0)
    assert notes(limiter) == ["window 10/20 s is 6 now, says RateLimit-Policy"]
    move_to(20_020_000)
    assert granted(limiter) == 6


def test_a_lower_limit_without_its_window_s_name_is_only_noted(new):
    limiter = new(TEN)

    ask(limiter, 200, left(5, limit=6))

    assert in_force(limiter) == [10]
    assert notes(limiter) == ["X-RateLimit-Remaining says 6: no window of ours, ignored"]


def test_a_limit_the_api_named_holds_for_every_process_and_through_a_rolling_deploy(new):
    # Given a process that read a limit of six
    limiter = new(TEN)
    ask(limiter, 200, policy(6))

    # Then it holds for others: for the same configuration, and for a higher one; a lower one is obeyed
    assert in_force(beside(limiter)) == [6]
    assert in_force(beside(limiter, Limit(12, seconds=20))) == [6]
    assert granted(beside(limiter, Limit(12, seconds=20))) == 5
    assert in_force(beside(limiter, Limit(4, seconds=20))) == [4]
    assert granted(beside(limiter, Limit(4, seconds=20))) == 3
    assert in_force(limiter) == [6]

    # And after it is back, a header with the remaining number of the six is understood
    ask(limiter, 200, left(2, limit=6))
    assert limiter.snapshot().foreign == 2


def test_a_limit_the_api_named_stays_with_a_part_of_the_state_that_is_lost(new):
    limiter = new(TEN)
    ask(limiter, 200, policy(6))

    limiter.ledger.client.delete(limiter.ledger.keys[1])
    refusal(limiter.permit_client())

    assert in_force(limiter) == [6]


@pytest.mark.parametrize("trust", [False, True])
def test_a_higher_limit_than_ours_is_adopted_only_from_a_server_that_is_trusted(new, trust):
    # Given a limit that was lowered to six
    limiter = new(TEN, trust_server=trust)
    ask(limiter, 200, policy(6))

    # When the API says ten again, and then twenty
    ask(limiter, 200, policy(10))
    assert in_force(limiter) == [10]
    ask(limiter, 200, policy(20))

    # Then only a trusted one is believed, with all that was sent still counting
    assert in_force(limiter) == [20 if trust else 10]
    assert granted(limiter) == (17 if trust else 7)
    if trust:
        assert notes(limiter)[0] == "window 10/20 s is 20 now, says RateLimit-Policy"
        assert in_force(beside(limiter)) == [10]  # a process without trust keeps the configured limit


def test_a_limit_is_never_taken_for_less_than_one_or_for_a_share_of_less(new):
    limiter = new(TEN, share=0.2)

    ask(limiter, 200, policy(0))
    assert in_force(limiter) == [2]
    ask(limiter, 200, policy(2))

    assert in_force(limiter) == [1]
    move_to(20_020_000)
    assert granted(limiter) == 1


# --- refusals ---------------------------------------------------------------------------------------------------------


def dated(seconds: float) -> dict[str, str]:
    """Retry-After as a date, from a server whose clock is an hour off."""
    there = clock.now() + timedelta(hours=1)
    until = there + timedelta(seconds=seconds)
    return {"Date": format_datetime(there, usegmt=True), "Retry-After": format_datetime(until, usegmt=True)}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [(lambda: {"Retry-After": "5"}, 6.0), (lambda: dated(5), 6.0), (lambda: {"Retry-After": "0"}, 1.0)],
    ids=["seconds", "a date", "at once"],
)
def test_a_refusal_pauses_the_budget_for_retry_after_and_a_second(new, status, headers, seconds):
    limiter = new(TEN)

    wait = ask(limiter, status, headers())

    state = limiter.snapshot()
    assert wait is not None and wait.wait_seconds == seconds
    assert (state.paused_for_seconds, state.hits) == (seconds, 1)
    assert state.paused_why.startswith(f"the API answered {status}, Retry-After ")
    assert notes(limiter) == [state.paused_why]


def test_a_503_without_retry_after_is_no_refusal(new):
    limiter = new(TEN)

    assert ask(limiter, 503, {}) is None

    assert (limiter.snapshot().paused_for_seconds, limiter.snapshot().hits) == (0, 0)


def test_a_429_without_retry_after_waits_for_the_reset_it_tells(new):
    limiter = new(TEN)

    wait = ask(limiter, 429, left(0, **{"X-RateLimit-Reset": "7"}))

    assert wait is not None and wait.wait_seconds == 8
    assert limiter.snapshot().paused_why == "the API answered 429, nothing left for 7 s"


def test_the_reset_of_a_window_with_room_is_no_reason_to_wait_for_it(new):
    limiter = new(Limit(10, seconds=2))

    wait = ask(limiter, 429, left(5, **{"X-RateLimit-Reset": "900"}))

    assert wait is not None and wait.wait_seconds == 2.002


def test_pauses_without_retry_after_double_until_a_request_is_answered(new):
    # Given an API that refuses and never says for how long
    limiter = new(Limit(10, seconds=1), Limit(30, seconds=5))

    # When the canaries are refused, too
    waits = []
    for _ in range(14):
        wait = ask(limiter, 429, {})
        waits.append(wait.wait_seconds)
        move_by(round(wait.wait_seconds * SECOND))

    # Then each pause is twice as long as the one before, and at most as long as the longest pause
    assert waits == pytest.approx([1.001 * 2**n for n in range(12)] + [3600.0] * 2)
    assert limiter.snapshot().hits == 14

    # And the first answer ends the row
    ask(limiter, 200, {})
    assert ask(limiter, 429, {}).wait_seconds == 1.001


def test_a_longer_wait_than_is_believed_is_told_as_such(new):
    limiter = new(TEN, longest_pause_seconds=3600.0)

    wait = ask(limiter, 429, {"Retry-After": "90001"})

    assert isinstance(wait, LongWait)
    assert (wait.wait_seconds, wait.asked_seconds) == (3600.0, 90001.0)
    assert limiter.snapshot().paused_for_seconds == 3600.0


# --- refusals that headers explain ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "profile"),
    [
        (left(0), "burst"),
        (policy(6), "burst"),
        (policy(10, remaining=2), "burst"),
        ({}, "paced"),
        (left(9), "paced"),
        (left(0, limit=7), "paced"),
        (policy(10, seconds=60, remaining=0), "paced"),
    ],
    ids=["others", "a lower limit", "others, named", "no header", "room", "an unknown window", "another window"],
)
def test_a_refusal_that_headers_explain_does_not_slow_the_budget_down(new, headers, profile):
    limiter = new(TEN, profile="auto")

    ask(limiter, 429, {"Retry-After": "3", **headers})

    assert limiter.snapshot().profile == profile


def test_a_refusal_just_after_others_were_seen_is_explained_by_them(new):
    limiter = new(TEN, profile="auto")
    ask(limiter, 200, left(5))

    move_to(9 * SECOND)
    ask(limiter, 429, {"Retry-After": "3"})
    assert limiter.snapshot().profile == "burst"

    # But not when that was long ago
    move_to(40 * SECOND)
    use(limiter.permit_client())
    ask(limiter, 429, {"Retry-After": "3"})
    assert limiter.snapshot().profile == "paced"


# --- a wait that a person should know of, in a run --------------------------------------------------------------------


LONG = testing.Response(429, {}, {"Retry-After": "172800"})


@pytest.mark.parametrize("where", ["list", "detail"])
def test_a_run_whose_api_asks_for_two_days_is_paused_says_so_and_goes_on_when_resumed(moved_clock, import_from, where):
    # Given an API that once asks to stay away for two days
    answers = {f"/api/items/{n}": {"id": n, "name": "a", "description": "b", "price": 1} for n in range(1, 6)}
    answers["/api/items"] = {"data": [{"id": n, "name": "a"} for n in range(1, 6)], "next_page_url": None}
    refused = "/api/items" if where == "list" else "/api/items/3"
    answers[refused] = testing.in_turn(LONG, answers[refused])
    whys, paused_at = [], []

    def look(run):
        if run.status == RunStatus.PAUSED:
            if not paused_at:
                paused_at.append(clock.monotonic())
            if clock.monotonic() - paused_at[0] < 60:
                return  # whatever is on its way comes to an end
            whys.append(run_stats(run).why)
            assert RunItem.select().where(RunItem.status == ItemStatus.PROCESSING).count() == 0
            assert all(item.attempts == (item.status == ItemStatus.COMPLETED) for item in RunItem.select())
            runner.resume(run.id, who="test", door="test")

    with testing.api(answers) as api:
        import_from(api.url, limits=(Limit(50, seconds=2),), lanes=2)
        run = runner.run_inline(runner.start("items", who="test", door="test", send=False), look)

    # Then the run is paused, with the reason where people look; and continues when it is resumed, an hour later at most
    assert len(whys) == 1
    assert "the API answered 429, Retry-After 172800" in whys[0]
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 5, 0)
    assert run.rate_limit_hits_count == 1
    assert clock.monotonic() == pytest.approx(3600, abs=10)
    assert RunItem.select().where(RunItem.attempts != 1).count() == 0
