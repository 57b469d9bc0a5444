"""What the tests stand on: a real Redis, both databases, a mock API, and a clock that can be moved."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from mock_server import Clock as MockClock
from mock_server import MockConfig, RunningServer, parse_limits, serve_in_thread
from workers import Connector, Limit, RateLimiter, clock, settings
from workers.connections import database, outages
from workers.messaging import broker
from workers.records import schema
from workers.sources import registry
from workers.text import known_secrets

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
IN_CI = bool(os.environ.get("CI"))

for variable in [name for name in os.environ if name.startswith("SLUICE_")]:
    del os.environ[variable]
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: a process works off a whole file, and the other would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_fleet.py")


def missing(what: str) -> None:
    """Skip aloud where a server is missing; in CI that is a failure."""
    if IN_CI:
        pytest.fail(f"{what} is missing, and CI must have it (.ci/run installs it)")
    pytest.skip(f"{what} is missing: .ci/run installs it")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(true: Callable[[], object], seconds: float = 10.0, what: str = "it") -> None:
    """Wait for something real to happen in another process."""
    ends_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends_at, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    binary = next((path for path in CHROMIUM if Path(path).exists()), None)
    if binary is None:
        missing("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """A Redis of our own, without persistence; its URL."""
    from workers.processes.redis_data_folder import find_binary

    port = free_port()
    folder = tempfile.mkdtemp(prefix="sluice-redis-")
    command = [find_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url)

    def answers() -> bool:
        with contextlib.suppress(redis.ConnectionError):
            return bool(client.ping())
        return False

    wait_until(answers, what="the test Redis")
    client.close()
    yield url
    process.terminate()
    process.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def client(redis_server: str) -> Iterator[redis.Redis]:
    """A client of the test Redis."""
    with redis.Redis.from_url(redis_server) as client:
        yield client


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A Postgres cluster of our own; the URL of its server, without a database."""
    from tests.helpers.postgres_folder import postgres_folder

    folder = postgres_folder()
    if folder is None:
        missing("PostgreSQL")
    home = tempfile.mkdtemp(prefix="sluice-postgres-")
    as_user: list[str] = []
    if os.geteuid() == 0:  # Postgres refuses to run as root
        shutil.chown(home, "postgres")
        as_user = [shutil.which("runuser") or "/usr/sbin/runuser", "-u", "postgres", "--"]
    port = free_port()
    options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=300"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=home)

    run(*as_user, f"{folder}/initdb", "-D", f"{home}/data", "-A", "trust", "-U", "sluice")
    control = [*as_user, f"{folder}/pg_ctl", "-D", f"{home}/data", "-w"]
    run(*control, "-o", options, "-l", f"{home}/log", "start")
    yield f"postgresql://sluice@127.0.0.1:{port}"
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/sluice.db"
        return
    server = request.getfixturevalue("postgres_server")
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{server}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def forget() -> None:
    """Let the process read its settings, its sources and its connections anew."""
    database.disconnect()
    outages.reset()
    known_secrets.forget()
    for cached in (settings.get_settings, registry.get_registry, broker.get_broker):
        cached.cache_clear()
    clock.stop_requested.clear()
    clock.use(clock.Clock())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Settings of a test's own: `environment.setenv("SLUICE_...", ...)` before anything reads them."""
    forget()
    monkeypatch.setenv("SLUICE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SLUICE_PREFIX", f"t{uuid.uuid4().hex[:12]}")
    yield monkeypatch
    forget()


@pytest.fixture
def house(environment: pytest.MonkeyPatch, redis_server: str, database_url: str) -> Iterator[pytest.MonkeyPatch]:
    """Redis, a migrated database of each kind, the demo's tables, and this thread's connection."""
    from models import Item

    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_DATABASE_URL", database_url)
    environment.setenv("SLUICE_BROKER_URL", "stub://")
    schema.migrate([Item])
    with database.connection():
        yield environment


@pytest.fixture
def new(client: redis.Redis, moved_clock: clock.MovedClock) -> Callable[..., RateLimiter]:
    """new(Limit(...), ...): a limiter of a fresh budget, in moved time."""
    from tests.helpers.limiting import limiter_on

    return lambda *limits, **options: limiter_on(client, *limits, **options)


class MovedMockClock(MockClock):
    """The mock API's time, moved together with ours."""

    def monotonic_ns(self) -> int:
        return round(clock.monotonic() * 1e9)

    def epoch_ns(self) -> int:
        return round(clock.now().timestamp() * 1e9)


@pytest.fixture
def moved_clock(environment: pytest.MonkeyPatch) -> Iterator[clock.MovedClock]:
    """Time that passes only when somebody sleeps, or when the test says so."""
    moved = clock.MovedClock()
    clock.use(moved)
    yield moved
    clock.use(clock.Clock())


@pytest.fixture
def mock_api() -> Iterator[Callable[..., RunningServer]]:
    """Start mock APIs: mock_api(items=10, limits="50/2"). Their windows follow our clock where it is moved."""
    servers = []

    def serve(*, limits: str = "none", **options: object) -> RunningServer:
        its_clock = MovedMockClock() if clock.current().moved else None
        servers.append(serve_in_thread(MockConfig(limits=parse_limits(limits), **options), its_clock))  # type: ignore[arg-type]
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


@pytest.fixture
def import_from(house: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Register the demo's source for an API: import_from(url, limits=[...], name="items", **attributes)."""
    from sources import ItemSource
    from tests.helpers import hosts

    house.setenv("SLUICE_SOURCES", "tests.helpers.hosts:SOURCES")
    hosts.SOURCES.clear()

    def register(url: str, *, limits: tuple[Limit, ...] = (Limit(500, seconds=20),), **attributes: Any) -> Any:
        name = attributes.setdefault("name", "items")
        attributes.setdefault("connector", Connector(f"api-of-{name}", base_url=url, limits=limits))
        attributes.setdefault("schedule", None)
        source = type("TestSource", (ItemSource,), attributes)()
        hosts.SOURCES.append(source)
        settings.get_settings.cache_clear()
        registry.get_registry.cache_clear()
        return source

    return register


@pytest.fixture(scope="module")
def variables(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a whole installation: SQLite, Redis and a mock API with small windows."""
    folder = tmp_path_factory.mktemp("monitor")
    with serve_in_thread(MockConfig(items=600, limits=parse_limits("500/20"), latency_seconds=0.2)) as api:
        yield {
            "SLUICE_DATA_DIR": str(folder),
            "SLUICE_REDIS_URL": redis_server,
            "SLUICE_PREFIX": folder.name,
            "SLUICE_WORKER_PROCESSES": "1",
            "SLUICE_WORKER_THREADS": "4",
            "DEMO_API_URL": api.url,
        }
