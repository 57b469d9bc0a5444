"""The public names: frozen, and to import them touches nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import workers

ROOT = Path(__file__).resolve().parents[2]

#: What users' code may rest on. To add a name here is a promise; to take one away needs a new major version.
PUBLIC = [
    "AuthError",
    "Budget",
    "ConfigurationError",
    "Connector",
    "DependencyDown",
    "HasImportStatus",
    "ImportSource",
    "Importable",
    "InvalidTransition",
    "Limit",
    "LongWait",
    "PermanentError",
    "RateLimited",
    "RateLimiter",
    "RetryableError",
    "Run",
    "RunItem",
    "Skip",
    "SluiceError",
    "UnknownRun",
    "UnknownSource",
    "UsageError",
    "db",
    "path",
]

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
        "import workers\nfrom workers.connections import database\ndatabase.connect()\nwith database.connection(): pass",
        tmp_path,
    )

    # Then
    assert any(event.startswith("sqlite3.connect") for event in told["seen"])
    assert told["bound"]
    assert (tmp_path / "data").exists()
