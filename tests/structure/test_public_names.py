"""The public names are frozen, every type in their signatures is one of them, and importing them touches nothing."""

import inspect
import json
import os
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import workers

ROOT = Path(__file__).resolve().parents[2]

#: What users' code may rest on. To add a name here is a promise; to take one away needs a new major version.
PUBLIC = [
    "AuthError",
    "Budget",
    "BudgetState",
    "CatchUp",
    "ConfigurationError",
    "Connector",
    "DependencyDown",
    "FailureClass",
    "HasImportStatus",
    "ImportSource",
    "Importable",
    "InvalidTransition",
    "ItemStatus",
    "Lesson",
    "Limit",
    "LongWait",
    "Note",
    "PermanentError",
    "Permit",
    "PermitClient",
    "Quota",
    "RateLimited",
    "RateLimiter",
    "RetryableError",
    "Run",
    "RunItem",
    "RunStats",
    "RunStatus",
    "Skip",
    "SluiceError",
    "SourceRun",
    "UnknownRun",
    "UnknownSource",
    "Usage",
    "UsageError",
    "Watermark",
    "WindowState",
    "adjust",
    "cancel",
    "db",
    "force",
    "path",
    "pause",
    "reschedule",
    "resume",
    "retry",
    "run_stats",
    "start_run",
]

#: Classes that a public signature mentions and that no user needs to name, and why.
INTERNAL = {
    "workers.limiter.redis_ledger.Ledger": "a PermitClient has one, and is made by RateLimiter.permit_client",
    "workers.limiter.permits.Subject": "the engine sets it on its PermitClient",
}

#: Python itself tells of everything that reaches outside the process, whoever asks for it.
WATCH = """
import json, sys

outside = ("socket.", "sqlite3.connect", "subprocess.", "os.mkdir", "os.fork", "os.posix_spawn", "os.rename")
seen = []

def watch(event, arguments):
    if event == "socket.bind" and arguments[1] == ("::1", 0):
        pass  # urllib3, once: has this machine IPv6?
    elif event.startswith(outside) and event != "socket.__new__":
        seen.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append(f"open {arguments}")

sys.addaudithook(watch)
"""
TELL = "\nprint(json.dumps({'seen': seen, 'modules': sorted(sys.modules), 'bound': workers.db.obj is not None}))"


def watched(statement: str, folder: Path, **variables: str) -> dict[str, list[str]]:
    """Run a statement in a process of its own, in an empty folder, and return what it did to the world."""
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", WATCH + statement + TELL],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_the_public_names_are_these() -> None:
    assert workers.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    found = getattr(workers, name)

    assert name == "db" or found.__doc__


def test_a_star_brings_the_public_names_and_no_other() -> None:
    names: dict[str, object] = {}

    exec("from workers import *", names)

    assert sorted(names.keys() - {"__builtins__"}) == sorted(PUBLIC)


# --- the types of public signatures


def signatures(name: str) -> Iterator[tuple[str, object]]:
    """What of a public name has annotations: a function; or a class, its public methods, properties and constructor."""
    found = getattr(workers, name)
    if not inspect.isclass(found):
        yield from [(name, found)] if callable(found) else []
        return
    yield name, found
    for member, attribute in inspect.getmembers(found):
        value = attribute.fget if isinstance(attribute, property) else attribute
        if (not member.startswith("_") or member == "__init__") and inspect.isroutine(value):
            yield f"{name}.{member}", value


def classes_in(annotation: object) -> Iterator[type]:
    """Every class that an annotation is made of: of `Mapping[str, Run | None]` Mapping, str, Run and NoneType."""
    if inspect.isclass(annotation):
        yield annotation
    for part in [typing.get_origin(annotation), *typing.get_args(annotation)]:
        if part is not None:
            yield from classes_in(part)


def of_ours(annotation: object) -> set[str]:
    return {f"{c.__module__}.{c.__qualname__}" for c in classes_in(annotation) if c.__module__.startswith("workers")}


def public_classes() -> set[str]:
    return set().union(*(of_ours(getattr(workers, name)) for name in PUBLIC))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_type_of_a_public_signature_is_public(name: str) -> None:
    # Given
    mentioned = {
        f"{where}({parameter}): {found}"
        for where, value in signatures(name)
        for parameter, annotation in typing.get_type_hints(value).items()
        for found in of_ours(annotation) - INTERNAL.keys()
    }

    # Then
    known = public_classes()
    assert sorted(line for line in mentioned if line.split(": ")[1] not in known) == []


def test_every_exception_for_an_internal_class_is_used() -> None:
    mentioned = {
        found
        for name in PUBLIC
        for _, value in signatures(name)
        for annotation in typing.get_type_hints(value).values()
        for found in of_ours(annotation)
    }

    assert INTERNAL.keys() <= mentioned


def test_a_public_function_names_each_parameter_in_its_docstring() -> None:
    # Given: those that start, steer and read runs
    functions = [getattr(workers, name) for name in PUBLIC if inspect.isfunction(getattr(workers, name))]

    # Then: or it says that they are those of another function
    assert len(functions) >= 10
    for function in functions:
        text = inspect.getdoc(function) or ""
        missing = [name for name in inspect.signature(function).parameters if f"{name}(" not in text]
        assert not missing or "Parameters and errors are those of" in text, (function.__name__, missing)


# --- importing


def test_the_version_is_the_package_s() -> None:
    assert workers.__version__ == workers.VERSION
    assert all(part.isdecimal() for part in workers.__version__.split(".")[:2])


def test_importing_the_package_touches_no_broker_database_or_network(tmp_path: Path) -> None:
    # Given: settings that would lead to an error, had anything read them
    wrong = {
        "SLUICE_DATABASE_URL": "nonsense://nowhere",
        "SLUICE_REDIS_URL": "nonsense://nowhere",
        "SLUICE_WORKER_THREADS": "none",
        "SLUICE_SOURCES": "no such module",
    }

    # When
    told = watched("import workers", tmp_path, **wrong, SLUICE_DATA_DIR=str(tmp_path / "data"))

    # Then
    assert told["seen"] == []
    assert not told["bound"]
    assert not {"dramatiq", "streamlit", "pandas", "workers.messaging.broker"} & set(told["modules"])
    assert list(tmp_path.iterdir()) == []


def test_the_watch_would_see_it(tmp_path: Path) -> None:
    # When: the same process uses what it has imported
    told = watched(
        "import workers\nfrom workers.connections import database\nwith database.connection(): pass",
        tmp_path,
    )

    # Then
    assert any(event.startswith("sqlite3.connect") for event in told["seen"])
    assert told["bound"]
    assert (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "line",
    [
        "from workers.cli import main",
        "from workers.monitor import app; app.show",
        "from workers.settings import get_settings",
    ],
    ids=["an installed `sluice`", "a project's monitor_app.py", "the demo's sources.py"],
)
def test_what_an_installation_imports_by_itself_is_where_it_was(line: str) -> None:
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_an_installed_sluice_starts_main() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {"sluice": "workers.cli:main"}
