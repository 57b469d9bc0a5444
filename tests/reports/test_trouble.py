"""Trouble: a fault is a value with its meaning and repair, and no module reads it back from a sentence."""

import ast
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.helpers.machine import ROOT
from workers.connections.trouble import Cause, Trouble

#: The rooms that show sentences; the others read those of APIs, databases and Redis.
ROOMS = ("engine", "reports", "control", "scheduling", "processes", "doctor", "monitor", "cli")
SPLITS = ("split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix", "removesuffix")


def readings(source: str) -> list[str]:
    """Return the calls that take a sentence apart: by a separator or a beginning that holds a space."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SPLITS
        and any(
            isinstance(part, ast.Constant) and isinstance(part.value, str) and len(part.value) > 1 and " " in part.value
            for argument in node.args
            for part in ast.walk(argument)
        )
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_takes_a_sentence_apart(room: str) -> None:
    found = {path.name: readings(path.read_text()) for path in (ROOT / "workers" / room).rglob("*.py")}

    assert {name: calls for name, calls in found.items() if calls} == {}


def test_the_rule_sees_a_breach() -> None:
    assert readings("what, _, fix = str(error).rpartition(': ')") == ["str(error).rpartition(': ')"]
    assert readings("x.startswith(('no worker', 'a'))") == ["x.startswith(('no worker', 'a'))"]
    assert readings("url.partition(':')[0]; text.split(' ')") == []


def test_a_trouble_is_worded_with_its_time_meaning_and_repair() -> None:
    since = datetime(2027, 1, 31, 14, 3, 22, tzinfo=UTC)
    known = Trouble("no worker runs", "start one", meaning="2 runs are stalled.", since=since, cause=Cause.NO_WORKER)

    assert known.headline == "no worker runs (since 2027-01-31 14:03:22 UTC)"
    assert known.sentence == f"{known.headline}. 2 runs are stalled. To do: start one"
    assert Trouble("Redis does not answer", "start it").sentence == "Redis does not answer. To do: start it"


def test_only_one_class_describes_a_fault() -> None:
    made = [path for path in Path(ROOT / "workers").rglob("*.py") if "class Trouble" in path.read_text()]

    assert [path.name for path in made] == ["trouble.py"]
