"""The reference servers count as documented: sequences computed by hand, and each server against its definition.

Limits in the sequences: 3 requests in 12 us, so that a token takes 4 us.
"""

from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.reference_servers import (
    COUNTERS,
    KINDS,
    SECOND_US,
    SMALL_BURST,
    WHOLE_SECONDS,
    CountsRejected,
    FirstHitWindows,
    FixedWindows,
    Gcra,
    Kinds,
    OneSecondLog,
    Server,
    SlidingCounter,
    SlidingLog,
    SmallBurstGcra,
    TokenBucket,
    rejections,
)

ALL: Kinds = KINDS | WHOLE_SECONDS | COUNTERS | SMALL_BURST | {"log that counts the refused": CountsRejected}

PROPERTY = settings(max_examples=50, deadline=None)

#: What one server was asked: instant and weight, in the order of time.
Asked = list[tuple[int, int]]


# --- worked out by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "answers"),
    [
        (FixedWindows(3, 12), {10: "yyyn", 11: "n", 12: "yyyn", 24: "y"}),
        (FixedWindows(3, 12, phase_us=4), {0: "y", 3: "yyn", 4: "yyyn", 15: "n", 16: "y"}),
        (FixedWindows(3, 12, phase_us=-1), {10: "yyyn", 11: "yyyn", 22: "n", 23: "y"}),
        (FirstHitWindows(3, 12), {10: "y", 21: "yyn", 22: "yyyn", 33: "n", 50: "yyyn", 61: "n", 62: "y"}),
        (SlidingLog(3, 12), {0: "y", 5: "yyn", 11: "n", 12: "yn", 16: "n", 17: "yyn", 23: "n", 24: "y"}),
        (CountsRejected(3, 12), {0: "yyyn", 11: "n", 12: "yyn", 23: "n", 24: "yyn", 35: "n", 36: "yyn"}),
        (TokenBucket(3, 12), {0: "yyyn", 3: "n", 4: "yn", 7: "n", 8: "y", 11: "n", 16: "yyn", 100: "yyyn"}),
        (Gcra(3, 12), {0: "yyyn", 3: "n", 4: "yn", 11: "yn", 12: "yn", 100: "yyyn"}),
        (SmallBurstGcra(3, 12, burst=1), {0: "yn", 3: "n", 4: "yn", 9: "yn", 12: "n", 13: "y"}),
        (SmallBurstGcra(3, 12, burst=2), {0: "yyn", 3: "n", 4: "yn", 12: "yyn", 15: "n"}),
        # At 12, 3 (1 - 0) + 1 = 4; at 16, 3 (1 - 4/12) + 1 = 3; at 19, 3 (5/12) + 1 + 1 = 3.25; at 20, 3.
        (SlidingCounter(3, 12), {5: "yyyn", 11: "n", 12: "n", 15: "n", 16: "yn", 19: "n", 20: "yn", 24: "yn"}),
        # An empty window between two others leaves nothing of the one before it.
        (SlidingCounter(3, 12, phase_us=6), {17: "yyyn", 18: "n", 30: "yyyn", 53: "yyn", 54: "yn", 78: "yyyn"}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_a_server_answers_to_the_microsecond(server: Server, answers: dict[int, str]) -> None:
    answered = {
        instant: "".join("y" if server.accepts(instant) else "n" for _ in expected)
        for instant, expected in answers.items()
    }

    assert answered == answers


def test_a_log_in_whole_seconds_keeps_a_request_until_its_second_plus_the_window_is_over() -> None:
    server = OneSecondLog(1, 2 * SECOND_US)
    assert server.accepts(1_000_000)

    assert not server.accepts(3_999_999)
    assert server.accepts(4_000_000)


def test_a_log_in_whole_seconds_forgets_a_late_request_as_early_as_an_early_one() -> None:
    server = OneSecondLog(1, 2 * SECOND_US)
    assert server.accepts(1_999_999)

    assert not server.accepts(3_999_999)
    assert server.accepts(4_000_000)


def test_a_server_s_seconds_need_not_be_ours() -> None:
    server = OneSecondLog(1, 2 * SECOND_US, phase_us=250_000)
    assert server.accepts(1_250_000)

    assert not server.accepts(4_249_999)
    assert server.accepts(4_250_000)


@pytest.mark.parametrize("kind", sorted(ALL.keys() - SMALL_BURST.keys()))
def test_a_weight_counts_as_so_many_requests_all_or_none(kind: str) -> None:
    server = ALL[kind](5, 10 * SECOND_US)

    answers = [server.accepts(0, weight) for weight in (3, 2, 1)]

    assert answers == [True, True, False]


@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_weight_above_the_limit_never_gets_in(kind: str) -> None:
    server = ALL[kind](5, 10 * SECOND_US)

    assert not any(server.accepts(instant * SECOND_US, 6) for instant in range(100))


def test_rejections_sorts_and_counts_the_refused() -> None:
    assert rejections(SlidingLog(3, 12), [12, 0, 5, 5, 5, 11]) == 2


# --- against their definitions ----------------------------------------------------------------------------------------

#: May this be counted as well, after all of that? By name: (requests, window_us) -> that question.
Definition = Callable[[Asked, int, int], bool]

LIMITS = st.tuples(st.integers(1, 6), st.integers(1, 40))


@st.composite
def schedules(draw: st.DrawFn, unit_us: int = 1) -> Asked:
    """Draw requests close enough to each other for every edge to be hit."""
    gaps = draw(st.lists(st.integers(0, 15), max_size=40))
    weights = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3, 7]), min_size=len(gaps), max_size=len(gaps)))
    instants = [sum(gaps[: index + 1]) * unit_us for index in range(len(gaps))]
    return list(zip(instants, weights, strict=True))


def weighed(counted: Asked, first_us: int, last_us: int) -> int:
    """Return what was counted from the one instant to the other, both included."""
    return sum(weight for instant, weight in counted if first_us <= instant <= last_us)


def log(requests: int, window_us: int) -> Definition:
    """No interval of the window's length, wherever it starts, holds more than the limit."""

    def fits(counted: Asked, now: int, weight: int) -> bool:
        every = [*counted, (now, weight)]
        return all(weighed(every, first, first + window_us - 1) <= requests for first, _ in every)

    return fits


def fixed(requests: int, window_us: int, phase_us: int = 0) -> Definition:
    """No window that starts a whole number of lengths after the phase holds more than the limit."""

    def fits(counted: Asked, now: int, weight: int) -> bool:
        starts = range(phase_us - window_us, now + 1, window_us)
        every = [*counted, (now, weight)]
        return all(weighed(every, start, start + window_us - 1) <= requests for start in starts)

    return fits


def first_hit(requests: int, window_us: int) -> Definition:
    """No window holds more than the limit; each starts with the first request that none before it holds."""

    def fits(counted: Asked, now: int, weight: int) -> bool:
        left = [*counted, (now, weight)]
        while left:
            ends = left[0][0] + window_us
            if sum(weight for instant, weight in left if instant < ends) > requests:
                return False
            left = [(instant, weight) for instant, weight in left if instant >= ends]
        return True

    return fits


def evenly(requests: int, window_us: int, burst: int) -> Definition:
    """Every interval, of any length, holds at most the burst and what its length brings: N <= burst + length L / W."""

    def fits(counted: Asked, now: int, weight: int) -> bool:
        every = [*counted, (now, weight)]
        return all(
            weighed(every, first, now) <= burst + Fraction((now - first) * requests, window_us) for first, _ in every
        )

    return fits


def estimate(requests: int, window_us: int, phase_us: int = 0) -> Definition:
    """prev (1 - x/W) + cur is at most the limit, in fractions."""

    def fits(counted: Asked, now: int, weight: int) -> bool:
        start = phase_us + (now - phase_us) // window_us * window_us
        share = 1 - Fraction(now - start, window_us)
        previous = weighed(counted, start - window_us, start - 1)
        return previous * share + weighed(counted, start, now) + weight <= requests

    return fits


DEFINED = {
    "fixed windows": (FixedWindows, fixed),
    "fixed windows, a third later": (KINDS["fixed windows, a third later"], lambda r, w: fixed(r, w, w // 3)),
    "fixed windows, just before": (KINDS["fixed windows, just before"], lambda r, w: fixed(r, w, -1)),
    "windows from the first hit": (FirstHitWindows, first_hit),
    "sliding log": (SlidingLog, log),
    "token bucket": (TokenBucket, lambda r, w: evenly(r, w, r)),
    "GCRA": (Gcra, lambda r, w: evenly(r, w, r)),
    "GCRA, burst 1": (SMALL_BURST["GCRA, burst 1"], lambda r, w: evenly(r, w, 1)),
    "GCRA, burst 4": (SMALL_BURST["GCRA, burst 4"], lambda r, w: evenly(r, w, min(4, r))),
    "GCRA, burst a tenth": (SMALL_BURST["GCRA, burst a tenth"], lambda r, w: evenly(r, w, max(1, r // 10))),
    "sliding counter": (SlidingCounter, estimate),
    "sliding counter, a third later": (COUNTERS["sliding counter, a third later"], lambda r, w: estimate(r, w, w // 3)),
    "sliding counter, half later": (COUNTERS["sliding counter, half later"], lambda r, w: estimate(r, w, w // 2)),
    "sliding counter, just before": (COUNTERS["sliding counter, just before"], lambda r, w: estimate(r, w, -1)),
}


def test_every_kind_but_those_below_has_a_definition() -> None:
    assert ALL.keys() - DEFINED.keys() == WHOLE_SECONDS.keys() | {"log that counts the refused"}


@pytest.mark.parametrize("kind", DEFINED)
@PROPERTY
@given(limit=LIMITS, asked=schedules())
def test_a_server_accepts_what_its_definition_allows(kind: str, limit: tuple[int, int], asked: Asked) -> None:
    make, define = DEFINED[kind]
    server, fits = make(*limit), define(*limit)
    counted: Asked = []

    for instant, weight in asked:
        allowed = fits(counted, instant, weight)

        assert server.accepts(instant, weight) == allowed, (instant, weight, counted)
        counted += [(instant, weight)] * allowed


@pytest.mark.parametrize(("kind", "phase_us"), list(zip(WHOLE_SECONDS, (0, 333_333, -1), strict=True)))
@PROPERTY
@given(requests=st.integers(1, 6), seconds=st.integers(1, 5), asked=schedules(unit_us=166_667))
def test_a_log_in_whole_seconds_adds_up_its_seconds(
    kind: str, phase_us: int, requests: int, seconds: int, asked: Asked
) -> None:
    server = WHOLE_SECONDS[kind](requests, seconds * SECOND_US)
    counted: Asked = []  # by second

    for instant, weight in asked:
        second = (instant - phase_us) // SECOND_US
        allowed = weighed(counted, second - seconds, second) + weight <= requests

        assert server.accepts(instant, weight) == allowed, (instant, weight, counted)
        counted += [(second, weight)] * allowed


@PROPERTY
@given(limit=LIMITS, asked=schedules())
def test_a_log_that_counts_the_refused_looks_at_every_call(limit: tuple[int, int], asked: Asked) -> None:
    requests, window_us = limit
    server = CountsRejected(*limit)

    for index, (instant, weight) in enumerate(asked):
        calls = weighed(asked[: index + 1], instant - window_us + 1, instant)

        assert server.accepts(instant, weight) == (calls <= requests)


@pytest.mark.parametrize("kind", sorted(ALL))
@PROPERTY
@given(limit=LIMITS, asked=schedules(), later_us=st.integers(0, 50))
def test_remaining_is_the_most_that_would_get_in_and_counts_nothing(
    kind: str, limit: tuple[int, int], asked: Asked, later_us: int
) -> None:
    server = ALL[kind](*limit)
    for instant, weight in asked:
        server.accepts(instant, weight)
    now = (asked[-1][0] if asked else 0) + later_us
    before = deepcopy(server)

    remaining = server.remaining(now)

    assert vars_of(server) == vars_of(before)
    assert 0 <= remaining <= limit[0]
    assert not remaining or deepcopy(server).accepts(now, remaining)
    assert not server.accepts(now, remaining + 1)


def vars_of(server: Server) -> dict[str, object]:
    return {name: getattr(value, "__dict__", value) for name, value in vars(server).items()}


# --- who accepts what -------------------------------------------------------------------------------------------------


def accepted(server: Server, asked: Asked) -> list[int]:
    return [instant for instant, _ in asked if server.accepts(instant)]


@pytest.mark.parametrize("kind", KINDS)
@PROPERTY
@given(limit=LIMITS, asked=schedules())
def test_what_passes_a_log_passes_each_kind(kind: str, limit: tuple[int, int], asked: Asked) -> None:
    assert rejections(KINDS[kind](*limit), accepted(SlidingLog(*limit), asked)) == 0


@pytest.mark.parametrize("kind", WHOLE_SECONDS)
@PROPERTY
@given(requests=st.integers(1, 6), seconds=st.integers(1, 5), asked=schedules(unit_us=166_667))
def test_what_passes_a_log_a_second_longer_passes_one_in_whole_seconds(
    kind: str, requests: int, seconds: int, asked: Asked
) -> None:
    counted = accepted(SlidingLog(requests, (seconds + 1) * SECOND_US), asked)

    assert rejections(WHOLE_SECONDS[kind](requests, seconds * SECOND_US), counted) == 0


@pytest.mark.parametrize("kind", COUNTERS)
@PROPERTY
@given(burst=st.integers(1, 3), paced=st.integers(1, 5), window_us=st.integers(1, 40), asked=schedules())
def test_a_pace_and_a_burst_that_add_up_to_the_limit_pass_every_counter(
    kind: str, burst: int, paced: int, window_us: int, asked: Asked
) -> None:
    counted = accepted(SmallBurstGcra(paced, window_us, burst), asked)

    assert rejections(COUNTERS[kind](burst + paced, window_us), counted) == 0


@pytest.mark.parametrize("kind", [*WHOLE_SECONDS, *COUNTERS, *SMALL_BURST])
def test_the_other_groups_refuse_what_a_log_accepts(kind: str) -> None:
    window_us = 2 * SECOND_US
    burst_by_burst = [number * window_us + SECOND_US - 1 for number in range(10) for _ in range(20)]

    assert rejections(SlidingLog(20, window_us), burst_by_burst) == 0
    assert rejections(ALL[kind](20, window_us), burst_by_burst) > 0
