"""Classifies database errors by their code, never by their text, which can be translated."""

import sqlite3
import threading
import uuid
from contextlib import suppress

import peewee
import psycopg
import pytest
import requests

from models import Item
from tests.helpers.machine import free_port
from tests.helpers.postgres_clusters import cluster
from workers.cli import exit_codes
from workers.connections import database, database_errors, outages
from workers.connections.database_errors import Fault
from workers.connections.pool import Pool
from workers.control import runner
from workers.records.tables import ItemStatus, RunItem, RunStatus

ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)

AWAY = {Fault.TIMEOUT, Fault.SESSION, Fault.CONNECTION, Fault.CONFLICT, Fault.OUTAGE}
BOUNDED = {Fault.STATEMENT, Fault.TIMEOUT, Fault.SESSION}


def wrapped(error):
    """Return an error as peewee passes a driver's on."""
    with pytest.raises(peewee.PeeweeException) as met, peewee.__exception_wrapper__:
        raise error
    return met.value


def met(do):
    with pytest.raises((peewee.PeeweeException, psycopg.Error, sqlite3.Error)) as raised:
        do()
    return raised.value


# --- the table


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("08000", Fault.CONNECTION),
        ("08003", Fault.CONNECTION),
        ("08006", Fault.CONNECTION),
        ("08P01", Fault.CONNECTION),
        ("08001", Fault.OUTAGE),
        ("08004", Fault.OUTAGE),
        ("0A000", Fault.MISTAKE),
        ("21000", Fault.ROW),
        ("22001", Fault.ROW),
        ("22003", Fault.ROW),
        ("22021", Fault.ROW),
        ("22P02", Fault.ROW),
        ("23502", Fault.ROW),
        ("23503", Fault.ROW),
        ("23505", Fault.ROW),
        ("23514", Fault.ROW),
        ("23P01", Fault.ROW),
        ("25001", Fault.SESSION),
        ("25006", Fault.OUTAGE),
        ("25P01", Fault.SESSION),
        ("25P02", Fault.SESSION),
        ("25P03", Fault.CONNECTION),
        ("26000", Fault.SESSION),
        ("28000", Fault.OUTAGE),
        ("28P01", Fault.OUTAGE),
        ("3D000", Fault.OUTAGE),
        ("40001", Fault.CONFLICT),
        ("40P01", Fault.CONFLICT),
        ("42501", Fault.MISTAKE),
        ("42601", Fault.MISTAKE),
        ("42703", Fault.MISTAKE),
        ("42P01", Fault.MISTAKE),
        ("42P05", Fault.SESSION),
        ("44000", Fault.ROW),
        ("53100", Fault.OUTAGE),
        ("53200", Fault.OUTAGE),
        ("53300", Fault.OUTAGE),
        ("54000", Fault.STATEMENT),
        ("54001", Fault.STATEMENT),
        ("54011", Fault.STATEMENT),
        ("54023", Fault.STATEMENT),
        ("55000", Fault.TIMEOUT),
        ("55006", Fault.TIMEOUT),
        ("55P03", Fault.TIMEOUT),
        ("57014", Fault.TIMEOUT),
        ("57P01", Fault.CONNECTION),
        ("57P02", Fault.OUTAGE),
        ("57P03", Fault.OUTAGE),
        ("57P05", Fault.CONNECTION),
        ("58000", Fault.OUTAGE),
        ("58030", Fault.OUTAGE),
        ("58P01", Fault.OUTAGE),
        ("P0001", Fault.ROW),
        ("XX000", Fault.MISTAKE),
        ("XX001", Fault.OUTAGE),
        ("ZZ999", Fault.MISTAKE),
    ],
)
@pytest.mark.parametrize("text", ["deadlock; too many clients; database is locked", "Кончилось", ""])
def test_an_sqlstate_decides_and_no_word_does(state, fault, text):
    known = psycopg.OperationalError(text)
    if state != "ZZ999":
        known = psycopg.errors.lookup(state)(text)
    known.sqlstate = state
    for error in (known, wrapped(known)):
        assert database_errors.classify(error) is fault
        assert database.is_away(error) is (fault in AWAY)
        assert database.is_of_the_statement(error) is (fault in BOUNDED)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("SQLITE_ABORT", Fault.TIMEOUT),
        ("SQLITE_BUSY", Fault.OUTAGE),
        ("SQLITE_BUSY_RECOVERY", Fault.OUTAGE),
        ("SQLITE_BUSY_SNAPSHOT", Fault.CONFLICT),
        ("SQLITE_CANTOPEN", Fault.OUTAGE),
        ("SQLITE_CANTOPEN_ISDIR", Fault.OUTAGE),
        ("SQLITE_CONSTRAINT", Fault.ROW),
        ("SQLITE_CONSTRAINT_CHECK", Fault.ROW),
        ("SQLITE_CONSTRAINT_FOREIGNKEY", Fault.ROW),
        ("SQLITE_CONSTRAINT_NOTNULL", Fault.ROW),
        ("SQLITE_CONSTRAINT_TRIGGER", Fault.ROW),
        ("SQLITE_CONSTRAINT_UNIQUE", Fault.ROW),
        ("SQLITE_CORRUPT", Fault.OUTAGE),
        ("SQLITE_ERROR", Fault.MISTAKE),
        ("SQLITE_FULL", Fault.OUTAGE),
        ("SQLITE_INTERRUPT", Fault.TIMEOUT),
        ("SQLITE_IOERR", Fault.OUTAGE),
        ("SQLITE_IOERR_SHORT_READ", Fault.OUTAGE),
        ("SQLITE_LOCKED", Fault.OUTAGE),
        ("SQLITE_MISMATCH", Fault.ROW),
        ("SQLITE_MISUSE", Fault.MISTAKE),
        ("SQLITE_NOMEM", Fault.OUTAGE),
        ("SQLITE_NOTADB", Fault.OUTAGE),
        ("SQLITE_PROTOCOL", Fault.OUTAGE),
        ("SQLITE_RANGE", Fault.ROW),
        ("SQLITE_READONLY", Fault.OUTAGE),
        ("SQLITE_READONLY_DBMOVED", Fault.OUTAGE),
        ("SQLITE_SCHEMA", Fault.SESSION),
        ("SQLITE_TOOBIG", Fault.ROW),
    ],
)
@pytest.mark.parametrize("text", ["database is locked", "rien ne va plus"])
def test_a_result_code_of_sqlite_decides_and_no_word_does(name, fault, text):
    for kind in (sqlite3.OperationalError, sqlite3.DatabaseError):
        error = kind(text)
        error.sqlite_errorcode = getattr(sqlite3, name)
        assert database_errors.classify(wrapped(error)) is database_errors.classify(error) is fault


def test_what_is_no_error_of_a_database_is_not_sorted():
    for error in (ValueError("database is locked"), KeyError("x"), OSError(28, "no space left")):
        assert database_errors.classify(error) is None
        assert not database.is_away(error) and not database.is_of_the_statement(error)


def test_an_error_of_another_driver_has_its_class_alone():
    assert database.is_away(peewee.OperationalError("2006, gone away"))
    assert not database.is_away(peewee.IntegrityError("1062, duplicate"))


# --- real errors of both databases


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("INSERT INTO items (id, external_id, name) VALUES (1, 'a', 'a'), (1, 'b', 'b')", ()),
        ("INSERT INTO items (id, external_id) VALUES (NULL, NULL)", ()),
        ("INSERT INTO items (external_id, name) VALUES ({0}, 'a')", (object(),)),
        ("INSERT INTO items (external_id, name) VALUES ({0}, {0})", ("only one",)),
    ],
)
def test_values_and_constraints_are_the_row_s(house, statement, values):
    mark = "?" if database.is_sqlite() else "%s"
    error = met(lambda: database.db.execute_sql(statement.format(mark), values))
    assert database_errors.classify(error) is Fault.ROW


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELEKT 1", "SELECT nothing FROM items"])
def test_a_statement_that_cannot_be_is_a_mistake(house, statement):
    error = met(lambda: database.db.execute_sql(statement))
    assert database_errors.classify(error) is Fault.MISTAKE


def test_peewee_s_own_complaints_are_mistakes_and_not_outages(house):
    error = met(database.db.obj.connect)
    assert isinstance(error, peewee.OperationalError)
    assert database_errors.classify(error) is Fault.MISTAKE


def test_a_connection_that_was_closed_is_the_connection_s(house):
    connection = database.db.connection()
    connection.close()
    error = met(lambda: database.db.execute_sql("SELECT 1"))
    assert database_errors.classify(error) is Fault.CONNECTION
    database.reconnect()
    assert database.db.execute_sql("SELECT 1").fetchone() == (1,)


# --- Postgres


@ON_POSTGRES
def test_more_parameters_than_a_statement_takes_are_the_statement_s(house):
    marks = ",".join(["%s"] * 65_536)
    error = met(lambda: database.db.execute_sql(f"SELECT 1 WHERE 1 IN ({marks})", tuple(range(65_536))))

    # It has no code, and the connection is as good as before
    assert database_errors.sqlstate(error) == ""
    assert database_errors.classify(error) is Fault.STATEMENT
    assert not database.is_away(error) and database.is_of_the_statement(error)
    assert database.db.execute_sql("SELECT 1").fetchone() == (1,)


@pytest.fixture(scope="module", params=["en", "de"])
def speaking(request):
    """A cluster that has an opinion on what is wrong, in a language."""
    with cluster("lc_messages=C.UTF-8", variables={"LANGUAGE": request.param}) as address:
        yield address


@pytest.mark.parametrize(
    ("statements", "fault"),
    [
        (["SELECT 'x'::int"], Fault.ROW),
        (["SELECT 1/0"], Fault.ROW),
        (["SELECT 2147483647 + 1"], Fault.ROW),
        (["DO $$BEGIN RAISE EXCEPTION 'no'; END$$"], Fault.ROW),
        (["SELECT * FROM nowhere"], Fault.MISTAKE),
        (["CREATE TEMP TABLE wide AS SELECT " + ",".join(f"1 AS c{n}" for n in range(1700))], Fault.STATEMENT),
        (["SET statement_timeout = 20", "SELECT pg_sleep(2)"], Fault.TIMEOUT),
        (["SELECT pg_terminate_backend(pg_backend_pid())"], Fault.CONNECTION),
        (["EXECUTE nothing"], Fault.SESSION),
        (["PREPARE one AS SELECT 1", "PREPARE one AS SELECT 1"], Fault.SESSION),
        (["SAVEPOINT one"], Fault.SESSION),
        (["BEGIN", "SELECT 1/0", "SELECT 1"], Fault.SESSION),
        (["SET default_transaction_read_only = on", "CREATE TABLE t (n int)"], Fault.OUTAGE),
        (["DO $$BEGIN RAISE 'x' USING ERRCODE = '40001'; END$$"], Fault.CONFLICT),
        (["DO $$BEGIN RAISE 'x' USING ERRCODE = '53100'; END$$"], Fault.OUTAGE),
        (["DO $$BEGIN RAISE 'x' USING ERRCODE = '58030'; END$$"], Fault.OUTAGE),
    ],
)
def test_the_same_error_in_any_language(speaking, statements, fault):
    with psycopg.connect(f"postgresql://worker@{speaking}/work", autocommit=True) as connection:
        for statement in statements[:-1]:
            with suppress(psycopg.DataError):
                connection.execute(statement)
        error = met(lambda: connection.execute(statements[-1]))
    assert database_errors.classify(error) is database_errors.classify(wrapped(error)) is fault


def test_a_plan_that_an_alter_table_made_obsolete_is_the_session_s(speaking):
    with psycopg.connect(f"postgresql://worker@{speaking}/work", autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS planned (n int)")
        connection.execute("SELECT * FROM planned", prepare=True)
        with psycopg.connect(f"postgresql://worker@{speaking}/work", autocommit=True) as other:
            other.execute("ALTER TABLE planned ADD COLUMN m int")
        error = met(lambda: connection.execute("SELECT * FROM planned"))
        connection.execute("DROP TABLE planned")
    assert (database_errors.sqlstate(error), database_errors.classify(error)) == ("0A000", Fault.SESSION)


def test_two_who_wait_for_each_other_are_in_conflict(speaking):
    url = f"postgresql://worker@{speaking}/work"
    with psycopg.connect(url) as one, psycopg.connect(url) as two, psycopg.connect(url, autocommit=True) as maker:
        maker.execute("CREATE TABLE pair AS SELECT n FROM generate_series(1, 2) n")
        one.execute("UPDATE pair SET n = n WHERE n = 1")
        two.execute("UPDATE pair SET n = n WHERE n = 2")
        errors = []

        def wait():
            try:
                two.execute("UPDATE pair SET n = n WHERE n = 1")
            except psycopg.Error as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        try:
            one.execute("UPDATE pair SET n = n WHERE n = 2")
        except psycopg.Error as error:
            errors.append(error)
        one.rollback()
        waiting.join(10)
        two.rollback()
        maker.execute("DROP TABLE pair")
    assert [(database_errors.sqlstate(error), database_errors.classify(error)) for error in errors] == [
        ("40P01", Fault.CONFLICT)
    ]


# --- connects that fail


@pytest.mark.parametrize(
    ("who", "state", "repair"),
    [
        ("worker@nowhere", "3D000", "the database's name"),
        ("nobody@work", "28000", "correct the user"),
        ("worker@closed", "55000", "end the transaction"),
        ("worker@narrow", "53300", "max_connections"),
    ],
)
def test_a_connect_that_is_refused_has_a_code(speaking, who, state, repair):
    user, _, name = who.partition("@")
    with psycopg.connect(f"postgresql://sluice@{speaking}/postgres", autocommit=True) as connection:
        for made, limits in (("closed", "ALLOW_CONNECTIONS false"), ("narrow", "CONNECTION LIMIT 0")):
            connection.execute(f"DROP DATABASE IF EXISTS {made}")
            connection.execute(f"CREATE DATABASE {made} {limits}")
    pool = Pool(name, pooler="auto", refused=lambda error: None, prefer_psycopg3=True, **at(speaking, user))
    error = met(pool._open)

    assert database_errors.sqlstate(error) == state
    assert database_errors.classify(error) is Fault.OUTAGE
    assert repair in outages.database_trouble(wrapped(error)).repair


def test_a_connect_to_where_nobody_is_has_a_code():
    pool = Pool("x", pooler="auto", refused=print, prefer_psycopg3=True, **at(f"127.0.0.1:{free_port()}", "worker"))
    error = met(pool.connect)
    assert (database_errors.sqlstate(error), database_errors.classify(error)) == ("08001", Fault.OUTAGE)


def test_a_connect_of_a_user_s_own_database_that_fails_is_an_outage():
    place = peewee.PostgresqlDatabase("x", prefer_psycopg3=True, **at(f"127.0.0.1:{free_port()}", "worker"))
    assert database_errors.classify(met(lambda: place.execute_sql("SELECT 1"))) is Fault.OUTAGE


def at(address, user):
    host, _, port = address.partition(":")
    return {"host": host, "port": int(port), "user": user}


# --- the effect on the item


def too_many():
    """Send a statement with more parameters than either database takes."""
    mark = "?" if database.is_sqlite() else "%s"
    marks = ",".join([mark] * 300_000)
    return database.db.execute_sql(f"SELECT 1 WHERE 1 IN ({marks})", tuple(range(300_000)))


@pytest.mark.parametrize("method", ["populate_from_api_response", "save"])
def test_a_statement_that_is_too_large_fails_its_item_with_a_reason(moved_clock, mock_api, import_from, method):
    # Given a model of whose rows one asks too much, whenever it is filled, or saved with its details
    asked = []

    def ask(self, *args, **options):
        if str(self.external_id) == "2" and (method != "save" or self.price is not None):
            asked.append(True)
            too_many()
        return getattr(Item, method)(self, *args, **options)

    meta = type("Meta", (), {"table_name": "items"})
    greedy = type("Greedy", (Item,), {"save_each": True, "Meta": meta, method: ask})
    import_from(mock_api(items=3).url, model=greedy)

    # When
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    # Then the run ends, and it says why
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    item = RunItem.get(RunItem.status == ItemStatus.FAILED)
    assert item.external_id == "2"
    assert ("variables" if database.is_sqlite() else "65535") in item.failure_reason
    assert len(asked) == 5 if method != "save" else len(asked) > 0


@ON_POSTGRES
@pytest.mark.parametrize("state", ["57014", "55P03", "25P01"])
def test_a_row_whose_save_is_ended_each_time_fails_alone_with_a_reason(moved_clock, mock_api, import_from, state):
    # Given a row that another program keeps locked, or the like
    class Locked(Item):
        save_each = True

        class Meta:
            table_name = "items"

        def save(self, *args, **options):
            if str(self.external_id) == "2" and self.price is not None:
                database.db.execute_sql(f"DO $$BEGIN RAISE 'no luck' USING ERRCODE = '{state}'; END$$")
            return super().save(*args, **options)

    server = mock_api(items=4)
    import_from(server.url, model=Locked)

    # When
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    # Then the others are in, each asked for once, and it has had its five attempts
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 3, 1)
    item = RunItem.get(RunItem.status == ItemStatus.FAILED)
    assert (item.external_id, item.attempts, item.failure_class) == ("2", 5, "transient")
    assert "no luck" in item.failure_reason
    asked = requests.get(f"{server.url}/stats", timeout=5).json()["items"]
    assert asked == {"1": 1, "2": 5, "3": 1, "4": 1}


@ON_POSTGRES
@pytest.mark.parametrize("state", ["57014", "55P03", "54001", "26000"])
def test_a_list_whose_statement_is_ended_each_time_fails_with_a_reason(moved_clock, mock_api, import_from, state):
    asked = []

    def get_list_request(self, cursor, per_page):
        asked.append(cursor)
        database.db.execute_sql(f"DO $$BEGIN RAISE 'no luck' USING ERRCODE = '{state}'; END$$")

    import_from(mock_api(items=3).url, get_list_request=get_list_request)
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    assert run.status == RunStatus.FAILED
    assert "no luck" in run.error_summary
    assert len(asked) == 5


# --- SQLite


def test_a_file_that_another_program_locks_is_an_outage(tmp_path):
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    place = peewee.SqliteDatabase(tmp_path / "x.db", timeout=0)
    assert database_errors.classify(met(lambda: place.execute_sql("CREATE TABLE x (y)"))) is Fault.OUTAGE
    other.close()
    place.close()


@pytest.mark.parametrize(
    ("make", "statement"),
    [
        (lambda path: path.write_bytes(b"not a database, not at all" * 100), "SELECT * FROM sqlite_master"),
        (lambda path: path.mkdir(), "SELECT 1"),
    ],
)
def test_a_file_that_is_none_is_an_outage(tmp_path, make, statement):
    make(tmp_path / "x.db")
    place = peewee.SqliteDatabase(tmp_path / "x.db")
    error = met(lambda: place.execute_sql(statement))
    place.close()
    assert database_errors.classify(error) is Fault.OUTAGE
    assert database_errors.sqlite_code(error) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN)


def test_a_full_file_is_an_outage_and_a_constraint_is_the_row_s(tmp_path):
    place = peewee.SqliteDatabase(tmp_path / "x.db", pragmas={"max_page_count": 2})
    place.execute_sql("CREATE TABLE x (y CHECK (y > 'a'))")
    full = met(lambda: place.execute_sql("INSERT INTO x VALUES (?)", ("x" * 100_000,)))
    refused = met(lambda: place.execute_sql("INSERT INTO x VALUES ('A')"))
    place.close()
    assert (database_errors.classify(full), database_errors.classify(refused)) == (Fault.OUTAGE, Fault.ROW)
    assert outages.database_trouble(full).repair == "free disk space"


# --- how a command ends -----------------------------------------------------------------------------------------------


def test_a_missing_table_ends_a_command_with_the_repair_and_no_traceback(house, capsys):
    with pytest.raises(peewee.PeeweeException) as met_:
        database.db.execute_sql("SELECT 1 FROM sluice_nothing")

    assert exit_codes.of(met_.value) == exit_codes.EXIT_FAILED
    assert "python -m workers migrate" in capsys.readouterr().err


def test_a_role_without_rights_is_named_as_such(house, capsys):
    if database.is_sqlite():
        pytest.skip("SQLite has no roles")
    role = f"r{uuid.uuid4().hex[:12]}"
    database.db.execute_sql(f"CREATE ROLE {role}")
    with database.db.atomic() as transaction, pytest.raises(peewee.PeeweeException) as met_:
        database.db.execute_sql(f"SET LOCAL ROLE {role}")
        try:
            database.db.execute_sql("SELECT 1 FROM items")
        finally:
            transaction.rollback()

    assert exit_codes.of(met_.value) == exit_codes.EXIT_FAILED
    assert "GRANT" in capsys.readouterr().err
    database.db.execute_sql(f"DROP ROLE {role}")
