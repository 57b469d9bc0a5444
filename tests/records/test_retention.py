"""Retention removes the items of runs that ended long ago, and later their rows; never those of open runs."""

import json
import os
import pty
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import click.testing
import peewee
import pytest

from tests.helpers.machine import ROOT
from workers import UsageError, clock, settings
from workers.cli.command_line import cli
from workers.cli.origin import Door
from workers.connections import database
from workers.control import runner
from workers.records import items, lanes, old_runs, retention, run_completion, runs
from workers.records.retention import Pruned
from workers.records.tables import ENDED, ItemStatus, Lane, Run, RunEvent, RunItem, RunStatus
from workers.scheduling import timetable

MOMENT = timedelta(microseconds=1)
AGES = {"items_days": 30, "runs_days": 365}


def a_run(days_ago, count=3, *, status=RunStatus.COMPLETED, **values):
    """A run that ended `days` days ago, with `count` items, the last of them failed."""
    at = database.now() - timedelta(days=days_ago)
    run = runs.create("items", lanes=2, created_by="test", door="test")
    done = {"due_at": at, "completed_at": at, "status": ItemStatus.COMPLETED}
    rows = [{"external_id": str(n), "item_id": str(n), **done} for n in range(count)]
    if rows:
        rows[-1] |= {"completed_at": None, "status": ItemStatus.FAILED}
    items.add(run.id, rows)
    lanes.open_for(run.id, 2)
    counts = {"total_count": count, "succeeded_count": max(0, count - 1), "failed_count": min(1, count)}
    ended_at = at if status in ENDED else None
    Run.update(status=status, ended_at=ended_at, discovered_at=at, **counts, **values).where(Run.id == run.id).execute()
    return run.id


def left(run_id):
    return RunItem.select().where(RunItem.run_id == run_id).count()


def run_ids():
    return [run.id for run in Run.select().order_by(Run.id)]


def test_the_items_of_an_old_run_go_and_its_counts_stay(house, moved_clock):
    # Given a run that ended long enough ago, and one that has not
    old, young = a_run(31, count=1200), a_run(29)

    # When a person prunes
    batches = []
    pruned = retention.prune(**AGES, who="ada", door="cli", on_batch=batches.append)

    # Then the items went in batches, the run has their number, and its timeline who removed them
    assert pruned == Pruned(items=1200, runs=0)
    assert [batch.items for batch in batches] == [500, 1000, 1200]
    run = runs.get(old)
    assert (run.total_count, run.succeeded_count, run.failed_count) == (1200, 1199, 1)
    assert moved_clock.now() - run.items_removed_at < timedelta(seconds=1)
    event = RunEvent.select().where(RunEvent.run_id == old).order_by(RunEvent.id.desc()).get()
    assert (event.what, event.who, event.door, event.detail) == ("items removed", "ada", "cli", "1,200 items")

    # And the other run has everything
    assert left(young) == 3
    assert runs.get(young).items_removed_at is None
    assert retention.prune(**AGES) == Pruned()


def test_a_run_is_old_when_it_ended_more_than_so_many_days_ago(house, moved_clock):
    # Given two runs that ended 30 days ago, to the microsecond, and a moment before
    on_the_day, before = a_run(30), a_run(30)
    Run.update({Run.ended_at: database.now() - timedelta(days=30) - MOMENT}).where(Run.id == before).execute()

    # Then only the latter is old; and the former is, a moment later
    assert retention.prune(items_days=30, runs_days=0).items == 3
    assert (left(on_the_day), left(before)) == (3, 0)
    moved_clock.advance(0.001)
    assert retention.prune(items_days=30, runs_days=0).items == 3


def test_zero_days_keep_everything(house, moved_clock):
    old = a_run(36_000)

    assert retention.prune(items_days=0, runs_days=0) == Pruned()
    assert retention.prune(items_days=0, runs_days=1) == Pruned()  # a row never goes before its items

    assert left(old) == 3


def test_a_run_that_has_not_ended_is_left_alone(house, moved_clock):
    # Given runs with the mark of an end that is long past: they were retried, or something wrote it wrongly
    still = (RunStatus.SCHEDULED, RunStatus.PENDING, RunStatus.RUNNING, RunStatus.PAUSED)
    kept = [a_run(400, status=status, tenant=status.value) for status in still]
    Run.update({Run.ended_at: database.now() - timedelta(days=400)}).execute()

    # Then nothing of them is old
    assert retention.prune(**AGES) == retention.tidy(10) == Pruned()
    assert [left(run_id) for run_id in kept] == [3] * len(still)


def test_a_run_s_row_goes_with_its_lanes_and_its_timeline_once_it_is_older_still(house, moved_clock):
    # Given runs of three ages; no item was ever known of the oldest one
    oldest, old, young = a_run(366, count=0, status=RunStatus.CANCELLED), a_run(366), a_run(364)

    # When a person prunes
    foretold = retention.removable(**AGES)
    assert retention.prune(**AGES) == foretold == Pruned(items=6, runs=2)

    # Then of the old ones nothing is left, and of the other its row
    assert run_ids() == [young]
    for table in (Lane, RunEvent):
        assert {row.run_id for row in table.select()} == {young}, table
    assert (left(oldest), left(old), left(young)) == (0, 0, 0)


def test_where_runs_are_to_go_sooner_than_items_both_go_when_the_items_do(house, moved_clock):
    between, old = a_run(20), a_run(31)

    assert retention.prune(items_days=30, runs_days=10) == Pruned(items=3, runs=1)

    assert (run_ids(), left(between), left(old)) == ([between], 3, 0)


def test_the_newest_slot_of_each_schedule_stays_known(house, moved_clock):
    # Given two schedules whose runs are all old, the newest of them not the last one made; and a person's run
    now = database.now()
    slot = [now - timedelta(days=500 - n) for n in range(3)]
    first = [a_run(400, schedule_id=1, slot_at=slot[n]) for n in (0, 2, 1)]
    second = a_run(400, schedule_id=2, slot_at=slot[0])
    a_run(400)

    # When all that can go has gone, again and again
    for _ in range(2):
        retention.prune(**AGES)

    # Then of each schedule the run of its newest slot is left
    assert run_ids() == [first[1], second]


def test_a_slot_whose_run_was_removed_does_not_run_again(import_from, moved_clock):
    # Given a monthly schedule whose last run ended three weeks ago; its future run is made already
    moved_clock.advance((datetime(2099, 3, 1, 12, tzinfo=UTC) - clock.now()).total_seconds())
    import_from("http://127.0.0.1:9")
    timetable.set_schedule("items", "0 0 1 * *", who="test", door="test")
    moved_clock.advance(31 * 86_400)
    timetable.keep()
    ran = Run.get(Run.status == RunStatus.RUNNING)
    runner.cancel(ran.id, who="test", door="test")
    moved_clock.advance(20 * 86_400)

    # When it is old enough to go, and the schedule is looked at again
    retention.prune(items_days=5, runs_days=14)
    timetable.keep()

    # Then
    assert [(f"{run.slot_at:%m-%d}", run.status) for run in Run.select().order_by(Run.id)] == [
        ("04-01", "cancelled"),
        ("05-01", "scheduled"),
    ]


def test_a_run_that_gave_its_slot_back_goes_like_a_person_s(house, moved_clock):
    a_run(400, status=RunStatus.CANCELLED, schedule_id=1)

    retention.prune(**AGES)

    assert run_ids() == []


def test_a_run_that_is_retried_while_its_items_go_keeps_the_rest_and_its_counts(house, moved_clock):
    # Given a run of which a batch has gone
    run_id = a_run(40, count=1200)

    def retry(pruned):
        if pruned.items == 500:
            runner.retry_failed(run_id, who="test", door="test")

    # When a person retries it between two batches
    assert retention.prune(**AGES, on_batch=retry).items == 500

    # Then the other items are still there, one of them open again, and it counts all
    run = runs.get(run_id)
    assert run.status == RunStatus.RUNNING
    assert (run.items_removed_at, run.total_count, run.succeeded_count, run.failed_count) == (None, 1200, 1199, 0)
    assert (left(run_id), run_completion.has_open_items(run_id)) == (700, True)

    # And once they are gone, it says so to who retries it again
    runs.move(run_id, RunStatus.COMPLETED, who="test", door="test")
    moved_clock.advance(31 * 86_400)
    assert retention.prune(**AGES).items == 700
    with pytest.raises(UsageError, match="deleted by retention"):
        runner.retry_failed(run_id, who="test", door="test")


def test_a_retry_waits_for_the_batch_that_holds_its_run(house):
    # Given a batch under way, that has decided what to remove
    run_id = a_run(40)
    held, go_on = threading.Event(), threading.Event()

    def batch():
        with database.connection(), database.db.atomic():
            ids = old_runs.lock(old_runs.with_old_items(database.now()), 10)
            held.set()
            assert go_on.wait(10)
            items.remove(run_id, 10)
            old_runs.mark_items_removed(ids, who="test", door="test")

    removing = threading.Thread(target=batch)
    removing.start()
    assert held.wait(10)

    # When a retry locks the run's row
    def retry():
        with database.connection(), database.db.atomic():
            runs.lock(run_id)
            seen.append(runs.get(run_id).items_removed_at)

    seen = []
    asking = threading.Thread(target=retry)
    asking.start()
    asking.join(0.2)
    assert not seen
    go_on.set()
    removing.join(10)
    asking.join(10)

    # Then the error says that the items were removed
    assert seen != [None]
    assert len(seen) == 1


def test_two_that_prune_at_once_remove_everything_once(house):
    # Given many old runs
    old = [a_run(400, count=40) for _ in range(20)]
    done, began = [], threading.Barrier(2)

    # When two prune at the same time
    def prune():
        with database.connection():
            began.wait(10)
            done.append(retention.prune(**AGES))

    both = [threading.Thread(target=prune) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(30)

    # Then neither failed, and together they removed each item and each run once
    assert len(done) == 2
    assert done[0] + done[1] == Pruned(items=40 * len(old), runs=len(old))
    assert not run_ids()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_who_meets_a_run_that_another_holds_goes_on_with_the_next(house):
    # Given two old runs, the older one in another's hands
    held_run, free_run = a_run(41), a_run(40)
    held, go_on = threading.Event(), threading.Event()

    def another():
        with database.connection(), database.db.atomic():
            assert old_runs.lock(old_runs.with_old_items(database.now()), 1) == [held_run]
            held.set()
            assert go_on.wait(10)

    holding = threading.Thread(target=another)
    holding.start()
    assert held.wait(10)

    # When a scheduler tidies meanwhile
    pruned = retention.tidy(0)
    go_on.set()
    holding.join(10)

    # Then it did not wait
    assert (pruned, left(free_run), left(held_run)) == (Pruned(items=3), 0, 3)


def test_a_tick_tidies_as_much_as_fits_in_its_time(house, moved_clock):
    # Given the settings' ages, and two thousand old items
    house.setenv("SLUICE_KEEP_ITEMS_DAYS", "2.5")
    settings.get_settings.cache_clear()
    run_id = a_run(3, count=2000)

    # Then one tick with time for a pause removes two batches, one without any time removes one, and the rest follows
    assert retention.tidy(1.5 * retention._PAUSE_SECONDS) == Pruned(items=1000)
    assert retention.tidy(0) == Pruned(items=500)
    assert retention.tidy(10) == Pruned(items=500)
    assert retention.tidy(10) == Pruned()
    event = RunEvent.select().where(RunEvent.run_id == run_id).order_by(RunEvent.id.desc()).get()
    assert (event.who, event.door, event.detail) == ("sluice", "scheduler", "2,000 items")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_look_for_what_is_old_reads_the_oldest_runs_and_not_all_that_ever_ended(house):
    for query in (old_runs.with_old_items(database.now()), old_runs.outlived(database.now())):
        sql, parameters = query.limit(1).sql()
        plan = " ".join(row[-1] for row in database.db.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters))

        assert "(ended_at<?)" in plan
        assert "TEMP B-TREE" not in plan


def test_many_small_runs_go_in_few_batches(house, moved_clock):
    for _ in range(60):
        a_run(40, count=1)
    batches = []

    retention.prune(**AGES, on_batch=batches.append)

    assert [batch.items for batch in batches] == [50, 60]


def test_a_batch_takes_no_more_from_several_runs_than_from_one(house, moved_clock):
    for _ in range(2):
        a_run(40, count=400)
    batches = []

    retention.prune(**AGES, on_batch=batches.append)

    assert [batch.items for batch in batches] == [500, 800]


def test_a_batch_is_written_whole_or_not_at_all(house, moved_clock):
    # Given a timeline that takes no second line
    run_id = a_run(40)
    database.db.execute_sql("CREATE UNIQUE INDEX one_line ON sluice_run_events (run_id)")

    # When a run's last items are removed, and the callback fails
    with pytest.raises(peewee.IntegrityError):
        retention.prune(**AGES)

    # Then they are still there
    assert (left(run_id), runs.get(run_id).items_removed_at) == (3, None)


def test_a_process_that_is_asked_to_stop_ends_after_the_batch(house, moved_clock):
    run_id = a_run(40, count=1200)

    pruned = retention.prune(**AGES, on_batch=lambda pruned: clock.stop_requested.set())

    assert pruned.items == 500
    assert left(run_id) == 700


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_ages_that_cannot_be_are_refused(house):
    for days in (-1, 40_000, float("nan")):
        for ages in ({"items_days": days, "runs_days": 1}, {"items_days": 1, "runs_days": days}):
            with pytest.raises(UsageError, match="days is out of range"):
                retention.prune(**ages)


# --- the command ------------------------------------------------------------------------------------------------------


def sluice(*arguments):
    return click.testing.CliRunner().invoke(cli, ["prune", *arguments], obj=Door(), standalone_mode=False)


def test_a_dry_run_removes_nothing_and_tells_what_would_be_removed(house, moved_clock):
    # Given
    run_id = a_run(400, count=5)
    a_run(5)

    # When
    plain, as_json = sluice("--dry-run"), sluice("--dry-run", "--runs-days", "0", "--json")

    # Then
    assert (plain.return_value, plain.stdout) == (0, "to be deleted: items 5, runs 1\n")
    assert "items 5 (of runs that ended more than 30 days ago)" in plain.stderr
    assert json.loads(as_json.stdout) == {"items": 5, "runs": 0, "items_days": 30.0, "runs_days": 0.0, "dry_run": True}
    assert left(run_id) == 5
    assert not RunEvent.select().where(RunEvent.what == "items removed").count()


def test_without_a_terminal_it_removes_only_with_yes(house, moved_clock):
    # Given
    run_id = a_run(8)

    # Then: nothing old, by the settings; what is old by the option needs a word
    assert (sluice().return_value, sluice().stdout) == (0, "deleted: items 0, runs 0\n")
    refused = sluice("--items-days", "7")
    assert isinstance(refused.exception, UsageError)
    assert "--yes" in str(refused.exception)
    assert left(run_id) == 3

    # And with it they go
    assert sluice("--items-days", "7", "--yes").stdout == "deleted: items 3, runs 0\n"
    assert left(run_id) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_on_a_terminal_it_asks(house):
    # Given a terminal, and a person who says no
    run_id = a_run(40)
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")

    # When
    command = [sys.executable, "-m", "workers", "prune"]
    done = subprocess.run(command, stdin=theirs, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    os.close(ours)
    os.close(theirs)

    # Then that is taken for an answer
    assert done.returncode == 1, done.stderr
    assert "to be deleted: items 3 " in done.stderr
    assert "nothing was deleted" in done.stderr
    assert left(run_id) == 3
