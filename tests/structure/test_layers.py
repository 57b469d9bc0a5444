"""Rules that are read from the source: imports go down, one module for each duty, the mock API stands alone."""

import ast
import importlib.util
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: The rooms of workers/, from the ground up: a room imports only rooms above it in this list, and itself.
#: The files of `workers/` itself and `text/` are the ground; `monitor/` has rooms of its own.
ROOMS = [
    "ground",
    "connections",
    "limiter",
    "sources",
    "records",
    "messaging",
    "reports",
    "engine",
    "control",
    "scheduling",
    "processes",
    "doctor",
    "api",
    "monitor/html",
    "monitor/readings",
    "monitor/access",
    "monitor/actions",
    "monitor/sections",
    "monitor/pages",
    "monitor/serving",
    "monitor/app",
    "monitor/entry",
    "testing",
    "cli",
    "face",
]

#: The host: what stands around the package, and must never be seen from within.
HOST = {"models", "sources", "mock_server", "scripts", "benchmarks", "tests", "monitor_app"}

#: Where the tables are written: in their own room, and the schedules beside their rules.
RECORDERS = {"workers.scheduling.schedules"}
TRACKING = {"Run", "RunItem", "Lane", "ListPage", "RunEvent", "Sample", "Removal", "OldRow", "BudgetRow", "Schedule"}
TRACKING.add("ActKey")
WRITES = {
    *("create", "insert", "insert_many", "insert_from", "replace", "replace_many", "bulk_create", "get_or_create"),
    *("update", "bulk_update", "set_by_id", "delete", "delete_by_id", "truncate_table", "drop_table"),
}

#: The modules other than clock.py that read the machine's clock, and why a moved clock must not reach it.
OWN_TIME = {
    "workers.processes.worker_supervisor time.monotonic": "it waits for processes, which have the machine's time",
    "workers.processes.signals time.monotonic": "two signals are one request where the machine says they came together",
    "workers.cli.progress time.monotonic": "a display is drawn at most twice a second, for a person",
    "workers.monitor.serving.server time.monotonic": "it waits for Streamlit's process, which has the machine's time",
    "workers.monitor.html.flush_delay time.sleep": "it waits for Streamlit's event loop",
    "workers.monitor.actions.stale_clicks time.monotonic": "a browser asks each second of the machine's time",
    "workers.monitor.readings.log_throttle time.monotonic": "an outage is logged again at intervals, for a person",
}
TIMES = {
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.sleep"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}


# --- the source -------------------------------------------------------------------------------------------------------


def name_of(path: Path, root: Path = ROOT) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@lru_cache
def package(folder: str) -> dict[str, ast.Module]:
    """Every module of a package, by name."""
    return {name_of(path): ast.parse(path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))}


def imports(tree: ast.AST, module: str, known: set[str]) -> Iterator[str]:
    """Name what `module` imports, wherever in the file: a submodule by its own name, not by its package's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = module if module in {k.rpartition(".")[0] for k in known} else module.rpartition(".")[0]
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), inside)
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in ("import_module", "__import__"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for such an expression, and "?" for the parts that are none."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def room_of(module: str) -> str:
    """Return a module's room: the longest of the folders in ROOMS that it is in."""
    parts = module.split(".")[1:]
    if parts in ([], ["__main__"]):
        return "face"
    if "/".join(parts[:2]) in ROOMS:
        return "/".join(parts[:2])
    if parts[0] in ROOMS:
        return parts[0]
    return "ground" if parts[0] == "text" or len(parts) == 1 else ""


# --- the rules: each returns the breaches of one module ---------------------------------------------------------------


def upward_imports(tree: ast.AST, module: str, known: set[str]) -> list[str]:
    level = ROOMS.index(room_of(module)) if room_of(module) else len(ROOMS)
    ours = {name for name in imports(tree, module, known) if name in known and room_of(name)}
    return sorted(
        f"{module} ({room_of(module)}) imports {other} ({room_of(other)})"
        for other in ours
        if ROOMS.index(room_of(other)) > level
    )


def host_imports(tree: ast.AST, module: str, known: set[str]) -> list[str]:
    return sorted(f"{module} imports {name}" for name in imports(tree, module, known) if name.split(".")[0] in HOST)


def environment_readings(tree: ast.AST, module: str, known: set[str]) -> list[str]:
    """Only settings.py reads the environment; worker.py sets the one variable that dramatiq reads.

    A test's installation sets the settings of its block, and puts back what was there.
    """
    if module in ("workers.settings", "workers.testing.installation"):
        return []
    set_for_dramatiq = {
        node.value.func.value
        for node in ast.walk(tree)
        if module == "workers.processes.worker"
        and isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and dotted(node.value.func) == "os.environ.setdefault"
        and isinstance(node.value.args[0], ast.Constant)
        and node.value.args[0].value == "dramatiq_queue_prefetch"
    }
    breaches = [
        f"{module}:{node.lineno} reads {dotted(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and dotted(node) in ("os.environ", "os.environb", "os.getenv", "os.getenvb")
        and node not in set_for_dramatiq
    ]
    return breaches + [
        f"{module}:{node.lineno} imports {alias.name} from os"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
        if "env" in alias.name
    ]


def tracking_writes(tree: ast.AST, module: str, known: set[str]) -> list[str]:
    """Only `records/` writes to the tables, by peewee or by SQL of its own."""
    if module in RECORDERS or module.startswith("workers.records."):
        return []
    breaches = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner, _, method = dotted(node.func).rpartition(".")
            if method in WRITES and owner.split(".")[-1] in TRACKING:
                breaches.append(f"{module}:{node.lineno} calls {owner}.{method}()")
            elif method in TRACKING:
                breaches.append(f"{module}:{node.lineno} makes a {method}, which only a save would need")
            elif method in ("save", "delete_instance"):
                breaches.append(f"{module}:{node.lineno} calls .{method}()")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.match(r"\s*(INSERT INTO|UPDATE|DELETE FROM|TRUNCATE)\s+\S", node.value):
                breaches.append(f"{module}:{node.lineno} holds SQL that writes")
        elif isinstance(node, ast.ImportFrom):
            hidden = [a.name for a in node.names if a.name in TRACKING and a.asname]
            breaches += [f"{module}:{node.lineno} renames {name}" for name in hidden]
    return breaches


def clock_readings(tree: ast.AST, module: str, known: set[str]) -> list[str]:
    """Time is read and slept in clock.py alone, except where OWN_TIME says why."""
    if module == "workers.clock":
        return []
    breaches = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            read = ".".join(dotted(node).split(".")[-2:])
            if read in TIMES and f"{module} {read}" not in OWN_TIME:
                breaches.append(f"{module}:{node.lineno} reads {read}")
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            breaches.append(f"{module}:{node.lineno} takes {', '.join(a.name for a in node.names)} out of time")
    return breaches


Rule = Callable[[ast.AST, str, set[str]], list[str]]

#: Each rule, and breaches of it: the module, and its source.
RULES: dict[Rule, list[tuple[str, str]]] = {
    upward_imports: [
        ("workers.records.runs", "from workers.reports import run_stats"),
        ("workers.limiter.rate_limiter", "def late():\n    from workers.records.runs import get"),
        ("workers.records.tables", "from workers import Connector"),
        ("workers.records.tables", "from ..control import runner"),
        ("workers.reports.run_stats", "from ..monitor.html.bar import bar"),
        ("workers.monitor.html.bar", "from workers.monitor.sections import run_card"),
        ("workers.settings", "from workers.connections import database"),
        ("workers.reports.run_stats", "import importlib\nimportlib.import_module('workers.control.runner')"),
    ],
    host_imports: [
        ("workers.records.runs", "from models import Item"),
        ("workers.cli", "import mock_server.limits"),
        ("workers.sources.registry", "from importlib import import_module\nimport_module('sources')"),
    ],
    environment_readings: [
        ("workers.cli", "import os\nos.environ['SLUICE_REDIS_URL']"),
        ("workers.cli", "import os\nos.getenv('HOME')"),
        ("workers.testing.fake_api", "import os\nos.getenv('HOME')"),
        ("workers.cli", "from os import environ"),
        ("workers.cli", "import os\nos.environ.setdefault('dramatiq_queue_prefetch', '8')"),
        ("workers.processes.worker", "import os\nx = os.environ.setdefault('dramatiq_queue_prefetch', '8')"),
        ("workers.processes.worker", "import os\nos.environ.setdefault('HOME', '8')"),
    ],
    tracking_writes: [
        ("workers.reports.run_stats", "Run.update({Run.status: 'failed'}).execute()"),
        ("workers.engine.detail", "tables.RunItem.insert_many([]).on_conflict().execute()"),
        ("workers.control.runner", "Run(source='items').save()"),
        ("workers.control.runner", "run = get(1)\nrun.save()"),
        ("workers.cli", "RunEvent.delete().execute()"),
        ("workers.connections.database", "db.execute_sql('UPDATE sluice_runs SET status = 1')"),
        ("workers.reports.run_stats", "from workers.records.tables import Run as Row"),
    ],
    clock_readings: [
        ("workers.records.runs", "import time\ntime.sleep(1)"),
        ("workers.records.runs", "import datetime\ndatetime.datetime.now()"),
        ("workers.engine.detail", "import time\nstarted = time.monotonic"),
        ("workers.processes.worker", "import time\ntime.time()"),
        ("workers.reports.run_stats", "from time import monotonic"),
    ],
}


# --- the tests --------------------------------------------------------------------------------------------------------


def test_every_module_is_in_a_room() -> None:
    assert [name for name in package("workers") if not room_of(name)] == [], "put these into a room of ROOMS"


def test_the_top_of_the_package_is_its_rooms_and_a_few_files() -> None:
    files = sorted(path.stem for path in (ROOT / "workers").glob("*.py"))

    few = ["clock", "cron", "deprecation", "errors", "extras", "failures", "log", "settings", "version"]
    assert files == ["__init__", "__main__", *few]


def test_a_room_says_in_one_sentence_what_lives_in_it() -> None:
    # Given
    folders = {path.parent for path in (ROOT / "workers").rglob("*.py")} - {ROOT / "workers"}
    rooms = [path for path in folders if path.name not in ("migrations", "entry")]

    # Then: a sentence and no code, but for what is imported from outside the package
    trees = {path: ast.parse((path / "__init__.py").read_text()) for path in rooms}
    assert {path.name for path, tree in trees.items() if len(tree.body) > 1} <= {"cli", "testing"}
    assert all(ast.get_docstring(tree) for tree in trees.values())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    modules = package("workers")

    breaches = [breach for name, tree in modules.items() for breach in rule(tree, name, set(modules))]

    assert not breaches, f"{len(breaches)} {rule.__name__}: docs/architecture.md says why they may not be"


@pytest.mark.parametrize(
    ("rule", "module", "source"),
    [(rule, *breach) for rule, breaches in RULES.items() for breach in breaches],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_rule_sees_a_breach(rule: Rule, module: str, source: str) -> None:
    assert rule(ast.parse(source), module, set(package("workers")))


def test_no_import_of_a_layer_goes_in_a_circle() -> None:
    # Given
    modules = package("workers")
    graph = {name: {i for i in imports(tree, name, set(modules)) if i in modules} for name, tree in modules.items()}

    # Then: within a layer as in the whole package
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c", "d"}, "c": set(), "d": {"a"}}) == ["a", "b", "d", "a"]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle of imports, or nothing."""
    safe: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in safe:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*path, name]):
                return found
        safe.add(name)
        return []

    return next(filter(None, (walk(name, []) for name in sorted(graph))), [])


def test_every_exception_for_a_clock_of_one_s_own_is_used() -> None:
    # Given
    used = {
        f"{name} {'.'.join(dotted(node).split('.')[-2:])}"
        for name, tree in package("workers").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }

    # Then
    assert sorted(OWN_TIME.keys() - used) == []


def test_the_mock_api_knows_nothing_of_ours() -> None:
    # Given: a limiter bug must not hide behind its twin
    modules = package("mock_server")
    ours = (HOST - {"mock_server"}) | {"workers"}

    # Then
    met = {name: set(imports(tree, name, set(modules))) for name, tree in modules.items()}
    assert {name: i for name, found in met.items() if (i := {f for f in found if f.split(".")[0] in ours})} == {}
    assert any("mock_server" in name for found in met.values() for name in found)
