"""Health: what is down or missing is named, with its repair; and the metrics cost little, however much there is."""

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from tests.helpers.machine import forget, free_port
from workers import clock, settings
from workers.connections import database, outages
from workers.connections.database import db
from workers.connections.trouble import Cause
from workers.messaging import broker, process_heartbeat, scheduler_heartbeat
from workers.records import schema
from workers.records.tables import ItemStatus, Lane, Run, RunItem, RunStatus
from workers.reports import health, metrics
from workers.reports.budget_states import known_budgets
from workers.reports.metrics import MOST_DUE

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def record(status: RunStatus) -> Run:
    return Run.create(source="items", lanes=4, created_by="me", status=status, started_at=clock.now())


def whats() -> list[str]:
    return [trouble.what for trouble in health.health().troubles]


@pytest.fixture
def staffed(house):
    """All that is needed runs."""
    process_heartbeat.Heartbeat("worker", threads=8).write()
    scheduler_heartbeat.beat()
    return house


# --- what is down -----------------------------------------------------------------------------------------------------


def test_where_all_runs_there_is_no_trouble(staffed):
    found = health.health()
    assert found.troubles == ()
    assert [process.kind for process in found.processes] == ["worker"]


@ON_ONE_DATABASE
def test_without_a_worker_runs_are_stalled_and_the_command_is_named(house):
    # Given
    scheduler_heartbeat.beat()
    record(RunStatus.RUNNING)

    # Then
    (trouble,) = health.health().troubles
    assert (trouble.what, trouble.is_down) == ("no worker runs", True)
    assert trouble.meaning.startswith("1 run is stalled")
    assert "`python -m workers worker`" in trouble.repair

    # When there is nothing to do, it is no outage
    Run.update({Run.status: RunStatus.COMPLETED}).execute()
    (trouble,) = health.health().troubles
    assert (trouble.what, trouble.is_down) == ("no worker runs", False)


@ON_ONE_DATABASE
def test_a_worker_without_a_heartbeat_is_missing_since_its_last_one(house, moved_clock):
    # Given
    process_heartbeat.Heartbeat("worker").write()
    seen = clock.now()

    # When
    moved_clock.advance(process_heartbeat.GONE_SECONDS + 1)
    scheduler_heartbeat.beat()

    # Then
    (trouble,) = health.health().troubles
    assert (trouble.cause, trouble.since) == (Cause.NO_WORKER, seen)


@ON_ONE_DATABASE
def test_a_missing_scheduler_is_named(house):
    process_heartbeat.Heartbeat("worker").write()
    (trouble,) = health.health().troubles
    assert trouble.what == "no scheduler runs"
    assert trouble.meaning == "No scheduled run starts, and lost messages are not sent again."
    assert trouble.repair == "start `python -m workers scheduler`"


@ON_ONE_DATABASE
def test_a_redis_that_is_away_is_named_once_and_no_process_is_reported_missing(staffed):
    staffed.setenv("SLUICE_REDIS_URL", f"redis://:s3cret-word@127.0.0.1:{free_port()}/0")
    staffed.setenv("SLUICE_BROKER_URL", "")
    settings.get_settings.cache_clear()

    found = health.health()
    (trouble,) = found.troubles
    assert (trouble.what, trouble.is_down) == ("Redis does not answer", True)
    assert "`python -m workers redis` starts one" in trouble.repair
    assert found.processes is None
    assert metrics.redis_metrics() is None
    assert "s3cret" not in repr(found)


@ON_ONE_DATABASE
def test_a_redis_that_takes_no_writes_says_why(staffed, redis_server):
    # Given
    with redis.Redis.from_url(redis_server) as client:
        client.config_set("maxmemory", "1")
        try:
            # Then: what can be read of it is read all the same
            found = health.health()
        finally:
            client.config_set("maxmemory", "0")
    assert [trouble.what for trouble in found.troubles] == ["Redis is out of memory"]
    assert len(found.processes) == 1


@ON_ONE_DATABASE
def test_the_messages_of_the_queue_are_counted_those_for_later_too(house, redis_server):
    # Given a broker of its own, on the same server
    house.setenv("SLUICE_BROKER_URL", f"{redis_server}?protocol=3")
    forget()
    broker.send("finalize", 1)
    broker.send("finalize", 2, delay_seconds=60)

    # Then
    assert metrics.work_metrics().messages == 2
    assert "the broker does not answer" not in whats()


@ON_ONE_DATABASE
def test_a_broker_of_its_own_that_is_away_is_named(staffed):
    staffed.setenv("SLUICE_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    forget()
    assert whats() == ["the broker does not answer"]
    assert metrics.work_metrics().messages is None


@ON_ONE_DATABASE
def test_a_database_that_is_away_is_named_and_the_rest_is_shown(staffed):
    # Given
    staffed.setenv("SLUICE_DATABASE_URL", f"postgresql://me:s3cret-word@127.0.0.1:{free_port()}/x")
    forget()

    # Then
    found = health.health()
    (trouble,) = found.troubles
    assert (trouble.what, trouble.is_down) == ("the database does not answer", True)
    assert trouble.repair == "start it, or correct SLUICE_DATABASE_URL"
    assert [process.kind for process in found.processes] == ["worker"]
    assert metrics.database_metrics() is None
    assert metrics.work_metrics() is None
    assert "s3cret" not in repr(found)


def test_a_database_without_our_tables_asks_for_the_migrations(environment, redis_server, database_url):
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    environment.setenv("SLUICE_BROKER_URL", "stub://")
    process_heartbeat.Heartbeat("worker").write()
    scheduler_heartbeat.beat()

    (trouble,) = health.health().troubles
    assert trouble.what == "the database has no, or older, Sluice tables"
    assert "`python -m workers migrate`" in trouble.repair
    assert metrics.database_metrics().migration == ""
    assert metrics.work_metrics() is None


@ON_ONE_DATABASE
def test_what_the_workers_cannot_do_with_the_database_is_shown_though_the_page_can_read_it(staffed, tmp_path):
    # Given a worker that met a locked file
    other = sqlite3.connect(tmp_path / "locked.db", timeout=0, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError) as met:
        sqlite3.connect(tmp_path / "locked.db", timeout=0).execute("CREATE TABLE x (y)")
    other.close()
    met_at = clock.now()
    outages.report(_wrapped(met.value))

    # Then
    (trouble,) = health.health().troubles
    assert trouble.what == "the workers cannot use the database: database is locked"
    assert trouble.since - met_at < timedelta(seconds=5)
    assert trouble.repair == "end the transaction that another program holds open in it"


@ON_ONE_DATABASE
def test_a_trouble_of_the_database_that_lasts_keeps_its_begin_and_is_a_warning_of_budgets(staffed, moved_clock):
    # Given a worker that meets a locked file again and again
    locked = sqlite3.OperationalError("database is locked")
    locked.sqlite_errorcode = sqlite3.SQLITE_BUSY
    began = clock.now()
    for _ in range(3):
        outages.report(_wrapped(locked))
        moved_clock.advance(10)

    # Then
    assert outages.reported_trouble().since == began
    (gap,) = known_budgets()[1]
    assert gap.startswith("the workers cannot use the database: database is locked (since ")
    assert "). To do: end the transaction" in gap


def _wrapped(error: sqlite3.OperationalError) -> BaseException:
    from peewee import OperationalError

    wrapped = OperationalError(*error.args)
    wrapped.orig = error
    return wrapped


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_figures_of_redis_and_of_the_database(house, database_url):
    of_redis, of_database = metrics.redis_metrics(), metrics.database_metrics()
    assert of_redis.title.startswith(("Redis ", "Valkey "))
    assert of_redis.used_bytes > 100_000 and of_redis.latency_seconds > 0
    assert of_redis.persistence == "not appendonly: after a restart each budget waits for its windows"
    assert of_database.title.startswith("SQLite 3." if database_url.startswith("sqlite") else "PostgreSQL 1")
    assert of_database.size_bytes > 10_000
    migrations = sorted(path.stem for path in Path(schema.__file__).with_name("migrations").glob("0*.py"))
    assert of_database.migration == migrations[-1]


def test_what_there_is_to_do_is_counted_for_active_runs_and_up_to_a_limit(house):
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
    found = metrics.work_metrics()
    assert (found.active_runs, found.lanes, found.overdue_lanes) == (1, 2, 1)
    assert (found.due_items, found.claimed_items) == (MOST_DUE, 7)


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
    metrics.work_metrics()

    # Then
    db.obj.connection().set_trace_callback(None)
    counts = [text for text in statements if "sluice_run_items" in text and text.startswith("SELECT")]
    plans = [str(db.execute_sql(f"EXPLAIN QUERY PLAN {text}").fetchall()) for text in counts]
    assert len(plans) == 2
    assert all("sluice_run_items_claim" in plan for plan in plans)
