"""Watermarks: until when a budget's requests may be counted, in the database, for the day on which Redis forgets."""

import contextlib
import random
import sqlite3
import subprocess
import sys
import threading

import peewee
import psycopg
import pytest
from playhouse.migrations import Runner

from tests.helpers.machine import free_port
from workers import DependencyDown, clock
from workers.connections import database
from workers.errors import UsageError
from workers.limiter.lesson import Lesson
from workers.records import runs, schema
from workers.records.migrations import __path__ as migrations_path
from workers.records.tables import BudgetRow, RunItem
from workers.records.watermark import Watermark
from workers.reports.failure_groups import failure_groups

RACER = """
import sys
from workers.records.watermark import Watermark
mark = Watermark("raced")
mark.seconds()
print("ready", flush=True)
for line in sys.stdin:
    mark.raise_to(float(line))
"""


def in_threads(*works):
    """Do these at once, each in a thread that holds no connection; what they raised is returned."""
    errors = []

    def do(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


# --- the watermark ----------------------------------------------------------------------------------------------------


def test_a_budget_that_was_never_used_has_no_watermark(house):
    assert Watermark("api").seconds() is None


def test_a_watermark_stands_where_it_was_raised_to_and_time_passes_it(moved_clock, house):
    mark = Watermark("api")

    mark.raise_to(120)
    assert mark.seconds() == 120

    # When time passes, it says how long is left, and then since when nothing can be counted
    moved_clock.advance(45.5)
    assert mark.seconds() == 74.5
    moved_clock.advance(100)
    assert mark.seconds() == -25.5


def test_a_watermark_follows_the_database_s_own_clock(house):
    mark = Watermark("api")

    mark.raise_to(120)

    assert 115 < mark.seconds() <= 120


def test_a_watermark_is_never_lowered(moved_clock, house):
    # Given a budget that may be counted for 120 s
    mark = Watermark("api")
    mark.raise_to(120)

    # When others raise it to earlier instants, as one with a shorter timeout would
    for seconds in (60, 119.999, 0, -1000):
        mark.raise_to(seconds)

    # Then it stands, and a later one moves it
    assert mark.seconds() == 120
    moved_clock.advance(5)
    mark.raise_to(115.25)
    assert mark.seconds() == 115.25


def test_nothing_that_was_granted_before_counts_for_longer_than_the_longest_permit(house, moved_clock):
    # Given a mark ten seconds ahead of permits that count for 40 s at the most, and one of permits that count for 7
    mark = Watermark("api")
    mark.raise_to(50, 40)
    mark.raise_to(51, 7)

    # Then a request of before now counts for 40 s at most, and after eleven of them until the mark
    assert mark.seconds() == 40
    moved_clock.advance(21)
    assert mark.seconds() == 30


def test_every_budget_has_a_watermark_of_its_own(moved_clock, house):
    Watermark("api-1").raise_to(10)
    Watermark("api-2").raise_to(20)

    assert [Watermark(name).seconds() for name in ("api-1", "api-2", "api-3")] == [10, 20, None]


@pytest.mark.parametrize(
    "name",
    ["shop:eu/42", "Straße 🛒", "'; DROP TABLE sluice_budgets; --", "%s ? {0} \\", "\n", "a\0b", "\ud800", "🛒" * 2000],
    ids=lambda name: ascii(name)[:20],
)
def test_any_name_and_any_text_is_taken(moved_clock, house, name):
    mark = Watermark(name)

    mark.raise_to(10)
    mark.keep_lesson(Lesson(name, name, 1.5))

    assert Watermark(name).seconds() == 10
    assert mark.lesson() == Lesson(database.storable(name), database.storable(name), 1.5)
    assert Watermark("another").seconds() is None
    assert BudgetRow.select().count() == 1


# --- races ------------------------------------------------------------------------------------------------------------


def test_threads_that_race_leave_the_latest_instant(moved_clock, house):
    # Given eight threads with 200 instants between them, in no order
    instants = random.Random(7).sample(range(1, 201), 200)

    def raise_all(mine):
        mark = Watermark("raced")
        for seconds in mine:
            mark.raise_to(seconds)

    # When they raise the mark at once
    errors = in_threads(*(lambda mine=instants[n::8]: raise_all(mine) for n in range(8)))

    # Then the latest one stands, and it is one row
    assert errors == []
    assert Watermark("raced").seconds() == 200
    assert BudgetRow.select().count() == 1


def test_processes_that_race_leave_the_latest_instant(house):
    # Given three processes that are ready
    command = [sys.executable, "-c", RACER]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"

    # When they raise one mark at once, 600 s apart, in no order
    instants = random.Random(7).sample(range(600, 60_001, 600), 100)
    for n, racer in enumerate(racers):
        racer.stdin.writelines(f"{seconds}\n" for seconds in instants[n::3])
        racer.stdin.flush()
    said = [racer.communicate(timeout=30) for racer in racers]

    # Then the latest one stands
    assert [racer.returncode for racer in racers] == [0, 0, 0], said
    assert 59_900 < Watermark("raced").seconds() <= 60_000


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_thread_s_connection_is_left_as_it_was_found(house):
    def without_one():
        Watermark("api").raise_to(10)
        Watermark("api").keep_lesson(Lesson("paced"))
        assert Watermark("api").seconds() > 0
        assert Watermark("api").lesson().profile == "paced"
        assert database.db.is_closed()

    def with_one():
        with database.connection():
            Watermark("api").raise_to(10)
            Watermark("api").lesson()
            assert not database.db.is_closed()

    assert in_threads(without_one, with_one) == []


def test_a_raised_mark_is_there_for_others_at_once(moved_clock, house):
    Watermark("api").raise_to(10)
    seen = []

    assert in_threads(lambda: seen.append(Watermark("api").seconds())) == []

    assert seen == [10]


def test_nothing_is_recorded_inside_a_transaction_which_may_be_rolled_back(moved_clock, house):
    mark = Watermark("api")
    mark.raise_to(10)

    with database.db.atomic():
        with pytest.raises(UsageError, match="'api' is used inside a transaction"):
            mark.raise_to(20)
        with pytest.raises(UsageError, match="'api' is used inside a transaction"):
            mark.keep_lesson(Lesson("paced"))
        assert mark.seconds() == 10

    assert (mark.seconds(), mark.lesson()) == (10, Lesson())


@contextlib.contextmanager
def database_away(database_url):
    """Take this thread's database away: its connection is cut, or the file is locked by another."""
    if database.is_sqlite():
        database.db.execute_sql("PRAGMA busy_timeout = 50")
        with contextlib.closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.rollback()
        database.db.execute_sql("PRAGMA busy_timeout = 30000")
        return
    (pid,) = database.db.execute_sql("SELECT pg_backend_pid()").fetchone()
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    yield
    database.db.close()
    database.db.connect()


def test_a_database_that_went_away_is_said_to_be_away(house, database_url):
    mark = Watermark("api")
    mark.raise_to(1000)

    # When it goes
    with database_away(database_url), pytest.raises(peewee.DatabaseError) as raised:
        mark.raise_to(2000)

    # Then the error says so, and the mark stands, and can be raised when it is back
    assert database.is_away(raised.value)
    assert 900 < mark.seconds() <= 1000
    mark.raise_to(2000)
    assert 1900 < mark.seconds() <= 2000


def test_a_database_that_lets_nobody_in_is_down(environment):
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://sluice@127.0.0.1:{free_port()}/none")

    for method in (
        Watermark("api").seconds,
        Watermark("api").lesson,
        Watermark("api").pause,
        lambda: Watermark("api").raise_to(1),
    ):
        with pytest.raises(DependencyDown, match="the database does not answer"):
            method()


# --- what auto learned, and pauses ------------------------------------------------------------------------------------


def test_a_lesson_is_kept_with_its_age_until_another_is(moved_clock, house):
    mark = Watermark("api")
    assert mark.lesson() == Lesson()

    mark.keep_lesson(Lesson("paced", "an unexplained 429", 1.0, seconds_ago=5.0, lasts_seconds=600.0))
    moved_clock.advance(100)
    assert Watermark("api").lesson() == Lesson("paced", "an unexplained 429", 1.0, 105.0, 600.0)

    mark.keep_lesson(Lesson("", "", 0.0, 0.0, 1200.0))
    assert Watermark("api").lesson() == Lesson("", "", 0.0, 0.0, 1200.0)


def test_a_lesson_a_pause_and_a_watermark_do_not_touch_each_other(moved_clock, house):
    # Given a lesson and a pause of a budget that was never used
    mark, lesson = Watermark("api"), Lesson("paced", "a person said so")
    mark.keep_lesson(lesson)
    mark.keep_pause(4000, "Retry-After 3999")
    assert mark.seconds() is None

    # When it is used, and its lesson changes
    mark.raise_to(30)
    assert (mark.lesson(), mark.pause()) == (lesson, (4000, "Retry-After 3999"))
    mark.keep_lesson(Lesson("paced", "", 2.0))

    # Then each is what it was set to
    assert (mark.seconds(), mark.pause()) == (30, (4000, "Retry-After 3999"))
    assert mark.lesson() == Lesson("paced", "", 2.0)


def test_a_budget_that_was_used_and_has_no_lesson_and_no_pause_says_so(house):
    Watermark("api").raise_to(30)

    assert (Watermark("api").lesson(), Watermark("api").pause()) == (Lesson(), (0.0, ""))


def test_a_pause_is_never_shortened_and_ends_by_itself(moved_clock, house):
    mark = Watermark("api")
    mark.keep_pause(3601, "an hour")
    mark.keep_pause(5, "a moment")
    moved_clock.advance(1)
    assert Watermark("api").pause() == (3600, "an hour")

    moved_clock.advance(3600)
    assert Watermark("api").pause() == (0.0, "")
    mark.keep_pause(5, "a moment")
    assert Watermark("api").pause() == (5, "a moment")


def test_the_row_says_when_it_was_last_moved(moved_clock, house):
    mark, begun = Watermark("api"), clock.now()
    mark.raise_to(30)

    # When time passes and nothing is moved, and then something is
    moved_clock.advance(10)
    mark.raise_to(5)
    assert BudgetRow.get_by_id("api").updated_at == begun
    mark.raise_to(30)

    assert BudgetRow.get_by_id("api").updated_at == clock.now()


# --- the migration ----------------------------------------------------------------------------------------------------


def test_a_database_of_the_first_version_is_brought_up_to_date_with_its_rows(environment, database_url):
    # Given a database that knows the first tables only, with a run and its items
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    with database.connection():
        first = Runner(database.db.obj, next(iter(migrations_path)), table_name="sluice_migrations")
        assert first.up("0001_first_tables") == ["0001_first_tables"]
        assert not schema.is_migrated()
        at = "2026-11-22 10:00:00+00:00"
        database.db.execute_sql(
            "INSERT INTO sluice_runs (kind, source, status, succeeded_count, failed_count, skipped_count, "
            "discovery_attempts, lanes, priority, options, rate_limit_hits_count, rate_limit_sleeps_count, "
            "total_sleep_seconds, finalize_attempts, metadata, created_by, created_at, updated_at) VALUES "
            f"('import', 'items', 'failed', 2, 1, 0, 0, 4, 0, '{{}}', 0, 0, 0, 0, '{{}}', 'test', '{at}', '{at}')"
        )
        for n, status in enumerate(("completed", "failed", "completed")):
            database.db.execute_sql(
                "INSERT INTO sluice_run_items (run_id, external_id, status, attempts, due_at, failure_count) "
                f"VALUES (1, '{n}', '{status}', 1, '{at}', 0)"
            )

        # When it is migrated, twice
        newer = ["0002_budgets", "0003_failures", "0004_schedules", "0005_samples", "0006_fresh", "0007_row_counts"]
        newer += ["0008_honest_ends", "0009_waits", "0010_act_keys"]
        assert schema.migrate() == newer
        assert schema.migrate() == []

        # Then the rows are what they were, and budgets can be kept
        assert schema.is_migrated()
        run = runs.get(1)
        assert (run.status, run.succeeded_count, run.auth_failures_in_a_row) == ("failed", 2, 0)
        assert [group.count for group in failure_groups(1)] == [1]
        assert sorted(item.external_id for item in RunItem.select()) == ["0", "1", "2"]
        Watermark("api").raise_to(10)
        assert Watermark("api").seconds() > 0

        # And there is a way back
        assert first.down() == ["0010_act_keys"]
        assert first.down() == ["0009_waits"]
        assert first.down() == ["0008_honest_ends"]
        assert [first.down(), first.down()] == [["0007_row_counts"], ["0006_fresh"]]
        assert first.down() == ["0005_samples"]
        assert first.down() == ["0004_schedules"]
        assert first.down() == ["0003_failures"]
        assert first.down() == ["0002_budgets"]
        assert not database.db.table_exists("sluice_budgets")
        assert database.db.execute_sql("SELECT succeeded_count FROM sluice_runs").fetchone() == (2,)
