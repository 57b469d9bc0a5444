"""Commits: the outcomes of a batch are written once, together and soon; they are kept while the database is away."""

import sqlite3
import threading
import time
from collections import Counter
from contextlib import contextmanager

import peewee
import psycopg
import pytest
import requests

from models import Item
from tests.helpers.machine import wait_until
from workers import clock, testing
from workers.connections import database
from workers.control import runner
from workers.engine import detail, flusher
from workers.engine.lane_turn import running_turns
from workers.limiter.permits import Usage
from workers.messaging import broker
from workers.records import activation, claims, commits, cursor, items, runs
from workers.records import lanes as lanes_table
from workers.records.commits import Outcome
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus


def start_inline():
    return runner.run_inline(runner.start("items", who="test", door="test", send=False))


def listed_run(count, lanes=1):
    """Make a run whose list of `count` items has been read; return its id and its lanes' messages."""
    run_id = a_run(count)
    for number in range(1, count + 1):
        row = Item.create(external_id=str(number), name="a")
        RunItem.update(item_id=str(row.id)).where(RunItem.external_id == str(number)).execute()
    Run.update(total_count=count, discovered_at=database.now(), lanes=lanes).where(Run.id == run_id).execute()
    return run_id, lanes_table.open_for(run_id, lanes)


def a_run(count):
    run = runs.create("items", lanes=1, created_by="test", door="test")
    activation.activate(run.id)
    due = {"due_at": database.now(), "status": ItemStatus.PENDING, "item_id": "0"}
    items.add(run.id, [due | {"external_id": str(n)} for n in range(1, count + 1)])
    return run.id


def asked(server):
    """How often the details of each item were asked for."""
    return requests.get(f"{server.url}/stats", timeout=5).json()["items"]


def claimed(count):
    run_id = a_run(count)
    return run_id, claims.claim(run_id, count, lease_seconds=60)


def test_a_commit_that_is_repeated_counts_nothing_twice(house):
    # Given a commit of which it is not known whether it took effect
    run_id, claim = claimed(3)
    outcomes = [Outcome(item, ItemStatus.COMPLETED) for item in claim.items]

    # When it is made again
    for _ in range(2):
        commits.commit(run_id, claim, outcomes, Usage(hits=1, sleeps=2, slept_seconds=3.0), lambda models: None)

    # Then items and waits count once
    run = runs.get(run_id)
    assert (run.succeeded_count, run.rate_limit_hits_count, run.rate_limit_sleeps_count) == (3, 1, 2)


def test_what_is_finished_is_committed_while_the_next_request_takes_long(house, import_from):
    # Given two items in one batch, of which the second takes long to answer
    answer = threading.Event()
    with slow_api(answer) as url:
        import_from(url)
        house.setenv("SLUICE_FLUSH_SECONDS", "0.2")
        run_id, lanes = listed_run(2)
        flushing = threading.Thread(target=flusher.keep_flushing)
        flushing.start()
        lane = threading.Thread(target=work, args=lanes)
        lane.start()

        # Then the first is in the run's counts before the second is answered
        try:
            wait_until(lambda: runs.get(run_id).succeeded_count == 1, 5, "the first is committed")
            assert RunItem.get(RunItem.external_id == "2").status == ItemStatus.PROCESSING
        finally:
            answer.set()
            lane.join()
            clock.stop_requested.set()
            flushing.join()
            clock.stop_requested.clear()

    # And each is counted once
    assert (runs.get(run_id).succeeded_count, runs.get(run_id).failed_count) == (2, 0)


def work(lane):
    with database.connection(), broker.captured(lambda *_: None):
        detail.fetch_details(*lane)


@contextmanager
def slow_api(answer):
    def respond(request):
        last = request.path.rpartition("/")[2]
        if last == "items":
            return {"data": [{"id": n, "name": "a"} for n in (1, 2)]}
        if last == "2":
            answer.wait(20)
        return {"id": last, "description": "b", "price": 1}

    with testing.api(respond) as server:
        yield server.url


# --- the database is away


class Struck(Item):
    """Its first save meets with a misfortune; the table is Item's."""

    class Meta:
        table_name = "items"

    save_each = True
    strike = None

    def save(self, *args, **kwargs):
        if self.price is not None and Struck.strike:
            strike, Struck.strike = Struck.strike, None
            strike()
        return super().save(*args, **kwargs)


def terminated():
    """Postgres ends this very connection, as an administrator or a restart does."""
    pid = database.db.execute_sql("SELECT pg_backend_pid()").fetchone()[0]
    with psycopg.connect(**database.db.obj.connect_params, dbname=database.db.obj.database) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))


def full():
    """SQLite may take no more pages from now on, on this connection; `reconnect` opens one that may."""
    pages = database.db.execute_sql("PRAGMA page_count").fetchone()[0]
    database.db.execute_sql(f"PRAGMA max_page_count = {pages}")
    database.db.execute_sql("CREATE TABLE filler AS SELECT randomblob(1000000) AS blob")


@pytest.mark.parametrize(
    ("database_url", "strike"), [("postgres", terminated), ("sqlite", full)], indirect=["database_url"]
)
def test_answers_are_kept_while_the_database_is_away_and_no_request_is_repeated(
    moved_clock, mock_api, import_from, strike
):
    # Given a run whose first commit meets with it
    server = mock_api(items=30)
    import_from(server.url, model=Struck, per_page=10)
    Struck.strike = staticmethod(strike)

    # When the run is worked
    run = start_inline()

    # Then every item is in, once, and was asked for once
    assert Struck.strike is None
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 30, 0)
    assert Counter(asked(server).values()) == {1: 30}
    assert {item.attempts for item in RunItem.select()} == {1}


class Reopening(clock.MovedClock):
    """Opens the database again after 200 s of moved time."""

    def __init__(self, reopen):
        super().__init__()
        self.reopen = reopen

    def sleep(self, seconds):
        if self.elapsed_seconds > 200 and self.reopen:
            self.reopen, reopen = None, self.reopen
            reopen()
        return super().sleep(seconds)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_answers_are_kept_for_longer_than_their_lease(database_url, mock_api, import_from):
    # Given a server that ends every connection at the first commit, and refuses new ones for minutes
    server, name = database_url.rpartition("/")[0] + "/postgres", database_url.rpartition("/")[2]

    def let_in(whether):
        with psycopg.connect(server, autocommit=True) as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {whether}")
            other.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    clock.use(Reopening(lambda: let_in("true")))
    api = mock_api(items=3)
    import_from(api.url, model=Struck, lanes=1)
    Struck.strike = staticmethod(lambda: let_in("false"))

    # When the run is worked
    run = start_inline()

    # Then all is in, and was asked for once
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 3)
    assert clock.monotonic() > 200
    assert asked(api) == {"1": 1, "2": 1, "3": 1}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_answers_are_kept_while_another_process_locks_the_sqlite_file(mock_api, import_from):
    # Given another program that holds the file for longer than we wait for it
    server = mock_api(items=3)
    other = sqlite3.connect(database.db.obj.database, isolation_level=None, check_same_thread=False)
    server_asked = threading.Event()

    class Holding(Item):
        class Meta:
            table_name = "items"

        def populate_from_api_response(self, data):
            super().populate_from_api_response(data)
            if not server_asked.is_set():
                database.db.execute_sql("PRAGMA busy_timeout = 50")
                other.execute("BEGIN IMMEDIATE")
                server_asked.set()

    import_from(server.url, model=Holding)
    run_id, lanes = listed_run(3)

    # When a lane comes to commit meanwhile
    lane = threading.Thread(target=work, args=lanes)
    lane.start()
    assert server_asked.wait(10)
    time.sleep(0.5)
    assert runs.get(run_id).succeeded_count == 0
    other.execute("ROLLBACK")
    other.close()
    lane.join()

    # Then it did when it could, and asked for nothing twice
    assert runs.get(run_id).succeeded_count == 3
    assert set(asked(server).values()) == {1}


def test_a_server_that_refuses_every_connection_is_away_for_every_statement(environment):
    # Given a Postgres where nothing listens
    environment.setenv("SLUICE_DATABASE_URL", "postgresql://sluice@127.0.0.1:1/sluice")
    database.connect()

    # When a transaction and a statement open the connection by themselves
    for ask in (lambda: database.db.atomic().__enter__(), lambda: database.db.execute_sql("SELECT 1")):
        with pytest.raises(peewee.OperationalError) as refused:
            ask()

        # Then that is known for what it is
        assert database.is_away(refused.value)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_deadlock_repeats_the_commit_and_never_the_requests(house, mock_api, import_from):
    # Given two lanes whose rows lock two others in opposite orders, and meet in the middle
    server, barrier, deadlocks = mock_api(items=2), threading.Barrier(2), []

    class Crossing(Item):
        class Meta:
            table_name = "items"

        save_each = True

        def save(self, *args, **kwargs):
            if self.price is not None:
                self.lock_others()
            return super().save(*args, **kwargs)

        def lock_others(self):
            others = ["left", "right"] if self.external_id == "1" else ["right", "left"]
            for place, other in enumerate(others):
                try:
                    Item.update(name=other).where(Item.external_id == other).execute()
                except peewee.OperationalError as error:
                    deadlocks.append(str(error))
                    raise
                if place == 0 and not deadlocks:
                    barrier.wait(10)

    house.setenv("SLUICE_BATCH_SIZE", "1")
    import_from(server.url, model=Crossing)
    for name in ("left", "right"):
        Item.create(external_id=name, name="")
    run_id, lanes = listed_run(2, lanes=2)

    # When both commit
    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then Postgres reported a deadlock to one of them, and both items completed with one request each
    assert "deadlock detected" in deadlocks[0]
    assert runs.get(run_id).succeeded_count == 2
    assert asked(server) == {"1": 1, "2": 1}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_statement_that_always_takes_too_long_fails_its_item_in_the_end(moved_clock, mock_api, import_from):
    # Given a model whose own look-up runs into the timeout for one item
    class Slow(Item):
        class Meta:
            table_name = "items"

        def populate_from_api_response(self, data):
            super().populate_from_api_response(data)
            if data["id"] == 2:
                database.db.execute_sql("SET statement_timeout = 20")
                try:
                    database.db.execute_sql("SELECT pg_sleep(1)")
                finally:
                    database.db.execute_sql("SET statement_timeout = 0")

    server = mock_api(items=3)
    import_from(server.url, model=Slow)

    run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    assert asked(server)["2"] == 5
    assert "statement timeout" in RunItem.get(RunItem.status == ItemStatus.FAILED).failure_reason


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_row_that_a_deferred_constraint_refuses_fails_alone(moved_clock, mock_api, import_from):
    # Given a constraint that is checked at COMMIT
    database.db.execute_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF new.external_id = '2' AND new.price IS NOT NULL THEN RAISE 'not this one'; END IF; "
        "RETURN new; END $$"
    )
    database.db.execute_sql(
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON items DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    server = mock_api(items=4)
    import_from(server.url)

    run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 3, 1)
    assert set(asked(server).values()) == {1}


def test_rows_that_save_what_changed_are_written_when_their_commit_is_made_again(moved_clock, mock_api, import_from):
    # Given a batch whose last row cannot be saved, so that all are saved once more
    class Dirty(Item):
        class Meta:
            table_name = "items"
            only_save_dirty = True

        save_each = True

        def save(self, *args, **kwargs):
            if self.external_id == "3" and self.price is not None:
                raise ValueError("not this one")
            return super().save(*args, **kwargs)

    import_from(mock_api(items=3).url, model=Dirty, lanes=1)

    run = start_inline()

    assert (run.succeeded_count, run.failed_count) == (2, 1)
    assert Item.select().where(Item.price.is_null(False)).count() == 2


def test_a_query_that_meets_a_locked_database_refuses_no_item_of_the_list(moved_clock, mock_api, import_from):
    # Given a source that asks a database of its own, which is locked the first time
    locked = []

    class Asking(Item):
        class Meta:
            table_name = "items"

        def get_external_id(self):
            if not locked:
                locked.append(True)
                raise peewee.OperationalError("database is locked")
            return super().get_external_id()

    server = mock_api(items=3)
    import_from(server.url, model=Asking)
    run = runner.start("items", who="test", door="test", send=False)

    # When its list is read, and read again: another attempt, for ours does answer
    run = runner.run_inline(run)

    # Then nothing was refused
    assert locked
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 3, 0)


def test_pauses_in_the_middle_of_a_list_page_are_no_attempts_at_it(house, import_from):
    # Given a run that is paused again and again while its list is read
    import_from("http://127.0.0.1:1")
    run = runner.start("items", who="test", door="test", send=False)
    for _ in range(6):
        assert cursor.begin_page(run.id, lease_seconds=60)
        runner.pause(run.id, who="test", door="test")
        runner.resume(run.id, who="test", door="test")

    assert cursor.begin_page(run.id, lease_seconds=60).discovery_attempts == 1


def test_a_process_that_stops_commits_what_is_finished_before_it_gives_back_the_rest(house, import_from):
    # Given a lane with one finished item, and one whose request takes long
    answer, messages = threading.Event(), []
    with slow_api(answer) as url:
        import_from(url)
        house.setenv("SLUICE_FLUSH_SECONDS", "60")
        run_id, lanes = listed_run(2)
        lane = threading.Thread(target=work, args=lanes)
        lane.start()
        try:
            wait_until(lambda: any(turn.claimed.outcomes for turn in running_turns()), 5, "the first is answered")

            # When the process is asked to stop, and gives up waiting for the other
            clock.stop_requested.set()
            with broker.captured(lambda *message: messages.append(message)):
                given = flusher.abandon_turns()
        finally:
            answer.set()
            lane.join()
            clock.stop_requested.clear()

    # Then the first counts, the second is due again, and the lane's next turn is announced
    assert (given, runs.get(run_id).succeeded_count) == (1, 1)
    assert messages == [("fetch_details", (run_id, 0, 2), 0.0)]


# --- what the databases demand


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_claim_does_not_wait_for_an_item_that_another_transaction_locks(house):
    # Given an open transaction that holds the first of three items
    run_id, _ = claimed(3)
    RunItem.update(status=ItemStatus.PENDING).execute()
    holding, release = threading.Event(), threading.Event()

    def hold():
        with database.connection(), database.db.atomic():
            RunItem.update(failure_count=1).where(RunItem.external_id == "1").execute()
            holding.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(10)

    # When items are claimed
    RunItem.update(due_at=database.now()).where(RunItem.external_id != "1").execute()
    database.db.execute_sql("SET lock_timeout = '2s'")
    found = claims.claim(run_id, 3, lease_seconds=60).items
    release.set()
    holder.join()

    # Then the others were given at once
    assert sorted(item.external_id for item in found) == ["2", "3"]


def test_threads_that_read_and_then_write_do_not_meet_a_locked_database(house):
    # Given eight threads with a batch each
    run_id, claim = claimed(160)
    errors = []

    def commit(some):
        try:
            with database.connection():
                for item in some:
                    outcome = [Outcome(item, ItemStatus.COMPLETED)]
                    commits.commit(run_id, claim, outcome, Usage(), lambda models: None)
        except Exception as error:
            errors.append(error)

    # When they commit item by item, side by side
    threads = [threading.Thread(target=commit, args=(claim.items[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then all is counted
    assert errors == []
    assert runs.get(run_id).succeeded_count == 160


class Ahead(clock.Clock):
    """The clock of a host that is an hour ahead of the others."""

    def now(self):
        return super().now() + peewee.datetime.timedelta(hours=1)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_host_whose_clock_is_an_hour_ahead_claims_no_item_of_another(house):
    # Given items that are claimed for a minute
    run_id, _ = claimed(3)

    # When a host with another idea of the time claims
    clock.use(Ahead())
    found = claims.claim(run_id, 3, lease_seconds=60).items

    # Then their lease holds
    assert found == []


def test_a_row_is_filled_outside_of_any_transaction(mock_api, import_from):
    # Given a model that checks, while it is filled, whether another connection can write
    server, may_write = mock_api(items=3), []

    class Asking(Item):
        class Meta:
            table_name = "items"

        def populate_from_api_response(self, data):
            super().populate_from_api_response(data)
            may_write.append(not database.db.in_transaction())

    import_from(server.url, model=Asking)

    run = start_inline()

    assert run.succeeded_count == 3
    assert may_write == [True] * 3


# --- a user's model on another database


@pytest.fixture(params=["beside ours", "in our file"])
def elsewhere(request, house, tmp_path):
    """A database object of the user's own, and a model on it: of the same SQLite file even, where ours is one."""
    path = str(tmp_path / "theirs.db")
    if request.param == "in our file" and database.is_sqlite():
        path = database.db.obj.database
    theirs = peewee.SqliteDatabase(path, pragmas={"journal_mode": "wal", "busy_timeout": 500})

    class Elsewhere(Item):
        class Meta:
            database = theirs
            table_name = "theirs"

    with theirs.connection_context():
        Elsewhere.create_table()
    yield Elsewhere
    theirs.close()


def test_a_model_on_another_database_is_imported_with_exact_counts(moved_clock, mock_api, import_from, elsewhere):
    server = mock_api(items=30)
    import_from(server.url, model=elsewhere, per_page=10)

    first, second = start_inline(), start_inline()

    for run in (first, second):
        assert (run.status, run.total_count, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 30, 30, 0)
    assert elsewhere.select().where(elsewhere.price.is_null(False)).count() == 30
    assert set(asked(server).values()) == {2}


def test_a_fresh_import_removes_what_is_gone_from_another_database(moved_clock, mock_api, import_from, elsewhere):
    # Given a row that the API does not know
    import_from(mock_api(items=30).url, model=elsewhere, per_page=10)
    elsewhere.create(external_id="old", name="left over")

    # When a fresh import reads its three pages
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False, fresh=True))

    # Then that row is gone, and those of all pages are there
    assert run.succeeded_count == elsewhere.select().count() == 30


def test_a_page_whose_lease_is_over_is_read_again_and_no_item_of_it_is_lost(
    moved_clock, mock_api, import_from, elsewhere
):
    # Given a reader that was stopped, with the first page in its hand, for longer than the lease
    stopped = []

    class Stopping(elsewhere):
        class Meta:
            table_name = "theirs"

        def get_external_id(self):
            if not stopped:
                stopped.append(True)
                moved_clock.advance(1000)
            return super().get_external_id()

    import_from(mock_api(items=30).url, model=Stopping, per_page=10)

    run = start_inline()

    assert stopped
    assert (run.status, run.total_count, run.succeeded_count) == (RunStatus.COMPLETED, 30, 30)


def test_a_row_that_another_database_refuses_fails_alone(moved_clock, mock_api, import_from, elsewhere):
    # Given a table that takes no price of item 2
    elsewhere._meta.database.execute_sql(
        "CREATE TRIGGER refuse BEFORE UPDATE ON theirs WHEN new.external_id = '2' AND new.price IS NOT NULL "
        "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    )
    import_from(mock_api(items=4).url, model=elsewhere)

    run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 3, 1)
    assert "not this one" in RunItem.get(RunItem.status == ItemStatus.FAILED).failure_reason


def test_a_lost_lease_saves_on_another_database_again_and_counts_once(house, elsewhere):
    # Given a claim whose lease has passed to another lane
    run_id, claim = claimed(1)
    elsewhere.create(external_id="0", name="a")
    row = elsewhere.get()
    row.price = 5
    Run.update(total_count=1).execute()
    RunItem.update(due_at=database.now()).execute()

    # When the first claimer commits
    outcome = Outcome(claim.items[0], ItemStatus.COMPLETED, model=row)
    commits.commit(run_id, claim, [outcome], Usage(), lambda models: [model.save() for model in models])

    # Then the row is written, for no transaction spans two databases, and the count is left to the other one
    assert elsewhere.get().price == 5
    assert runs.get(run_id).succeeded_count == 0
