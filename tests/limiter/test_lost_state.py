"""Redis loses the state of a budget: no request is sent that an API can refuse, and the budget opens when it is safe.

Real servers, stopped, killed, flushed, followed and restarted; time is moved where nothing else is said. A "process" is
a `RateLimiter` of its own: what one knows, another does not. Most budgets take 5 requests in 10 s, and a permit that is
never answered counts for 16 s: a second to use it, the timeout of 5 s, the linger of 10 s.

The last part takes each defence out of the script and sees a test fail.
"""

import json
import random
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
import requests
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from mock_server import MockConfig, parse_limits, serve_in_thread
from models import Item
from tests.helpers.limiter_simulation import MemoryWatermark
from tests.helpers.machine import wait_until
from tests.helpers.own_redis import OwnRedis
from workers import Budget, Limit, RateLimiter, clock
from workers.errors import DependencyDown, RateLimited
from workers.limiter import redis_ledger
from workers.limiter.lesson import Lesson
from workers.limiter.permits import PermitClient
from workers.limiter.redis_ledger import Ledger
from workers.processes import redis_data_folder
from workers.records import schema
from workers.records.watermark import Watermark

TIMEOUT, TTL, WINDOW = 5.0, 16.0, 10.01
PARTS = ("state", "ring", "flight", "waiting", "runs", "notes")
ROOT = Path(__file__).resolve().parents[2]


class Mark(MemoryWatermark):
    """A watermark in memory."""

    def __init__(self, until: float | None = None) -> None:
        super().__init__()
        self.until = until


class World:
    """A Redis, the processes that use it, and the time they live in."""

    def __init__(self, folder: Path, binary: str, moved: clock.MovedClock) -> None:
        self.folder, self.binary, self.clock = folder, binary, moved
        self.servers: list[OwnRedis] = []
        self.prefix = f"t{uuid.uuid4().hex[:12]}"
        self.redis = self.another_redis()

    def another_redis(self, **options: str) -> OwnRedis:
        self.servers.append(OwnRedis(self.folder / str(len(self.servers)), self.binary, **options))
        return self.servers[-1]

    def process(self, *limits: Limit, client: redis.Redis | None = None, name: str = "api", **options) -> RateLimiter:
        """One that never sleeps: every refusal is a RateLimited."""
        profile = options.pop("profile", "burst")
        budget = Budget(name, limits or (Limit(5, seconds=10),), profile=profile)
        options = {"max_wait_seconds": 0.0, "prefix": self.prefix} | options
        return RateLimiter(budget, client or self.redis.client, **options)

    def at(self, seconds: float) -> None:
        self.clock.elapsed_seconds = round(seconds * 1e6) / 1e6

    def flush(self) -> None:
        self.redis.client.flushall()

    def dumps(self) -> dict[bytes, bytes]:
        client = self.redis.client
        return {key: client.dump(key) for key in sorted(client.keys(f"{self.prefix}:*"))}

    def restore(self, dumps: dict[bytes, bytes]) -> None:
        """Put an older state in the place of all there is, without Redis noticing anything."""
        for key in self.redis.client.keys(f"{self.prefix}:*"):
            self.redis.client.delete(key)
        for key, dump in dumps.items():
            self.redis.client.restore(key, 0, dump)

    def close(self) -> None:
        for server in self.servers:
            server.client.close()
            server.kill()


@pytest.fixture(params=redis_data_folder.binaries().items(), ids=lambda named: named[0])
def world(request: pytest.FixtureRequest, tmp_path: Path, moved_clock: clock.MovedClock) -> Iterator[World]:
    made = World(tmp_path, request.param[1], moved_clock)
    yield made
    made.close()


def use(process: RateLimiter, count: int = 1) -> None:
    """Take that many permits and answer each at once."""
    caller = process.permit_client()
    for _ in range(count):
        caller.answered(caller.acquire(TIMEOUT))
    caller.flush()


def granted(process: RateLimiter, at_most: int = 1000) -> int:
    """How many permits there are to be had now; they are given back."""
    caller, permits = process.permit_client(), []
    with suppress(RateLimited):
        while len(permits) < at_most:
            permits.append(caller.acquire(TIMEOUT))
    for permit in permits:
        caller.unsent(permit)
    return len(permits)


def refusal(process: RateLimiter | PermitClient) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        (process.permit_client() if isinstance(process, RateLimiter) else process).acquire(TIMEOUT)
    return caught.value


def check_full_until(world: World, process: RateLimiter, seconds: float, count: int = 5) -> None:
    """It gives nothing until that very instant, and then all."""
    world.at(seconds - 3e-6)
    assert granted(process) == 0
    world.at(seconds + 3e-6)
    assert granted(process) == count


def hear_429(caller: PermitClient, permit, pause_seconds: float) -> None:
    with suppress(RateLimited):
        caller.report(permit, 429, {"Retry-After": f"{pause_seconds - 1:g}"})


def epoch(process: RateLimiter) -> int:
    return process.ledger._seen.epoch


# --- FLUSHALL ---------------------------------------------------------------------------------------------------------


def test_after_a_flush_a_live_process_takes_its_windows_as_full_until_nothing_of_before_can_count(world):
    # Given a process that has taken permits, for a long timeout and for short ones
    process = world.process()
    process.permit_client().acquire(20.0)
    use(process)
    world.at(3)

    # When Redis forgets all, and it asks two seconds later
    world.flush()
    world.at(5)
    wait = refusal(process)

    # Then a permit taken in between can count until the longest deadline from now, and then for a window
    assert "taken as full: its state is gone" in wait.reason
    assert process.snapshot().taken_as_full_seconds == pytest.approx(31 + WINDOW)
    check_full_until(world, process, 5 + 31 + WINDOW)


def test_after_a_flush_each_window_is_full_for_its_own_length(world):
    process = world.process(Limit(5, seconds=10), Limit(8, seconds=60))
    use(process)

    world.flush()
    refusal(process)

    world.at(TTL + WINDOW - 0.001)
    assert [window.used for window in process.snapshot().windows] == [5, 8]
    world.at(TTL + WINDOW)
    assert [window.used for window in process.snapshot().windows] == [0, 8]
    check_full_until(world, process, TTL + 60.06)


def test_a_second_live_process_with_an_older_epoch_adds_nothing(world):
    # Given two live processes, and a state that the first has made anew
    first, second = world.process(), world.process()
    use(first)
    use(second)
    world.at(3)
    world.flush()
    refusal(first)

    # When the other comes four seconds later
    world.at(7)
    refusal(second)

    # Then it takes the state as it is
    assert epoch(first) == epoch(second)
    check_full_until(world, second, 3 + TTL + WINDOW)


def test_a_live_process_with_longer_deadlines_than_the_first_closes_the_budget_until_they_have_passed(world):
    # Given one process whose requests may last a minute, and one whose may last five seconds
    slow, quick = world.process(), world.process()
    slow.permit_client().acquire(60.0)
    use(quick)
    world.at(1)
    world.flush()
    refusal(quick)

    # When the slow one comes
    world.at(4)
    refusal(slow)

    # Then the budget opens a window after its deadlines
    check_full_until(world, quick, 4 + 71 + WINDOW)


def test_a_respawned_process_that_asks_first_opens_a_window_after_the_watermark(world):
    # Given a budget that was used by a process which is gone, and which had raised the watermark to 7.5 s
    use(world.process())
    world.at(3)
    world.flush()

    # When a new one asks first
    fresh = world.process(Limit(5, seconds=10), Limit(8, seconds=60), watermark=Mark(7.5))
    refusal(fresh)

    # Then every window opens its own length after the watermark
    world.at(7.499 + WINDOW)
    assert [window.used for window in fresh.snapshot().windows] == [5, 8]
    world.at(7.5 + WINDOW)
    assert [window.used for window in fresh.snapshot().windows] == [0, 8]
    check_full_until(world, fresh, 7.5 + 60.06)


def test_a_watermark_in_the_recent_past_closes_what_is_left_of_the_window(world):
    world.at(100)
    fresh = world.process(watermark=Mark(96))

    assert "taken as full" in refusal(fresh).reason
    check_full_until(world, fresh, 96 + WINDOW)


def test_a_watermark_that_proves_the_budget_idle_opens_it_empty(world):
    world.at(100)
    fresh = world.process(watermark=Mark(100 - WINDOW))

    assert granted(fresh) == 5


def test_the_first_use_ever_opens_empty(world):
    mark = Mark()
    first, second = world.process(watermark=mark), world.process(watermark=mark)

    assert granted(first, at_most=2) == 2
    assert granted(second) == 5
    assert mark.until == 10 + TTL


def test_the_database_s_watermark_keeps_a_respawned_process_from_a_burst(world, environment):
    # Given the table of watermarks, and a process that used the budget and raised its own
    environment.setenv("SLUICE_DATABASE_URL", f"sqlite:///{world.folder}/sluice.db")
    schema.migrate([Item])
    use(world.process(watermark=Watermark("api")), 5)
    world.at(4)
    world.flush()

    # When a new process asks first
    fresh = world.process(watermark=Watermark("api"))
    refusal(fresh)

    # Then it waits for what the other may have been granted until now
    check_full_until(world, fresh, 4 + TTL + WINDOW)

    # And when the budget has been idle for long, Redis may forget it without a cost
    world.at(3600)
    world.flush()
    assert granted(world.process(watermark=Watermark("api"))) == 5


def test_alone_without_a_watermark_it_opens_empty_until_a_live_process_brings_its_knowledge(world):
    # Given a live process, and a budget that Redis has lost
    live = world.process()
    use(live, 5)
    world.at(3)
    world.flush()

    # When a new one asks first, it knows of nothing: that is the documented risk
    fresh = world.process()
    assert granted(fresh) == 5

    # Then the live one closes it again, for both
    world.at(4)
    refusal(live)
    assert granted(fresh) == 0
    check_full_until(world, fresh, 4 + TTL + WINDOW)


def test_ends_of_before_the_flush_count_for_nothing_after_it(world):
    # Given requests in flight over a flush
    process = world.process()
    callers = [process.permit_client() for _ in range(3)]
    permits = [caller.acquire(TIMEOUT) for caller in callers]
    world.flush()
    refusal(process)

    # When they are answered, or turn out not to have been sent
    world.at(2)
    for caller, permit in zip(callers[:2], permits, strict=False):
        caller.answered(permit)
        caller.flush()
    callers[2].unsent(permits[2])

    # Then nothing is given back twice, and nothing later
    assert process.snapshot().in_flight == 0
    check_full_until(world, process, TTL + WINDOW)


def test_a_pause_outlives_a_flush_where_a_live_process_knows_of_it(world):
    # Given a pause of five minutes
    process, other = world.process(), world.process()
    caller = process.permit_client()
    hear_429(caller, caller.acquire(TIMEOUT), 300)
    assert refusal(other).wait_seconds == pytest.approx(300)
    world.at(1)
    world.flush()

    # When the one that heard it asks first
    wait = refusal(process)

    # Then the budget stays paused for all, and one request goes first after the pause
    assert wait.wait_seconds == pytest.approx(299)
    assert wait.reason == "api: paused: the API answered 429, Retry-After 299"
    assert refusal(other).wait_seconds == pytest.approx(299)
    world.at(300.001)
    other.permit_client().acquire(TIMEOUT)
    assert "one request is out" in refusal(process).reason


def test_a_pause_outlives_a_flush_also_where_another_process_asks_first(world):
    process, other = world.process(), world.process()
    caller = process.permit_client()
    use(other)
    hear_429(caller, caller.acquire(TIMEOUT), 300)
    world.flush()
    refusal(other)

    # When the one that heard it comes
    refusal(process)

    # Then all pause again
    world.at(200)
    assert refusal(other).wait_seconds == pytest.approx(100)
    assert "paused" in refusal(process).reason


def test_a_pause_outlives_a_state_that_is_older_than_it(world):
    process = world.process()
    caller = process.permit_client()
    permit = caller.acquire(TIMEOUT)
    before = world.dumps()
    hear_429(caller, permit, 300)

    world.restore(before)

    assert refusal(process).wait_seconds == pytest.approx(300)
    assert process.snapshot().paused_why == "the API answered 429, Retry-After 299"


@pytest.mark.parametrize("how", ["flush", "older state"])
def test_that_a_budget_is_paced_outlives_redis_by_the_watermark(world, how):
    # Given an API that refused a request though every window had room
    mark = Mark()
    process = world.process(profile="auto", watermark=mark)
    use(process)
    before = world.dumps()
    caller = process.permit_client()
    for second in (0, 100, 200, 300):
        world.at(second)
        hear_429(caller, caller.acquire(TIMEOUT), 5)
        world.at(second + 50)  # the canary is answered, and it was no accident
        use(process)
    assert mark.kept == Lesson("paced", process.snapshot().profile_why, 1.0, 0.0, 600.0)

    # When Redis forgets it
    if how == "flush":
        world.flush()
    else:
        world.redis.restart()
        world.restore(before)
    world.at(800)
    fresh = world.process(profile="auto", watermark=mark)
    use(fresh)

    # Then a new process is paced from its first request on
    state = fresh.snapshot()
    assert (state.profile, state.profile_why) == ("paced", mark.kept.why)
    assert state.widened_seconds == 1.0
    assert "paced" in refusal(fresh).reason


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["this budget", "another budget"])
@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_a_restart_with_an_older_state_is_noticed(world, who, first):
    # Given a state that was saved when two permits had been taken, and three more since
    live = world.process()
    use(live, 2)
    world.redis.client.save()
    world.at(2)
    use(live, 3)

    # When Redis is killed and started again, a second later at least
    if first == "another budget":
        # Redis reads the clock ten times a second: a save may be dated that much too early.
        wait_until(lambda: time.time() >= world.redis.client.lastsave().timestamp() + 1.3)
    world.redis.restart()
    assert world.dumps()
    if first == "another budget":
        use(world.process(name="another"))
    asking = live if who == "a live process" else world.process()

    # Then every process notices it, also where the script is known again already
    world.at(3)
    assert "taken as full: Redis" in refusal(asking).reason
    check_full_until(world, asking, 3 + TTL + WINDOW)


@pytest.mark.parametrize("by", ["the script it forgot", "the time of its last save"])
def test_a_restart_within_the_second_of_the_start_before_it_is_noticed(world, by):
    # Given a Redis whose last save, by its own account, is as old after a restart as it was before
    if by == "the time of its last save":
        clock.use(clock.Clock())
    for _ in range(10):
        wait_until(lambda: time.time() % 1 < 0.1)
        world.redis.restart()
        started = world.redis.client.lastsave()
        use(world.process(name="early"), 2)
        world.redis.client.save()
        use(world.process(name="early"), 3)
        world.redis.restart()
        if world.redis.client.lastsave() == started:
            break
    else:
        pytest.fail("this machine is too slow for the test")

    # When another budget is used first, and this one is only read: then the script is known again
    if by == "the time of its last save":
        use(world.process(name="another"))
        world.process(name="early").snapshot()

    # Then a new process notices
    assert "Redis was started again" in refusal(world.process(name="early")).reason


def test_an_older_state_of_the_same_redis_is_noticed_by_who_saw_a_newer_one(world):
    # Given a state that was copied, and two permits taken since
    live = world.process()
    use(live, 3)
    before = world.dumps()
    use(live, 2)

    world.restore(before)

    assert "Redis went back to an older state" in refusal(live).reason
    check_full_until(world, live, TTL + WINDOW)


def test_an_orderly_restart_cannot_be_told_from_another_and_costs_no_more(world):
    live = world.process()
    use(live, 2)
    world.redis.restart(save=True)

    world.at(1)
    assert "Redis was started again" in refusal(live).reason
    check_full_until(world, live, 1 + TTL + WINDOW)


def test_a_restart_with_a_state_costs_nothing_where_the_watermark_proves_the_budget_idle(world):
    # Given a budget that was used an hour ago
    use(world.process(watermark=(mark := Mark())), 5)
    world.redis.restart(save=True)

    # When it is used again, Redis having been restarted meanwhile
    world.at(3600)
    process = world.process(watermark=mark)

    # Then it opens empty, and what was counted is kept
    assert granted(process) == 5
    assert process.snapshot().granted == 10


def test_a_watermark_of_others_does_not_forget_what_an_older_state_knows(world):
    # Given a process that has long used the budget without a database, and one request in flight
    alone = world.process()
    use(alone)
    world.at(1000)
    use(alone, 4)
    alone.permit_client().acquire(TIMEOUT)
    world.redis.restart(save=True)

    # When a process with one asks, which says that the budget has not been used for long
    world.at(1005)
    process = world.process(watermark=Mark(0))

    # Then known requests still count: until the last deadline, and a window
    assert granted(process) == 0
    check_full_until(world, process, 1000 + TTL + WINDOW)


@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_a_restart_without_persistence_is_a_flush(world, who):
    mark = Mark()
    live = world.process(watermark=mark)
    use(live, 5)
    world.redis.restart()
    assert not world.dumps()

    process = live if who == "a live process" else world.process(watermark=mark)

    assert "its state is gone" in refusal(process).reason
    check_full_until(world, process, 10 + TTL + WINDOW)


# --- replicas ---------------------------------------------------------------------------------------------------------


def replicated_of(world: World) -> tuple[World, OwnRedis]:
    replica = world.another_redis()
    replica.follow(world.redis)
    return world, replica


@pytest.fixture
def replicated(world: World) -> tuple[World, OwnRedis]:
    """A Redis and its replica."""
    return replicated_of(world)


@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_a_replica_that_took_over_with_an_older_state_is_noticed(replicated, who):
    # Given a replica that lost its master before the last three permits
    world, replica = replicated
    live = world.process()
    use(live, 2)
    replica.catch_up(world.redis)
    replica.client.replicaof("NO", "ONE")
    use(live, 3)

    # When it takes over
    world.redis.kill()
    live.ledger.client = replica.client
    asking = live if who == "a live process" else world.process(client=replica.client)

    # Then it is noticed: by what was seen, or by the name of the server
    reason = "Redis went back to an older state" if who == "a live process" else "Redis was started again"
    assert reason in refusal(asking).reason
    check_full_until(world, asking, TTL + WINDOW)


@pytest.mark.parametrize("before", ["was looked at", "was asked"])
def test_a_replica_that_was_spoken_to_before_it_took_over_is_noticed(replicated, before):
    # Given a replica that was read, or asked for a permit: then it knows the script
    world, replica = replicated
    live, early = world.process(), world.process(client=replica.client)
    if before == "was asked":
        wait_until(lambda: time.time() >= replica.client.lastsave().timestamp() + 1)
        world.redis.client.save()
    use(live, 2)
    replica.catch_up(world.redis)
    if before == "was looked at":
        early.snapshot()
    else:
        with pytest.raises(DependencyDown, match="read only"):
            early.permit_client().acquire(TIMEOUT)

    # When it takes over with an older state
    replica.client.replicaof("NO", "ONE")
    use(live, 3)

    # Then a new process notices: by the script, or by the time at which it says it was saved
    assert "Redis was started again" in refusal(world.process(client=replica.client)).reason


def test_a_replica_that_has_run_for_long_takes_over_without_a_burst_in_redis_s_own_time(replicated):
    # Given a replica that was started longer ago than a permit can count, in the machine's time
    world, replica = replicated
    clock.use(clock.Clock())
    options = {"linger_seconds": 0.1}
    limit = Limit(5, seconds=0.9)
    wait_until(lambda: replica.client.info("server")["uptime_in_seconds"] >= 3)
    live, fresh = world.process(limit, **options), world.process(limit, client=replica.client, **options)

    # When it takes over from a master that has just given all there is to give
    caller = live.permit_client()
    for _ in range(5):
        caller.answered(caller.acquire(0.1))
    caller.flush()
    replica.catch_up(world.redis)
    replica.client.replicaof("NO", "ONE")
    caller = fresh.permit_client()
    with pytest.raises(RateLimited, match="Redis was started again") as caught:
        caller.acquire(0.1)

    # Then the budget is full, until the longest deadline from now and a window
    assert caught.value.wait_seconds == pytest.approx(1.2 + 0.9009, abs=0.05)


# --- nothing is lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", ["SCRIPT FLUSH", "BGSAVE", "SAVE", "CONFIG RESETSTAT", "a new connection"])
@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_what_loses_nothing_costs_nothing(world, event, who):
    live = world.process()
    use(live, 2)
    before = epoch(live)
    if "SAVE" in event:  # so that LASTSAVE is another second than the start
        wait_until(lambda: time.time() >= world.redis.client.lastsave().timestamp() + 1)

    world.redis.client.connection_pool.disconnect()
    if event != "a new connection":
        world.redis.client.execute_command(*event.split())
    if event == "BGSAVE":
        wait_until(lambda: not world.redis.client.info("persistence")["rdb_bgsave_in_progress"])

    process = live if who == "a live process" else world.process()
    assert granted(process) == 3
    assert epoch(process) == before
    world.at(WINDOW - 1e-5)
    assert granted(process) == 3
    world.at(WINDOW + 1e-5)
    assert granted(process) == 5


@pytest.mark.parametrize("how", ["hangs", "refuses"])
def test_redis_away_for_ten_seconds_gives_no_permit_and_forgets_no_end(world, how):
    # Given five requests on their way at 1 s, and a Redis that is away from then on
    process = world.process()
    world.at(1)
    callers = [process.permit_client() for _ in range(5)]
    permits = [caller.acquire(TIMEOUT) for caller in callers]

    def away() -> None:
        for caller, permit, second in zip(callers, permits, (2, 2, 3, 4), strict=False):
            # When four are answered meanwhile, and permits asked for
            world.at(second)
            caller.answered(permit)
            with pytest.raises(DependencyDown):
                caller.acquire(TIMEOUT)
        callers[4].unsent(permits[4])
        world.at(11)

    if how == "hangs":
        with world.redis.stopped():
            away()
    else:
        process.ledger.client = redis.Redis(port=1, retry=Retry(NoBackoff(), 1))
        away()
        process.ledger.client = world.redis.client

    # Then the one that was never sent is there at once, and the others a window after they were answered
    assert granted(process) == 1
    assert process.snapshot().taken_as_full_seconds == 0
    for second, count in ((2, 3), (3, 4), (4, 5)):
        world.at(second + WINDOW - 1e-5)
        assert granted(process) < count
        world.at(second + WINDOW + 1e-5)
        assert granted(process) == count


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.3, 6.0, 3600.0])
@pytest.mark.parametrize("direction", ["back", "forward"])
def test_a_clock_that_is_set_twice_opens_no_window_early_and_few_late(world, seconds, direction):
    # Given two processes and a full window, the last request answered at 2 s
    one, other = world.process(), world.process()
    use(one, 2)
    use(other, 2)
    world.at(2)
    use(one)
    refusal(other)

    # When Redis's clock is set at 3 s, without a permit request, and again at 5 s
    step = seconds if direction == "forward" else -seconds
    world.at(3)
    world.clock.step(step)
    refusal(other)
    world.at(5)
    refusal(one)
    world.clock.step(step)
    refusal(other)
    refusal(one)

    # Then no window opens early; and at most as much later as the time without a permit request
    world.at(10)  # windows are taken a thousandth longer, because a thousandth of a clock's step is not seen
    assert granted(one) + granted(other) == 0
    world.at(WINDOW + 1.05)
    assert granted(other) == 4
    assert granted(one) == 4
    world.at(2 + WINDOW + 1.05)
    assert granted(one) == 5


def test_a_clock_set_back_after_a_flush_opens_nothing(world):
    # Given a state that was made anew, and a clock that is set back then
    process = world.process()
    use(process)
    world.flush()
    refusal(process)
    world.clock.step(-3600)

    # Then time continues from its last instant, for waiting clients and for new ones
    assert refusal(process).wait_seconds == pytest.approx(TTL + WINDOW, abs=1e-3)
    assert refusal(world.process()).wait_seconds == pytest.approx(TTL + WINDOW, abs=1e-3)
    check_full_until(world, process, TTL + WINDOW)


@pytest.mark.parametrize("seconds", [0.3, 6.0, 3600.0])
def test_a_clock_set_forward_and_back_again_costs_nothing_and_opens_nothing(world, seconds):
    process = world.process()
    use(process, 5)
    world.at(1)
    refusal(process)

    world.clock.step(seconds)
    refusal(process)
    world.at(2)
    refusal(process)
    world.clock.step(-seconds)
    refusal(process)

    world.at(10)
    assert granted(process) == 0
    world.at(WINDOW + 0.05)
    assert granted(process) == 5


@pytest.mark.parametrize("seconds", [0.3, 6.0, 3600.0])
def test_a_clock_set_forward_while_a_process_sleeps_does_not_wake_it_early(world, seconds):
    # Given a process that was refused, with a time to try again
    process = world.process()
    use(process, 5)
    world.at(4)
    wait = refusal(process).wait_seconds
    assert wait == pytest.approx(6.01)

    # When the clock is set forward while it sleeps, and it comes back a moment too soon
    world.at(6)
    world.clock.step(seconds)
    world.at(10)

    # Then the first question it asks is refused, whatever Redis's clock says, and so is the next
    assert granted(process) == 0
    world.at(4 + wait + 0.05)
    assert granted(process) == 5


@pytest.mark.parametrize("seconds", [0.3, 6.0, 3600.0])
def test_what_is_told_first_by_a_clock_set_forward_does_not_count_till_then(world, seconds):
    # Given three requests in flight, and a run that waits
    process = world.process(Limit(3, seconds=10))
    answered, unused, lost = (process.permit_client(7) for _ in range(3))
    permits = [caller.acquire(TIMEOUT) for caller in (answered, unused, lost)]
    refusal(process.permit_client(7))
    world.at(1)

    # When the clock is set forward, and the first call after it carries an end and a return
    world.clock.step(seconds)
    answered.answered(permits[0])
    process.ledger.send({"drop": [permits[1].id]} | answered._unreported())

    # Then the first counts from now, the second is granted, the third is in flight, and no client slept for an hour
    state = process.snapshot()
    assert state.windows[0].used == 2
    assert state.in_flight == 1
    assert state.slept_seconds + state.sleeping_seconds <= 1.0 + 0.3
    assert granted(process) == 1
    world.at(11)
    assert granted(process) == 1
    world.at(1 + WINDOW + 0.35)
    assert granted(process) == 2
    world.at(TTL + 10)
    assert granted(process) == 2
    world.at(TTL + WINDOW + 0.35)
    assert granted(process) == 3


def test_a_pause_that_is_told_by_a_clock_set_forward_is_as_long_as_the_api_said(world):
    process = world.process()
    caller = process.permit_client()
    permit = caller.acquire(TIMEOUT)
    world.at(1)
    world.clock.step(3600)

    hear_429(caller, permit, 5)

    assert process.snapshot().paused_for_seconds == pytest.approx(5, abs=0.01)
    world.at(6.01)
    caller.acquire(TIMEOUT)


def test_a_question_that_takes_long_is_not_taken_for_a_clock_set_forward(world):
    # Given a process whose questions stay on their way for three seconds
    class Slow(redis.Redis):
        def execute_command(self, *arguments, **options):
            arguments = list(arguments)
            if arguments[0] in ("EVALSHA", "EVAL"):
                world.clock.advance(latency_seconds)
                arguments[9] = str(round(clock.now().timestamp() * 1e6))  # Redis's own time
            return super().execute_command(*arguments, **options)

    latency_seconds = 0
    slow = world.process(client=world.redis.connect(Slow))
    use(slow)
    latency_seconds = 3

    # Then that is the only reason it reports
    assert refusal(slow).reason == "Redis answers too slowly"
    assert not [note for note in slow.snapshot().notes if "not believed" in note.text]
    slow.ledger.client.close()


@pytest.mark.parametrize("seconds", [-3600.0, -6.0, 6.0, 3600.0])
@pytest.mark.parametrize("order", ["flush first", "step first"])
def test_a_step_and_a_flush_together_are_no_worse_than_the_flush(world, seconds, order):
    # Given two processes that used the budget up
    one, other = world.process(), world.process()
    use(one, 3)
    use(other, 2)
    world.at(1)

    # When Redis forgets it, and its clock is set
    if order == "step first":
        world.clock.step(seconds)
        world.flush()
    else:
        world.flush()
        refusal(one)
        world.clock.step(seconds)
    refusal(other)
    refusal(one)

    # Then it opens as after a flush alone
    world.at(1 + TTL + WINDOW - 1e-3)
    assert granted(one) + granted(other) == 0
    world.at(1 + TTL + WINDOW + 0.05)
    assert granted(other) == 5


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_a_part_that_is_lost_alone_is_all_or_nothing(world, part, who):
    # Given a budget with everything: requests in flight and completed, runs that wait, notes
    live = world.process()
    use(live, 2)
    live.permit_client().acquire(TIMEOUT)
    waiting = live.permit_client(7)
    live.permit_client(8).acquire(TIMEOUT)
    live.permit_client(7).acquire(TIMEOUT)
    refusal(waiting)
    world.redis.client.lpush(live.ledger.keys[5], "1 a note")
    assert len(world.dumps()) == 6

    # When one key is lost
    world.at(1)
    assert world.redis.client.delete(live.ledger.keys[PARTS.index(part)]) == 1
    process = live if who == "a live process" else world.process()

    # Then what bears the load is taken as full, and what does not is not missed; what is counted is kept
    if part in PARTS[:3]:
        assert "taken as full" in refusal(process).reason
        assert process.snapshot().granted == (0 if part == "state" else 5)
        check_full_until(world, process, 1 + TTL + WINDOW)
    else:
        assert granted(process) == 0
        world.at(WINDOW + 1e-5)
        assert granted(process) == 2


def test_a_lost_part_does_not_forget_a_longer_deadline_than_one_s_own(world):
    # Given a request of another process that may last a minute
    slow, quick = world.process(), world.process()
    use(quick)
    world.at(1000)
    slow.permit_client().acquire(60.0)

    # When the ring is lost, and the other one goes away
    world.at(1001)
    world.redis.client.delete(quick.ledger.keys[1])

    # Then its deadline is kept
    refusal(quick)
    check_full_until(world, quick, 1071 + WINDOW)


GARBAGE = {
    "empty": lambda state: b"",
    "short": lambda state: state[:100],
    "words": lambda state: b"garbage " * 100,
    "another version": lambda state: b"\x40\x00" + state[2:],
    "noise": lambda state: random.Random(1).randbytes(len(state)),
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_a_state_that_cannot_be_read_is_taken_as_full(world, garbage, who):
    live = world.process()
    use(live, 3)
    caller = live.permit_client()
    permit = caller.acquire(TIMEOUT)
    world.at(1)
    key = live.ledger.keys[0]
    world.redis.client.set(key, GARBAGE[garbage](world.redis.client.get(key)))
    process = live if who == "a live process" else world.process()

    caller.answered(permit)
    caller.flush()
    wait = refusal(process)

    assert "taken as full" in wait.reason
    check_full_until(world, process, 1 + TTL + WINDOW)


@pytest.mark.parametrize("cut", [1, 20])
@pytest.mark.parametrize("who", ["a live process", "a new process"])
def test_a_state_whose_end_is_cut_off_gives_no_more_than_there_is(world, cut, who):
    live = world.process()
    use(live, 3)
    key = live.ledger.keys[0]
    world.redis.client.set(key, world.redis.client.get(key)[:-cut])

    with suppress(DependencyDown):
        assert granted(live if who == "a live process" else world.process()) <= 2


@pytest.mark.parametrize("part", PARTS)
def test_a_key_of_a_wrong_type_gives_no_permit_or_full_windows_and_loses_no_end(world, part):
    # Given a request on its way, and a run that waits
    process = world.process(Limit(2, seconds=10))
    use(process)
    caller = process.permit_client()
    permit = caller.acquire(TIMEOUT)
    refusal(process.permit_client(7))

    # When something else stands under one of its keys
    key = process.ledger.keys[PARTS.index(part)]
    world.redis.client.delete(key)
    add = world.redis.client.rpush if part != "notes" else world.redis.client.sadd
    add(key, "stranger")
    world.at(3)
    caller.answered(permit)

    # Then what bears the load is made anew, full; notes are not missed; and else nothing is granted while it is there
    if part in PARTS[:3]:
        assert "taken as full" in refusal(caller).reason
        check_full_until(world, process, 3 + TTL + WINDOW, 2)
        return
    with pytest.raises((DependencyDown, RateLimited)):
        caller.acquire(TIMEOUT)

    # And when the stranger has gone, the end counts from when it came, or the windows are full
    world.redis.client.delete(key)
    world.at(WINDOW - 1e-5)
    assert granted(process) == 0
    world.at(WINDOW + 1e-5)
    assert granted(process) in (0, 1)
    world.at(3 + WINDOW - 1e-5)
    assert granted(process) in (0, 1)
    world.at(WINDOW + TTL + WINDOW)
    assert granted(process) == 2


def test_a_redis_without_memory_gives_no_permit_and_writes_no_half(world):
    # Given two requests on their way
    process = world.process()
    callers = [process.permit_client() for _ in range(2)]
    permits = [caller.acquire(TIMEOUT) for caller in callers]
    refused = process.permit_client(7)

    # When its memory is used up
    world.redis.client.config_set("maxmemory", "1")
    before = world.dumps()
    world.at(2)
    with pytest.raises(DependencyDown, match=r"memory|OOM"):
        refused.acquire(TIMEOUT)
    assert world.dumps() == before
    callers[0].answered(permits[0])
    callers[0].flush()
    callers[1].unsent(permits[1])

    # Then nothing is lost, and work continues at once when there is memory again
    world.redis.client.config_set("maxmemory", "0")
    assert process.snapshot().taken_as_full_seconds == 0
    assert granted(process) == 4
    world.at(2 + WINDOW + 1e-5)
    assert granted(process) == 5


def test_a_redis_without_memory_makes_nothing_anew(world):
    process = world.process()
    use(process)
    world.flush()
    world.redis.client.config_set("maxmemory", "1")

    with pytest.raises(DependencyDown):
        process.permit_client().acquire(TIMEOUT)
    assert not world.dumps()

    world.redis.client.config_set("maxmemory", "0")
    assert "taken as full" in refusal(process).reason


def test_a_replica_gives_no_permit_and_may_be_looked_at(replicated):
    world, replica = replicated
    process = world.process()
    use(process, 2)
    replica.catch_up(world.redis)
    process.ledger.client = replica.client

    world.process(client=replica.client).snapshot()
    with pytest.raises(DependencyDown, match="read only"):
        process.permit_client().acquire(TIMEOUT)

    process.ledger.client = world.redis.client
    assert granted(process) == 3


# --- what is said twice -----------------------------------------------------------------------------------------------


class Repeating(redis.Redis):
    """Loses every first reply and asks again, as redis-py does after a broken connection."""

    def execute_command(self, *arguments, **options):
        reply = super().execute_command(*arguments, **options)
        if arguments[0] in ("EVALSHA", "EVAL"):
            reply = super().execute_command(*arguments, **options)
        return reply


def test_a_reply_that_was_lost_takes_no_second_permit_and_ends_none_twice(world):
    process = world.process(client=world.redis.connect(Repeating))

    use(process, 3)
    process.permit_client().acquire(TIMEOUT)

    state = process.snapshot()
    assert (state.granted, state.in_flight, state.windows[0].used) == (4, 1, 4)
    assert granted(process) == 1
    process.ledger.client.close()


def test_several_permits_whose_reply_was_lost_are_the_same_several(world):
    process = world.process(Limit(100, seconds=10), client=world.redis.connect(Repeating))
    caller = process.permit_client()
    caller.expects = 20

    permits = [caller.acquire(TIMEOUT) for _ in range(20)]

    held = len(caller._unused)
    state = process.snapshot()
    assert held + len(permits) == state.in_flight == state.granted
    assert len({permit.id for permit in permits}) == 20
    caller.flush()
    assert process.snapshot().in_flight == 20
    process.ledger.client.close()


def test_a_pause_and_a_sleep_whose_replies_were_lost_are_counted_once(world):
    # Given a budget of one
    process = world.process(Limit(1, seconds=10), client=world.redis.connect(Repeating))
    use(process)
    caller = process.permit_client(7)

    # When a run sleeps for it, and is then refused by the API
    refusal(caller)
    world.at(WINDOW + 1e-5)
    permit = caller.acquire(TIMEOUT)
    assert caller.usage.slept_seconds == pytest.approx(WINDOW)
    hear_429(caller, permit, 5)

    # Then all is counted once
    state = process.snapshot()
    assert (caller.usage.sleeps, caller.usage.hits) == (1, 1)
    assert (state.hits, state.sleeps, state.granted) == (1, 1, 2)
    assert state.slept_seconds == pytest.approx(WINDOW)
    assert state.paused_for_seconds == pytest.approx(5)
    process.ledger.client.close()


def test_a_caller_with_smaller_limits_does_not_shrink_what_is_remembered(world):
    # Given a deploy in progress: old processes know 8, new ones 3
    old, new = world.process(Limit(8, seconds=10)), world.process(Limit(3, seconds=10))
    use(old, 5)

    # When a new one asks, and reports ends of its own
    world.at(1)
    assert granted(new) == 0
    caller = old.permit_client()
    permit = caller.acquire(TIMEOUT)
    new.ledger.send({"done": [(permit.id, clock.monotonic())]})

    # Then the old ones' requests still count, for both
    assert (granted(old), granted(new)) == (2, 0)
    world.at(WINDOW + 1e-5)
    assert (granted(old), granted(new)) == (7, 2)


# --- the script, read -------------------------------------------------------------------------------------------------

#: Commands and options that Redis 6.2 has (https://redis.io/docs/latest/commands/), as the script may use them.
OF_REDIS_6_2 = {
    "DEL", "EXISTS", "GET", "GETRANGE", "HDEL", "HEXISTS", "HGET", "HGETALL", "HLEN", "HSET", "INFO", "LASTSAVE",
    "LPUSH", "LRANGE", "LTRIM", "SET", "SETRANGE", "STRLEN", "TIME", "TYPE", "ZADD", "ZCARD", "ZCOUNT", "ZRANGEBYSCORE",
    "ZREM", "ZREMRANGEBYSCORE",
}  # fmt: skip
OPTIONS_OF_REDIS_6_2 = {"WITHSCORES"}
LIBRARIES_OF_REDIS_6_2 = {"cjson", "cmsgpack", "math", "redis", "string", "struct", "table"}


def script_without_comments() -> str:
    return re.sub(r"--.*", "", redis_ledger._SCRIPT)


def test_the_script_uses_no_command_option_or_library_that_redis_6_2_lacks():
    script = script_without_comments()
    commands = re.findall(r"redis\.p?call\('(\w+)'", script)

    assert len(commands) == len(re.findall(r"redis\.p?call\b", script)), "a command that is not written out"
    assert set(commands) <= OF_REDIS_6_2
    assert set(re.findall(r"'([A-Z]{2,})'", script)) - set(commands) <= OPTIONS_OF_REDIS_6_2
    assert set(re.findall(r"\b([a-z]+)\.[a-z]+\(", script)) <= LIBRARIES_OF_REDIS_6_2
    assert set(re.findall(r"\bredis\.(\w+)", script)) <= {"call", "pcall", "error_reply"}
    assert not script.lstrip().startswith("#!"), "that is of Redis 7"


def test_every_key_of_a_budget_is_handed_to_the_script_and_has_one_hash_tag():
    # Given what the script touches
    arguments = re.findall(r"redis\.p?call\('(\w+)'(?:, (\w+))?", script_without_comments())
    named = {argument for command, argument in arguments if command not in ("INFO", "LASTSAVE", "TIME")}

    # Then it is KEYS, and nothing else
    assert named <= {f"{part}_key" for part in PARTS}
    assert re.search(r"local state_key, ring_key, flight_key, waiting_key, runs_key, notes_key = unpack\(KEYS\)",
                     script_without_comments())  # fmt: skip
    process = RateLimiter(Budget("shop.example", [Limit(1, seconds=1)]), redis.Redis(), prefix="sluice")
    keys = process.ledger.keys
    assert [key.split(":")[-1] for key in keys] == list(PARTS)
    assert all("{shop.example}" in key for key in keys)
    assert len({key_slot(key.encode()) for key in keys}) == 1


# --- real processes, real time ----------------------------------------------------------------------------------------

FLEET = """
import json, sys, threading
import redis, requests
from workers import Budget, Limit, RateLimiter
from workers.errors import DependencyDown, RateLimited

port, url, stop = int(sys.argv[1]), sys.argv[2], threading.Event()
budget = Budget("api", [Limit(40, seconds=0.5), Limit(80, seconds=2)], profile="burst")
limiter = RateLimiter(budget, redis.Redis(port=port), prefix="fleet", linger_seconds=0.2)
refused = []

def work():
    caller, session = limiter.permit_client(), requests.Session()
    while not stop.is_set():
        try:
            permit = caller.acquire(1.0)
        except (RateLimited, DependencyDown) as error:
            stop.wait(getattr(error, "wait_seconds", 0.1))
            continue
        try:
            response = session.get(url + "/api/items/1", timeout=(0.5, 0.5))
        except requests.RequestException:
            continue
        try:
            caller.report(permit, response.status_code, response.headers)
        except RateLimited as error:
            refused.append(str(error))
    caller.flush()

threads = [threading.Thread(target=work) for _ in range(30)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"refused": refused, "notes": [note.text for note in limiter.snapshot().notes]}))
"""


def test_a_fleet_of_sixty_threads_whose_redis_is_flushed_in_the_middle_earns_no_429(world):
    # Given two processes of thirty threads each, and an API that keeps a log
    clock.use(clock.Clock())
    limits = parse_limits("40/0.5,80/2")
    with serve_in_thread(MockConfig(algorithm="log", limits=limits, latency_seconds=0.02, threads=64)) as server:
        command = [sys.executable, "-c", FLEET, str(world.redis.port), server.url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]

        def accepted() -> int:
            return int(requests.get(f"{server.url}/stats", timeout=5).json()["accepted"])

        # When all is forgotten while they are at it
        wait_until(lambda: accepted() >= 60, 20)
        world.redis.client.flushall()
        flushed_at, before = time.monotonic(), accepted()

        # Then they continue when it is safe: 2.2 s for requests that can be in flight, and a window
        wait_until(lambda: accepted() >= before + 100, 20)
        assert time.monotonic() - flushed_at > 4.2

        # And the API has refused nothing
        said = [json.loads(process.communicate(timeout=20)[0]) for process in processes]
        assert requests.get(f"{server.url}/stats", timeout=5).json()["rejected"] == 0
        assert [one["refused"] for one in said] == [[], []]
        assert any("taken as full" in note for note in said[0]["notes"])


# --- each defence taken out -------------------------------------------------------------------------------------------


def of_script(before: str, after: str) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        assert redis_ledger._SCRIPT.count(before) == 1, f"the script has changed: {before!r}"
        patch.setattr(redis_ledger, "_SCRIPT", redis_ledger._SCRIPT.replace(before, after))

    return mutate


def of_ledger(name: str, replacement: Callable[..., object]) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(Ledger, name, replacement)


#: What is taken out, and the test that notices.
MUTANTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[World], None]]] = {
    "lost state opens empty": (
        of_script("covers = math.max(covers, 0)", "covers = 0"),
        test_after_a_flush_a_live_process_takes_its_windows_as_full_until_nothing_of_before_can_count,
    ),
    "a lost ring is not noticed": (
        of_script("redis.pcall('STRLEN', ring_key) ~= head.size * 8 or ", ""),
        lambda world: test_a_part_that_is_lost_alone_is_all_or_nothing(world, "ring", "a live process"),
    ),
    "lost flights are not noticed": (
        of_script(" or redis.pcall('HLEN', flight_key) ~= head.permits", ""),
        lambda world: test_a_part_that_is_lost_alone_is_all_or_nothing(world, "flight", "a live process"),
    ),
    "what is left of a lost state proves nothing": (
        of_script("(used and now + ttl)", "(old and now + ttl)"),
        lambda world: test_a_part_that_is_lost_alone_is_all_or_nothing(world, "state", "a new process"),
    ),
    "counters are lost with a part": (
        of_script("head[field] = old and old[field] or 0 end", "head[field] = 0 end"),
        lambda world: test_a_part_that_is_lost_alone_is_all_or_nothing(world, "ring", "a new process"),
    ),
    "what the old state knows is forgotten": (
        of_script("if old then covers = math.max(", "if false then covers = math.max("),
        test_a_watermark_of_others_does_not_forget_what_an_older_state_knows,
    ),
    "the old state's deadlines are forgotten": (
        of_script("old.permits > 0 and old.last + old.longest_ttl or 0", "0"),
        test_a_lost_part_does_not_forget_a_longer_deadline_than_one_s_own,
    ),
    "another version is read as if it were ours": (
        of_script("if head.version ~= VERSION then head = nil\n", "if false then head = nil\n"),
        lambda world: test_a_state_that_cannot_be_read_is_taken_as_full(world, "another version", "a live process"),
    ),
    "a state behind what was seen is believed": (
        of_script("seen[1] == head.epoch and seen[2] > head.seq", "false"),
        test_an_older_state_of_the_same_redis_is_noticed_by_who_saw_a_newer_one,
    ),
    "a state that another made anew is believed": (
        of_script("seen[1] ~= head.epoch and now + seen[3] > head.covers", "false"),
        test_alone_without_a_watermark_it_opens_empty_until_a_live_process_brings_its_knowledge,
    ),
    "a server cannot have forgotten what was before its start": (
        of_script("covers = math.max(covers, 0)",
                  "if old and ARGV[1] == '' then covers = now - 3000000 + ttl end covers = math.max(covers, 0)"),
        lambda world: test_a_replica_that_has_run_for_long_takes_over_without_a_burst_in_redis_s_own_time(
            replicated_of(world)),
    ),
    "every state that another made anew is doubted": (
        of_script("seen[1] ~= head.epoch and now + seen[3] > head.covers", "seen[1] ~= head.epoch"),
        test_a_second_live_process_with_an_older_epoch_adds_nothing,
    ),
    "another server is believed": (
        of_script(" or not moved_since) and rare().run_id ~= server().run_id", ") and false"),
        lambda world: test_a_restart_with_an_older_state_is_noticed(world, "a new process", "this budget"),
    ),
    "another server is believed once it knows the script": (
        of_script(" or last_save ~= head.last_save", ""),
        lambda world: test_a_replica_that_was_spoken_to_before_it_took_over_is_noticed(
            replicated_of(world), "was asked"),
    ),
    "a save of this very second is believed": (
        of_script(" or not moved_since)", ")"),
        lambda world: test_a_restart_within_the_second_of_the_start_before_it_is_noticed(
            world, "the time of its last save"),
    ),
    "that the script was forgotten says nothing": (
        of_script("(ARGV[2] == '1' or ", "("),
        lambda world: test_a_restart_within_the_second_of_the_start_before_it_is_noticed(world, "the script it forgot"),
    ),
    "a new save is a restart": (
        of_script("or not moved_since) and rare().run_id ~= server().run_id", ")"),
        lambda world: test_what_loses_nothing_costs_nothing(world, "SAVE", "a new process"),
    ),
    "a pause is forgotten": (
        of_script("now + paused[1] > head.paused_until", "false"),
        test_a_pause_outlives_a_flush_where_a_live_process_knows_of_it,
    ),
    "the pace is forgotten": (
        of_script("if anew.profile == 'paced' and", "if false and"),
        lambda world: test_that_a_budget_is_paced_outlives_redis_by_the_watermark(world, "older state"),
    ),
    "the offset of a clock set back is not kept": (
        of_script("head.offset = head.offset + head.last - now", ""),
        lambda world: test_a_clock_that_is_set_twice_opens_no_window_early_and_few_late(world, 3600.0, "back"),
    ),
    "a clock set back is believed": (
        of_script("if head and now < head.last then", "if false then"),
        test_a_clock_set_back_after_a_flush_opens_nothing,
    ),
    "a step forward is not taken back": (
        of_script("  head.offset = head.offset - step[3]\n  now = now - step[3]\n", ""),
        lambda world: test_a_clock_set_forward_while_a_process_sleeps_does_not_wake_it_early(world, 3600.0),
    ),
    "a step forward is not noticed": (
        of_ledger("_jumped", lambda *_: 0.0),
        lambda world: test_a_clock_set_forward_while_a_process_sleeps_does_not_wake_it_early(world, 0.3),
    ),
    "a great step forward is not noticed": (
        of_ledger("_jumped", lambda *_: 0.0),
        lambda world: test_a_clock_set_forward_while_a_process_sleeps_does_not_wake_it_early(world, 3600.0),
    ),
    "a step forward is noticed too late": (
        of_script("now > seen[4] + LATE_US", "now > NEVER"),
        lambda world: test_what_is_told_first_by_a_clock_set_forward_does_not_count_till_then(world, 3600.0),
    ),
    "a slow question is a step forward": (
        of_script("not (stepped or request.sure or", "not (stepped or"),
        test_a_question_that_takes_long_is_not_taken_for_a_clock_set_forward,
    ),
    "a caller's limits size what is remembered": (
        of_script("local at = (index % head.size) * 8", "local at = (index % largest) * 8"),
        test_a_caller_with_smaller_limits_does_not_shrink_what_is_remembered,
    ),
    "a repeated question takes another permit": (
        of_script("if redis.call('HEXISTS', flight_key, id) == 1 then", "if false then"),
        test_a_reply_that_was_lost_takes_no_second_permit_and_ends_none_twice,
    ),
    "of several permits asked for twice only one is granted": (
        of_script("for _, id in ipairs(ask.ids) do count =", "for _, id in ipairs({ask.ids[1]}) do count ="),
        test_several_permits_whose_reply_was_lost_are_the_same_several,
    ),
    "a repeated pause is not counted as a hit": (
        of_script("return rare().hit_id == order.id and 1 or 0", "return first and 1 or 0"),
        test_a_pause_and_a_sleep_whose_replies_were_lost_are_counted_once,
    ),
    "a script that is not known is an error": (
        of_ledger("_evaluate", lambda self, stamp, arguments, read_only: list(
            self.client.evalsha(self._sha, len(self.keys), *self.keys, stamp, "", *arguments))),
        lambda world: test_what_loses_nothing_costs_nothing(world, "SCRIPT FLUSH", "a live process"),
    ),
    "the watermark is not asked": (
        of_ledger("_watermark_seconds", lambda *_: None),
        test_a_respawned_process_that_asks_first_opens_a_window_after_the_watermark,
    ),
    "the watermark is not raised": (
        of_ledger("_raise_watermark", lambda *_: None),
        lambda world: test_a_restart_without_persistence_is_a_flush(world, "a new process"),
    ),
    "undelivered reports are forgotten": (
        of_ledger("_deliver_later", lambda *_: None),
        lambda world: test_redis_away_for_ten_seconds_gives_no_permit_and_forgets_no_end(world, "refuses"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_any_one_of_these_defences_a_test_fails(world, mutant, monkeypatch):
    mutate, test = MUTANTS[mutant]
    mutate(monkeypatch)
    world.redis.client.script_load(redis_ledger._SCRIPT)  # it is still a script
    world.redis.client.script_flush()

    with pytest.raises((Exception, pytest.fail.Exception)):
        test(world)
