"""The fault schedules and the checker of facts, without a process."""

import dataclasses
from collections import Counter

import pytest

from tests.faults.facts import Struck, breaches
from tests.faults.good_run import GOOD, KILLED, SHAPE
from tests.faults.schedule import Fault, Kind, kinds, schedule

SEEDS = range(1, 21)
SHORT_SEEDS = {1: False, 2: False, 3: True}


# --- the schedules


@pytest.mark.parametrize("postgres", [False, True])
def test_a_seed_always_means_the_same_schedule_and_each_seed_another(postgres):
    schedules = [schedule(seed, postgres=postgres) for seed in SEEDS]

    assert schedules == [schedule(seed, postgres=postgres) for seed in SEEDS]
    assert len(set(schedules)) == len(SEEDS)


def test_a_seed_means_today_what_it_meant_when_it_found_something():
    first, *_ = schedule(1, postgres=False, short=True)

    assert first == Fault(at=0.124, kind=Kind.CHILD_KILLED, which=1)


@pytest.mark.parametrize("postgres", [False, True])
def test_twenty_seeds_meet_every_kind_and_each_kind_twice_over(postgres):
    faults = [fault for seed in SEEDS for fault in schedule(seed, postgres=postgres)]

    met = Counter(fault.kind for fault in faults)
    assert set(met) == set(kinds(postgres=postgres))
    assert min(met.values()) >= 4
    assert len({fault.kind for fault in faults if fault.again_after_seconds}) >= 10


@pytest.mark.parametrize("postgres", [False, True])
def test_a_long_seed_meets_8_to_12_faults_spread_over_the_run_and_two_of_them_twice_over(postgres):
    for seed in SEEDS:
        faults = schedule(seed, postgres=postgres)
        assert 8 <= len(faults) <= 12
        assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
        assert faults[0].at < 0.13
        assert 0.8 < faults[-1].at < 0.96
        assert sum(fault.again_after_seconds is not None for fault in faults) == 2
        met = {fault.kind for fault in faults}
        assert Kind.CHILD_KILLED in met
        assert bool(met & {Kind.POSTGRES_RESTARTED, Kind.POSTGRES_BROKEN_OFF}) == postgres


def test_half_of_the_seeds_strike_the_list():
    in_list = sum(schedule(seed, postgres=False)[0].at < 0.04 for seed in SEEDS)

    assert 6 <= in_list <= 18


def test_the_three_short_seeds_meet_each_way_in_which_a_part_can_go():
    met = {
        fault.kind for seed, postgres in SHORT_SEEDS.items() for fault in schedule(seed, postgres=postgres, short=True)
    }

    assert met >= {
        Kind.CHILD_KILLED,
        Kind.SUPERVISOR_KILLED,
        Kind.SCHEDULER_KILLED,
        Kind.CHILD_STOPPED,
        Kind.DRAINED,
        Kind.REDIS_KILLED,
        Kind.REDIS_FLUSHED,
        Kind.POSTGRES_RESTARTED,
        Kind.POSTGRES_BROKEN_OFF,
    }


def test_a_run_on_sqlite_is_never_told_to_restart_postgres():
    for seed in SEEDS:
        for short in (False, True):
            met = {fault.kind for fault in schedule(seed, postgres=False, short=short)}
            assert not met & {Kind.POSTGRES_RESTARTED, Kind.POSTGRES_BROKEN_OFF}


# --- the checker


def test_a_run_in_which_everything_holds_breaks_nothing():
    assert breaches(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"status": "running", "why": "window full"}, "the run is running, and waits: window full"),
        ({"status": "failed"}, "the run is failed"),
        ({"missed": (KILLED.fault,)}, "1 faults did not strike"),
        ({"succeeded": 999, "filled": 999, "items": {"completed": 999}}, "the counters say 999 done of 1,000"),
        ({"succeeded": 1001}, "the counters say 1,001 done of 1,000"),
        ({"total": 999}, "the total is 999, the API has 1,000"),
        ({"items": {"completed": 999, "pending": 1}}, "are not the rows"),
        ({"items": {"completed": 1001}, "item_ids": 1001}, "are not the rows"),
        ({"item_ids": 999}, "1,000 items, 999 ids"),
        ({"row_ids": 999}, "1,000 rows, 999 distinct ids"),
        ({"rows": 999, "row_ids": 999}, "999 rows, the API has 1,000"),
        ({"filled": 999}, "999 rows have their details, 1,000 completed"),
        (
            {"succeeded": 999, "failed": 1, "filled": 999, "items": {"completed": 999, "failed": 1}},
            "1 items need a person",
        ),
        (
            {"succeeded": 999, "skipped": 1, "filled": 999, "items": {"completed": 999, "skipped": 1}},
            "1 items need a person",
        ),
        ({"rejected": 1}, "1 x 429"),
        ({"hits": 1}, "0 x 429, and the run counted 1"),
        ({"most_percent": 100.1}, "percent reached 100.1"),
        ({"asked": (999, 1024)}, "999 items were asked for, of 1,000"),
        ({"listed": (49, 51)}, "49 pages were asked for, of 50"),
        ({"accepted": 1076}, "1,076 requests were accepted, 1,075 of them for items and pages"),
        ({"asked": (1000, 1025), "accepted": 1076}, "25 detail requests too many, 24 can be explained"),
        ({"listed": (50, 52), "accepted": 1076}, "2 list requests too many, 1 can be explained"),
        ({"died": ("worker (status 1, after 9 s)",)}, "1 processes ended of themselves, first ('worker"),
        (
            {"left": "process ids still there: 77"},
            "not every process could be stopped in the end: process ids still there: 77",
        ),
    ],
    ids=str,
)
def test_each_property_that_does_not_hold_is_told(changed, said):
    sentences = breaches(dataclasses.replace(GOOD, **changed))

    assert any(said in sentence for sentence in sentences), sentences


@pytest.mark.parametrize(
    ("kind", "lanes"),
    [
        (Kind.CHILD_KILLED, 8),
        (Kind.CHILD_STOPPED, 8),
        (Kind.ALL_KILLED, 16),
        (Kind.POSTGRES_RESTARTED, 16),
        (Kind.POSTGRES_BROKEN_OFF, 16),
        (Kind.SUPERVISOR_KILLED, 0),
        (Kind.SUPERVISOR_STOPPED, 0),
        (Kind.SCHEDULER_KILLED, 0),
        (Kind.REDIS_KILLED, 0),
        (Kind.REDIS_STOPPED, 0),
        (Kind.REDIS_FLUSHED, 0),
        (Kind.DRAINED, 0),
    ],
)
def test_a_fault_may_cost_one_batch_of_each_lane_it_takes_from_its_process(kind, lanes):
    struck = Struck(Fault(0.5, kind), 3.0, 500)
    facts = dataclasses.replace(GOOD, struck=(struck, struck))

    assert SHAPE.batch == 3
    assert facts.most_extra_items == 2 * lanes * 3
    assert facts.most_extra_pages == 2 * bool(lanes)


def test_a_request_that_the_record_calls_failed_may_be_sent_again():
    facts = dataclasses.replace(GOOD, struck=(), attempts_failed=5, pages_failed=2)

    assert (facts.most_extra_items, facts.most_extra_pages) == (5, 2)
