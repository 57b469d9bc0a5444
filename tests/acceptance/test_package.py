"""A user's project with the installed wheel: their models.py, sources and API, on a worker host without extras."""

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
from packaging.requirements import Requirement

from tests.helpers.machine import ROOT, free_port, wait_until
from workers import extras, testing

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOKEN = "open-sesame"
#: The products of the API; a sku has characters that must be quoted in a URL.
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
    """An API with text cursors, a bearer token, and a limit of 20 requests in any half second."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[int] = []
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()

    def answer(self, request: testing.Request) -> testing.Response:
        status = self.admit(request.headers["Authorization"])
        return testing.Response(status, self._found(request) if status == 200 else {"message": "no"})

    def admit(self, authorization: str | None) -> int:
        """Count a request, and return the status of its response."""
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


# --- the wheel, and their project -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The wheel, and the output of its build, from a copy: nothing is written into the checkout."""
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
    """The programs of a worker host: the wheel, its dependencies and the extra `embedded`; no Streamlit, no psycopg."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in closure([*DECLARED["dependencies"], *DECLARED["optional-dependencies"]["embedded"]]):
        link_distribution(name, packages)
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", str(built[0])], timeout=60, check=True)
    return folder / "bin"


def closure(requirements: list[str]) -> set[str]:
    """Return the distributions that pip would install for some requirements."""
    ahead, found = [Requirement(text) for text in requirements], set[str]()
    while ahead:
        requirement = ahead.pop()
        if requirement.name in found:
            continue
        found.add(requirement.name)
        inner = [Requirement(text) for text in importlib.metadata.requires(requirement.name) or []]
        chosen = {"", *requirement.extras}
        ahead += [i for i in inner if i.marker is None or any(i.marker.evaluate({"extra": e}) for e in chosen)]
    return found


def link_distribution(name: str, packages: Path) -> None:
    """Make a distribution of this environment importable from a folder, without its dependencies."""
    source = Path(sysconfig.get_path("purelib"))
    for top in {file.parts[0] for file in importlib.metadata.files(name) or []} - {"..", "__pycache__"}:
        if not (packages / top).exists():
            (packages / top).symlink_to(source / top)


@dataclass(frozen=True)
class Project:
    """A user's folder. Its commands see neither this checkout nor this process's environment variables."""

    folder: Path
    programs: Path
    environment: dict[str, str]
    redis_port: int

    def command(self, *words: str) -> list[str]:
        program = self.programs / words[0]
        assert program.exists(), f"{program} was not installed"
        return [str(program), *words[1:]]

    def end(self, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run a command until it ends, with any exit code."""
        return subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment | settings,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def run(self, *words: str) -> str:
        """Run a command until it ends and return its stdout; it must succeed, without a warning."""
        done = self.end(*words)
        assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        assert "Warning" not in done.stderr
        return done.stdout

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "sluice.db")) as db, db:
            return list(db.execute(sql))

    def processes(self) -> dict[int, str]:
        """Return the processes that run in this folder or below it, by id (Linux only)."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile, or is a zombie
                if (entry / "cwd").readlink().is_relative_to(self.folder):
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        return found


@pytest.fixture
def project(installed: Path, shop: Shop, tmp_path: Path) -> Iterator[Project]:
    """Their models.py, shop/sources.py and .env. No process may be left there when the test ends."""
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
    """Every product is in their table as their API has it, each was requested once, and none was refused."""
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
    wheel, output = built
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    about = {name for name in held if ".dist-info/" in name}

    # Then
    assert held - about == files
    assert any(name.endswith("/licenses/LICENSE") for name in about), "pyproject.toml promises a LICENSE"
    assert "WARNING" not in output and "Deprecat" not in output


def test_what_the_package_imports_is_declared() -> None:
    # Given what a worker host has, and what each room may import on top of it
    base = _names(DECLARED["dependencies"])
    more = {
        "workers/monitor/": _names(DECLARED["optional-dependencies"]["monitor"]),
        "workers/processes/page_access.py": _names(DECLARED["optional-dependencies"]["oidc"]),
        "workers/connections/": _names(DECLARED["optional-dependencies"]["postgres"]),
        "workers/processes/redis_data_folder.py": _names(DECLARED["optional-dependencies"]["embedded"]),
    }
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
    undeclared = [
        f"{path} imports {name}"
        for name, where in foreign.items()
        for path in sorted(where)
        if not {_plain(distribution) for distribution in providers.get(name, [])}
        & base.union(*(names for begin, names in more.items() if path.startswith(begin)))
    ]
    assert {"dramatiq", "peewee", "redis"} <= set(foreign)
    assert not undeclared, "pyproject.toml does not declare these"


def test_each_extra_is_known_by_the_modules_that_it_brings() -> None:
    optional = DECLARED["optional-dependencies"]

    assert {*extras.MODULES, "all"} == set(optional)
    for extra, modules in extras.MODULES.items():
        brought = _names(optional[extra])
        providers = importlib.metadata.packages_distributions()
        assert all({_plain(d) for d in providers.get(module, [module])} & brought for module in modules)
    assert optional["all"] == [f"{DECLARED['name']}[{','.join(extras.MODULES)}]"]


def test_requirements_txt_has_what_every_extra_but_the_login_needs() -> None:
    # Given: who uses OIDC adds Authlib
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    optional = {
        extra: texts for extra, texts in DECLARED["optional-dependencies"].items() if extra not in ("oidc", "all")
    }

    # Then
    assert _names([*DECLARED["dependencies"], *(t for texts in optional.values() for t in texts)]) <= pinned


def _names(requirements: list[str]) -> set[str]:
    return {_plain(Requirement(text).name) for text in requirements}


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


@pytest.mark.parametrize(
    ("words", "settings", "extra"),
    [
        (("monitor",), {}, "monitor"),
        (("status",), {"SLUICE_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/none"}, "postgres"),
    ],
)
def test_a_missing_extra_is_one_sentence_with_the_command_that_installs_it(
    project: Project, words: tuple[str, ...], settings: dict[str, str], extra: str
) -> None:
    done = project.end("sluice", *words, **settings)

    assert done.returncode == 2
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    assert f'pip install "sluice-importer[{extra}]"' in sentence


def test_the_doctor_misses_no_package_of_an_extra(project: Project) -> None:
    findings = json.loads(project.end("sluice", "doctor", "--json").stdout)

    [packages] = [f for f in findings if f["area"] == "python" and "packages" in f["what"]]
    assert packages["level"] == "ok"


def test_their_import_runs_inline_and_leaves_their_own_columns_alone(project: Project, shop: Shop) -> None:
    # Given: a product that they already have
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
    # Given: the processes of their Procfile
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
    """Their processes, stopped all at once as by honcho; their log is printed where a test fails."""
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
