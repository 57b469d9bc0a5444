"""Heartbeat of schedulers, and paused time: when no scheduler runs, and for how long a run was paused."""

from datetime import timedelta

import pytest

from tests.helpers.machine import free_port
from workers import Limit, clock, settings
from workers.connections.trouble import Cause
from workers.control import runner
from workers.messaging import scheduler_heartbeat
from workers.records import runs
from workers.records.tables import RunStatus
from workers.reports import run_stats
from workers.scheduling import schedule_stats, timetable

ALICE = {"who": "alice", "door": "cli"}
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def items(import_from, moved_clock):
    return import_from("http://127.0.0.1:9")


# --- is there a scheduler? --------------------------------------------------------------------------------------------


@ON_ONE_DATABASE
def test_where_no_scheduler_has_ever_run_the_doors_say_so_with_the_fix(items):
    missing = scheduler_heartbeat.no_scheduler()
    assert (missing.cause, missing.since, missing.is_down) == (Cause.NO_SCHEDULER, None, False)
    assert missing.sentence.endswith("To do: start `python -m workers scheduler`")


@ON_ONE_DATABASE
@pytest.mark.parametrize(("once", "patience"), [(False, 30), (True, 900)])
def test_a_scheduler_is_missed_after_a_while_and_one_of_a_cron_later(items, moved_clock, once, patience):
    # Given
    scheduler_heartbeat.beat(once=once)

    # When, Then
    moved_clock.advance(patience - 1)
    assert scheduler_heartbeat.no_scheduler() is None
    moved_clock.advance(2)
    missing = scheduler_heartbeat.no_scheduler()
    assert missing.since == clock.now() - timedelta(seconds=patience + 1)
    assert missing.headline == f"no scheduler runs (since {missing.since:%Y-%m-%d %H:%M:%S} UTC)"


@ON_ONE_DATABASE
def test_a_redis_that_cannot_tell_accuses_nobody(items, house):
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    settings.get_settings.cache_clear()

    scheduler_heartbeat.beat()
    assert scheduler_heartbeat.no_scheduler() is None


@ON_ONE_DATABASE
def test_an_overdue_run_and_its_schedule_say_who_is_missing(items, moved_clock):
    # Given
    scheduler_heartbeat.beat()
    timetable.set_schedule("items", "* * * * *", **ALICE)
    assert schedule_stats.schedule_stats("items").unattended == ""

    # When no scheduler ticks for two minutes
    moved_clock.advance(120)

    # Then
    shown = schedule_stats.schedule_stats("items")
    assert "its slot of" in shown.unattended and "no scheduler runs (since" in shown.unattended
    (overdue,) = run_stats.recent_runs()
    assert overdue.label == "overdue"
    assert overdue.why.startswith("overdue since") and "python -m workers scheduler" in overdue.why


# --- how long a run was paused ----


@ON_ONE_DATABASE
def test_a_pause_and_the_time_until_a_retry_are_not_active(items, moved_clock):
    # Given a run that worked for 10 s, was paused for 100, worked for 20 and failed
    run_id = runner.start("items", **ALICE).id
    moved_clock.advance(10)
    runner.pause(run_id, **ALICE)
    moved_clock.advance(100)
    paused = run_stats.run_stats(runs.get(run_id))
    runner.resume(run_id, **ALICE)
    moved_clock.advance(20)
    runs.move(run_id, RunStatus.FAILED, who="test", door="test")

    # Then
    assert (round(paused.active_seconds), round(paused.held_seconds)) == (10, 100)
    failed = run_stats.run_stats(runs.get(run_id))
    assert (round(failed.duration_seconds), round(failed.active_seconds), round(failed.held_seconds)) == (130, 30, 100)

    # When it is retried an hour later, and works for 5 s
    moved_clock.advance(3600)
    runner.retry_failed(run_id, **ALICE)
    moved_clock.advance(5)

    # Then
    (again,) = run_stats.recent_runs()
    assert (round(again.active_seconds), round(again.held_seconds)) == (35, 3700)

    # And it is still scheduled by no schedule
    assert again.scheduled_at is None


@ON_ONE_DATABASE
def test_a_pause_within_a_wait_is_no_wait_and_the_end_changes_nothing(import_from, mock_api, moved_clock):
    # Given a run of 38 items on 20/20 s: one wait of nearly 20 s, of which it is paused for 10
    server = mock_api(items=38, limits="20/20")
    import_from(server.url, limits=(Limit(20, seconds=20),))
    seen, paused_at = [], []

    def look(run):
        now = run_stats.run_stats(run)
        if run.status == RunStatus.RUNNING:
            seen.append(now)
        if not paused_at and now.waiting_seconds > 5:
            runner.pause(run.id, **ALICE)
            paused_at.append(clock.monotonic())
            seen.append(run_stats.run_stats(runs.get(run.id)))
        elif run.status == RunStatus.PAUSED and clock.monotonic() - paused_at[0] >= 10:
            runner.resume(run.id, **ALICE)

    # When
    run = runner.run_inline(runner.start("items", **ALICE, send=False), look)

    # Then what is waiting was never taken back, and is not more at the end than it was before it
    ended = run_stats.run_stats(run)
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 38)
    assert ended.held_seconds == pytest.approx(10, abs=5.1)
    assert ended.waiting_seconds == pytest.approx(20 - ended.held_seconds, abs=1.5)
    assert ended.waiting_seconds == pytest.approx(run.total_sleep_seconds)
    assert ended.waiting_seconds == pytest.approx(max(one.waiting_seconds for one in seen), abs=1.5)
    assert "paused" in [one.status for one in seen]
