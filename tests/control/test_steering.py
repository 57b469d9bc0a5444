"""Steering by `runner`: retry some, lanes, priority, force, and one line in the timeline for each call."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from dramatiq.errors import BrokerConnectionError

from models import Item
from tests.helpers.machine import wait_until
from workers import UsageError, clock, settings
from workers.connections import database
from workers.control import runner
from workers.engine import detail, discovery, reaper
from workers.failures import FailureClass, fingerprint
from workers.limiter.permits import Usage
from workers.messaging import broadcast, broker, process_heartbeat
from workers.records import claims, commits, items, lanes, run_completion, runs
from workers.records.commits import Outcome
from workers.records.tables import ItemStatus, Lane, Run, RunEvent, RunItem, RunStatus
from workers.records.watermark import Watermark
from workers.reports import run_stats
from workers.scheduling import timetable

#: For what is decided in Python: the other database would only cost time.
HERE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ANN = {"who": "ann", "door": "test"}
#: A reason for each class, and who failed with it.
FAILED = {
    FailureClass.NOT_FOUND: ("GET /api/items answered 404", ["1", "2", "3"]),
    FailureClass.TRANSIENT: ("GET /api/items answered 500", ["4"]),
    FailureClass.BAD_DATA: ("no price", ["5"]),
}


@pytest.fixture
def sent(moved_clock, import_from):
    """What this thread sends, as (name, args); two registered sources on one budget; stopped time."""
    messages: list[tuple[str, tuple[Any, ...]]] = []
    first = import_from("http://127.0.0.1:1")
    import_from("http://127.0.0.1:1", name="others", connector=first.connector)
    with broker.captured(lambda name, args, delay: messages.append((name, args))):
        yield messages


def listed(count: int = 20, source: str = "items", **values: Any) -> Run:
    """A running run whose list of `count` items is known."""
    run = runner.start(source, **ANN)
    now = database.now()
    due = {"due_at": now, "status": ItemStatus.PENDING}
    items.add(run.id, [due | {"external_id": str(n), "item_id": str(n)} for n in range(1, count + 1)])
    known = {"total_count": count, "discovered_at": now, "discovery_due_at": None}
    Run.update(known | values).where(Run.id == run.id).execute()
    return runs.get(run.id)


def ended(refused: bool = True) -> Run:
    """A completed run of which five items have failed, and one was refused from the list."""
    run = listed(5)
    claim = claims.claim(run.id, 5, 60)
    kinds = {id_: (kind, reason) for kind, (reason, ids) in FAILED.items() for id_ in ids}
    outcomes = [
        Outcome(item, ItemStatus.FAILED, failure_class=kinds[item.external_id][0], reason=kinds[item.external_id][1])
        for item in claim.items
    ]
    commits.commit(run.id, claim, outcomes, Usage(), lambda models: None)
    if refused:
        row = {
            "external_id": "row 6",
            "status": ItemStatus.FAILED,
            "due_at": database.now(),
            "failure_class": "bad_data",
        }
        items.add(run.id, [row])
        Run.update(total_count=6, failed_count=6).where(Run.id == run.id).execute()
    assert run_completion.complete_if_done(run.id)
    return runs.get(run.id)


def opened(run: Run, count: int | None = None) -> list[lanes.Message]:
    return lanes.open_for(run.id, count or run.lanes)


def alive(run: Run) -> list[int]:
    rows = Lane.select().where(Lane.run_id == run.id, Lane.due_at.is_null(False)).order_by(Lane.lane)
    return [lane.lane for lane in rows]


def pending_ids(run: Run) -> set[str]:
    rows = RunItem.select().where(RunItem.run_id == run.id, RunItem.status == ItemStatus.PENDING)
    return {row.external_id for row in rows}


def lines(run: Run, who: str = "ann") -> list[tuple[str, str | None]]:
    rows = RunEvent.select().where(RunEvent.run_id == run.id, RunEvent.who == who).order_by(RunEvent.id)
    return [(row.what, row.detail) for row in rows]


# --- one line for each call -------------------------------------------------------------------------------------------


def scheduled() -> Run:
    return runner.schedule("items", database.now() + timedelta(hours=1), **ANN)


def paused() -> Run:
    run = listed()
    runner.pause(run.id, **ANN)
    return runs.get(run.id)


def hanging() -> Run:
    """A paused run with an item in a lane's hands, for an hour."""
    run = listed()
    claims.claim(run.id, 1, 7200)
    runner.pause(run.id, **ANN)
    clock.sleep(3600)
    return runs.get(run.id)


def newest() -> Run:
    return Run.select().order_by(Run.id.desc()).first()


Call = Callable[[Run], object]
#: What it is made of, the call, and what its line says.
CALLS: dict[str, tuple[Callable[[], Run | None], Call, str, str | None]] = {
    "start": (lambda: None, lambda _: runner.start("items", **ANN), "pending", None),
    "schedule": (lambda: None, lambda _: scheduled(), "scheduled", None),
    "reschedule": (
        scheduled,
        lambda run: runner.reschedule("items", at=database.now() + timedelta(minutes=1), **ANN),
        "rescheduled",
        "from 2026-01-01 01:00:00 UTC to 2026-01-01 00:01:00 UTC",
    ),
    "pause": (listed, lambda run: runner.pause(run.id, **ANN), "paused", None),
    "resume": (paused, lambda run: runner.resume(run.id, **ANN), "resumed", None),
    "cancel": (listed, lambda run: runner.cancel(run.id, reason="enough", **ANN), "cancelled", "enough"),
    "retry": (ended, lambda run: runner.retry_failed(run.id, **ANN), "retry", "5 failed items"),
    "retry some": (
        ended,
        lambda run: runner.retry_failed(run.id, failure_class="not_found", external_ids=["1", "2"], **ANN),
        "retry",
        "2 failed items of class not_found with the ids 1, 2",
    ),
    "lanes": (listed, lambda run: runner.set_lanes(run.id, 4, **ANN), "lanes", "16 -> 4"),
    "priority": (listed, lambda run: runner.set_priority(run.id, 5, **ANN), "priority", "0 -> 5"),
    "force": (
        hanging,
        lambda run: runner.force(run.id, **ANN),
        "forced",
        "took 1 item back from lanes that had not stopped",
    ),
}


@HERE
@pytest.mark.parametrize("call", CALLS)
def test_each_call_leaves_one_line_that_tells_who_from_where_what_and_how(sent, call):
    # Given a run it can be made of
    given, do, what, detail = CALLS[call]
    given()
    before = {event.id for event in RunEvent.select()}

    # When it is made
    do(newest())

    # Then there is one line more of that person, and it has all details
    (line,) = [event for event in RunEvent.select() if event.id not in before and event.who != "sluice"]
    assert (line.who, line.door, line.what, line.detail) == ("ann", "test", what, detail)
    assert line.run_id == newest().id


# --- retry some -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "again"),
    [
        ({}, {"1", "2", "3", "4", "5"}),
        ({"failure_class": "not_found"}, {"1", "2", "3"}),
        ({"external_ids": ["3", "4", "3"]}, {"3", "4"}),
        ({"fingerprint": fingerprint("transient", FAILED[FailureClass.TRANSIENT][0])}, {"4"}),
        ({"failure_class": "not_found", "external_ids": ["3", "4"]}, {"3"}),
    ],
)
def test_failed_items_that_fit_all_that_is_given_are_tried_again(sent, wanted, again):
    run = ended()

    assert runner.retry_failed(run.id, **wanted, **ANN) == len(again)

    assert pending_ids(run) == again
    assert runs.get(run.id).failed_count == 6 - len(again)
    assert runs.get(run.id).status == RunStatus.RUNNING


@HERE
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"failure_class": "gone"}, "no failure class 'gone'. Known classes: rate_limited, transient, auth, not_found"),
        ({"failure_class": "auth"}, r"no failed item of class auth .* Failures: 3 not_found \([0-9a-f]{12}\), "),
        ({"fingerprint": "abc"}, "no failed item with fingerprint abc .* Failures: 3 not_found"),
        ({"external_ids": ["1", "7"]}, r"run 1 cannot be retried: 7 \(not in this run\)$"),
        ({"external_ids": [*"abcdef"]}, r"a \(not in this run\).* and 1 more$"),
        ({"external_ids": ["row 6"]}, r"row 6 \(refused from the list, so it has no row\)"),
        ({"failure_class": "auth", "external_ids": ["1"]}, "no failed item of class auth with the ids 1 that"),
    ],
)
def test_where_nothing_fits_the_refusal_names_what_there_is_and_nothing_is_changed(sent, wanted, said):
    run = ended()

    with pytest.raises(UsageError, match=said):
        runner.retry_failed(run.id, **wanted, **ANN)

    assert pending_ids(run) == set()
    assert (runs.get(run.id).status, runs.get(run.id).failed_count) == (RunStatus.COMPLETED, 6)
    assert "retry" not in dict(lines(run))


@HERE
def test_an_item_that_was_not_failed_is_named_with_what_it_is(sent):
    run = listed(2)

    with pytest.raises(UsageError, match=r"2 \(pending\)"):
        runner.retry_failed(run.id, external_ids=["2"], **ANN)


@HERE
def test_a_run_whose_items_were_removed_for_their_age_cannot_be_retried(sent):
    run = ended()
    Run.update(items_removed_at=database.now()).execute()

    with pytest.raises(UsageError, match="deleted by retention on 2026-01-01: start a new run"):
        runner.retry_failed(run.id, **ANN)


@HERE
def test_a_run_all_of_whose_failures_were_refused_from_the_list_says_so(sent):
    run = ended()
    RunItem.delete().where(RunItem.item_id.is_null(False)).execute()

    with pytest.raises(UsageError, match="all were rejected when the list was read"):
        runner.retry_failed(run.id, **ANN)


# --- lanes ------------------------------------------------------------------------------------------------------------


def test_more_lanes_of_a_running_run_are_opened_at_once_and_the_others_left_alone(sent):
    # Given a run of four lanes
    run = listed(lanes=4)
    opened(run)
    sent.clear()

    # When it is to have six
    assert runner.set_lanes(run.id, 6, **ANN).lanes == 6

    # Then two are sent
    assert sent == [("fetch_details", (run.id, 4, 1)), ("fetch_details", (run.id, 5, 1))]
    assert alive(run) == [0, 1, 2, 3, 4, 5]


def test_fewer_lanes_end_those_that_are_too_many_and_nothing_brings_them_back_but_a_raise(sent, moved_clock):
    # Given a run of four lanes, the last of them at work
    run = listed(lanes=4)
    messages = opened(run)
    assert lanes.start_turn(*messages[3], lease_seconds=15)

    # When it is to have two
    runner.set_lanes(run.id, 2, **ANN)

    # Then the others end: no message of theirs does anything, and the one at work cannot announce another turn
    assert alive(run) == [0, 1]
    assert not lanes.start_turn(*messages[2], lease_seconds=15)
    assert not lanes.end_turn(run.id, 3, messages[3][2] + 1, 0.0)

    # And neither the reaper nor a resume brings them back
    moved_clock.advance(60)
    reaper.reap()
    runner.pause(run.id, **ANN)
    runner.resume(run.id, **ANN)
    assert alive(run) == [0, 1]

    # But a raise does
    runner.set_lanes(run.id, 3, **ANN)
    assert alive(run) == [0, 1, 2]


@HERE
def test_a_lane_that_was_opened_for_a_number_of_before_ends_when_it_is_heard_of(sent):
    # Given a lane that was opened by a process that had read the old number
    run = listed(lanes=4)
    messages = opened(run)
    Run.update(lanes=2).execute()

    detail.fetch_details(*messages[3])

    assert alive(run) == [0, 1, 2]
    assert len(pending_ids(run)) == 20


class Steered(Item):
    """A person steers while the request for one item is made; the table is Item's."""

    class Meta:
        table_name = "items"

    steer: Callable[[], object] | None = None

    def get_api_detail_request(self):
        if Steered.steer:
            steer, Steered.steer = Steered.steer, None
            steer()
        return super().get_api_detail_request()


def pause_and_resume(run_id: int, **by: str) -> None:
    runner.pause(run_id, **by)
    runner.resume(run_id, **by)


@HERE
@pytest.mark.parametrize(
    "steer", [runner.pause, runner.cancel, pause_and_resume, lambda run_id, **by: runner.set_lanes(run_id, 1, **by)]
)
def test_a_lane_that_is_stopped_ended_or_overtaken_does_the_item_in_hand_and_gives_the_others_back(
    moved_clock, mock_api, import_from, steer
):
    # Given a lane with two items of three, far from every limit
    import_from(mock_api(items=3).url, model=Steered)
    for n in (1, 2, 3):
        Item.create(external_id=str(n), name="a")
    with broker.captured(lambda *_: None):
        run = listed(3, lanes=2)
        second = opened(run)[1]

        # When the run is steered while the first is asked for
        Steered.steer = staticmethod(lambda: steer(run.id, **ANN))
        detail.fetch_details(*second)

    # Then that one is in, and the others are to be had
    assert runs.get(run.id).succeeded_count == 1
    assert pending_ids(run) == {"2", "3"}
    assert {item.attempts for item in RunItem.select().where(RunItem.status == ItemStatus.PENDING)} == {0}


@HERE
@pytest.mark.parametrize("given", [scheduled, paused])
def test_lanes_of_a_run_that_is_not_running_are_only_noted(sent, given):
    run = given()
    sent.clear()

    assert runner.set_lanes(run.id, 20, **ANN).lanes == 20

    assert sent == []


@HERE
@pytest.mark.parametrize("number", [0, 1025])
def test_a_number_of_lanes_out_of_range_is_refused(sent, number):
    with pytest.raises(UsageError, match="give 1 to 1,024"):
        runner.set_lanes(listed().id, number, **ANN)


@HERE
@pytest.mark.parametrize("change", [runner.set_lanes, runner.set_priority])
def test_of_a_run_that_has_ended_nothing_is_changed(sent, change):
    with pytest.raises(UsageError, match=r"is completed: its \w+ cannot be changed any more; start a new run"):
        change(ended().id, 5, **ANN)


# --- priority ---------------------------------------------------------------------------------------------------------


@HERE
@pytest.mark.parametrize("number", [-101, 101])
def test_a_priority_out_of_range_is_refused(sent, number):
    with pytest.raises(UsageError, match="give -100 to 100"):
        runner.set_priority(listed().id, number, **ANN)


@HERE
def test_the_pending_run_of_higher_priority_starts_first(sent):
    running, second, third = (runner.start("items", **ANN) for _ in range(3))
    runner.set_priority(third.id, 1, **ANN)

    runner.cancel(running.id, **ANN)

    assert runs.get(third.id).status == RunStatus.RUNNING
    assert runs.get(second.id).status == RunStatus.PENDING


@pytest.fixture
def rivals(moved_clock, mock_api, import_from):
    """Two running runs on one budget, the second of higher priority; what this thread sends, with its delay."""
    server = mock_api(items=3)
    connector = import_from(server.url).connector
    import_from(server.url, name="others", connector=connector)
    import_from(server.url, name="elsewhere")
    for n in (1, 2, 3):
        Item.create(external_id=str(n), name="a")
    messages: list[tuple[str, tuple[Any, ...], float]] = []
    with broker.captured(lambda *message: messages.append(message)):
        low, high = listed(3, lanes=2), listed(3, source="others", lanes=2)
        runner.set_priority(high.id, 5, **ANN)
        messages.clear()
        yield low, high, messages


def test_a_run_gives_way_to_one_of_higher_priority_on_its_budget_and_keeps_one_lane(rivals):
    # Given both, and their lanes
    low, _, messages = rivals
    first, second = opened(low)

    # When the second lane of the lower one gets its message, then it does nothing, and comes again a second later
    detail.fetch_details(*second)
    assert messages == [("fetch_details", (low.id, 1, 2), 1.0)]
    assert runs.get(low.id).succeeded_count == 0
    assert alive(low) == [0, 1]

    # And says why, where a worker runs
    process_heartbeat.Heartbeat("worker").write()
    assert run_stats.run_stats(runs.get(low.id)).why == "gives way to run 2 (priority 5); one lane continues"

    # But its first lane continues
    detail.fetch_details(*first)
    assert runs.get(low.id).succeeded_count == 3


def has_nothing_due(high: Run) -> None:
    RunItem.update(due_at=database.now() + timedelta(seconds=60)).where(RunItem.run_id == high.id).execute()


def is_on_another_budget(high: Run) -> None:
    Run.update(source="elsewhere").where(Run.id == high.id).execute()


def is_paused(high: Run) -> None:
    runner.pause(high.id, **ANN)


def is_of_equal_priority(high: Run) -> None:
    runner.set_priority(high.id, 0, **ANN)


def is_of_a_source_that_is_gone(high: Run) -> None:
    Run.update(source="gone").where(Run.id == high.id).execute()


def waits_for_its_list(high: Run) -> None:
    later = database.now() + timedelta(seconds=60)
    values = {"discovered_at": None, "discovery_due_at": later, "error_summary": "list page 1: 500"}
    Run.update(values).where(Run.id == high.id).execute()


@HERE
@pytest.mark.parametrize(
    "other",
    [
        has_nothing_due,
        is_on_another_budget,
        is_paused,
        is_of_equal_priority,
        is_of_a_source_that_is_gone,
        waits_for_its_list,
    ],
)
def test_a_run_gives_way_to_none_that(rivals, other):
    low, high, _ = rivals
    other(high)

    detail.fetch_details(*opened(low)[1])

    assert runs.get(low.id).succeeded_count == 3


@HERE
def test_a_run_gives_way_to_one_that_reads_its_list(rivals):
    low, high, _ = rivals
    Run.update(discovered_at=None, discovery_due_at=database.now() + timedelta(seconds=90)).where(
        Run.id == high.id
    ).execute()

    detail.fetch_details(*opened(low)[1])

    assert runs.get(low.id).succeeded_count == 0


# --- force ------------------------------------------------------------------------------------------------------------


def test_items_in_hand_of_a_paused_run_are_taken_back_after_five_minutes_and_what_their_lane_brings_is_refused(
    sent, moved_clock
):
    # Given a paused run that a lane does not let go
    run = listed()
    opened(run)
    claim = claims.claim(run.id, 2, 7200)
    runner.pause(run.id, **ANN)
    moved_clock.advance(290)
    assert run_stats.run_stats(runs.get(run.id)).label == "pausing"

    # When it is forced too early, then it says when
    with pytest.raises(UsageError, match="its lanes have not stopped, for 4 min 50 s now: it can be forced in 10 s"):
        runner.force(run.id, **ANN)
    assert len(lines(run)) == 2

    # And in time
    moved_clock.advance(10)
    assert runner.force(run.id, **ANN) == "took 2 items back from lanes that had not stopped"

    # Then nothing is claimed, the attempts count, and the lane comes too late
    assert run_stats.run_stats(runs.get(run.id)).label == "paused"
    assert sorted(item.attempts for item in RunItem.select())[-2:] == [1, 1]
    assert alive(run) == []
    commits.commit(run.id, claim, [Outcome(i, ItemStatus.COMPLETED) for i in claim.items], Usage(), lambda models: None)
    assert runs.get(run.id).succeeded_count == 0


@HERE
def test_items_in_hand_of_a_cancelled_run_are_taken_back(sent, moved_clock):
    run = listed()
    claims.claim(run.id, 1, 7200)
    runner.cancel(run.id, **ANN)
    moved_clock.advance(300)

    runner.force(run.id, **ANN)

    assert not claims.has_any(run.id)


@HERE
def test_a_pending_run_behind_nobody_is_started(sent, moved_clock):
    # Given a run that waited behind one whose end was not announced
    first, second = (runner.start("items", **ANN) for _ in range(2))
    Run.update(status=RunStatus.CANCELLED).where(Run.id == first.id).execute()
    moved_clock.advance(300)
    sent.clear()

    assert runner.force(second.id, **ANN) == "started it"

    assert runs.get(second.id).status == RunStatus.RUNNING
    assert sent == [("discover", (second.id,))]


@HERE
def test_an_overdue_run_is_taken_out_of_the_schedule(sent, moved_clock):
    run = scheduled()
    moved_clock.advance(3600 + 200)
    with pytest.raises(UsageError, match="is overdue, for 3 min 20 s now: it can be forced in 1 min 40 s"):
        runner.force(run.id, **ANN)
    moved_clock.advance(100)

    runner.force(run.id, **ANN)

    assert runs.get(run.id).status == RunStatus.RUNNING


@HERE
def test_a_run_that_has_nothing_left_to_do_is_closed(sent, moved_clock):
    run = listed(1)
    RunItem.update(status=ItemStatus.COMPLETED).execute()
    moved_clock.advance(300)

    assert runner.force(run.id, **ANN) == "completed it: nothing was left to do"

    assert runs.get(run.id).status == RunStatus.COMPLETED


def behind_another() -> Run:
    listed()
    return runner.start("items", **ANN)


@HERE
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (listed, "is running, .* pause or cancel the run first"),
        (paused, "is paused, and its lanes have stopped: resume or cancel it"),
        (scheduled, "is scheduled for 2026-01-01 01:00:00 UTC: `reschedule`"),
        (behind_another, "waits for run 1: cancel that one, or let it end"),
        (ended, "is completed, and not stuck"),
    ],
)
def test_where_nothing_is_stuck_the_refusal_says_what_the_run_does(sent, moved_clock, given, said):
    run = given()
    moved_clock.advance(1000)

    with pytest.raises(UsageError, match=said):
        runner.force(run.id, **ANN)

    assert "forced" not in dict(lines(run))


# --- reschedule -------------------------------------------------------------------------------------------------------


def test_only_a_run_of_the_tenant_is_pulled_forward(sent):
    # Given one for a tenant, and a later one for none
    at = database.now() + timedelta(hours=1)
    its = runner.schedule("items", at, tenant="shop", **ANN)
    later = runner.schedule("items", at + timedelta(hours=1), **ANN)

    # Then each is pulled for whom it is, and for others there is none
    soon = database.now() + timedelta(minutes=1)
    assert runner.reschedule("items", at=soon, **ANN).id == later.id
    assert runner.reschedule("items", at=soon, tenant="shop", **ANN).id == its.id
    with pytest.raises(UsageError, match="No run of items for absent is scheduled"):
        runner.reschedule("items", tenant="absent", **ANN)


@HERE
def test_a_run_that_is_moved_to_its_own_slot_is_a_person_s_all_the_same(sent):
    # Given the run of a schedule's slot
    slot = database.now() + timedelta(hours=1)
    run = runner.schedule("items", slot, **ANN)
    Run.update(schedule_id=1, slot_at=slot).execute()

    # When a person moves it, and there again
    runner.reschedule("items", at=slot, **ANN)

    # Then its slot is as it was, and its time is another one
    run = runs.get(run.id)
    assert (run.slot_at, run.scheduled_at) == (slot, slot + timedelta(microseconds=1))


# --- notices ----------------------------------------------------------------------------------------------------------


@HERE
def test_a_notice_is_heard_by_every_listener_before_the_call_returns(house):
    # Given two listeners, as two processes have them
    before = broadcast.received()
    with (
        broadcast.listening(),
        broadcast.listening(),
        redis.Redis.from_url(settings.get_settings().redis_url) as client,
    ):
        channel = f"{settings.get_settings().prefix}:notices:0"
        wait_until(lambda: client.pubsub_numsub(channel)[0][1] == 2, 5, "both listen")
        wait_until(lambda: broadcast.received() >= before + 2, 5, "both know it")
        before = broadcast.received()

        # Then the sender and both have received it when the call returns
        assert broadcast.notify()
        assert broadcast.received() == before + 3


@HERE
def test_where_redis_is_away_a_notice_says_that_it_was_not_told(house):
    house.setenv("SLUICE_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.get_settings.cache_clear()

    assert not broadcast.notify()


@HERE
@pytest.mark.parametrize("tenant", ["", "x" * 101, "north\0", "no\nrth"])
def test_a_tenant_that_cannot_be_stored_is_refused(sent, tenant):
    for order in (lambda: runner.start("items", tenant=tenant, **ANN), lambda: set_hourly(tenant)):
        with pytest.raises(UsageError, match=r"A tenant has (1 to 100|only) characters"):
            order()


def set_hourly(tenant: str) -> None:
    timetable.set_schedule("items", "@hourly", tenant=tenant, **ANN)


# --- what two doors, or a broker that hangs, may do -------------------------------------------------------------------


@HERE
def test_a_retried_run_that_waited_for_its_turn_begins_with_its_lanes(sent):
    # Given a run to retry, while another of its source is active
    run = ended(refused=False)
    ahead = runner.start("items", **ANN)
    runner.retry_failed(run.id, **ANN)
    assert runs.get(run.id).status == RunStatus.PENDING

    # When the other one ends, and the message that starts the next is heard
    runner.cancel(ahead.id, **ANN)
    assert sent[-1] == ("discover", (run.id,))
    sent.clear()
    discovery.discover(run.id)

    # Then its lanes are at work, and a second such message does nothing
    assert [name for name, _ in sent] == ["fetch_details"] * 5
    sent.clear()
    discovery.discover(run.id)
    assert sent == []


@HERE
def test_a_broker_that_takes_no_message_is_asked_once_not_once_a_lane(moved_clock, import_from, monkeypatch):
    # Given a broker that cannot be reached, and how often it was asked
    import_from("http://127.0.0.1:1")
    run = listed()
    asked: list[str] = []

    def refuse(message: Any, delay: int | None = None) -> None:
        asked.append(message.actor_name)
        raise BrokerConnectionError("away")

    monkeypatch.setattr(broker.get_broker(), "enqueue", refuse)

    # When
    discovery.open_lanes(run.id)

    # Then
    assert asked == ["fetch_details"]


@HERE
def test_a_run_that_was_resumed_while_its_pause_was_signalled_continues(import_from, moved_clock):
    # Given a run that is resumed between the pause and the signal to its lanes
    source = import_from("http://127.0.0.1:1")
    run = listed()

    # When
    runner._signal_lanes(run, stop=True)

    # Then its lanes get permits
    caller = source.connector.permit_client(run.id, "lane", Watermark(source.connector.name))
    caller.reserve(1.0)
    caller.flush()
