"""Fixtures of all tests: a real Redis, both databases, a mock API, a browser, and a clock that can be moved."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from mock_server import Clock as MockClock
from mock_server import MockConfig, RunningServer, parse_limits, serve_in_thread
from tests.helpers.machine import ROOT, forget, missing
from tests.helpers.postgres_clusters import cluster
from workers import Connector, Limit, RateLimiter, clock, testing
from workers.connections import database
from workers.records import schema

TEN = (Limit(10, seconds=60),)
CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"

for variable in [name for name in os.environ if name.startswith("SLUICE_")]:
    del os.environ[variable]
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: a process works off a whole file, and the other would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_fleet.py")


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
    """A Redis without persistence, for all tests of this process; its URL."""
    with testing.redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def client(redis_server: str) -> Iterator[redis.Redis]:
    """A client of the test Redis."""
    with redis.Redis.from_url(redis_server) as client:
        yield client


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A Postgres cluster for all tests of this process; the URL of its server, without a database."""
    with cluster("max_connections=300") as address:
        yield f"postgresql://sluice@{address}"


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
    from tests.helpers.limiters import limiter_on

    return lambda *limits, **options: limiter_on(client, *limits, **options)


class MovedMockClock(MockClock):
    """The mock API's time, moved together with ours."""

    def monotonic_ns(self) -> int:
        return round(clock.monotonic() * 1e9)

    def epoch_ns(self) -> int:
        return round(clock.now().timestamp() * 1e9)


@pytest.fixture
def moved_clock(environment: pytest.MonkeyPatch) -> Iterator[clock.MovedClock]:
    """A clock that moves only when the code sleeps or the test advances it."""
    with testing.moved_clock() as moved:
        yield moved


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
def connect(environment: pytest.MonkeyPatch, redis_server: str) -> Callable[..., Connector]:
    """connect(url, timeout_seconds=..., ...): a connector whose budget is a test's own."""
    environment.setenv("SLUICE_REDIS_URL", redis_server)
    environment.setenv("SLUICE_MAX_WAIT_SECONDS", "0")

    def make(base_url: str, name: str = "api", limits: Sequence[Limit] = TEN, **options) -> Connector:
        return Connector(name, base_url=base_url, limits=limits, **({"timeout_seconds": 5.0} | options))

    return make


@pytest.fixture
def import_from(house: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Register the demo's source for an API: import_from(url, limits=[...], name="items", **attributes)."""
    from sources import ItemSource
    from tests.helpers import registered_sources

    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()

    def register(url: str, *, limits: tuple[Limit, ...] = (Limit(500, seconds=20),), **attributes: Any) -> Any:
        name = attributes.setdefault("name", "items")
        attributes.setdefault("connector", Connector(f"api-of-{name}", base_url=url, limits=limits))
        attributes.setdefault("schedule", None)
        source = type("TestSource", (ItemSource,), attributes)()
        registered_sources.register(source)
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
