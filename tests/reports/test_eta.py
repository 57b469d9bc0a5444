"""ETA: the computed end of a run, compared with runs that end, in moved time; and what decides it, in words."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from workers import Connector, Limit, clock, settings
from workers.connections import database
from workers.control import runner
from workers.limiter.state import BudgetState, WindowState
from workers.records import activation, items, runs, samples
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus, Sample
from workers.reports import intervals, run_stats, running_runs
from workers.reports.eta import eta
from workers.reports.pace import Pace, count_since, pace_of
from workers.reports.pauses import pauses_of
from workers.reports.running_runs import RunningRuns
from workers.reports.snapshot import FleetState, Snapshot, _completed_since

TWO = (Limit(500, seconds=20), Limit(2000, seconds=100))

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def budget(*used, limits=TWO, **more):
    windows = [WindowState(limit, limit.requests, limit.requests, n) for limit, n in zip(limits, used, strict=True)]
    return BudgetState("api", tuple(windows), **more)


FRESH = budget(0, 0)


def listed(left, source="items", **values):
    """A running run of 16 lanes whose list is known, with `left` items left."""
    run = runs.create(source, lanes=16, created_by="test", door="test")
    assert activation.activate(run.id)
    known = {"total_count": left, "discovered_at": database.now(), "discovery_due_at": None}
    Run.update(known | values).where(Run.id == run.id).execute()
    return runs.get(run.id)


def eta_of(run, state=FRESH, active=200.0, others=(), sampled=None):
    every = [run, *others]
    running = RunningRuns(every, (), dict.fromkeys([one.id for one in every], "api"), sampled or {})
    return eta(run, database.now(), state, Pace(0.0, active), running, last_retry_at=items.last_due(run.id))


# --- against what happens ---------------------------------------------------------------------------------------------


@on_sqlite
def test_it_is_right_to_a_few_seconds_during_a_whole_run(moved_clock, mock_api, import_from):
    # Given 190 requests on 20/20 s and 80/100 s: four bursts, a wait, and so on for 220 s
    server = mock_api(items=188, limits="20/20,80/100")
    import_from(server.url, limits=(Limit(20, seconds=20), Limit(80, seconds=100)))
    seen = []

    def look(run):
        if run.status == RunStatus.RUNNING and run.succeeded_count:
            one = run_stats.run_stats(run)
            seen.append((clock.now(), one.eta_at, one.eta_seconds, one.eta_why))

    # When they are imported, and the end is computed after each message
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False), look)

    # Then each one is as exact as the samples, which an inline run takes every five seconds
    off = [(eta_at - run.ended_at).total_seconds() for _, eta_at, _, _ in seen]
    assert len(off) > 40
    assert max(map(abs, off)) < 5.5
    assert all(at + timedelta(seconds=seconds) == eta_at for at, eta_at, seconds, _ in seen)
    assert any("80/100 s window decides" in why for *_, why in seen)
    assert any("window opens in" in why for *_, why in seen)


@pytest.mark.parametrize(
    ("left", "state", "seconds"),
    [
        (400, FRESH, 2),  # its own pace: 200/s
        (2000, FRESH, 3 * 20.02 + 2.5),
        (2100, FRESH, 100.1 + 0.5),
        (20_000, FRESH, 9 * 100.1 + 3 * 20.02 + 2.5),
        (1_000_000, FRESH, 499 * 100.1 + 3 * 20.02 + 2.5),
        (100, budget(0, 2000, opens_in_seconds=38), 38.5),
        (100, budget(0, 0, opens_in_seconds=300, paused_for_seconds=300), 300.5),
    ],
)
@on_sqlite
def test_known_budgets_have_known_ends(moved_clock, house, left, state, seconds):
    assert eta_of(listed(left), state).seconds == pytest.approx(seconds, rel=0.002, abs=0.1)


@on_sqlite
def test_the_samples_show_when_a_window_opens_again(moved_clock, house):
    # Given that 1,500 of 2,000 were used in bursts 45, 25 and 5 s ago
    run = listed(600)
    bursts = {"requests": 0}
    sampled = []
    for ago in (48, 45, 28, 25, 8, 5):
        bursts["requests"] += 500 if ago in (45, 25, 5) else 0
        sampled.append(intervals.Counters(database.now() - timedelta(seconds=ago), requests=bursts["requests"]))
    Run.update(requests_count=1500).where(Run.id == run.id).execute()

    # Then 500 leave when the short window opens, and the last 100 when the first burst is over
    found = eta_of(runs.get(run.id), budget(500, 1500, opens_in_seconds=15), 1e6, sampled={run.id: sampled})
    assert found.seconds == pytest.approx(100.1 - 45, abs=2)


@on_sqlite
def test_what_a_run_took_that_has_ended_is_known_too(moved_clock, house):
    # Given a run that took 1,500 of 2,000 in three bursts, and has ended
    earlier, sent = listed(1500), 0
    for pause in (3, 17, 3, 17, 3, 1):
        clock.sleep(pause)
        sent += 500 if pause == 3 else 0
        Run.update(requests_count=sent).where(Run.id == earlier.id).execute()
        samples.take(database.now())
    Run.update(status=RunStatus.COMPLETED, ended_at=database.now()).where(Run.id == earlier.id).execute()

    # When another one begins, which may take 500 at once, and 100 when the first burst is over: 42 s ago
    run = listed(600)
    clock.sleep(2)
    others = running_runs.snapshot(database.now())
    state = budget(500, 1500, opens_in_seconds=17)

    # Then its end is that, and not all of a window later
    found = eta(run, database.now(), state, Pace(0.0, 1e6), others)
    assert [one.id for one in others.earlier] == [earlier.id]
    assert found.seconds == pytest.approx(100.1 - 44, abs=3)
    assert eta(run, database.now(), state, Pace(0.0, 1e6), replace(others, earlier=(), _computed={})).seconds > 75


@on_sqlite
def test_a_window_that_the_run_cannot_fill_decides_nothing(moved_clock, house):
    run = listed(1000)
    assert "500/20 s window decides: 25 items/s" in eta_of(run).why
    run.total_count = 2100
    assert "2000/100 s window decides: 20 items/s" in eta_of(run).why


@on_sqlite
def test_what_was_sent_before_the_first_sample_is_known_too(moved_clock, house):
    # Given a run that sent 400 requests in its first two seconds, and none in the 48 since
    run = listed(1800)
    clock.sleep(2)
    Run.update(requests_count=400).where(Run.id == run.id).execute()
    samples.take(database.now())
    clock.sleep(48)

    # Then they stand in the way for another 51 s, which is over when 1,600 have left
    marks = intervals.samples_of([run.id])
    assert eta_of(runs.get(run.id), budget(0, 400), math.inf, sampled=marks).seconds == pytest.approx(60, abs=0.1)


@on_sqlite
def test_a_day_s_window_costs_no_more_than_a_short_one(moved_clock, house):
    # Given a budget of a million a day, of which 600,000 are used at unknown times, and 100 a second
    limits = (Limit(100, seconds=1), Limit(1_000_000, seconds=86_400))
    state = budget(3, 600_000, limits=limits)

    # Then 300,000 requests take as long as the shorter one says, and five million as the longer one
    assert eta_of(listed(300_000), state, math.inf).seconds == pytest.approx(3_000, rel=0.01)
    found = eta_of(listed(5_000_000, "others"), state, math.inf)
    assert found.seconds == pytest.approx(5 * 86_400 + 600_000 / 100, rel=0.005)


# --- what decides -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "state", "active", "why"),
    [
        (400, FRESH, 200.0, "its own pace decides: 200 items/s on 16 lanes"),
        (2000, FRESH, 7.3, "its own pace decides: 7.3 items/s on 16 lanes"),
        (20_000, FRESH, 200.0, "2000/100 s window decides: 20 items/s"),
        (20_000, FRESH, math.inf, "2000/100 s window decides: 20 items/s"),
        (100, budget(0, 2000, opens_in_seconds=38), 200.0, "2000/100 s window opens in 38 s"),
        (
            100,
            budget(0, 0, opens_in_seconds=300, paused_for_seconds=300),
            200.0,
            "its API is paused for 5 min 0 s",
        ),
        (20_000, budget(0, 0, profile="paced"), 200.0, "the paced profile decides: 19.1 items/s"),
        (0, FRESH, 200.0, "every item has ended; the run is about to be completed"),
    ],
)
@on_sqlite
def test_what_decides_is_said_in_words(house, left, state, active, why):
    assert eta_of(listed(left), state, active).why == why


def test_a_retry_that_is_due_last_decides(moved_clock, house):
    # Given a run with two items left, one of which is tried again in four minutes
    run = listed(2)
    due = {"item_type": "item", "item_id": "1", "status": ItemStatus.PENDING}
    items.add(run.id, [due | {"external_id": "1", "due_at": database.now()}])
    items.add(run.id, [due | {"external_id": "2", "due_at": database.now() + timedelta(seconds=240)}])

    found = eta_of(run)
    assert (found.seconds, found.why) == (240, "a retry decides: the last one is due in 4 min 0 s")

    # And one that has ended decides nothing
    RunItem.update(status=ItemStatus.COMPLETED).where(RunItem.external_id == "2").execute()
    assert eta_of(run).seconds < 1


@on_sqlite
@pytest.mark.parametrize(("failed_before", "is_read"), [(1, True), (0, False)])
def test_the_last_retry_is_read_where_an_end_can_be_computed(moved_clock, import_from, failed_before, is_read):
    # Given a run whose failed items were opened again, so that only a sample shows that they had ended
    import_from("http://127.0.0.1:1")
    run, due = listed(2), database.now() + timedelta(seconds=240)
    item = {"item_type": "item", "item_id": "1", "status": ItemStatus.PENDING, "external_id": "1", "due_at": due}
    items.add(run.id, [item])
    sample = intervals.Counters(database.now(), failed=failed_before)

    taken = Snapshot(database.now(), FleetState(), RunningRuns([run], samples={run.id: [sample]}), {})

    assert taken.facts(run).last_retry_at == (due if is_read else None)


@on_sqlite
def test_runs_on_the_same_budget_share_it(moved_clock, house):
    # Given 10,000 left of a run, and other runs with a lot and with little left
    run, long, short = listed(10_000), listed(100_000, "long"), listed(1_000, "short")
    alone = eta_of(run)

    # Then by lanes, until the other has ended; and one of higher priority goes first
    with_long, with_short = eta_of(run, others=[long]), eta_of(run, others=[short])
    assert with_long.seconds == pytest.approx(20_000 / 20, rel=0.05)
    assert with_short.seconds == pytest.approx(11_000 / 20, rel=0.1)
    assert alone.seconds < with_short.seconds
    assert with_long.why == f"2000/100 s window decides: 20 items/s; shared with run {long.id}"
    long.priority = 5
    first = eta_of(run, others=[long])
    assert first.seconds == pytest.approx(110_000 / 20, rel=0.05)
    assert first.why.endswith(f"; run {long.id} goes first")

    # And those of other budgets, or of lower priority, do not count
    long.priority = -5
    assert eta_of(run, others=[long]) == alone
    elsewhere = RunningRuns([run, short], (), {run.id: "api", short.id: "other"}, {})
    assert eta(run, database.now(), FRESH, Pace(0.0, 200.0), elsewhere) == alone


@on_sqlite
def test_items_that_take_several_requests_take_longer(moved_clock, house):
    run = listed(10_000)

    found = eta(run, database.now(), FRESH, Pace(0.0, 200.0, requests_per_item=2.0), RunningRuns())

    assert found.seconds == pytest.approx(eta_of(listed(20_000, "others")).seconds, rel=0.01)
    assert found.why == "2000/100 s window decides: 10 items/s"


# --- pace -------------------------------------------------------------------------------------------------------------


def works(run, seconds, count, waits=0.0):
    """Let time pass, and the run end `count` items at its end, all of it in samples."""
    clock.sleep(seconds)
    values = {Run.succeeded_count: Run.succeeded_count + count, Run.requests_count: Run.requests_count + count}
    values |= {Run.total_sleep_seconds: Run.total_sleep_seconds + waits}
    Run.update(values).where(Run.id == run.id).execute()
    samples.take(database.now())


def pace(run, sampled=True):
    now, run = database.now(), runs.get(run.id)
    marks = intervals.samples_of([run.id])[run.id] if sampled else ()
    pauses = pauses_of([run], now)[run.id]
    since = count_since(run, now, marks, pauses)
    return pace_of(run, now, marks, pauses, completed=_completed_since(run, since) if since else None)


@on_sqlite
def test_the_active_pace_leaves_waiting_out(moved_clock, house):
    # Given a run that worked two seconds of twenty, and waited for the others
    run = listed(100_000)
    for _ in range(20):
        works(run, 2, 100)
        works(run, 18, 0, waits=18.0)

    # Then
    found = pace(run)
    assert found.active_per_second == pytest.approx(50)
    assert found.per_second == pytest.approx(5, rel=0.35)
    assert found.requests_per_item == pytest.approx(1, rel=0.1)

    # And a run without samples has the same, by its whole history
    assert pace(run, sampled=False).active_per_second == pytest.approx(50)


@on_sqlite
def test_requests_that_are_not_counted_are_taken_for_one_an_item(moved_clock, house):
    # Given a run that is worked off by an older version
    run = listed(1_000)
    for _ in range(20):
        works(run, 2, 100)
        Run.update(requests_count=0).where(Run.id == run.id).execute()
        Sample.update(requests=0).execute()
    assert pace(run).requests_per_item == 1.0


@on_sqlite
def test_what_the_list_itself_refused_is_no_pace(moved_clock, house):
    # Given a list of which 5,000 entries were skipped, and details at one a second
    run = listed(15_000, skipped_count=5_000)

    # When
    for _ in range(30):
        samples.take(database.now())
        works(run, 2.0, 2)

    # Then
    assert pace(runs.get(run.id)).active_per_second == pytest.approx(1.0, rel=0.1)
    assert pace(runs.get(run.id), sampled=False).active_per_second == pytest.approx(1.0, rel=0.1)


@on_sqlite
def test_many_runs_on_a_budget_are_computed_once(moved_clock, house):
    # Given
    many = [listed(100, source=f"items{number}") for number in range(8)]
    samples.take(database.now())
    moved_clock.advance(2.0)
    computed = []
    running = RunningRuns(many, (), dict.fromkeys([run.id for run in many], "api"), {})

    # When
    found = [running.once_per_budget(run, lambda: computed.append(1) or "gates") for run in many]

    # Then
    assert found == ["gates"] * 8
    assert len(computed) == 1


@on_sqlite
def test_an_end_beyond_what_can_be_foreseen_has_no_date(moved_clock, house, import_from):
    assert run_stats._at(database.now(), 3e9) is None
    assert run_stats._at(database.now(), 60.0) == database.now() + timedelta(seconds=60)


@on_sqlite
def test_the_pace_is_that_of_the_last_minute(moved_clock, house):
    # Given a run that was slow for an hour, and is fast now
    run = listed(100_000)
    works(run, 3600, 36)
    for _ in range(40):
        works(run, 2, 20)

    assert pace(run).per_second == pytest.approx(10)


def test_without_a_sample_the_items_of_the_last_minute_are_counted(moved_clock, house):
    # Given a run that was resumed ten seconds ago, and has completed thirty items since
    run = listed(100)
    clock.sleep(100)
    runs.move(run.id, RunStatus.PAUSED, who="test", door="test")
    runs.resume(run.id, who="test", door="test")
    clock.sleep(10)
    row = {"item_type": "item", "status": ItemStatus.COMPLETED, "due_at": database.now()}
    row |= {"completed_at": database.now()}
    items.add(run.id, [row | {"external_id": str(n), "item_id": str(n)} for n in range(30)])
    Run.update(succeeded_count=30).where(Run.id == run.id).execute()

    assert pace(run).per_second == pytest.approx(3)


@on_sqlite
def test_a_run_of_which_nothing_has_come_has_no_end(moved_clock, house):
    # Given a run whose list is not known, and one that has just begun
    reading, begun = listed(5, discovered_at=None), listed(5, "others")
    clock.sleep(5)

    assert eta_of(reading) is None
    assert pace(begun).active_per_second is None
    assert eta_of(begun, active=pace(begun).active_per_second) is None


@on_sqlite
def test_where_redis_is_away_the_end_is_unknown(moved_clock, house, import_from):
    import_from("http://127.0.0.1:9", limits=TWO, connector=Connector("api", base_url="http://127.0.0.1:9", limits=TWO))
    run = listed(100)
    works(run, 10, 50)
    known = run_stats.run_stats(runs.get(run.id))
    assert known.eta_seconds == pytest.approx(10, abs=0.3)
    assert known.eta_at == database.now() + timedelta(seconds=known.eta_seconds)
    assert (known.requests, known.lanes, known.priority, known.kind) == (50, 16, 0, "import")

    house.setenv("SLUICE_REDIS_URL", "redis://127.0.0.1:9/0")
    settings.get_settings.cache_clear()
    unknown = run_stats.run_stats(runs.get(run.id))

    assert (unknown.eta_seconds, unknown.eta_at, unknown.eta_why) == (None, None, "")
