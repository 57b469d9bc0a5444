"""PgBouncer in transaction mode in front of Postgres: each transaction may be in another session of the server."""

import json
import subprocess
import sys

import peewee
import psycopg
import pytest
from clusters import pgbouncer

from benchmarks.fleet import Fleet
from workers import Limit, database, doctor, runner, settings

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

        # Then all is in, and nobody has a traceback to show
        counts = fleet.query("SELECT status, total_count, succeeded_count, failed_count FROM sluice_runs")
        assert counts == [("completed", ITEMS, ITEMS, 0)], logs[-3000:]
        assert (code, "Traceback" in output) == (0, False), output[-3000:]
        assert "Traceback" not in logs, logs[-3000:]
        assert fleet.query("SELECT count(*), count(DISTINCT external_id), count(price) FROM items") == [(ITEMS,) * 3]
        assert "prepared statement" not in logs or pooler == "none"
        print(pooler, json.dumps(fleet.mock_stats())[:200], logs.count("\n"))


def command(fleet, *arguments):
    line = [sys.executable, "-m", "workers", *arguments]
    done = subprocess.run(
        line, cwd=fleet.folder, env=fleet.environment, capture_output=True, text=True, timeout=100, check=False
    )
    return done.returncode, done.stdout + done.stderr
