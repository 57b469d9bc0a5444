"""Paths that stand in texts exist: those of `tests.each_server`, of the Makefile, and in strings of tests and tools."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import each_server

ROOT = Path(__file__).resolve().parents[2]
IN_TEXT = re.compile(r"(?<![\w./-])((?:tests|workers|scripts|benchmarks|mock_server)/[\w/.-]+\.(?:py|lua|md|css|js))")
MODULE = re.compile(r"^(?:from|import) ((?:workers|tests|benchmarks|mock_server)(?:\.\w+)*)", re.MULTILINE)


def texts(path: Path) -> Iterator[str]:
    """Yield the strings and docstrings of a module, and its comments."""
    source = path.read_text()
    yield from re.findall(r"#.*", source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def modules() -> list[Path]:
    """Return every module of the tests and the tools, but this one."""
    folders = ("tests", "benchmarks", "scripts", "mock_server", "workers")
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [path for path in found if path != Path(__file__).resolve()]


@pytest.mark.parametrize("name", f"{each_server.ON_REDIS} {each_server.ON_POSTGRES}".split())
def test_the_tests_that_run_on_each_server_exist(name: str) -> None:
    assert (ROOT / "tests" / name).exists()


def test_every_path_in_the_makefile_exists() -> None:
    named = IN_TEXT.findall((ROOT / "Makefile").read_text())

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_path_in_a_string_or_a_comment_exists() -> None:
    named = [
        (str(path.relative_to(ROOT)), name) for path in modules() for t in texts(path) for name in IN_TEXT.findall(t)
    ]

    assert [(path, name) for path, name in named if not (ROOT / name).exists()] == []


def test_every_module_that_a_string_imports_exists() -> None:
    # Given programs in strings, which tests start as processes
    named = [
        (str(path.relative_to(ROOT)), name)
        for path in modules()
        if path.is_relative_to(ROOT / "tests")
        for text in texts(path)
        if "\n" in text
        for name in MODULE.findall(text)
    ]

    # Then
    missing = [
        (path, name)
        for path, name in named
        if not any((ROOT / name.replace(".", "/")).with_suffix(end).exists() for end in ("", ".py"))
    ]
    assert named and missing == []
