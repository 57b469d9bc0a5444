"""Old and new processes share one budget: both scripts read and write the state, and keep each other's fields.

`limiter_version_1.lua` is the script as it was before own refusals, lessons that are forgotten, and others' spending
beside the ring. A process that is not yet restarted still uses it, on the same budget.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.helpers.limiter_simulation import FIRST, Fleet, Mishap, Scenario, Wire, refusals
from tests.helpers.limiter_traffic import Traffic
from tests.helpers.limiters import SECOND, ask, beside, granted, limiter_on, move_to, now_us, refusal, use
from tests.helpers.reference_servers import SlidingLog
from workers import Limit, RateLimiter, clock
from workers.errors import Refused
from workers.limiter.permits import Subject

OLD = (Path(__file__).parent / "limiter_version_1.lua").read_text()
DAY = 86_400


def as_new(reply: list[Any]) -> list[Any]:
    """What an old script answers, as a new process reads it: it knows of no refusal that is an item's own."""
    if reply[0] == 3:
        nothing = {"level": 0, "learned": 0, "relax": 0, "relaxes": 0}
        return [3, json.dumps(nothing | json.loads(reply[1])), *reply[2:]]
    return [*reply[:3], 0, *reply[3:]] if reply[0] == 2 else reply


class OldProcess(redis.Redis):
    """A client that runs the old script."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        if arguments[0] in ("EVALSHA", "EVAL"):
            return as_new(super().execute_command("EVAL", OLD, *arguments[2:], **options))
        return super().execute_command(*arguments, **options)


class OldWire(Wire):
    """One that runs the old script, and the oracle hears it."""

    def _call(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        reply = as_new(redis.Redis.execute_command(self, "EVAL", OLD, *arguments[2:], **options))
        if self.fleet.oracle:
            self.fleet.oracle.listen(arguments[FIRST:], reply)
        return reply


@pytest.fixture
def pair(client: redis.Redis, moved_clock: clock.MovedClock) -> Callable[..., tuple[RateLimiter, RateLimiter]]:
    """pair(Limit(...), ...): an old process and a new one on a fresh budget, in moved time."""

    def make(*limits: Limit, **options: Any) -> tuple[RateLimiter, RateLimiter]:
        old = limiter_on(OldProcess(connection_pool=client.connection_pool), *limits, **options)
        new = limiter_on(client, *limits, prefix=old.ledger.keys[0].split(":")[0], **options)
        return old, new

    return make


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("profile", ["burst", "paced"])
def test_a_mixed_fleet_sends_no_more_than_the_limits_and_each_script_decides_by_the_same_rule(client, profile, seed):
    # Given a fleet of which every second process is old; the oracle answers each call of either script
    hired = []

    def every_second_is_old(limiter: RateLimiter) -> None:
        hired.append(limiter)
        if len(hired) % 2:
            wire = OldWire(connection_pool=client.connection_pool)
            wire.fleet = limiter.ledger.client.fleet
            limiter.ledger.client = wire

    scenario = Scenario(
        (Limit(7, 2.0), Limit(30, 20.0)),
        processes=4,
        callers=8,
        requests=70,
        latency_us=300_000,
        straggles=0.1,
        never_answered=0.05,
        crashes=0.05,
        repeated=0.1,
        weights=1 + seed % 2,
        expects=1 + seed % 3,
        runs=2,
        watermark=True,
        profile=profile,
        mishaps=(Mishap(3 * SECOND, "die"), Mishap(5 * SECOND, "forget scripts"), Mishap(9 * SECOND, "freeze", SECOND)),
        seed=seed,
    )

    # When it sends as fast as it may
    fleet = Fleet(client, scenario, on_hire=every_second_is_old).run()

    # Then no server refuses, and no process took the state of another for lost
    assert refusals(fleet.counted, scenario.limits) == {}
    assert fleet.snapshot.lost_why == ""
    assert fleet.snapshot.notes == ()


def test_a_day_s_limit_is_not_closed_by_a_new_process(pair):
    # Given an old process that has used a third of a day's limit
    old, new = pair(Limit(9, seconds=DAY))
    use(old.permit_client(), 3)

    # When new processes start, and the old one continues, then all count together
    assert granted(new) == 6
    use(new.permit_client(), 2)
    assert granted(old) == 4
    use(old.permit_client(), 4)
    assert (granted(new), granted(old)) == (0, 0)
    assert new.snapshot().notes == ()
    move_to((DAY + 100) * SECOND)
    assert granted(new) == 9


def test_what_a_new_process_learned_is_kept_by_an_old_one_that_writes(pair):
    # Given what only a new process knows: others' spending, a limit that answers do not agree about, a refused item
    old, new = pair(Limit(50, seconds=60), Limit(10, seconds=20))
    ask(new, 200, {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "20", "X-RateLimit-Reset": "40"})
    ask(new, 200, {"RateLimit-Policy": '"a";q=5;w=20'})
    ask(new, 200, {"RateLimit-Policy": '"a";q=10;w=20'})
    refused = ask(new, 429, {"Retry-After": "0"})
    assert isinstance(refused, Refused)

    # When an old one uses it, and writes what it learns
    move_to(2 * SECOND)
    use(old.permit_client(), 2)
    ask(old, 429, {"Retry-After": "0"})
    move_to(4 * SECOND)
    use(new.permit_client())
    use(old.permit_client())

    # Then the new one still knows
    state = new.snapshot()
    assert [(window.full, window.used) for window in state.windows] == [(50, 9 + 29), (10, 9)]
    ask(new, 200, {"RateLimit-Policy": '"a";q=5;w=20'})
    assert new.snapshot().windows[1].full == 10
    caller = new.permit_client()
    caller.subject = Subject(refused_at_us=refused.at_us)
    move_to(30 * SECOND)
    with pytest.raises(Refused) as caught:
        caller.report(caller.acquire(5.0), 429, {"Retry-After": "0"})
    assert caught.value.own


def test_a_budget_that_an_old_process_paced_for_good_relaxes_and_the_old_one_hears_it(pair):
    # Given an old process that learned to be paced
    old, new = pair(Limit(10, seconds=20), profile="auto")
    ask(old, 429, {"Retry-After": "9"})
    assert (old.snapshot().profile, new.snapshot().profile) == ("paced", "paced")

    # When ten minutes have passed, then a new one forgets it, for both
    move_to(609 * SECOND)
    use(new.permit_client())
    assert old.snapshot().profile == "paced"
    move_to(700 * SECOND)
    use(new.permit_client())
    assert (old.snapshot().profile, new.snapshot().profile) == ("burst", "burst")
    use(old.permit_client(), 5)
    assert granted(new) == 4


def test_a_mixed_fleet_that_is_refused_pauses_together_and_goes_on(pair):
    # Given an API that takes fewer than is believed, and both kinds of processes
    old, new = pair(Limit(20, seconds=10), profile="auto")
    server = SlidingLog(10, 10 * SECOND)

    # When they take turns
    for number in range(6):
        Traffic((old, new)[number % 2], [server], callers=3, requests=20, latency_us=50_000, retry_after=4).go()

    # Then each process obeyed the limit that the other one read in a header
    state = new.snapshot()
    assert state.profile == "paced"
    assert state.hits <= 20
    assert now_us() < 900 * SECOND
    move_to(1000 * SECOND)
    ask(old, 429, {"Retry-After": "30"})
    assert (
        refusal(new.permit_client()).wait_seconds
        == refusal(beside(new).permit_client()).wait_seconds
        == pytest.approx(31, abs=1)
    )
