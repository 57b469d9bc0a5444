"""A user's project with the built wheel: its own models.py, its own sources, its own API."""

import ast
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
import venv
import zipfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.helpers.machine import ROOT, free_port, wait_until
from workers import testing

TOKEN = "open-sesame"
#: What the API sells; a sku is a word that no URL holds unquoted.
CATALOGUE = {f"tea/grün {n:03}": {"title": f"Tea {n}", "price": f"{n}.50", "stock": n % 7} for n in range(60)}
SKUS = list(CATALOGUE)

MODELS = """
from urllib.parse import quote

import requests
from peewee import BooleanField, CharField, IntegerField, Model, TextField

from workers import HasImportStatus, db


class Product(HasImportStatus, Model):
    sku = CharField(primary_key=True)
    title = CharField()
    price_cents = IntegerField(null=True)
    stock = IntegerField(null=True)
    listed = BooleanField(default=True)
    note = TextField(default="")

    class Meta:
        database = db
        table_name = "products"

    def get_external_id(self):
        return self.sku

    def get_api_detail_request(self):
        return requests.Request("GET", f"v2/products/{quote(self.sku, safe='')}")

    def populate_from_api_response(self, data):
        self.price_cents = round(float(data["product"]["price"]) * 100)
        self.stock = data["product"]["stock"]
"""

SOURCES = """
import os

import requests

from models import Product
from workers import Connector, ImportSource, Limit

shop = Connector(
    "shop",
    base_url=os.environ["SHOP_URL"],
    limits=[Limit(20, seconds=0.5)],
    headers={"Authorization": f"Bearer {os.environ['SHOP_TOKEN']}"},
)


class ProductSource(ImportSource):
    name = "products"
    model = Product
    connector = shop
    unique_by = "sku"
    per_page = 25

    def get_list_request(self, cursor, per_page):
        params = {"limit": per_page} if cursor == 1 else {"limit": per_page, "after": cursor}
        return requests.Request("GET", "v2/products", params=params)

    def get_list_items(self, data):
        return data["products"]

    def next_cursor(self, data, cursor):
        return data["cursor"]

    def create_model_from_list_item(self, item):
        return Product(sku=item["sku"], title=item["title"])


SOURCES = [ProductSource()]
"""


# --- their API --------------------------------------------------------------------------------------------------------


class Shop:
    """An API of another shape: a word for a cursor, a bearer token, and 20 requests in any half second."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()

    def answer(self, request: testing.Request) -> testing.Response:
        status = self.admit(request.headers["Authorization"])
        return testing.Response(status, self._found(request) if status == 200 else {"message": "no"})

    def admit(self, authorization: str | None) -> int:
        """Count a request, and return the status it deserves."""
        with self._lock:
            now = time.monotonic()
            while self._recent and self._recent[0] <= now - 0.5:
                self._recent.popleft()
            if authorization != f"Bearer {TOKEN}":
                status = 401
            elif len(self._recent) >= 20:
                status = 429
            else:
                status = 200
                self._recent.append(now)
            self.answers.append(status)
            return status

    def _found(self, request: testing.Request) -> object:
        if request.path != "/v2/products":
            return {"product": CATALOGUE[unquote(request.path.removeprefix("/v2/products/"))]}
        begin = int(request.query["after"].removeprefix("from-")) if "after" in request.query else 0
        end = begin + int(request.query["limit"])
        page = [{"sku": sku, "title": CATALOGUE[sku]["title"]} for sku in SKUS[begin:end]]
        return {"products": page, "cursor": f"from-{end}" if end < len(SKUS) else None}


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    with testing.api(shop.answer) as server:
        shop.url = server.url
        yield shop


# --- our wheel, and their project -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The wheel, and what was said while it was built, from a copy: nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "data", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, folder / "copy", ignore=unwanted)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    command = [*build, str(folder / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(built: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an empty environment with our wheel in it, and only the libraries borrowed from ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # A path that comes after the environment's own: `workers` can be found in our wheel only.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", str(built[0])], timeout=60, check=True)
    return folder / "bin"


@dataclass(frozen=True)
class Project:
    """A user's folder. Its commands see nothing of our checkout and of our environment variables."""

    folder: Path
    programs: Path
    environment: dict[str, str]
    redis_port: int

    def command(self, *words: str) -> list[str]:
        program = self.programs / words[0]
        assert program.exists(), f"{program} was not installed"
        return [str(program), *words[1:]]

    def run(self, *words: str) -> str:
        """Run a command to its end and return what it answered; it must succeed, without a warning."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert "Warning" not in done.stderr
        return done.stdout

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "sluice.db")) as db, db:
            return list(db.execute(sql))

    def processes(self) -> dict[int, str]:
        """Every process that runs in this folder or below it (Linux only)."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile, or is a zombie
                if (entry / "cwd").readlink().is_relative_to(self.folder):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found


@pytest.fixture
def project(installed: Path, shop: Shop, tmp_path: Path) -> Iterator[Project]:
    """Their models.py, their shop/sources.py, their .env; and nothing runs there when the test is over."""
    folder, port = tmp_path / "webshop", free_port()
    (folder / "shop").mkdir(parents=True)
    (folder / "models.py").write_text(MODELS)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "sources.py").write_text(SOURCES)
    (folder / ".env").write_text(
        f"SLUICE_SOURCES=shop.sources:SOURCES\nSLUICE_REDIS_URL=redis://127.0.0.1:{port}/0\nSLUICE_PREFIX=webshop\n"
    )
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    environment = kept | {
        "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "error",
        "SHOP_URL": shop.url,
        "SHOP_TOKEN": TOKEN,
    }
    project = Project(folder, installed, environment, port)
    yield project
    left = project.processes()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left


def assert_imported(project: Project, shop: Shop, run_id: str) -> None:
    """Every product stands in their table as their API has it, asked for once each, and never refused."""
    wanted = [(s, p["title"], round(float(p["price"]) * 100), p["stock"]) for s, p in CATALOGUE.items()]
    assert project.rows("SELECT sku, title, price_cents, stock FROM products ORDER BY sku") == wanted
    assert shop.answers == [200] * (3 + len(CATALOGUE))
    status = json.loads(project.run("sluice", "status", run_id, "--json"))
    wanted_figures = {"source": "products", "status": "completed", "total": 60, "succeeded": 60, "failed": 0, "hits": 0}
    assert {name: status[name] for name in wanted_figures} == wanted_figures


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: tuple[Path, str]) -> None:
    # Given
    package = ROOT / "workers"
    files = {p.relative_to(ROOT).as_posix() for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}

    # When
    wheel, said = built
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    about = {name for name in held if ".dist-info/" in name}

    # Then
    assert held - about == files
    assert any(name.endswith("/licenses/LICENSE") for name in about), "pyproject.toml promises a LICENSE"
    assert "WARNING" not in said and "Deprecat" not in said


def test_what_the_package_imports_is_declared() -> None:
    # Given
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {_plain(re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]) for requirement in declared}
    providers = importlib.metadata.packages_distributions()

    # When
    imported: dict[str, set[str]] = {}
    for path in (ROOT / "workers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for module in modules:
                imported.setdefault(module.split(".")[0], set()).add(path.relative_to(ROOT).as_posix())
    foreign = {name: where for name, where in imported.items() if name not in {*sys.stdlib_module_names, "workers"}}

    # Then
    undeclared = {
        name: sorted(where)
        for name, where in foreign.items()
        if not names & {_plain(distribution) for distribution in providers.get(name, [])}
    }
    assert {"dramatiq", "peewee", "redis"} <= set(foreign)
    assert not undeclared, "pyproject.toml does not declare these"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# --- their project ----------------------------------------------------------------------------------------------------


def test_the_sluice_command_works_from_their_folder(project: Project) -> None:
    # When
    sources = json.loads(project.run("sluice", "sources", "--json"))
    table = project.run("sluice", "sources")
    project.run("sluice", "migrate", "--create-models")
    runs = json.loads(project.run("sluice", "status", "--json"))
    where = "import models, shop.sources, workers; print(models.__file__, workers.__file__, sep='\\n')"
    models, workers = map(Path, project.run("python", "-c", where).split())

    # Then
    assert sources == [{"name": "products", "api": project.environment["SHOP_URL"] + "/", "limits": ["20/0.5 s"]}]
    assert "Product" in table
    assert runs == []
    assert models == project.folder / "models.py"
    assert workers.is_relative_to(project.programs.parent)
    assert {column for _, column, *_ in project.rows("PRAGMA table_info(products)")} >= {"sku", "price_cents"}


def test_their_import_runs_inline_and_leaves_what_is_theirs_alone(project: Project, shop: Shop) -> None:
    # Given: a product they already had
    project.run("python", "-m", "workers", "migrate", "--create-models")
    project.rows(f"INSERT INTO products (sku, title, listed, note) VALUES ('{SKUS[7]}', 'old', 0, 'ours')")

    # When
    run_id = project.run("python", "-m", "workers", "run", "products", "--inline").strip()

    # Then
    assert_imported(project, shop, run_id)
    assert project.rows("SELECT sku, listed, note FROM products WHERE note != '' OR NOT listed") == [
        (SKUS[7], 0, "ours")
    ]


def test_their_import_runs_through_workers_of_their_own(project: Project, shop: Shop) -> None:
    # Given: what their Procfile starts
    project.run("python", "-m", "workers", "migrate", "--create-models")
    with started(project, "redis", "worker", "scheduler") as processes:
        # When
        run_id = project.run("python", "-m", "workers", "run", "products", "--wait").strip()

        # Then
        assert_imported(project, shop, run_id)
        assert {process.poll() for process in processes} == {None}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert not project.processes()


@contextlib.contextmanager
def started(project: Project, *commands: str) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Their processes, stopped all at once as honcho does it; their log is shown when the test fails."""
    log = project.folder / "log"
    processes: list[subprocess.Popen[bytes]] = []
    with log.open("wb") as out:
        for name in commands:
            command = project.command("python", "-m", "workers", name)
            processes.append(subprocess.Popen(command, cwd=project.folder, env=project.environment, stderr=out))
    try:
        wait_until(lambda: "Redis-compatible server" in log.read_text() and "2 worker processes" in log.read_text(), 30)
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        print(log.read_text())
    assert "Warning" not in log.read_text()
    assert "Traceback" not in log.read_text()
