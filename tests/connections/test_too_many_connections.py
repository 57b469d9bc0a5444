"""Postgres without a free connection (53300): threads wait for one, nothing fails, and it is reported."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import peewee
import psycopg
import pytest

from benchmarks.fleet import Fleet
from tests.helpers.machine import wait_until
from tests.helpers.postgres_clusters import cluster
from workers import clock, settings
from workers.connections import database, outages
from workers.connections.pool import IDLE_SECONDS, Pool
from workers.connections.trouble import Cause
from workers.doctor import database_checks
from workers.doctor.finding import Level
from workers.errors import DependencyDown

MOST = 20
ITEMS = 2_000


@pytest.fixture(scope="module")
def small():
    """A cluster that lets in 20, three of them superusers."""
    with cluster(f"max_connections={MOST}") as address:
        yield address


def test_32_lanes_on_20_connections_are_slower_and_nothing_fails(small):
    settings = {"SLUICE_DATABASE_URL": f"postgresql://worker@{small}/work", "SLUICE_LANES": "32"}
    with Fleet(items=ITEMS, limits="250/1", processes=4, threads=8, settings=settings) as fleet:
        fleet.database_url = f"postgresql://sluice@{small}/work"  # a superuser looks on
        run_id = fleet.start_run()
        whys = []
        row = fleet.wait_for_run(run_id, 80, lambda row: whys.append(why_of(fleet, run_id)))
        logs = "".join((fleet.folder / f"{name}.log").read_text() for name in ("worker", "scheduler"))

        # Then all is in, the log says once a process what is missing, and the status named it meanwhile
        assert (row.status, row.total, row.succeeded, row.failed) == ("completed", ITEMS, ITEMS, 0)
        assert fleet.query("SELECT count(*), count(price) FROM items") == [(ITEMS, ITEMS)]
        assert "Traceback" not in logs
        assert 1 <= logs.count("Postgres has no connection left") <= 6
        named = [why for why in whys if why.startswith("Postgres has no connection left (")]
        assert named and "raise max_connections of Postgres, or run fewer worker threads" in named[0]


def why_of(fleet, run_id):
    line = [sys.executable, "-m", "workers", "status", str(run_id), "--json"]
    done = subprocess.run(
        line, cwd=fleet.folder, env=fleet.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)["why"] if done.returncode == 0 else ""


# --- in one process


@pytest.fixture
def narrow(small, environment, redis_server):
    """A database that lets in two sessions of the worker."""
    with psycopg.connect(f"postgresql://sluice@{small}/postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS narrow WITH (FORCE)")
        connection.execute("CREATE DATABASE narrow OWNER worker CONNECTION LIMIT 2")
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://worker@{small}/narrow")
    settings.get_settings.cache_clear()
    yield database.connect()


def in_threads(*works):
    """Do these at the same time; return what each returns, or raises."""
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work) for work in works]
        return [future.exception() or future.result() for future in futures]


def test_who_has_no_connection_waits_for_one_of_another_thread(narrow):
    def work():
        with database.connection():
            time.sleep(0.2)
            return database.db.execute_sql("SELECT 1").fetchone()

    assert in_threads(*[work] * 6) == [(1,)] * 6
    assert outages.reported_trouble().cause is Cause.NO_CONNECTION_LEFT


def test_who_gets_none_says_why_and_which_repair(small, narrow):
    others = [psycopg.connect(f"postgresql://worker@{small}/narrow") for _ in range(2)]
    clock.stop_requested.set()  # no patience
    with pytest.raises(DependencyDown, match="Postgres has no connection left: ") as met, database.connection():
        pass
    trouble = outages.database_trouble(met.value)
    assert (trouble.what, "max_connections" in trouble.repair) == ("Postgres has no connection left", True)
    for other in others:
        other.close()


def test_a_process_that_was_refused_leaves_one_connection_to_others(small, narrow):
    # Given two connections in use, and a third that was asked for
    first, second = narrow._connect(), narrow._connect()
    clock.stop_requested.set()
    with pytest.raises(peewee.OperationalError):
        narrow.connect()

    # When they are given back, another program finds room
    narrow._close(first)
    narrow._close(second)
    psycopg.connect(f"postgresql://worker@{small}/narrow").close()
    assert len(narrow._connections) <= 1


def test_idle_connections_are_closed_and_the_one_in_use_is_kept(small, moved_clock):
    host, _, port = small.partition(":")
    at = {"host": host, "port": int(port), "user": "worker", "prefer_psycopg3": True}
    pool = Pool("work", pooler="auto", refused=print, **at)
    five = [pool._connect() for _ in range(5)]
    for connection in five:
        pool._close(connection)

    # When one is used now and again
    for _ in range(5):
        moved_clock.advance(IDLE_SECONDS / 4)
        used = pool._connect()
        pool._close(used)

    # Then it is always the same one, and the others are closed
    assert [one.closed for one in five] == [True] * 4 + [False]
    assert used is five[4]
    pool._sweep_now()
    assert not used.closed
    moved_clock.advance(IDLE_SECONDS + 1)
    pool._sweep_now()
    assert used.closed and pool._connections == []


def sessions_of(small):
    """Return how many sessions the server has, this one not counted: a closed one ends a moment later."""
    with psycopg.connect(f"postgresql://sluice@{small}/postgres", autocommit=True) as connection:
        found = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return connection.execute(found).fetchone()[0]


@pytest.mark.parametrize(
    ("threads", "others", "level"), [(1, 0, Level.OK), (1, 12, Level.WARNING), (8, 0, Level.WARNING)]
)
def test_the_doctor_compares_what_is_needed_with_what_is_left(small, environment, threads, others, level):
    # Given an installation of one process, and sessions of another program
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://worker@{small}/work")
    environment.setenv("SLUICE_WORKER_PROCESSES", "1")
    environment.setenv("SLUICE_WORKER_THREADS", str(threads))
    settings.get_settings.cache_clear()
    wait_until(lambda: sessions_of(small) == 0, what="the sessions of the test before have ended on the server")
    sessions = [psycopg.connect(f"postgresql://worker@{small}/work") for _ in range(others)]

    [said] = [finding for finding in database_checks.connection() if "connections may be open" in finding.what]

    assert said.level is level
    assert said.what == (
        f"17 connections may be open, others use {others}, and this installation needs up to {threads + 13}"
    )
    for session in sessions:
        session.close()
    if level is Level.WARNING:
        assert f"max_connections={threads + 13 + others + 3} " in said.fix
