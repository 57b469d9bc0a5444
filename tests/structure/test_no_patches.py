"""Tests change no module, class or object of Sluice: they bring about the real state. Each exception says why."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTERS = {"setattr", "delattr", "setitem", "delitem", "object", "dict", "multiple"}

#: The files that patch, and why there is no other way.
EXCEPTIONS = {
    "tests/limiter/test_lost_state.py": "mutation tests: each defence is taken out, and a test must fail",
    "tests/control/test_steering.py": "dramatiq's stub broker has no way to refuse a message",
}


def sluice_names(tree: ast.AST) -> set[str]:
    """Return the names that a module has from `workers`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "workers":
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.split(".")[0] == "workers"}
    return found


def root_of(node: ast.expr) -> str:
    """Return the name that an expression begins with: `broker` of `broker.get_broker().queues["x"]`."""
    while not isinstance(node, ast.Name):
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id


def patches(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each call that sets an attribute of something of Sluice, or names a module of it to `patch`."""
    names = sluice_names(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        target = node.args[0]
        if isinstance(target, ast.Constant):
            if called in {*SETTERS, "patch"} and str(target.value).startswith("workers."):
                yield node.lineno
        elif called in SETTERS and root_of(target) in names:
            yield node.lineno


def test_nothing_of_sluice_is_patched() -> None:
    # When every test file is searched
    files = {path: list(patches(ast.parse(path.read_text()))) for path in sorted((ROOT / "tests").rglob("*.py"))}
    found = {str(path.relative_to(ROOT)): lines for path, lines in files.items() if lines}

    # Then
    assert {name: lines for name, lines in found.items() if name not in EXCEPTIONS} == {}
    assert EXCEPTIONS.keys() - found.keys() == set(), "these patch nothing any more: remove them from EXCEPTIONS"


@pytest.mark.parametrize(
    "source",
    [
        "from workers.limiter import ledger\nmonkeypatch.setattr(ledger, '_SCRIPT', '')",
        "from workers import clock as c\nsetattr(c, 'now', None)",
        "from workers.messaging import broker\nmonkeypatch.setattr(broker.get_broker(), 'enqueue', None)",
        "from workers.monitor.html import panel\nmock.patch.object(panel, '_panel', None)",
        "import workers.settings\nmonkeypatch.setattr(workers.settings, 'get_settings', None)",
        "monkeypatch.setattr('workers.settings.get_settings', None)",
        "with patch('workers.clock.now'):\n    pass",
    ],
)
def test_the_rule_sees_a_patch(source: str) -> None:
    assert list(patches(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "monkeypatch.setenv('SLUICE_LANES', '2')",
        "import sys\nmonkeypatch.setattr(sys, 'argv', [])",
        "setattr(row, 'a', 1)",
    ],
)
def test_the_rule_lets_other_things_be(source: str) -> None:
    assert not list(patches(ast.parse(source)))
