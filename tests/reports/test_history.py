"""History: the paces, waits and pauses of a whole run for charts; their sums are what the run counted."""

from datetime import timedelta

import pytest

from workers import Connector, Limit, clock
from workers.connections import database
from workers.records import activation, runs, samples
from workers.records.tables import Run, RunStatus, Sample
from workers.reports.budget_states import budget_state_of
from workers.reports.history import history

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def run(moved_clock, import_from):
    """A run that begins at an even second, on a budget of 500/20 s and 2000/100 s."""
    import_from("http://127.0.0.1:9", limits=(Limit(500, seconds=20), Limit(2000, seconds=100)))
    run = runs.create("items", lanes=16, created_by="test", door="test")
    activation.activate(run.id)
    return runs.get(run.id)


def works(run, seconds, *, waits=0.0, sample=True, **more):
    """Let time pass, and the run count more at the end of it."""
    clock.sleep(seconds)
    columns = {"succeeded": Run.succeeded_count, "failed": Run.failed_count, "requests": Run.requests_count}
    columns |= {"hits": Run.rate_limit_hits_count, "sleeps": Run.rate_limit_sleeps_count}
    values = {columns[name]: columns[name] + count for name, count in more.items()}
    values |= {Run.total_sleep_seconds: Run.total_sleep_seconds + waits}
    Run.update(values).where(Run.id == run.id).execute()
    if sample:
        samples.take(database.now())


def history_of(run):
    return history(runs.get(run.id), database.now())


def test_each_span_has_its_paces_and_its_counts(run):
    # Given a run of three spans of two seconds
    works(run, 2, succeeded=10, requests=12)
    works(run, 2, succeeded=20, failed=4, requests=30, hits=1)
    works(run, 2, succeeded=2, requests=2, sleeps=1, sample=False)

    # Then each point has them
    points = history_of(run).points
    assert [point.items_per_second for point in points] == [5, 12, 1]
    assert [point.requests_per_second for point in points] == [6, 15, 1]
    assert [(point.done, point.succeeded, point.failed, point.skipped) for point in points] == [
        *((10, 10, 0, 0), (34, 30, 4, 0), (36, 32, 4, 0))
    ]
    assert [(point.hits, point.sleeps) for point in points] == [(0, 0), (1, 0), (0, 1)]
    assert [point.at - run.started_at for point in points] == [timedelta(seconds=s) for s in (2, 4, 6)]


@on_sqlite
def test_a_wait_is_shown_when_it_was_and_not_when_it_was_booked(run):
    # Given a run that worked for two seconds, waited for eight, and booked that two seconds later
    works(run, 2, succeeded=10)
    for _ in range(4):
        works(run, 2)
    works(run, 2, succeeded=10, waits=8.0)
    works(run, 2, succeeded=10)

    # Then the eight seconds before it was booked are the wait
    assert [point.waiting_share for point in history_of(run).points] == [0, 0, 1, 1, 1, 1, 0]


@on_sqlite
def test_a_sleep_that_is_not_over_is_shown(run):
    # Given a run that sleeps, for its API asked for a minute's pause
    works(run, 2, succeeded=10)
    caller = Connector(
        "api-of-items", base_url="http://127.0.0.1:9", limits=(Limit(500, seconds=20), Limit(2000, seconds=100))
    ).permit_client(run.id)
    with pytest.raises(Exception, match="429"):
        caller.report(caller.acquire(1.0), 429, {"Retry-After": "60"})
    with pytest.raises(Exception, match="429"):
        caller.acquire(1.0)
    caller.flush()

    # When four seconds have passed
    works(run, 4)
    clock.sleep(2)

    # Then they count as waiting
    assert [round(point.waiting_share, 2) for point in history_of(run).points] == [0, 1, 1]


def test_a_pause_is_a_span_in_which_nothing_is_counted(run):
    # Given a run that was paused a second after its sample, for a minute
    works(run, 2, succeeded=10)
    clock.sleep(1)
    runs.move(run.id, RunStatus.PAUSED, who="test", door="test")
    clock.sleep(60)
    runs.resume(run.id, who="test", door="test")
    works(run, 3, succeeded=12, waits=6.0)

    # Then the pace beside it is not thinned by it, nor does it count as waiting
    past = history_of(run)
    (span,) = past.pauses
    assert (span.begin - run.started_at, span.seconds) == (timedelta(seconds=3), 60)
    assert [point.items_per_second for point in past.points] == pytest.approx([5, 3, 0, 3])
    assert [point.seconds for point in past.points] == [2, 1, 60, 3]
    assert [point.waiting_share for point in past.points] == pytest.approx([1, 1, 0, 1])
    assert [point.done for point in past.points] == [10, 13, 13, 22]


@on_sqlite
def test_a_retry_gives_no_negative_pace(run):
    # Given a run of which ten items failed, and were tried again an hour later
    works(run, 2, succeeded=5, failed=10)
    runs.move(run.id, RunStatus.FAILED, who="test", door="test", detail="why")
    clock.sleep(3600)
    runs.move(run.id, RunStatus.PENDING, who="test", door="test", what="retried")
    Run.update(failed_count=0).where(Run.id == run.id).execute()
    activation.activate(run.id)
    works(run, 2, succeeded=6)
    works(run, 2, succeeded=4)

    # Then
    past = history_of(run)
    assert all(point.items_per_second >= 0 and point.requests_per_second >= 0 for point in past.points)
    assert [span.seconds for span in past.pauses] == [3600]
    assert (past.points[-1].done, past.points[-1].failed) == (15, 0)


@on_sqlite
def test_a_run_without_samples_has_its_start_and_its_end(run):
    # Given a run from before there were samples
    works(run, 50, succeeded=100, requests=101, waits=25.0, sample=False)
    Run.update(status=RunStatus.COMPLETED, ended_at=database.now()).where(Run.id == run.id).execute()
    clock.sleep(1000)

    # Then it ends where it ended
    past = history_of(run)
    (point,) = past.points
    assert (point.seconds, point.items_per_second, point.waiting_share) == (50, 2, 0.5)
    assert (past.begin, past.end) == (run.started_at, run.started_at + timedelta(seconds=50))
    assert past.pauses == ()


@on_sqlite
def test_a_run_that_has_not_begun_has_no_points(run):
    pending = runs.create("items", lanes=4, created_by="test", door="test")

    assert history(pending, database.now()).points == ()


@on_sqlite
def test_however_it_went_the_points_add_up_to_what_the_run_counted(run):
    # Given a run whose samples were thinned, with a pause
    for second in range(40):
        works(run, 2, succeeded=second % 7, failed=second % 2, requests=second % 9, waits=second % 2 * 1.5)
    runs.move(run.id, RunStatus.PAUSED, who="test", door="test")
    clock.sleep(31)
    runs.resume(run.id, who="test", door="test")
    works(run, 5, succeeded=8)
    Sample.delete().where(Sample.slot.bin_and(3) != 0).execute()

    # Then
    points, now = history_of(run).points, runs.get(run.id)
    assert sum(p.items_per_second * p.seconds for p in points) == pytest.approx(now.succeeded_count + now.failed_count)
    assert sum(p.requests_per_second * p.seconds for p in points) == pytest.approx(now.requests_count)
    assert sum(p.waiting_share * p.seconds for p in points) == pytest.approx(now.total_sleep_seconds)
    assert sum(p.seconds for p in points) == pytest.approx((database.now() - run.started_at).total_seconds())


@on_sqlite
def test_the_theoretical_pace_is_that_of_the_window_which_allows_least(run, house):
    # Given 500/20 s and 2000/100 s: 25 and 20 a second
    past = history_of(run)
    assert (past.theoretical_title, past.theoretical_per_second) == ("2000/100 s", pytest.approx(20, rel=0.002))

    # And where it is unknown
    assert budget_state_of(Run(source="gone")) is None
    other = runs.create("gone", lanes=4, created_by="test", door="test")
    assert (history_of(other).theoretical_title, history_of(other).theoretical_per_second) == ("", None)
