"""PgBouncer in transaction mode in front of Postgres: each transaction can be in another session of the server."""

import logging
import subprocess
import sys

import peewee
import pytest
import requests

from benchmarks.fleet import Fleet
from models import Item
from tests.helpers.postgres_clusters import pgbouncer
from workers import settings
from workers.connections import database
from workers.connections.commit_retry import retry_commit
from workers.connections.pool import is_pooled
from workers.control import runner
from workers.doctor import database_checks
from workers.doctor.finding import Level
from workers.records.tables import RunStatus

ITEMS = 2_000


@pytest.fixture(scope="module")
def bouncer(postgres_server):
    """PgBouncer with two connections to the tests' Postgres."""
    address = postgres_server.rpartition("@")[2]
    with pgbouncer(address) as its_address:
        yield postgres_server.replace(address, its_address)


def log_of(fleet, *names):
    return "".join((fleet.folder / f"{name}.log").read_text() for name in names)


@pytest.mark.parametrize("pooler", ["", "transaction", "none"])
def test_2_000_items_on_16_lanes_through_two_connections(bouncer, pooler):
    said = {"SLUICE_DATABASE_POOLER": pooler} if pooler else {}
    with Fleet(items=ITEMS, limits="5000/1", settings=said, database=f"{bouncer}/postgres") as fleet:
        # When a run is started and watched from the command line
        code, output = command(fleet, "run", "items", "--wait")
        logs = log_of(fleet, "worker", "scheduler")

        # Then everything is imported, and no process logged a traceback
        counts = fleet.query("SELECT status, total_count, succeeded_count, failed_count FROM sluice_runs")
        assert counts == [("completed", ITEMS, ITEMS, 0)], logs[-3000:]
        assert (code, "Traceback" in output) == (0, False), output[-3000:]
        assert "Traceback" not in logs, logs[-3000:]
        assert fleet.query("SELECT count(*), count(DISTINCT external_id), count(price) FROM items") == [(ITEMS,) * 3]
        assert fleet.mock_stats()["requests"] == ITEMS + ITEMS // 100
        # And who finds out too late says once what to set
        processes = 4  # two workers, their supervisor, the scheduler
        assert logs.count("SLUICE_DATABASE_POOLER") <= {"": processes, "transaction": 0, "none": processes}[pooler]


def command(fleet, *arguments):
    line = [sys.executable, "-m", "workers", *arguments]
    done = subprocess.run(
        line, cwd=fleet.folder, env=fleet.environment, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stdout + done.stderr


# --- in one process

ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
#: Removes the session's prepared statements without the driver's knowledge.
FORGET = "DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$"


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def prepared():
    return [name for (name,) in database.db.execute_sql("SELECT name FROM pg_prepared_statements").fetchall()]


def ask(times=1):
    for _ in range(times):
        found = database.db.execute_sql("SELECT count(*) FROM items WHERE name = %s", ("x",)).fetchone()
    return found


@ON_POSTGRES
def test_where_no_pooler_is_statements_are_prepared_under_names_of_their_own(house):
    ask(10)
    mine = prepared()
    assert len(mine) >= 1
    database.reconnect()
    ask(10)
    assert not set(mine) & set(prepared())


@ON_POSTGRES
def test_a_prepared_statement_that_is_gone_costs_nothing_and_none_is_prepared_any_more(house, caplog):
    # Given a statement that is prepared
    ask(10)
    assert prepared()

    # When the session does not know it any more, as another one would not
    database.db.execute_sql(FORGET)

    # Then it is done on another connection, and what to set is said once
    assert ask() == (0,)
    assert ask(10) == (0,)
    assert prepared() == []
    [said] = warnings(caplog)
    assert "SLUICE_DATABASE_POOLER=transaction" in said


@ON_POSTGRES
def test_within_a_transaction_it_is_the_transaction_that_is_repeated(house):
    ask(10)

    def work():
        with database.db.atomic():
            Item.create(external_id="1", name="x")
            if prepared():
                database.db.execute_sql(FORGET)
            return ask()

    # Then once outside of `retry_commit` it fails as one of a session, and within it it is done, once
    with pytest.raises(peewee.DatabaseError) as met:
        work()
    assert database.is_away(met.value)
    assert retry_commit(work, {database.db.obj}, lambda error: 10.0) == (1,)
    assert Item.select().count() == 1


#: What a session, a pooler or another writer may do to a transaction in its middle, and to no row.
BROKEN = {
    "26000": "EXECUTE nothing",
    "42P05": "DO $$BEGIN RAISE 'x' USING ERRCODE = '42P05'; END$$",
    "25P01": "DO $$BEGIN RAISE 'x' USING ERRCODE = '25P01'; END$$",
    "40P01": "DO $$BEGIN RAISE 'x' USING ERRCODE = '40P01'; END$$",
    "40001": "DO $$BEGIN RAISE 'x' USING ERRCODE = '40001'; END$$",
    "57P01": "SELECT pg_terminate_backend(pg_backend_pid())",
}


@ON_POSTGRES
@pytest.mark.parametrize("where", ["list", "details"])
@pytest.mark.parametrize("state", BROKEN)
def test_a_transaction_that_breaks_is_repeated_and_no_request_is(mock_api, import_from, where, state):
    # Given a model whose third row meets it once, when it is first saved or when its details are
    met = []

    class Unlucky(Item):
        save_each = True

        class Meta:
            table_name = "items"

        def save(self, *args, **options):
            wanted = self.price is None if where == "list" else self.price is not None
            if not met and wanted and str(self.external_id) == "3":
                met.append(True)
                database.db.execute_sql(BROKEN[state])
            return super().save(*args, **options)

    server = mock_api(items=6)
    import_from(server.url, model=Unlucky)

    # When they are imported
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    # Then all are in, and each was asked for once
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 6, 0)
    assert met and requests.get(f"{server.url}/stats", timeout=5).json()["requests"] == 7
    assert Item.select().where(Item.price.is_null(False)).count() == 6


# --- the doctor


def said_by_the_doctor():
    found = database_checks.connection()
    return [(one.level, one.what, one.fix) for one in found if "POOLER" in one.what]


@pytest.mark.parametrize(
    ("pooler", "level"), [("auto", Level.WARNING), ("none", Level.WARNING), ("transaction", Level.OK)]
)
def test_the_doctor_finds_a_pooler_and_says_what_to_set(environment, bouncer, pooler, level):
    environment.setenv("SLUICE_DATABASE_URL", f"{bouncer}/postgres")
    environment.setenv("SLUICE_DATABASE_POOLER", pooler)
    settings.get_settings.cache_clear()

    [(found, what, fix)] = said_by_the_doctor()
    assert found is level
    assert "SLUICE_DATABASE_POOLER" in what
    assert fix == ("" if pooler == "transaction" else "set SLUICE_DATABASE_POOLER=transaction")


@ON_POSTGRES
def test_the_doctor_finds_no_pooler_where_none_is(house):
    assert not is_pooled(database.db.connection())
    assert said_by_the_doctor() == []
