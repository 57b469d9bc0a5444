"""Outages of Redis or the database (away, full, locked, read-only): work stops, logs it, and resumes automatically."""

import json
import logging
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import dramatiq
import peewee
import psycopg
import pytest
import redis
from dramatiq.worker import Worker

from benchmarks.fleet import Fleet
from models import Item
from tests.helpers.machine import ROOT, free_port, wait_until
from tests.helpers.own_redis import OwnRedis
from workers import DependencyDown, Limit, RateLimited, RateLimiter, clock
from workers.connections import database, outages, redis_errors
from workers.control import runner
from workers.engine import actors, detail, reaper
from workers.engine.discovery import discover
from workers.limiter.budget import Budget
from workers.messaging import broker, consumer
from workers.records import items, lanes, runs
from workers.records.tables import ItemStatus, Lane, Run, RunItem
from workers.reports import health, run_stats

QUEUE = broker.QUEUE


@pytest.fixture
def own_redis(tmp_path):
    server = OwnRedis(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def on_own_redis(environment, own_redis):
    """Settings whose Redis a test may ill-treat."""
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{own_redis.port}/0")
    return own_redis


@pytest.fixture(autouse=True)
def _met_nothing_yet():
    """What one test met is no outage to the next."""
    outages.reset()
    yield
    outages.reset()


@contextmanager
def out_of_memory(server):
    server.client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        server.client.config_set("maxmemory", "0")


@contextmanager
def read_only(server):
    server.client.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        server.client.replicaof("NO", "ONE")


@contextmanager
def away(server):
    server.client.save()
    server.kill()
    try:
        yield
    finally:
        server.start()


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def backlog():
    return broker.get_broker().do_qsize(QUEUE)


def queued(redis_server):
    """The ids of the messages that no process has fetched."""
    with redis.Redis.from_url(redis_server) as client:
        return client.lrange(f"{broker.get_broker().namespace}:{QUEUE}", 0, -1)


def message(*args, name="fetch_details"):
    return dramatiq.Message(QUEUE, name, args, {}, {})


# --- the words --------------------------------------------------------------------------------------------------------


def test_every_refusal_of_redis_is_named_with_its_repair(on_own_redis):
    client = on_own_redis.client

    # Given a Redis that takes writes
    assert outages.redis_trouble() is None
    assert client.keys() == []

    # Then each cause is recognised
    with out_of_memory(on_own_redis):
        trouble = outages.redis_trouble()
        assert (trouble.what, "maxmemory" in trouble.repair) == ("Redis is out of memory", True)
    with read_only(on_own_redis):
        assert outages.redis_trouble().what == "Redis is a replica, and read only"
    client.config_set("requirepass", "hunter2hunter2")
    client.execute_command("AUTH", "hunter2hunter2")
    client.client_kill_filter(_type="normal", skipme=True)
    assert outages.redis_trouble().what == "Redis asks for a password"
    client.config_set("requirepass", "")
    on_own_redis.kill()
    assert outages.redis_trouble().what == "Redis does not answer"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "Redis does not answer"),
        (redis.exceptions.BusyLoadingError("loading", status_code="LOADING"), "Redis is loading its data"),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "Redis takes no writes, because"),
        (redis.ResponseError("BUSY Redis is busy running a script."), "Redis is busy with another program's script"),
        (redis.AuthenticationError("invalid", status_code="WRONGPASS"), "Redis refuses the password"),
        (
            redis.ResponseError("Error running script (call to f_ab12): @user_script:6: @user_script: 6: -OOM command"),
            "Redis is out of memory",
        ),
        (
            redis.exceptions.OutOfMemoryError(
                "command not allowed. script: ab12, on @user_script:6.", status_code="OOM"
            ),
            "Redis is out of memory",
        ),
        (redis.ResponseError("@user_script:6: bad argument #1", status_code="ERR"), "Redis refuses a command"),
        (redis.ResponseError("ERR something new"), "Redis refuses a command (ERR something new)"),
        (redis.TimeoutError("Timeout reading from socket"), "Redis does not answer"),
    ],
)
def test_errors_of_redis_are_sorted_by_the_word_they_begin_with(error, what):
    assert redis_errors.trouble(error).what.startswith(what)


def test_what_is_told_of_the_database_is_bounded_and_holds_no_password(house):
    # When a process meets an error that repeats its connection, at length
    house.setenv("SLUICE_PREFIX", "t" + str(free_port()))
    error = DependencyDown("x")
    error.__cause__ = database.OperationalError(
        "connection to postgresql://me:hunter2@db/x failed: database is locked" + "!" * 5000
    )
    assert outages.report(error)

    # Then the report for the page has no address
    trouble = outages.reported_trouble()
    assert (trouble.what, trouble.said) == ("the workers cannot use the database: it refuses the connection", "")
    assert "postgresql" not in repr(trouble) and len(trouble.what) <= 300
    assert not outages.report(ValueError("a mistake in a user's code"))


# --- the consumers ----------------------------------------------------------------------------------------------------


def test_a_worker_goes_on_consuming_after_every_refusal_and_says_each_once(on_own_redis, caplog):
    # Given a worker, with a delayed message in its memory and another one in progress
    steady = broker.make_broker(f"redis://127.0.0.1:{on_own_redis.port}/0")
    steady.declare_queue(QUEUE)
    heard = []

    @dramatiq.actor(actor_name="note", queue_name=QUEUE, broker=steady)
    def note(what, seconds=0.0):
        time.sleep(seconds)
        heard.append(what)

    worker = Worker(steady, worker_threads=2, worker_timeout=50)
    worker.start()
    steady.enqueue(message("late", name="note"), delay=1500)
    steady.enqueue(message("in progress", 1.0, name="note"))
    wait_until(lambda: [len(steady.unfinished[name]) for name in (QUEUE, f"{QUEUE}.DQ")] == [1, 1], what="both taken")

    # When Redis refuses in several ways, the delayed one comes due, and the other one is done meanwhile
    with out_of_memory(on_own_redis):
        wait_until(lambda: "in progress" in heard, what="the message in progress")
        time.sleep(1.2)
    wait_until(lambda: "late" in heard, what="the delayed message")
    for ill_treat in (read_only, away):
        with ill_treat(on_own_redis):
            wait_until(lambda how=ill_treat: _is_told(caplog, how), what="a word")
        with suppress(dramatiq.errors.BrokerConnectionError):
            steady.enqueue(message(ill_treat.__name__, name="note"))
        wait_until(lambda name=ill_treat.__name__: name in heard, what="the next message")

    # Then every message was heard once, nothing is left behind, and the log has a line for each
    steady.enqueue(message("last", name="note"), delay=100)
    wait_until(lambda: "last" in heard, what="the last message")
    wait_until(lambda: "Redis works again" in "\n".join(said(caplog)), what="the end of it")
    clock.stop_requested.set()
    worker.stop(timeout=3000)
    assert sorted(heard) == sorted(["late", "in progress", "read_only", "away", "last"])
    assert steady.do_qsize(QUEUE) == 0
    assert [line.split(" (")[0] for line in said(caplog)] == [
        "Redis is out of memory",
        "Redis is a replica, and read only",
        "Redis does not answer",
        said(caplog)[-1],
    ]
    assert not [record for record in caplog.records if record.exc_info]


def _is_told(caplog, ill_treat):
    word = {"read_only": "is a replica", "away": "does not answer"}[ill_treat.__name__]
    return any(word in line for line in said(caplog))


@pytest.fixture
def steady(moved_clock, on_own_redis):
    """A broker whose consumers are polled by the test, with a clock that only the test moves."""
    made = broker.make_broker(f"redis://127.0.0.1:{on_own_redis.port}/0")
    made.declare_queue(QUEUE)
    return made


def test_a_message_whose_delivery_was_lost_on_its_way_is_delivered_again(steady):
    # Given a message that Redis gave to this process, in a reply that never came
    steady.enqueue(message(1, 2, 3))
    assert len(steady.do_fetch(QUEUE, 1)) == 1
    assert steady.do_fetch(QUEUE, 1) == []

    # Then its consumer gets it
    assert next(steady.consume(QUEUE, prefetch=1, timeout=1)).args == (1, 2, 3)


def test_what_is_done_while_redis_refuses_is_told_later_and_not_done_again(steady, moved_clock, on_own_redis):
    # Given two messages in progress, one of which is done while Redis is out of memory
    for number in (1, 2):
        steady.enqueue(message(number, 0, 0))
    asked = steady.consume(QUEUE, prefetch=8, timeout=1)
    first, second = next(asked), next(asked)
    with out_of_memory(on_own_redis):
        asked.ack(first)

    # When the consumer looks again
    moved_clock.advance(11)
    assert next(asked) is None

    # Then one message is left, which nobody gets a second time
    assert steady.assigned(QUEUE) == {second.options["redis_message_id"]}
    assert steady.client.hlen(f"{steady.namespace}:{QUEUE}.msgs") == 1


def test_messages_that_a_consumer_had_delayed_come_back_when_it_is_made_anew(steady):
    # Given a delayed message in the memory of a consumer, which dramatiq then throws away
    steady.enqueue(message(1, 2, 3), delay=60_000)
    assert next(steady.consume(f"{QUEUE}.DQ", prefetch=8, timeout=1)).args == (1, 2, 3)

    # Then the next one has it, and it is there once
    assert next(steady.consume(f"{QUEUE}.DQ", prefetch=8, timeout=1)).args == (1, 2, 3)
    assert steady.client.hlen(f"{steady.namespace}:{QUEUE}.DQ.msgs") == 1


def test_a_process_that_stops_is_not_held_up_by_a_redis_that_is_away(steady, on_own_redis):
    on_own_redis.kill()
    clock.stop_requested.set()

    assert next(steady.consume(QUEUE, prefetch=1, timeout=1)) is None
    assert consumer.SteadyConsumer in type(steady.consume(QUEUE)).__mro__


# --- Redis, and the doors ---------------------------------------------------------------------------------------------


def test_a_redis_without_memory_gives_no_permit_can_be_read_and_goes_on(on_own_redis):
    # Given a budget with a permit that runs out while Redis is out of memory
    budget = Budget("api", [Limit(5, seconds=10)])
    limiter = RateLimiter(budget, on_own_redis.client, prefix="t", linger_seconds=0.0)
    limiter.permit_client().acquire(timeout_seconds=0.01)
    with out_of_memory(on_own_redis):
        with pytest.raises(
            DependencyDown, match=r"Redis is out of memory: no permit without it\. To do: raise its max"
        ):
            limiter.permit_client().acquire(5.0)
        time.sleep(1.05)

        # Then its state can still be read
        assert limiter.snapshot().windows[0].used == 1

    # And permits are given as soon as there is memory
    limiter.permit_client().acquire(5.0)
    assert limiter.snapshot().granted == 2


def test_every_door_says_that_redis_is_out_of_memory(import_from, house, own_redis):
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{own_redis.port}/0")
    import_from("http://127.0.0.1:1")
    run = runner.start("items", who="test", door="test")
    says = "Redis is out of memory: no permit without it. To do: raise its maxmemory, or delete other data in it"
    with out_of_memory(own_redis):
        # Then every door says it
        assert health.health().troubles[0].what == "Redis is out of memory"
        assert run_stats.run_stats(runs.get(run.id)).why.startswith(says)
        _demo(house)
        shown = sluice("budgets")
        assert (shown.returncode, shown.stderr.startswith(f"Warning: {says}")) == (0, True), shown.stderr
        assert "500/20 s" in shown.stdout

    assert run_stats.run_stats(runs.get(run.id)).why.startswith("no worker runs")
    assert not [trouble for trouble in health.health().troubles if "Redis" in trouble.what]


# --- the database -----------------------------------------------------------------------------------------------------


@contextmanager
def unwritable():
    """A database that can be read: a full SQLite file, a Postgres that only reads."""
    obj = database.connect()
    if database.is_sqlite():
        pages = database.db.execute_sql("PRAGMA page_count").fetchone()[0]
        obj.pragma("max_page_count", pages, permanent=True)
        undo, why = (lambda: obj.pragma("max_page_count", 1_000_000, permanent=True)), "database or disk is full"
    else:
        obj.execute_sql(f"ALTER DATABASE {obj.database} SET default_transaction_read_only = on")
        undo, why = (lambda: _writable(obj)), "cannot execute UPDATE in a read-only transaction"
        database.reconnect()
    try:
        yield why
    finally:
        undo()


def _writable(obj):
    obj.execute_sql("SET default_transaction_read_only = off")
    obj.execute_sql(f"ALTER DATABASE {obj.database} RESET default_transaction_read_only")
    database.reconnect()


def call(name, *args):
    """Do a message as a worker does."""
    broker.get_broker().get_actor(name)(*args)


def test_a_database_that_cannot_be_written_stops_the_run_with_a_word_and_lets_it_go_on(
    moved_clock, mock_api, import_from, caplog
):
    # Given a run that is to read its list
    server = mock_api(items=200)
    import_from(server.url, per_page=200)
    actors.declare(broker.get_broker())
    run = runner.start("items", who="test", door="test", send=False)
    sent = []
    with broker.captured(lambda name, args, delay: sent.append((name, args))):
        # When the database cannot be written
        with unwritable() as why:
            for _ in range(3):
                with pytest.raises(DependencyDown):
                    call("discover", run.id)
                moved_clock.advance(200)

            # Then nothing is sent, the log has one line without a traceback, and the run says why
            assert sent == []
            assert [line.split(":")[0] for line in said(caplog)[:1]] == [f"the database cannot be used ({why})"]
            assert all("for" in line for line in said(caplog)[1:])  # a reminder a minute, and time has passed
            assert not [record for record in caplog.records if record.exc_info]
            shown = run_stats.run_stats(runs.get(run.id)).why
            expected = rf"the workers cannot use the database: {why} \(since .* UTC\)\. To do: .*; the run continues .*"
            assert re.fullmatch(expected, shown)

        # And when it can, the reaper is all that is needed
        moved_clock.advance(100)
        reaper.reap()
        assert sent == [("discover", (run.id,))]
        call("discover", run.id)
    assert Item.select().count() == 200
    assert run_stats.run_stats(runs.get(run.id)).why.startswith("no worker runs")
    assert "the database works again" in said(caplog)[-1]


def test_a_statement_that_is_wrong_is_no_outage(house, import_from):
    # Given an actor whose own code asks for a table that is not there
    def wrong():
        database.db.execute_sql("SELECT * FROM nowhere")

    dramatiq.actor(actor_name="wrong", queue_name=QUEUE, broker=broker.get_broker())(wrong)

    # Then its error comes out as it is
    with pytest.raises(peewee.DatabaseError, match="nowhere"):
        call("wrong")
    assert outages.reported_trouble() is None


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_connections_that_the_server_cut_at_rest_cost_no_message(database_url, import_from, caplog):
    # Given three connections at rest in the pool, which the server has cut since
    import_from("http://127.0.0.1:1")
    actors.declare(broker.get_broker())
    run = discovered_run(3)
    obj = database.connect()
    obj.close()
    held = [obj._connect() for _ in range(3)]
    for connection in held:
        obj._close(connection)
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )

    # Then messages are done as if nothing had happened
    for _ in range(4):
        call("finalize", run.id)
    assert said(caplog) == []


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_database_that_only_reads_ends_commands_with_3_and_is_still_told_of(house, import_from):
    run = runner.start(_demo(house), who="test", door="test")
    with unwritable():
        assert outages.report(database.OperationalError("database or disk is full"))

        # Then a command that writes says so in a sentence, and a command that reads works
        refused = sluice("pause", str(run.id))
        assert (refused.returncode, refused.stdout) == (3, "")
        assert refused.stderr.count("\n") == 1
        assert refused.stderr.startswith("Error: the database cannot be used: cannot execute UPDATE in a read-only")
        assert "To do: let SLUICE_DATABASE_URL name a server that accepts writes" in refused.stderr
        shown = sluice("status", str(run.id), "--json")
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["why"].startswith(
            "the workers cannot use the database: database or disk is full"
        )


def _demo(house):
    house.setenv("SLUICE_SOURCES", "sources:SOURCES")
    from workers import settings
    from workers.sources import registry

    settings.get_settings.cache_clear()
    registry.get_registry.cache_clear()
    return registry.get_registry().only().name


def sluice(*arguments):
    command = [sys.executable, "-m", "workers", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)


# --- what is lost, and the reaper -------------------------------------------------------------------------------------


def discovered_run(count):
    run = runner.start("items", who="test", door="test", send=False)
    now = database.now()
    rows = [
        {"external_id": str(n), "item_id": str(n), "due_at": now, "status": ItemStatus.PENDING} for n in range(count)
    ]
    items.add(run.id, rows)
    Run.update(total_count=count, discovered_at=now, discovery_due_at=None).where(Run.id == run.id).execute()
    return runs.get(run.id)


def test_lanes_that_wait_come_back_after_a_flush(moved_clock, mock_api, import_from, house, redis_server):
    # Given lanes that wait for a window, as delayed messages of a real broker
    house.setenv("SLUICE_BROKER_URL", redis_server)
    import_from(mock_api(items=6).url, limits=(Limit(4, seconds=20),), lanes=3)
    run = runner.start("items", who="test", door="test", send=False)
    started = []
    with broker.captured(lambda name, args, delay: started.append((name, args))):
        discover(run.id)
        waits = []
        for name, args in list(started):
            with suppress(RateLimited):
                detail.fetch_details(*args)
                continue
            waits.append((name, args))
    for name, args in waits:
        broker.send(name, *args, delay_seconds=20)
    held = backlog()
    assert held == len(waits) > 0

    # When Redis forgets them, and their time has come
    client = redis.Redis.from_url(redis_server)
    for key in client.scan_iter(f"{broker.get_broker().namespace}*"):
        client.delete(key)
    assert backlog() == 0
    moved_clock.advance(20)
    reaper.reap()
    assert backlog() == 0
    moved_clock.advance(6)
    reaper.reap()

    # Then the database knew of each, and the same messages are there again
    found = [json.loads(text) for text in client.hvals(f"{broker.get_broker().namespace}:{QUEUE}.msgs")]
    assert sorted((m["actor_name"], tuple(m["args"])) for m in found) == sorted(waits)


def test_reapers_do_not_fill_a_queue_that_nobody_consumes(moved_clock, import_from, house, redis_server):
    # Given a run whose list is not read, one whose lanes are silent, and one that is not finalized
    house.setenv("SLUICE_BROKER_URL", redis_server)
    import_from("http://127.0.0.1:1")
    listed = runner.start("items", who="test", door="test", tenant="a", send=False)
    worked = discovered_run(16)
    lanes.open_for(worked.id, 16)
    ended = runner.start("items", who="test", door="test", tenant="b", send=False)
    Run.update(discovered_at=database.now(), total_count=0).where(Run.id == ended.id).execute()

    # When eight reapers look, tick after tick
    for _ in range(10):
        moved_clock.advance(30)
        for _ in range(8):
            reaper.reap()

    # Then one message of each waits, however often they looked
    waiting = {f"fetch_details:{worked.id}:{lane}:1" for lane in range(16)}
    assert set(broker.waiting()) == waiting | {f"discover:{listed.id}", f"finalize:{ended.id}"}
    assert len(queued(redis_server)) == 18


def test_a_reaper_expects_nobody_anew_while_nothing_can_be_sent(import_from, house, caplog):
    # Given a silent lane, and a broker that is away
    house.setenv("SLUICE_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    import_from("http://127.0.0.1:1")
    run = discovered_run(1)
    lanes.open_for(run.id, 1)
    silent_since = database.now() - lanes.timedelta(seconds=60)
    Lane.update(due_at=silent_since).execute()

    # When the reaper looks
    assert reaper.reap() == 0

    # Then it looks for the lane as soon as there is a broker, and has said so once
    assert Lane.get().due_at == silent_since
    reaper.reap()
    assert [line.split(" (")[0] for line in said(caplog)] == ["Redis does not answer"]


def test_a_message_that_cannot_be_sent_again_is_due_in_the_database(import_from, house):
    # Given a lane that must wait, and a broker that is away
    house.setenv("SLUICE_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    import_from("http://127.0.0.1:1")
    run = discovered_run(1)
    (lane,) = lanes.open_for(run.id, 1)
    assert lanes.start_turn(*lane, lease_seconds=15)
    assert lanes.rewind(*lane, next_in_seconds=0)

    # When the middleware sends its message again
    middleware = next(m for m in broker.get_broker().middleware if type(m).__name__ == "RateLimiterMiddleware")
    middleware.after_process_message(broker.get_broker(), message(*lane), exception=RateLimited(3.0, "window full"))

    # Then nothing breaks, and the reaper will find the lane
    assert lanes.silent(run.id, 0.0) == [lane]


def test_a_pass_of_the_reaper_reads_a_few_index_entries_of_a_large_run(import_from):
    # Given a large run that has begun, and one as large whose items have all ended
    import_from("http://127.0.0.1:1")
    begun = discovered_run(0)
    import_from("http://127.0.0.1:1", name="others")
    ended = runner.start("others", who="test", door="test", send=False)
    Run.update(discovered_at=database.now()).execute()
    for run, status in ((begun, ItemStatus.PENDING), (ended, ItemStatus.COMPLETED)):
        add_many(run.id, status, 20_000)
        lanes.open_for(run.id, 16)
    database.db.execute_sql("ANALYZE")

    # When the reaper looks at either
    plan = "EXPLAIN QUERY PLAN " if database.is_sqlite() else "EXPLAIN "
    for run in (begun, ended):
        with broker.captured(lambda *message: None):
            statements = asked(lambda run_id=run.id: reaper.revive(runs.get(run_id)))

        # Then the index of open items answers it
        about_items = [pair for pair in statements if "sluice_run_items" in pair[0]]
        assert about_items
        for sql, values in about_items:
            steps = " ".join(str(row[-1]) for row in database.db.execute_sql(plan + sql, values).fetchall())
            assert "sluice_run_items_claim" in steps, steps


def add_many(run_id, status, count):
    """Insert items as the database itself makes them, which is quick."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    mark = "?" if database.is_sqlite() else "%s"
    database.db.execute_sql(
        f"{numbers} INSERT INTO sluice_run_items (run_id, external_id, status, due_at, attempts, failure_count) "
        f"SELECT {run_id}, CAST(i AS TEXT), '{status}', {mark}, 0, 0 FROM n",
        (RunItem.due_at.db_value(database.now()),),
    )


def asked(do):
    """Return the statements a function sends."""
    heard = []

    class Listener(logging.Handler):
        def emit(self, record):
            heard.append(record.msg)

    logger, listener = logging.getLogger("peewee"), Listener()
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    try:
        do()
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
    return [pair for pair in heard if isinstance(pair, tuple)]


# --- with real processes ----------------------------------------------------------------------------------------------

QUICK = {"SLUICE_TICK_SECONDS": "1", "SLUICE_LANE_LEASE_SECONDS": "3", "SLUICE_LEASE_SECONDS": "4"}
QUICK |= {"SLUICE_REQUEST_TIMEOUT_SECONDS": "2", "SLUICE_LINGER_SECONDS": "0.5"}


def log_lines(fleet, name):
    text = (fleet.folder / f"{name}.log").read_text()
    assert "Traceback" not in text, text[-3000:]
    return text


def why_of(fleet, run_id):
    return json.loads(fleet.command("status", str(run_id), "--json"))["why"]


def test_a_fleet_outlives_a_redis_out_of_memory_and_a_database_that_is_away(postgres_server):
    server = f"{postgres_server}/postgres"
    with Fleet(items=240, limits="40/1", processes=2, threads=4, settings=QUICK, database=server) as fleet:
        run_id = fleet.start_run()
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > 10, 20, "the first items")

        # When Redis is out of memory
        with redis.Redis.from_url(fleet.redis_url) as client:
            client.config_set("maxmemory", "1")
            fleet.wait_until(lambda: log_lines(fleet, "worker").count("out of memory") == 2, 10, "a word in the log")
            time.sleep(1.2)  # permits that were given before are good for a second
            before = fleet.mock_stats()["requests"]
            why = why_of(fleet, run_id)
            asked_meanwhile = fleet.mock_stats()["requests"] - before
            client.config_set("maxmemory", "0")
        done = fleet.run_row(run_id).succeeded
        fleet.wait_until(lambda: fleet.run_row(run_id).succeeded > done, 15, "work after the first outage")

        # And when the database cuts its connections and refuses new ones
        name = fleet.database_url.rpartition("/")[2]
        with psycopg.connect(server, autocommit=True) as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            fleet.wait_until(lambda: "cannot be used" in log_lines(fleet, "scheduler"), 10, "a word in the log")
            status = [sys.executable, "-m", "workers", "status"]
            refused = subprocess.run(status, check=False, cwd=fleet.folder, env=fleet.environment, capture_output=True)
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        row = fleet.wait_for_run(run_id, 40)

        # Then each was said where people look, and nothing was sent without a permit
        assert why.startswith("Redis is out of memory: no permit without it. To do: raise its maxmemory")
        assert asked_meanwhile == 0
        assert (refused.returncode, refused.stdout) == (3, b"")
        assert refused.stderr.startswith(b"Error: the database does not answer: ")

        # And it continued automatically, with a line of each process in the log and no traceback
        assert (row.status, row.total, row.succeeded, row.hits) == ("completed", 240, 240, 0)
        assert fleet.mock_stats()["rejected"] == 0
        assert log_lines(fleet, "worker").count("out of memory") == 2
        for process, most in (("worker", 2), ("scheduler", 1)):
            text = log_lines(fleet, process)
            assert text.count("the database cannot be used") <= most
            assert "this tick failed" not in text
