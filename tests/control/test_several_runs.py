"""Several runs on one budget: a small one is served at the next opening, equals get equal parts, a stopped one ends."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import redis

from benchmarks.fleet import Fleet
from tests.helpers.limiter_traffic import Traffic
from tests.helpers.limiters import (
    SECOND,
    Asleep,
    fall_asleep,
    granted,
    limiter_on,
    move_by,
    move_to,
    now_us,
    refusal,
    use,
)
from workers import Limit, RateLimiter, clock, testing
from workers.connections import database
from workers.control import runner
from workers.errors import RateLimited
from workers.limiter.permits import PermitClient
from workers.limiter.run_signals import RunSignals
from workers.records import runs
from workers.records.tables import ItemStatus, RunItem, RunStatus

LARGE, SMALL = 1, 2
FIFTY = Limit(50, seconds=2)
OPENS_US = 2_002_000
#: So small that permits are taken one by one; so large that they are taken ahead.
NEAR, FAR = (Limit(2, seconds=1),), (Limit(500, seconds=20),)


@pytest.fixture
def new(client: redis.Redis, moved_clock: clock.MovedClock) -> Callable[..., RateLimiter]:
    """new(Limit(...), ...): a limiter of a fresh budget, in moved time; its callers sleep up to two seconds."""
    return lambda *limits, **options: limiter_on(client, *limits, **{"max_wait_seconds": 2.0} | options)


def lane(limiter: RateLimiter, run_id: int) -> PermitClient:
    caller = limiter.permit_client(run_id)
    caller.before_sleep = fall_asleep
    return caller


def take_all(lanes: list[PermitClient]) -> int:
    """Lanes that take a permit, answer it, and take the next, in turn, until all are refused; how many they got."""
    count, open_ = 0, list(lanes)
    while open_:
        for caller in list(open_):
            try:
                use(caller)
                count += 1
            except (RateLimited, Asleep):
                open_.remove(caller)
    return count


@pytest.fixture
def crowd(new) -> tuple[RateLimiter, list[PermitClient]]:
    """A budget that a large run has used up, and its forty lanes, which wait for the opening."""
    limiter = new(FIFTY)
    lanes = [lane(limiter, LARGE) for _ in range(40)]
    use(lanes[0], 50)
    move_to(SECOND)
    for caller in lanes:
        refusal(caller)
    return limiter, lanes


# --- a small run beside a large one -----------------------------------------------------------------------------------


def test_the_last_of_an_opening_is_kept_for_a_run_that_had_less(crowd):
    # Given a run of one item that comes while the window is closed
    limiter, lanes = crowd
    one = lane(limiter, SMALL)
    refusal(one)

    # When it opens, and the large run is faster
    move_to(OPENS_US)
    assert take_all(lanes) == 49
    assert refusal(lanes[0]).reason == "api: the last of the window is kept for run 2"

    # Then the small one has its permit when it comes, in this opening, and the large one has to wait for the next
    move_by(SECOND // 2)
    use(one)
    assert refusal(lanes[0]).reason == "api: window 50/2 s full"


def test_a_run_of_one_item_gets_its_list_and_its_item_in_one_opening(crowd):
    # Given a run of one item whose list is to be read first
    limiter, lanes = crowd
    listing, item = lane(limiter, SMALL), lane(limiter, SMALL)
    refusal(listing)

    # When the list is read at the opening, and the item asked for when the large run has taken all it could
    move_to(OPENS_US)
    use(listing)
    assert take_all(lanes) == 48
    move_by(SECOND // 2)
    use(item)

    # Then all fifty were used, and nothing is held back for a run that had less any more
    assert limiter.snapshot().opens_in_seconds > 1


def test_what_is_kept_is_let_go_when_nobody_comes_for_it(crowd):
    # Given a run that asked just before the opening, and then ended
    limiter, lanes = crowd
    refusal(lane(limiter, SMALL))
    asked_at = now_us()
    move_to(OPENS_US)
    assert take_all(lanes) == 49

    # Then its permit is kept for a second and a half from when it asked
    move_to(asked_at + 1_499_999)
    assert take_all(lanes[:1]) == 0
    move_to(asked_at + 1_500_000)
    assert take_all(lanes[:1]) == 1

    # And at the next opening it is forgotten
    move_to(OPENS_US * 2 + SECOND)
    assert take_all(lanes) == 50


def test_nothing_is_kept_for_a_run_that_has_ended(crowd):
    # Given a run that asked just before the opening
    limiter, lanes = crowd
    refusal(lane(limiter, SMALL))

    # When it ends
    RunSignals(limiter.ledger).ended(SMALL)

    # Then the others have all of the window at once
    move_to(OPENS_US)
    assert take_all(lanes) == 50


def test_a_run_that_is_alone_never_leaves_a_permit(crowd):
    _, lanes = crowd

    move_to(OPENS_US)

    assert take_all(lanes) == 50


def test_each_of_several_small_runs_has_its_permit_kept(crowd):
    limiter, lanes = crowd
    small = [lane(limiter, run_id) for run_id in (2, 3, 4)]
    for caller in small:
        refusal(caller)

    move_to(OPENS_US)
    assert take_all(lanes) == 47

    for caller in small:
        use(caller)


# --- equals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latency_us", "most_ahead"), [(0, 8), (40_000, 100)])
def test_two_equal_runs_get_equal_parts(client, moved_clock, latency_us, most_ahead):
    # Given two runs of eight lanes each
    limiter = limiter_on(client, FIFTY, max_wait_seconds=2.0)

    # When they send a thousand as fast as they may, their answers taking the same time, or any
    traffic = Traffic(limiter, [], callers=16, requests=1000, runs=(1, 2), latency_us=latency_us).go()

    # Then at no time is one of them ahead by more than its lanes, or, by luck, by a tenth of all
    ahead = itertools.accumulate(1 if run_id == 1 else -1 for _, run_id in traffic.sent)
    assert max(map(abs, ahead)) <= most_ahead


def test_a_run_that_begins_later_has_its_part_from_the_next_opening_on(client, moved_clock):
    limiter = limiter_on(client, FIFTY, max_wait_seconds=2.0)
    traffic = Traffic(limiter, [], callers=8, requests=400, runs=(1,), latency_us=5_000)
    for _ in range(8):
        caller = limiter.permit_client(2)
        caller.before_sleep = fall_asleep
        traffic.at(7 * SECOND, traffic.ask, caller)

    traffic.go()

    later = Counter(run_id for at, run_id in traffic.sent if at > 8_500_000)
    assert abs(later[1] - later[2]) <= 24
    assert later.total() >= 150


# --- a run that was stopped, at the limiter ---------------------------------------------------------------------------


def test_a_stopped_run_is_told_with_its_next_permit_and_the_others_are_not(new):
    # Given two runs, one with a request out
    limiter = new(FIFTY)
    stopped, other = lane(limiter, 1), lane(limiter, 2)
    permit = stopped.acquire(5.0)

    # When the first is stopped
    RunSignals(limiter.ledger).stop(1)

    # Then its next question is answered with it, and what it had to report is taken; the other continues
    stopped.answered(permit)
    wait = refusal(stopped)
    assert (wait.wait_seconds, wait.reason) == (1.0, "run 1 was stopped")
    assert (limiter.snapshot().in_flight, limiter.snapshot().windows[0].used) == (0, 1)
    use(other)

    # And it can continue as soon as it is resumed
    RunSignals(limiter.ledger).resume(1)
    use(stopped)


def test_a_stop_that_is_never_taken_back_is_forgotten_after_a_minute(new):
    limiter = new(FIFTY)
    use(limiter.permit_client(), 1)
    RunSignals(limiter.ledger).stop(1)

    move_by(59_999_999)
    assert refusal(lane(limiter, 1)).reason == "run 1 was stopped"

    move_by(1)
    use(lane(limiter, 1))


def test_a_stop_is_heard_in_a_pause_and_by_a_full_window(new):
    limiter = new(Limit(1, seconds=100))
    use(limiter.permit_client())
    RunSignals(limiter.ledger).stop(1)

    assert refusal(lane(limiter, 1)).reason == "run 1 was stopped"


def test_stops_of_long_ago_are_not_kept(new):
    # Given a thousand runs that were cancelled, two a minute
    limiter = new(FIFTY)
    use(limiter.permit_client())
    for run_id in range(1000):
        RunSignals(limiter.ledger).stop(run_id)
        move_by(30 * SECOND)

    # Then the state is as small as ever
    assert limiter.ledger.client.strlen(limiter.ledger.keys[0]) < 600
    assert granted(limiter) == 50


# --- a run that was stopped, with its lanes ---------------------------------------------------------------------------


class Api:
    """Twenty items. `at[n]` is called when the nth detail was asked for, before it is answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at: dict[int, Callable[[], None]] = {}
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, request: testing.Request) -> object:
        number = request.path.removeprefix("/api/items").lstrip("/")
        if not number:
            return {"data": [{"id": n, "name": "a"} for n in range(1, 21)], "next_page_url": None}
        with self.lock:
            self.asked.append(number)
            self.at.pop(len(self.asked), lambda: None)()
        return {"id": int(number), "name": "a", "description": "b", "price": 1}


@contextmanager
def api() -> Iterator[Api]:
    api = Api()
    with testing.api(api.answer) as server:
        api.url = server.url
        yield api


def by_status(run_id: int) -> Counter[str]:
    return Counter(item.status for item in RunItem.select().where(RunItem.run_id == run_id))


def elsewhere(do: Callable[[], None]) -> Callable[[], None]:
    """As a person would, at another door: in another thread, with a connection of its own."""

    def wrapped() -> None:
        with database.connection():
            do()

    return wrapped


@pytest.mark.parametrize("limits", [NEAR, FAR], ids=["near a limit", "far from it"])
def test_a_run_that_is_paused_stops_with_the_item_it_has_in_hand_and_goes_on_when_resumed(
    moved_clock, import_from, limits
):
    # Given a run of twenty items in one lane, which is paused while its seventh is on the way
    with api() as server:
        import_from(server.url, lanes=1, limits=limits)
        run = runner.start("items", who="test", door="test", send=False)
        server.at[7] = elsewhere(lambda: runner.pause(run.id, who="test", door="test"))
        seen: list[tuple[int, Counter[str], int]] = []

        def look(run):
            if run.status == RunStatus.PAUSED and clock.monotonic() > 30:
                attempts = sum(item.attempts for item in RunItem.select())
                seen.append((len(server.asked), by_status(run.id), attempts))
                runner.resume(run.id, who="test", door="test")

        # When it is worked off, and resumed half a minute later
        run = runner.run_inline(run, look)

    # Then no other was asked for; what was not was given back with its attempt, and it continued there
    ((asked, statuses, attempts),) = seen
    assert asked == 7
    assert statuses == {ItemStatus.COMPLETED: asked, ItemStatus.PENDING: 20 - asked}
    assert attempts == asked
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 20)
    assert sorted(map(int, server.asked)) == list(range(1, 21))
    assert clock.monotonic() < 60


def test_a_run_that_is_cancelled_stops_within_one_item_and_its_items_stay_as_they_were(moved_clock, import_from):
    with api() as server:
        import_from(server.url, lanes=2, limits=NEAR)
        run = runner.start("items", who="test", door="test", send=False)
        server.at[5] = elsewhere(lambda: runner.cancel(run.id, who="test", door="test", reason="enough"))

        run = runner.run_inline(run)

    assert run.status == RunStatus.CANCELLED
    assert len(server.asked) == 5
    assert by_status(run.id)[ItemStatus.PROCESSING] == 0
    assert by_status(run.id)[ItemStatus.COMPLETED] == run.succeeded_count <= 5
    assert RunItem.select().where(RunItem.status == ItemStatus.PENDING, RunItem.attempts > 0).count() == 0


def test_a_stop_that_was_never_taken_back_delays_a_run_by_a_minute_at_most(moved_clock, import_from):
    # Given a run that was resumed while Redis did not answer
    with api() as server:
        source = import_from(server.url, lanes=2)
        run = runner.start("items", who="test", door="test", send=False)
        server.at[5] = lambda: RunSignals(source.connector.limiter.ledger).stop(run.id)

        run = runner.run_inline(run)

    # Then it continues when the stop is forgotten
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 20)
    assert 59 < clock.monotonic() < 70
    assert sorted(map(int, server.asked)) == list(range(1, 21))


def test_a_stop_of_one_run_leaves_another_one_on_the_same_budget_alone(moved_clock, import_from):
    with api() as server:
        source = import_from(server.url, lanes=1, limits=NEAR)
        import_from(server.url, lanes=1, name="others", connector=source.connector)
        run = runner.start("items", who="test", door="test", send=False)
        other = runner.start("others", who="test", door="test", send=False)
        server.at[5] = elsewhere(lambda: runner.cancel(run.id, who="test", door="test"))

        run = runner.run_inline(run)
        other = runner.run_inline(other)

    assert (run.status, other.status, other.succeeded_count) == (RunStatus.CANCELLED, RunStatus.COMPLETED, 20)
    assert runs.get(run.id).succeeded_count == 5


# --- real processes ---------------------------------------------------------------------------------------------------


def test_a_run_of_one_item_beside_very_many_is_served_at_the_budget_s_next_opening():
    # Given a fleet in the middle of a large run
    with Fleet(items=2000, limits="50/2") as fleet:
        large = fleet.start_run("many")
        fleet.wait_until(lambda: fleet.mock_stats()["accepted"] >= 60, 30, "the second window is being used")
        watched: list[tuple[float, int, bool]] = []
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                stats = fleet.mock_stats()
                watched.append((time.time(), stats["accepted"], "1" in stats["items"]))

        # When a run of one item is started
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            small = fleet.start_run("one")
            row = fleet.wait_for_run(small, seconds=20, every=0.1)
        finally:
            ended.set()
            watcher.join()
        started_at, ended_at = (
            as_seconds(instant)
            for instant in fleet.query(f"SELECT started_at, ended_at FROM sluice_runs WHERE id = {small}")[0]
        )

        # Then its one item was asked for in the first opening after its start, and the large run still continues
        before = max(accepted for at, accepted, _ in watched if at <= started_at)
        asked_at, accepted = next((at, accepted) for at, accepted, seen in watched if seen)
        opened_at = next((at for at, count, _ in watched if count > before and at > started_at), asked_at)
        assert (row.status, row.succeeded) == ("completed", 1)
        assert (accepted - 1) // 50 <= (before - 1) // 50 + 1
        # Half a second on a machine that has time; in any case no process had to help, as the reaper does every five.
        assert ended_at - opened_at < 4
        assert fleet.run_row(large).status == "running"
        assert fleet.mock_stats()["rejected"] == 0
        print(f"asked {asked_at - opened_at:.3f} s, done {ended_at - opened_at:.3f} s after the opening")


def as_seconds(instant: str | datetime) -> float:
    if isinstance(instant, str):
        instant = datetime.fromisoformat(instant)
    return instant.replace(tzinfo=instant.tzinfo or UTC).timestamp()
