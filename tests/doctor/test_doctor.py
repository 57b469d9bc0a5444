"""The doctor: its findings, against real servers in each state, and the fixes that it names."""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta

import psycopg
import pytest
from peewee import CharField, SqliteDatabase

from models import Item
from sources import ItemSource
from tests.helpers.machine import ROOT, free_port
from tests.helpers.own_redis import OwnRedis
from tests.helpers.raw_api import api, http, page, row
from workers import Connector, Limit, clock
from workers.connections import database
from workers.doctor import api_checks, database_checks, machine_checks, redis_checks, run_checks, source_checks
from workers.doctor.database_checks import _filesystem
from workers.doctor.examination import _findings, examine
from workers.doctor.finding import Level, ok
from workers.errors import ConfigurationError
from workers.messaging import process_heartbeat, scheduler_heartbeat
from workers.messaging.broker import QUEUE, make_broker
from workers.monitor.access import login, password
from workers.records import schema
from workers.records.runs import create
from workers.records.tables import Run, RunStatus
from workers.reports.budget_states import budget_state
from workers.scheduling.schedules import create as create_schedule
from workers.settings import get_settings

#: For what is the same on both databases.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def troubles(findings, area=""):
    """Return what is not ok, as one text a finding: level, what, fix. A machine that is busy is no trouble here."""
    found = [f for f in findings if f.level != Level.OK and not f.what.startswith("it answers in")]
    return [f"{f.level}: {f.what}. {f.fix}" for f in found if f.area.startswith(area)]


def only(findings, area=""):
    [trouble] = troubles(findings, area)
    return trouble


def hang_up(listener):
    listener.accept()[0].close()


# --- all of it


def test_where_nothing_is_the_matter_no_error_is_found_and_every_area_was_looked_at(import_from, mock_api):
    # Given a house in order, on each database, and an API that names the limits that are configured
    server = mock_api(items=30, limits="500/20", headers="ratelimit")
    import_from(server.url)

    found = list(examine(ask=True))

    assert [f for f in found if f.level == Level.ERROR] == []
    areas = ["python", "settings", "files", "machine", "ports", "redis", "broker", "database", "sources", "workers"]
    assert list(dict.fromkeys(f.area for f in found)) == [*areas, "API api-of-items"]
    said = [f.what for f in found]
    assert "every migration is applied" in said
    assert "items: the table items fits" in said
    assert "RateLimit says 500/20 s, as configured" in said
    assert ("journal_mode wal" in said) == database.is_sqlite()


def test_servers_that_are_away_end_the_command_with_3_and_no_password_is_shown(environment, tmp_path):
    # Given a Redis and a Postgres that are not there, passwords in both URLs, and sources that cannot be imported
    environment.setenv("SLUICE_REDIS_URL", f"redis://:hunter2-of-redis@127.0.0.1:{free_port()}/0")
    environment.setenv("SLUICE_DATABASE_URL", f"postgresql://me:hunter2-of-postgres@127.0.0.1:{free_port()}/x")
    (tmp_path / "shop.py").write_text("SOURCES = 1 / 0\n")
    environment.setenv("SLUICE_SOURCES", "shop:SOURCES")
    environment.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "workers", "doctor", "--ask", "--json"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    # Then
    assert done.returncode == 3, done.stderr
    errors = [f for f in json.loads(done.stdout) if f["level"] == "error"]
    assert [f["area"] for f in errors] == ["redis", "database", "sources", "APIs"]
    found = {f["area"]: f for f in errors}
    assert (found["redis"]["down"], found["database"]["down"]) == (True, True)
    assert "python -m workers redis" in found["redis"]["fix"]
    assert "SLUICE_DATABASE_URL" in found["database"]["fix"]
    assert "ZeroDivisionError" in found["sources"]["what"]
    assert "shop.py:1" in found["sources"]["what"]
    assert "none was asked" in found["APIs"]["what"]
    assert "hunter2" not in done.stdout + done.stderr


def test_the_table_says_each_level_in_a_word_and_errors_end_with_1(environment, redis_server, tmp_path):
    # Given a database that is not there yet
    environment.setenv("SLUICE_REDIS_URL", redis_server)

    command = [sys.executable, "-m", "workers", "doctor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    # Then it says so, with what to type, and a look has made nothing
    assert done.returncode == 1, done.stderr
    [line] = [line for line in done.stdout.splitlines() if "migrate --create-models" in line]
    assert line.startswith("x error    database")
    assert "+ ok       python" in done.stdout
    assert "errors: 1, " in done.stderr
    assert not (tmp_path / "data").exists()


def test_settings_that_cannot_be_read_are_a_finding_and_the_last_one(environment):
    environment.setenv("SLUICE_WORKER_THREADS", "many")

    found = list(examine())

    assert "SLUICE_WORKER_THREADS cannot be used" in only(found)
    assert found[-1].area == "settings"


def test_a_password_that_a_source_s_own_code_raises_is_not_shown(environment, redis_server, tmp_path):
    # Given a password that no pattern would find
    password = "hunter2-of-redis"
    environment.setenv("SLUICE_REDIS_URL", redis_server.replace("://", f"://:{password}@"))
    environment.setenv("SLUICE_SOURCES", "leaks:SOURCES")
    environment.syspath_prepend(tmp_path)
    raises = f"from workers.errors import ConfigurationError\nraise ConfigurationError('{password} is too short')\n"
    (tmp_path / "leaks.py").write_text(raises)

    found = list(examine())

    assert "*** is too short" in only(found, "sources")
    assert not [f for f in found if password in f.what + f.fix]


def test_a_check_that_fails_or_hangs_is_a_finding_of_its_own(environment):
    # Given
    never = threading.Event()

    def fails():
        yield ok("x", "one")
        raise LookupError("no shelf")

    def hangs():
        yield ok("x", "one")
        never.wait(30)

    # When
    failed, hung = list(_findings("x", fails)), list(_findings("database", hangs, 0.05))
    never.set()

    # Then what came before it stays
    assert failed[0].what == "one"
    assert "LookupError: no shelf" in only(failed)
    assert "did not finish within 0.05 s" in only(hung)
    assert hung[-1].down


# --- this machine


def test_an_old_python_or_package_and_few_files_are_named_with_what_to_install(environment):
    assert "install Python 3.11" in only(machine_checks.python((3, 9, 1), "final"))
    assert "not released" in only(machine_checks.python((3, 15, 0), "candidate"))
    assert troubles(machine_checks.packages(["redis>=8.1,<9", "dramatiq==2.2.*", "Nothing>=1; os_name == 'nt'"])) == []
    assert "made for >=99" in only(machine_checks.packages(["redis>=99"]))
    assert "made for ==1.*" in only(machine_checks.packages(["dramatiq==1.*"]))
    assert "not installed" in only(machine_checks.packages(["no-such-package"]))
    assert "ulimit -n 4096" in only(machine_checks.open_files(64))
    assert troubles(machine_checks.open_files(-1)) == []


def test_a_port_is_free_or_in_use_by_sluice_or_by_another_program(environment, mock_api):
    # Given the mock API on its port, a stranger on the page's, who hangs up
    environment.setenv("SLUICE_MOCK_PORT", str(mock_api().port))
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        environment.setenv("SLUICE_MONITOR_PORT", str(stranger.getsockname()[1]))
        threading.Thread(target=hang_up, args=(stranger,)).start()

        found = list(machine_checks.ports())

    # Then
    assert "set SLUICE_MONITOR_PORT to another port" in only(found)
    assert "the mock API answers on port" in found[1].what


NO_LOGIN, PASSWORD, VIEWER, OIDC = {}, {"PASSWORD": "x"}, {"VIEWER_PASSWORD": "x"}, {"LOGIN": "oidc"}


@pytest.mark.parametrize("login_by", [NO_LOGIN, PASSWORD, VIEWER, OIDC], ids=["none", "password", "viewer", "oidc"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "0.0.0.0", "192.0.2.5", "sluice.example"])
def test_the_doctor_and_the_server_agree_whether_the_page_may_be_served(environment, login_by, host, kept):
    # Given
    environment.setenv("SLUICE_MONITOR_HOST", host)
    for name, value in login_by.items():
        environment.setenv(f"SLUICE_MONITOR_{name}", kept if "PASSWORD" in name else value)
    get_settings.cache_clear()

    # When the server would start
    refusal = None
    try:
        login.check()
    except ConfigurationError as error:
        refusal = error

    # Then the doctor says the same; oidc is not set up here
    found = [f for f in machine_checks.ports() if f.level == Level.ERROR]
    assert [finding.what for finding in found] == ([refusal.what] if refusal else [])
    is_local = host in ("127.0.0.1", "localhost", "::1")
    assert bool(refusal) == (login_by is OIDC or (login_by is NO_LOGIN and not is_local))


@pytest.fixture(scope="module")
def kept():
    """The hash of a password, as .env holds it."""
    return password.make("hunter2-of-the-page")


@pytest.fixture(autouse=True)
def no_login():
    """No login is remembered from the settings of another test."""
    login.get_login.cache_clear()
    yield
    login.get_login.cache_clear()


def test_names_without_effect_in_env_and_a_readable_password_are_findings(environment, tmp_path):
    # Given
    environment.chdir(tmp_path)
    env = tmp_path / ".env"
    env.write_text("SLUICE_WORKER_TREADS=4\nexport SLUICE_LANES=3\nSLUICE_REDIS_URL=redis://:hunter2-there@h/0\n")
    env.chmod(0o644)

    found = troubles(machine_checks.settings())

    # Then
    assert len(found) == 3, found
    assert "SLUICE_WORKER_TREADS in .env is no setting, and has no effect. write SLUICE_WORKER_THREADS" in found[0]
    assert "SLUICE_LANES has an export before it" in found[1]
    assert "chmod 600 .env" in found[2]
    assert "hunter2" not in "".join(found)


# --- Redis


@pytest.fixture
def own(environment, tmp_path):
    """A Redis of the test's own, in order."""
    server = OwnRedis(tmp_path / "redis", maxmemory="100mb", appendonly="yes")
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{server.port}/0")
    yield server
    server.client.close()
    server.kill()


def test_a_redis_that_can_forget_is_a_finding_and_one_that_keeps_all_is_not(own):
    assert troubles(redis_checks.budgets_redis()) == []

    own.client.config_set("maxmemory-policy", "allkeys-lru")
    evicts = only(redis_checks.budgets_redis())
    own.client.config_set("maxmemory-policy", "volatile-ttl")
    might = only(redis_checks.budgets_redis())
    own.client.config_set("maxmemory-policy", "noeviction")
    own.client.config_set("appendonly", "no")
    loses = only(redis_checks.budgets_redis())

    # Then each names the command that repairs it
    assert evicts.startswith("error: maxmemory-policy allkeys-lru")
    assert f"redis-cli -h 127.0.0.1 -p {own.port} CONFIG SET maxmemory-policy noeviction" in evicts
    assert might.startswith("warning: maxmemory-policy volatile-ttl")
    assert loses.startswith("warning: nothing is saved to disk")
    assert "CONFIG SET appendonly yes" in loses


def test_a_redis_that_refuses_writes_or_logins_is_a_finding_with_its_repair(own, environment):
    # Given one that is full
    own.client.config_set("maxmemory", "1")
    full, _ = troubles(redis_checks.budgets_redis())
    own.client.config_set("maxmemory", "100mb")

    # And one whose user may not run scripts
    own.client.acl_setuser(
        "me", enabled=True, passwords=["+hunter2-of-me"], categories=["+@all", "-@scripting"], keys="*"
    )
    environment.setenv("SLUICE_REDIS_URL", f"redis://me:hunter2-of-me@127.0.0.1:{own.port}/0")
    get_settings.cache_clear()
    forbidden = only(redis_checks.budgets_redis())
    environment.setenv("SLUICE_REDIS_URL", f"redis://me:hunter2-wrong@127.0.0.1:{own.port}/0")
    get_settings.cache_clear()
    wrong = only(redis_checks.budgets_redis())

    # And one that follows another
    environment.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{own.port}/0")
    get_settings.cache_clear()
    own.client.replicaof("127.0.0.1", str(free_port()))
    replica = only(redis_checks.budgets_redis())

    # Then
    assert "Redis is out of memory" in full
    assert "raise its maxmemory" in full
    assert "Redis forbids its user a command that Sluice needs" in forbidden
    assert "refused the password" in wrong
    assert "Redis is a replica" in replica
    assert "hunter2" not in full + forbidden + wrong + replica


def test_a_server_that_is_no_redis_is_named_as_such_as_the_broker_too(environment, redis_server):
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    with api({}) as stranger:
        environment.setenv("SLUICE_BROKER_URL", stranger.url.replace("http", "redis"))

        trouble = only(redis_checks.broker())

    assert "does not answer as a Redis" in trouble
    assert "SLUICE_BROKER_URL" in trouble
    assert "SLUICE_REDIS_URL" not in trouble


def test_only_processes_that_take_messages_are_counted_as_workers(import_from, house, redis_server):
    # Given a scheduler, a monitor and a process that uses the queue, and no worker
    import_from("http://127.0.0.1:1")
    for kind in ("scheduler", "monitor"):
        process_heartbeat.Heartbeat(kind).write()
    consumer = make_broker(redis_server).consume(QUEUE, timeout=1)
    next(consumer)
    missing = only(redis_checks.workers())

    # When one was asked to stop, and one starts that knows no such source, and one that does
    clock.stop_requested.set()
    process_heartbeat.Heartbeat("worker", 8).write()
    clock.stop_requested.clear()
    stopping = only(redis_checks.workers())
    process_heartbeat.Heartbeat("worker", 8, None, ["orders"]).write()
    outdated = only(redis_checks.workers())
    process_heartbeat.Heartbeat("worker", 4, None, ["items"]).write()
    consumer.close()

    # Then
    assert "no worker runs" in missing
    assert "python -m workers worker" in missing
    assert "every worker was asked to stop" in stopping
    assert "started before the sources changed: it does not know items" in outdated
    said = [finding.what for finding in redis_checks.workers() if finding.level == Level.OK]
    assert [what.partition(";")[0] for what in said] == ["2 worker processes take messages, on 12 threads"]


def test_a_run_that_does_not_move_is_a_finding_with_its_reason(import_from, house):
    import_from("http://127.0.0.1:1")
    create("items", lanes=1, created_by="me", door="test")
    Run.update({Run.status: RunStatus.RUNNING, Run.started_at: clock.now() - timedelta(seconds=60)}).execute()

    assert "run 1 of items: no worker runs" in only(run_checks.stalled())


def test_a_clock_that_differs_is_a_finding(moved_clock, redis_server, environment):
    # Given a machine whose clock stopped long ago
    environment.setenv("SLUICE_REDIS_URL", redis_server)

    assert any("h ahead of this machine's" in trouble for trouble in troubles(redis_checks.budgets_redis()))


# --- the database


def test_a_database_without_tables_is_a_finding_and_its_repair_repairs_it(environment, database_url, redis_server):
    # Given an empty database
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    with database.connection():
        bare = only(database_checks.connection())
        assert list(database_checks.schedules()) == []

    # When
    schema.migrate([Item])

    # Then
    assert "no, or older, Sluice tables. `python -m workers migrate --create-models`" in bare
    with database.connection():
        assert troubles(database_checks.connection()) == []


def test_a_database_that_cannot_be_written_is_a_finding(environment, database_url, tmp_path):
    # Given a Postgres database that is read only, or a SQLite file that another program keeps locked
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    schema.migrate()
    if database.is_sqlite():
        with closing(sqlite3.connect(tmp_path / "sluice.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            found = list(database_checks.connection(patience_milliseconds=10))
    else:
        database.disconnect()
        with psycopg.connect(database_url, autocommit=True) as other:
            name = other.info.dbname
            other.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        found = list(database_checks.connection())

    # Then it is down, and the fix is named
    [one] = [f for f in found if f.level == Level.ERROR]
    assert one.down
    assert "end the transaction" in one.fix or "default_transaction_read_only" in one.fix


@ON_SQLITE
def test_a_file_that_every_user_can_write_is_a_finding(environment, database_url, tmp_path):
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    schema.migrate()
    (tmp_path / "sluice.db").chmod(0o666)

    assert only(database_checks.connection()).endswith(f"chmod o-w {tmp_path}/sluice.db")


def test_the_filesystem_of_another_machine_is_known(tmp_path):
    # Given two mounts, the nearer one a server's
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")

    assert _filesystem(tmp_path / "sluice.db", mounts) == "nfs4"
    assert _filesystem(ROOT / "x", mounts) == "ext4"
    assert _filesystem(ROOT, tmp_path / "gone") == ""


def test_runs_and_schedules_without_a_scheduler_are_findings(import_from, house):
    # Given a run whose time came a minute ago, a schedule without its next run, and one of a source that is gone
    import_from("http://127.0.0.1:1")
    late = database.now() - timedelta(minutes=1)
    run = create("items", lanes=1, created_by="me", door="cli", scheduled_at=late)
    for source in ("items", "gone"):
        create_schedule(source, cron="0 */3 * * *", timezone="UTC", catch_up="latest", who="me")

    overdue, found = only(database_checks.overdue()), troubles(database_checks.schedules())

    # Then
    assert f"run {run.id} of items is overdue" in overdue
    assert "python -m workers scheduler" in overdue
    assert "there is no source named gone" in found[0]
    assert "its next run has not been created" in found[1]


@ON_SQLITE
def test_a_missing_scheduler_is_a_finding_until_one_runs(house):
    assert only(redis_checks.scheduler()) == (
        "warning: no scheduler runs. No scheduled run starts, and lost messages are not sent again. "
        "start `python -m workers scheduler`"
    )

    scheduler_heartbeat.beat()

    assert troubles(redis_checks.scheduler()) == []


# --- the sources


@ON_SQLITE
def test_what_the_registry_refuses_is_a_finding_with_its_fix(import_from):
    # Given two sources of one name
    import_from("http://127.0.0.1:1")
    import_from("http://127.0.0.1:2")

    found = list(examine())

    assert only(found, "sources") == "error: Two sources are named 'items'. give each a name of its own"


def test_a_model_whose_table_is_missing_or_does_not_fit_is_a_finding(import_from, tmp_path):
    # Given a model in the same database without a table, and one of another database that has got a field since
    class Unmade(Item):
        class Meta:
            table_name = "unmade"

    class Grown(Item):
        colour = CharField()

        class Meta:
            database = SqliteDatabase(tmp_path / "theirs.db")
            table_name = "grown"

    with Grown._meta.database.connection_context():
        Grown._meta.database.execute_sql("CREATE TABLE grown (id INTEGER, external_id INTEGER, name TEXT)")
    import_from("http://127.0.0.1:1", name="unmade", model=Unmade)
    import_from("http://127.0.0.1:1", name="grown", model=Grown)

    unmade, grown = troubles(source_checks.models())

    # Then
    assert "The database has no table 'unmade' for Unmade" in unmade
    assert "`python -m workers migrate --create-models`" in unmade
    assert "the table grown has no colour, " in grown


@ON_SQLITE
def test_credentials_on_plain_http_and_limits_that_never_apply_are_findings(import_from):
    # Given
    limits = [Limit(500, seconds=20), Limit(5000, seconds=100)]
    far = Connector("far", base_url="http://api.example.com", limits=limits, auth=("me", "hunter2-there"))
    import_from(far.base_url, connector=far)

    readable, idle = troubles(source_checks.connectors())

    # Then
    assert "its credentials can be read in transit. let base_url begin with https://" in readable
    assert "the limit 5000/100 s never applies: the other limits allow 2,500 in its time" in idle
    assert "hunter2" not in readable


@ON_SQLITE
def test_an_api_of_this_machine_that_does_not_run_is_a_finding(import_from, mock_api, environment):
    # Given one that is served, one that is not, and the mock's port
    import_from(mock_api(items=1).url, name="served")
    port, mock = free_port(), free_port()
    import_from(f"http://127.0.0.1:{port}", name="away")
    environment.setenv("SLUICE_MOCK_PORT", str(mock))
    get_settings.cache_clear()
    import_from(f"http://127.0.0.1:{mock}", name="mocked")

    away, mocked = troubles(source_checks.connectors())

    # Then
    assert away == (
        f"warning: nothing listens at http://127.0.0.1:{port}, the API of away. start it, or correct base_url"
    )
    assert "start it (`python -m mock_server` is the demo's)" in mocked


@ON_SQLITE
def test_a_redis_url_that_cannot_be_read_is_one_finding(import_from, environment):
    import_from("http://api.example.com")
    environment.setenv("SLUICE_REDIS_URL", "redis://:hunter2-pw@127.0.0.1:port/0")
    get_settings.cache_clear()

    found = [f for f in examine() if f.level == Level.ERROR]

    assert [f.area for f in found] == ["redis"], found
    assert "SLUICE_REDIS_URL cannot be read" in found[0].what
    assert "hunter2" not in str(found)


@ON_SQLITE
def test_what_an_api_taught_its_budget_is_a_finding(import_from, mock_api):
    # Given an API whose headers name a lower limit, which the budget has adopted
    server = mock_api(items=5, limits="100/20", headers="ratelimit")
    source = import_from(server.url, limits=(Limit(500, seconds=20),))
    list(api_checks.ask(source))
    list(api_checks.ask(source))

    taught = only(source_checks.budgets())

    assert "window 500/20 s is 100 now, says the API" in taught
    assert "budgets api-of-items --relearn" in taught


# --- asking


@ON_SQLITE
def test_each_api_is_asked_once_with_a_permit_and_limits_it_names_are_compared(import_from, mock_api):
    # Given two sources of one API, which allows less than is configured in one window, and in one that is not
    server = mock_api(items=5, limits="100/20,150/60", headers="ratelimit")
    connector = Connector("one-api", base_url=server.url, limits=[Limit(500, seconds=20), Limit(600, seconds=50)])
    import_from(server.url, connector=connector)
    import_from(server.url, connector=connector, name="others")

    found = list(examine(ask=True))

    # Then
    less, not_there = troubles(found, "API one-api")
    assert "RateLimit says 100/20 s, and the configured limits (500/20 s, 600/50 s) allow 500" in less
    assert "write Limit(100, seconds=20), instead of 500/20 s, into the limits of 'one-api'" in less
    assert "write Limit(150, seconds=60) into the limits of 'one-api'" in not_there
    assert budget_state(connector.budget).granted == 1


@ON_SQLITE
def test_a_limit_said_in_another_way_is_compared_too(import_from):
    # Given an API that says it so, one after the other
    said = {
        "X-RateLimit-Limit: 500": "says 500, without its time, as configured (500/20 s)",
        "X-RateLimit-Limit: 60": "no configured limit has that number",
        "RateLimit-Policy: 900;w=20": "so imports could be faster",
        "RateLimit-Policy: 1500;w=60": "RateLimit-Policy says 1,500/60 s, as configured",
        "X-Powered-By: PHP": "its headers name no limits",
    }
    with api({"/api/items": [http(json.dumps({"data": [row(1)]}), header) for header in said]}) as server:
        source = import_from(server.url)

        found = [list(api_checks.ask(source)) for _ in said]

    # Then
    assert [one[-1].what for one, says in zip(found, said.values(), strict=True) if says not in one[-1].what] == []
    assert {finding.level for one in found for finding in one} == {Level.OK, Level.WARNING}


@ON_SQLITE
def test_what_an_api_should_not_answer_is_a_finding_with_its_fix(import_from):
    # Given an API that answers so, one after the other
    answers = {
        http("", "Location: https://user:hunter2-x@new.example.com/api/items", status="301 Moved"): (
            "redirects to https://***@new.example.com/api/items, and redirects are not followed. set base_url"
        ),
        http(status="304 Not Modified"): "answered 304, which is valid only",
        http('{"a": 1}\n{"a": 2}', media="application/x-ndjson"): "JSON lines (application/x-ndjson) instead",
        http(status="401 Unauthorized"): "correct auth=, or the headers, of the connector 'api-of-items'",
        http("<html>", media="text/html"): "body that is not JSON (text/html)",
        http('{"items": [], "count": 0}'): 'correct get_list_items or next_cursor of TestSource; the page has ["items"',
        page({"name": "a"}, row(2)): "1 items of the page cannot be used, as: page 1, item 1",
        page(): "the page holds no items",
        http('{"data": [{"id": 1, "name": "a"}]}', "Age: 30", "Date: Thu, 01 Jan 2026 00:00:00 GMT"): "out of a cache",
        http('{"data": [{"id": 1, "name": "a"}]}', "Date: Thu, 01 Jan 2026 00:00:00 GMT"): "behind this machine's",
        http("", "Retry-After: 7", status="429 Too Many"): "the API answered 429, Retry-After 7",
    }
    with api({"/api/items": list(answers)}) as server:
        source = import_from(server.url)

        found = [only(api_checks.ask(source)) for _ in answers]

    # Then each has a finding of its own, without secrets; and no request is sent in a pause
    assert [said for said, expected in zip(found, answers.values(), strict=True) if expected not in said] == []
    assert "hunter2" not in "".join(found)
    assert "it was not asked" in only(api_checks.ask(source))
    assert len(server.asked) == len(answers)


@ON_SQLITE
def test_what_a_source_s_own_code_raises_is_a_finding_and_no_request_is_sent(import_from, mock_api):
    def get_list_request(self, cursor, per_page):
        return {}["token"]

    source = import_from(mock_api().url, get_list_request=get_list_request)

    assert "KeyError: 'token'. correct get_list_request of TestSource" in only(api_checks.ask(source))
    assert not budget_state(source.connector.budget).known


def test_without_tables_no_api_is_asked(environment, database_url):
    # Given: a permit is noted in the database
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    source = ItemSource()

    assert "it was not asked" in only(api_checks.ask(source))
