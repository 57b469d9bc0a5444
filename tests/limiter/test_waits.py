"""How long a budget waits: stated by the API or not, after spending of others, after a lesson."""

from contextlib import suppress

import pytest

from tests.helpers.limiter_simulation import MemoryWatermark
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
    now_us,
    refusal,
    use,
)
from tests.helpers.reference_servers import CountsRejected, FixedWindows, SlidingCounter
from workers import Limit, RateLimiter
from workers.errors import LongWait, RateLimited, Refused
from workers.records.watermark import Watermark

HOUR, DAY = 3600, 86_400


# --- what the API asks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("longest_pause", [10.0, 3600.0])
@pytest.mark.parametrize("asked", [9, 10, 11, 3599, 3600, 3601, DAY, 25 * HOUR])
def test_what_the_api_asks_for_is_waited_out_up_to_25_hours(new, asked, longest_pause):
    limiter = new(Limit(100, seconds=10), longest_pause_seconds=longest_pause)

    wait = ask(limiter, 429, {"Retry-After": str(asked)})

    assert type(wait) is Refused
    assert wait.wait_seconds == asked + 1
    move_to((asked + 1) * SECOND - 1)
    assert granted(limiter) == 0
    move_to((asked + 1) * SECOND)
    use(limiter.permit_client())


@pytest.mark.parametrize(
    ("asked", "longest_pause", "pause"), [(90_001, 3600.0, 3600.0), (200_000, 10.0, 10.0), (200_000, 100_000.0, 1e5)]
)
def test_what_is_longer_is_told_as_such(new, asked, longest_pause, pause):
    limiter = new(Limit(100, seconds=10), longest_pause_seconds=longest_pause)

    wait = ask(limiter, 429, {"Retry-After": str(asked)})

    assert isinstance(wait, LongWait)
    assert (wait.wait_seconds, wait.asked_seconds) == (pause, asked)
    assert wait.at_us > 0


def test_a_longest_pause_above_25_hours_is_believed_too(new):
    limiter = new(Limit(100, seconds=10), longest_pause_seconds=200_000.0)

    assert type(ask(limiter, 429, {"Retry-After": "200000"})) is Refused


@pytest.mark.parametrize(
    ("limits", "first"),
    [
        ((Limit(5000, seconds=HOUR),), 60.0),
        ((Limit(100, seconds=10), Limit(5000, seconds=DAY)), 10.01),
        ((Limit(5, seconds=1),), 1.001),
    ],
    ids=str,
)
def test_without_a_word_a_pause_is_a_minute_at_most_then_doubles_up_to_the_longest_pause(new, limits, first):
    # Given an API that refuses, and never says for how long
    limiter = new(*limits, longest_pause_seconds=300.0)
    waits = []

    # When each canary is refused, too
    for _ in range(11):
        waits.append(ask(limiter, 429, {}).wait_seconds)
        move_by(round(waits[-1] * SECOND))

    # Then only the longest pause ends the doubling
    assert waits == pytest.approx([min(first * 2**n, 300.0) for n in range(11)])


@pytest.mark.parametrize("asked", [0, 1, 30])
def test_a_wait_that_was_too_short_is_doubled_though_the_api_asks_for_the_same(new, asked):
    limiter = new(Limit(10, seconds=1), longest_pause_seconds=100.0)
    waits = []

    for _ in range(8):
        waits.append(ask(limiter, 429, {"Retry-After": str(asked)}).wait_seconds)
        move_by(round(waits[-1] * SECOND))

    assert waits == pytest.approx([min((asked + 1) * 2**n, 100.0) for n in range(8)])


@pytest.mark.parametrize(("status", "next_wait"), [(200, 2.0), (404, 2.0), (500, 4.0), (503, 4.0)])
def test_only_a_canary_that_is_answered_ends_the_row(new, status, next_wait):
    limiter = new(Limit(10, seconds=1))
    ask(limiter, 429, {"Retry-After": "1"})
    move_by(2 * SECOND)

    ask(limiter, status, {})

    assert ask(limiter, 429, {"Retry-After": "1"}).wait_seconds == next_wait


class Renewed:
    """Five a second; who is refused stays out until nothing was asked for 30 s."""

    def __init__(self) -> None:
        self.log, self.until = CountsRejected(5, SECOND), 0
        assert not all(self.log.accepts(0) for _ in range(6))  # a request from outside begins it
        self.until = 30 * SECOND

    def accepts(self, instant_us: int, weight: int = 1) -> bool:
        if instant_us < self.until or not self.log.accepts(instant_us, weight):
            self.until = instant_us + 30 * SECOND
            return False
        return True

    def remaining(self, instant_us: int) -> int:
        return 5


def test_a_penalty_that_every_try_renews_is_outlasted(client, moved_clock):
    limiter = limiter_on(client, Limit(5, seconds=1), profile="auto")

    traffic = Traffic(limiter, [Renewed()], callers=8, requests=100 + 6, latency_us=5_000, retry_after=None).go()

    # Then each pause was twice as long as the one before, until one was longer than 30 s: 674 were refused
    assert len(traffic.counted) - traffic.refused >= 90
    assert traffic.refused <= 15
    assert now_us() < 120 * SECOND


@pytest.mark.parametrize("profile", ["burst", "auto"])
def test_a_constant_retry_after_of_an_api_that_counts_what_it_refuses_is_outlasted(client, moved_clock, profile):
    # Given an API that takes eight a minute where ten are believed, and always asks for a second
    limiter = limiter_on(client, Limit(10, seconds=60), profile=profile)
    server = CountsRejected(8, 60 * SECOND)

    traffic = Traffic(
        limiter, [server], callers=4, requests=120, latency_us=5_000, retry_after=1, until_us=600 * SECOND
    ).go()

    # Then most of what is sent is answered: 564 of 600 were refused
    assert traffic.refused < len(traffic.counted) / 3
    assert len(traffic.counted) - traffic.refused >= 40


# --- a long pause outlives Redis ------------------------------------------------------------------------------------


def test_a_long_pause_is_known_to_the_database_and_ends_by_itself(new, house):
    # Given a pause of eight hours
    limiter = new(Limit(100, seconds=10), watermark=Watermark("api"))
    ask(limiter, 429, {"Retry-After": str(8 * HOUR)})
    assert Watermark("api").pause() == (8 * HOUR + 1, f"the API answered 429, Retry-After {8 * HOUR}")

    # When Redis has forgotten everything, and a new process asks
    move_to(HOUR * SECOND)
    limiter.ledger.client.delete(*limiter.ledger.keys)
    fresh = beside(limiter, watermark=Watermark("api"))
    wait = refusal(fresh.permit_client())

    # Then the pause lasts, for the same reason, and a canary goes first when it has ended
    assert wait.wait_seconds == 7 * HOUR + 1
    assert wait.reason == f"api: paused: the API answered 429, Retry-After {8 * HOUR}"
    move_to((8 * HOUR + 1) * SECOND)
    fresh.permit_client().acquire(5.0)
    assert "one request is out" in refusal(fresh.permit_client()).reason


@pytest.mark.parametrize(("asked", "kept"), [(59, 0.0), (60, 61.0)])
def test_a_short_pause_is_not_written(new, house, asked, kept):
    limiter = new(Limit(100, seconds=10), watermark=Watermark("api"))

    ask(limiter, 429, {"Retry-After": str(asked)})

    assert Watermark("api").pause()[0] == kept


# --- what auto learned ----------------------------------------------------------------------------------------------


def test_one_refusal_beside_a_daily_limit_does_not_spread_the_day(client, moved_clock):
    # Given a run of 410 requests, of which one is refused for no reason that we know
    limiter = limiter_on(client, Limit(100, seconds=10), Limit(2000, seconds=DAY), profile="auto")
    caller, sent = limiter.permit_client(), 0
    caller.max_wait_seconds = 60.0
    while sent < 410:
        permit = caller.acquire(5.0)
        sent += 1
        with suppress(RateLimited):
            caller.report(permit, 429 if sent == 50 else 200, {})

    # Then it is a little slower than the 40 s of the limits
    state = limiter.snapshot()
    assert (state.profile, state.hits) == ("paced", 1)
    assert 40 <= now_us() / SECOND <= 70


def test_what_is_configured_as_paced_spreads_the_day_too(new):
    limiter = new(Limit(100, seconds=10), Limit(2000, seconds=DAY), profile="paced")

    traffic = Traffic(limiter, [], callers=2, requests=50, until_us=DAY * SECOND).go()

    assert len(traffic.sent) == 50
    assert now_us() > 9 * 40 * SECOND


def test_where_no_window_is_short_nothing_is_paced(new):
    limiter = new(Limit(5000, seconds=HOUR), profile="auto")

    ask(limiter, 429, {})

    assert limiter.snapshot().profile == "burst"
    assert limiter.snapshot().notes[0].text.endswith("none of its windows is short enough to be paced")
    move_to(60 * SECOND)
    use(limiter.permit_client(), 1000)
    assert now_us() == 60 * SECOND


def lesson_at(limiter: RateLimiter, second: float) -> tuple[str, float]:
    move_to(round(second * SECOND))
    with suppress(RateLimited):
        use(limiter.permit_client())
    state = limiter.snapshot()
    return state.profile, state.widened_seconds


def test_what_auto_learned_is_forgotten_after_ten_minutes_without_a_refusal_and_twice_as_late_after_a_relapse(new):
    limiter = new(Limit(10, seconds=20), profile="auto")

    # When it is refused, the lesson holds for 600 s after the pause
    ask(limiter, 429, {"Retry-After": "9"})
    assert lesson_at(limiter, 609) == ("paced", 0.0)
    assert lesson_at(limiter, 610) == ("burst", 0.0)
    assert limiter.snapshot().notes[0].text == "no refusal for 600 s: as configured again"

    # And twice as long after a relapse
    move_to(700 * SECOND)
    ask(limiter, 429, {"Retry-After": "9"})
    assert "room again: paced until none was refused for 1200 s" in limiter.snapshot().notes[0].text
    assert lesson_at(limiter, 710 + 1199) == ("paced", 0.0)
    assert lesson_at(limiter, 710 + 1200) == ("burst", 0.0)

    # But a refusal more than a day later is another lesson
    move_to((2000 + DAY) * SECOND)
    ask(limiter, 429, {"Retry-After": "9"})
    assert lesson_at(limiter, 2000 + DAY + 609) == ("paced", 0.0)
    assert lesson_at(limiter, 2000 + DAY + 610) == ("burst", 0.0)


def test_longer_windows_are_forgotten_with_the_pace_and_come_back_with_it_at_one_refusal(new):
    # Given a budget of longer windows
    limiter = new(Limit(10, seconds=20), profile="auto")
    for second in (0, 100):
        move_to(second * SECOND)
        ask(limiter, 429, {"Retry-After": "3"})
        move_to((second + 50) * SECOND)
        ask(limiter, 200, {})
    assert lesson_at(limiter, 703) == ("paced", 1.0)
    assert lesson_at(limiter, 704) == ("burst", 0.0)

    # When it is refused once more
    move_to(800 * SECOND)
    ask(limiter, 429, {"Retry-After": "3"})

    # Then it has learned both at once: one incident a relapse
    assert lesson_at(limiter, 900) == ("paced", 1.0)


@pytest.mark.parametrize("forgets_at", ["paced", "relaxed"])
def test_for_how_long_a_lesson_holds_outlives_redis(new, house, forgets_at):
    # Given a lesson, or one that was forgotten
    limiter = new(Limit(10, seconds=20), profile="auto", watermark=Watermark("api"))
    ask(limiter, 429, {"Retry-After": "9"})
    assert lesson_at(limiter, 300) == ("paced", 0.0)
    if forgets_at == "relaxed":
        assert lesson_at(limiter, 620) == ("burst", 0.0)

    # When Redis has forgotten everything
    limiter.ledger.client.delete(*limiter.ledger.keys)
    fresh = beside(limiter, watermark=Watermark("api"))

    # Then it holds until it would have, within the pause; or the next refusal is a relapse
    if forgets_at == "paced":
        assert lesson_at(fresh, 595) == ("paced", 0.0)
        assert lesson_at(fresh, 625) == ("burst", 0.0)
    else:
        move_to(900 * SECOND)
        ask(fresh, 429, {"Retry-After": "9"})
        assert lesson_at(fresh, 900 + 1150) == ("paced", 0.0)
        assert lesson_at(fresh, 900 + 1250) == ("burst", 0.0)


def test_four_hours_on_a_counter_server_are_five_incidents(client, moved_clock):
    limiter = limiter_on(client, Limit(5, seconds=60), profile="auto")
    server = SlidingCounter(5, 60 * SECOND)

    traffic = Traffic(limiter, [server], callers=3, requests=10**9, latency_us=50_000, until_us=4 * HOUR * SECOND).go()

    # 600 + 1,200 + 2,400 + 4,800 s paced, and a fifth one for the rest; a rule of 60 s gave 221
    assert limiter.snapshot().hits == 5
    assert traffic.refused <= 15


# --- what others spent ----------------------------------------------------------------------------------------------


def left(remaining: int, limit: int, reset: float | None = None) -> dict[str, str]:
    said = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(remaining)}
    return said if reset is None else said | {"X-RateLimit-Reset": f"{reset:g}"}


@pytest.mark.parametrize(
    ("reset", "opens"),
    [(8, 9.0), (0, 1.0), (59, 60.0), (60, 60.06), (3000, 60.06), (None, 60.06)],
    ids=["soon", "now", "at the end", "a window", "after the window", "not said"],
)
def test_what_others_spent_counts_until_the_stated_reset_and_no_longer_than_the_window(new, reset, opens):
    limiter = new(Limit(50, seconds=60))

    ask(limiter, 200, left(0, 50, reset))

    assert limiter.snapshot().foreign == 49
    assert refusal(limiter.permit_client()).wait_seconds == pytest.approx(opens)
    move_to(round(opens * SECOND))
    assert granted(limiter) >= 49


def test_a_quota_that_returns_at_the_minute_is_used_from_then_on(client, moved_clock):
    # Given 50 a minute, at the full minute, of which others took 49 at second 50
    move_to(50 * SECOND)
    server = FixedWindows(50, 60 * SECOND)
    assert all(server.accepts(now_us()) for _ in range(49))

    def headers(remaining):
        return left(remaining[0], 50, 60 - now_us() / SECOND % 60)

    # When 40 are wanted from second 52 on, a list page first
    move_to(52 * SECOND)
    limiter = limiter_on(client, Limit(50, seconds=60), profile="auto")
    traffic = Traffic(limiter, [server], callers=1, requests=1, headers=headers).go()
    traffic = Traffic(limiter, [server], callers=4, requests=39, latency_us=5_000, headers=headers).go()

    # Then they are sent when it returns, not when a minute has passed: 112 s
    assert traffic.refused == 0
    assert 60 <= now_us() / SECOND <= 62.5


def test_what_others_spent_counts_in_the_window_that_the_header_speaks_of(new):
    limiter = new(Limit(10, seconds=20), Limit(1000, seconds=DAY))

    ask(limiter, 200, left(2, 10, 5))

    assert [window.used for window in limiter.snapshot().windows] == [8, 1]
    assert refusal_after(limiter, 2).wait_seconds == pytest.approx(6.0)


def refusal_after(limiter: RateLimiter, count: int) -> RateLimited:
    use(limiter.permit_client(), count)
    return refusal(limiter.permit_client())


def test_more_of_others_is_added_and_the_last_reset_holds(new):
    limiter = new(Limit(50, seconds=60))
    ask(limiter, 200, left(39, 50, 30))
    move_to(SECOND)

    ask(limiter, 200, left(20, 50, 20))

    state = limiter.snapshot()
    assert (state.foreign, state.windows[0].used) == (28, 30)
    move_to(22 * SECOND)
    assert limiter.snapshot().windows[0].used == 2


# --- limits of one kind of request ----------------------------------------------------------------------------------


def named(limit: int, seconds: int = 60) -> dict[str, str]:
    return {"RateLimit-Policy": f'"a";q={limit};w={seconds}'}


def test_a_limit_of_the_list_does_not_bind_details_that_name_another(new):
    # Given a list of two pages that names its own limit
    limiter = new(Limit(600, seconds=60), profile="auto")
    for _ in range(2):
        ask(limiter, 200, named(10))
    assert limiter.snapshot().windows[0].full == 10

    # When a detail names what is configured
    ask(limiter, 200, named(600))

    # Then that holds, also when the list is asked once more, and a note names both
    assert limiter.snapshot().windows[0].full == 600
    said = limiter.snapshot().notes[0].text
    assert said == "answers name 10 and 600 for window 10/60 s: the lower one binds only some"
    for _ in range(20):
        ask(limiter, 200, named(10))
        ask(limiter, 200, named(600))
    assert limiter.snapshot().windows[0].full == 600
    assert len(limiter.snapshot().notes) == 2
    assert granted(limiter, 300) == 300


def test_300_items_take_no_minute_more_for_their_list_s_limit(client, moved_clock):
    limiter = limiter_on(client, Limit(600, seconds=60), profile="auto")
    traffic = Traffic(limiter, [], callers=1, requests=3, headers=lambda _: named(10)).go()
    traffic = Traffic(
        limiter, [], callers=8, requests=300, latency_us=50_000, headers=lambda _: named(600), seed=1
    ).go()

    assert len(traffic.sent) == 300
    assert traffic.sent[-1][0] < 5 * SECOND


def test_a_limit_that_all_answers_name_lower_is_adopted_again_when_they_agree(new):
    limiter = new(Limit(600, seconds=60))
    ask(limiter, 200, named(10))
    ask(limiter, 200, named(600))

    # When nothing but the lower one was named for two windows
    move_to(121 * SECOND)
    ask(limiter, 200, named(10))

    assert limiter.snapshot().windows[0].full == 10


def test_an_answer_to_what_was_sent_before_a_limit_was_lowered_does_not_raise_it(new):
    limiter = new(Limit(600, seconds=60))
    slow = limiter.permit_client()
    permit = slow.acquire(30.0)
    move_to(SECOND)
    ask(limiter, 200, named(10))

    hear(slow, permit, 200, named(600))

    assert limiter.snapshot().windows[0].full == 10


def test_a_watermark_in_memory_keeps_what_the_one_in_the_database_does():
    public = {name for name in dir(Watermark) if not name.startswith("_")}

    assert public <= set(dir(MemoryWatermark))
