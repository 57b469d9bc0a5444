"""Health: what is down or lacking is named, with what to do; the figures cost little, whatever there is."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from tests.conftest import forget, free_port
from workers import clock, settings
from workers.connections import database, outages
from workers.connections.database import db
from workers.messaging import broker, presence, scheduler_heartbeat
from workers.records import schema
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus
from workers.reports import health, metrics
from workers.reports.metrics import MOST_DUE

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def record(status: RunStatus) -> Run:
    return Run.create(source="items", lanes=4, created_by="me", status=status, started_at=clock.now())


def whats() -> list[str]:
    return [lack.what for lack in health.health().lacks]


@pytest.fixture
def manned(house):
    """All that is needed runs."""
    presence.Heartbeat("worker", threads=8).write()
    scheduler_heartbeat.beat()
    return house


# --- what is down -----------------------------------------------------------------------------------------------------


def test_where_all_runs_nothing_is_lacking(manned):
    found = health.health()
    assert found.lacks == ()
    assert [process.kind for process in found.processes] == ["worker"]


@ON_ONE_DATABASE
def test_without_a_worker_runs_stand_still_and_the_command_is_named(house):
    # Given
    scheduler_heartbeat.beat()
    record(RunStatus.RUNNING)

    # Then
    (lack,) = health.health().lacks
    assert (lack.what, lack.is_down) == ("no worker runs", True)
    assert lack.means.startswith("1 run stands still")
    assert "`python -m workers worker`" in lack.repair

    # When there is nothing to do, it is no outage
    Run.update({Run.status: RunStatus.COMPLETED}).execute()
    (lack,) = health.health().lacks
    assert (lack.what, lack.is_down) == ("no worker runs", False)


@ON_ONE_DATABASE
def test_a_worker_that_fell_silent_is_missed_with_the_time_it_was_heard_of_last(house, moved_clock):
    # Given
    presence.Heartbeat("worker").write()
    seen = clock.now()

    # When
    moved_clock.advance(presence.GONE_SECONDS + 1)
    scheduler_heartbeat.beat()

    # Then
    assert whats() == [f"no worker runs: the last heartbeat came at {seen:%H:%M:%S} UTC"]


@ON_ONE_DATABASE
def test_without_a_scheduler_nothing_starts_by_itself(house):
    presence.Heartbeat("worker").write()
    (lack,) = health.health().lacks
    assert lack.what == "no scheduler has run here lately"
    assert lack.means == "Nothing starts by itself, and what is lost stays lost."
    assert lack.repair == "start `python -m workers scheduler`"


@ON_ONE_DATABASE
def test_a_redis_that_is_away_is_named_once_and_nobody_is_accused(manned):
    manned.setenv("SLUICE_REDIS_URL", f"redis://:s3cret-word@127.0.0.1:{free_port()}/0")
    manned.setenv("SLUICE_BROKER_URL", "")
    settings.get_settings.cache_clear()

    found = health.health()
    (lack,) = found.lacks
    assert (lack.what, lack.is_down) == ("Redis does not answer", True)
    assert "`python -m workers redis` starts one" in lack.repair
    assert found.processes is None
    assert metrics.redis_figures() is None
    assert "s3cret" not in repr(found)


@ON_ONE_DATABASE
def test_a_redis_that_takes_no_writes_says_why(manned, redis_server):
    # Given
    with redis.Redis.from_url(redis_server) as client:
        client.config_set("maxmemory", "1")
        try:
            # Then: what can be read of it is read all the same
            found = health.health()
        finally:
            client.config_set("maxmemory", "0")
    assert [lack.what for lack in found.lacks] == ["Redis is out of memory"]
    assert len(found.processes) == 1


@ON_ONE_DATABASE
def test_the_messages_of_the_queue_are_counted_those_for_later_too(house, redis_server):
    # Given a broker of its own, on the same server
    house.setenv("SLUICE_BROKER_URL", f"{redis_server}?protocol=3")
    forget()
    broker.send("finalize", 1)
    broker.send("finalize", 2, delay_seconds=60)

    # Then
    assert metrics.work_figures().messages == 2
    assert "the broker does not answer" not in whats()


@ON_ONE_DATABASE
def test_a_broker_of_its_own_that_is_away_is_named(manned):
    manned.setenv("SLUICE_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    forget()
    assert whats() == ["the broker does not answer"]
    assert metrics.work_figures().messages is None


@ON_ONE_DATABASE
def test_a_database_that_is_away_is_named_and_the_rest_is_told(manned):
    # Given
    manned.setenv("SLUICE_DATABASE_URL", f"postgresql://me:s3cret-word@127.0.0.1:{free_port()}/x")
    forget()

    # Then
    found = health.health()
    (lack,) = found.lacks
    assert (lack.what, lack.is_down) == ("the database does not answer", True)
    assert lack.repair == "start it, or correct SLUICE_DATABASE_URL"
    assert [process.kind for process in found.processes] == ["worker"]
    assert metrics.database_figures() is None
    assert metrics.work_figures() is None
    assert "s3cret" not in repr(found)


def test_a_database_without_our_tables_asks_for_the_migrations(environment, redis_server, database_url):
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    environment.setenv("SLUICE_BROKER_URL", "stub://")
    presence.Heartbeat("worker").write()
    scheduler_heartbeat.beat()

    (lack,) = health.health().lacks
    assert lack.what == "the database has no, or older, Sluice tables"
    assert "`python -m workers migrate`" in lack.repair
    assert metrics.database_figures().migration == ""
    assert metrics.work_figures() is None


@ON_ONE_DATABASE
def test_what_the_workers_cannot_do_with_the_database_is_told_though_the_page_can_read_it(manned, tmp_path):
    # Given a worker that met a locked file
    other = sqlite3.connect(tmp_path / "locked.db", timeout=0, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as met:
        sqlite3.connect(tmp_path / "locked.db", timeout=0).execute("CREATE TABLE x (y)")
    other.close()
    outages.report(_wrapped(met.value))

    # Then
    (lack,) = health.health().lacks
    assert lack.what.startswith("the workers cannot use the database: database is locked (")
    assert lack.what.endswith(" UTC)")
    assert lack.repair == "end the transaction that another program holds open in it"


def _wrapped(error: sqlite3.OperationalError) -> BaseException:
    from peewee import OperationalError

    wrapped = OperationalError(*error.args)
    wrapped.orig = error
    return wrapped


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_figures_of_redis_and_of_the_database(house, database_url):
    of_redis, of_database = metrics.redis_figures(), metrics.database_figures()
    assert of_redis.title.startswith(("Redis ", "Valkey "))
    assert of_redis.used_bytes > 100_000 and of_redis.latency_seconds > 0
    assert of_redis.persistence == "not appendonly: after a restart each budget waits for its windows"
    assert of_database.title.startswith("SQLite 3." if database_url.startswith("sqlite") else "PostgreSQL 1")
    assert of_database.size_bytes > 10_000
    migrations = sorted(path.stem for path in (Path(schema.__file__).parent / "migrations").glob("0*.py"))
    assert of_database.migration == migrations[-1]


def test_what_there_is_to_do_is_counted_for_active_runs_and_no_further_than_anybody_reads(house):
    # Given a running run, and an ended one that does not count
    now = database.now()
    running, ended = record(RunStatus.RUNNING), record(RunStatus.COMPLETED)
    record_items(running, ItemStatus.PENDING, now - timedelta(seconds=1), MOST_DUE + 5)
    record_items(running, ItemStatus.PROCESSING, now + timedelta(seconds=60), 7)
    record_items(running, ItemStatus.PENDING, now + timedelta(seconds=60), 3)
    record_items(ended, ItemStatus.PENDING, now - timedelta(seconds=1), 2)
    for run, lane, due in ((running, 0, 5), (running, 1, -60), (running, 2, None), (ended, 0, -60)):
        due_at = None if due is None else now + timedelta(seconds=due)
        Lane.create(run_id=run.id, lane=lane, due_at=due_at)

    # Then
    found = metrics.work_figures()
    assert (found.active_runs, found.lanes, found.overdue_lanes) == (1, 2, 1)
    assert (found.due_items, found.in_hand_items) == (MOST_DUE, 7)


def record_items(run: Run, status: ItemStatus, due_at: object, count: int) -> None:
    first = RunItem.select().count()
    rows = [{"run_id": run.id, "external_id": str(first + n), "status": status, "due_at": due_at} for n in range(count)]
    with db.atomic():
        for begin in range(0, count, 200):
            RunItem.insert_many(rows[begin : begin + 200]).execute()


@ON_ONE_DATABASE
def test_due_items_are_counted_by_the_index_that_claims_use(house):
    # Given
    statements = []
    db.obj.connection().set_trace_callback(statements.append)
    record(RunStatus.RUNNING)

    # When
    metrics.work_figures()

    # Then
    db.obj.connection().set_trace_callback(None)
    counts = [text for text in statements if "sluice_run_items" in text and text.startswith("SELECT")]
    plans = [str(db.execute_sql(f"EXPLAIN QUERY PLAN {text}").fetchall()) for text in counts]
    assert len(plans) == 2
    assert all("sluice_run_items_claim" in plan for plan in plans)
