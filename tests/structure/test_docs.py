"""Compares the docs with the code: examples run, commands and links exist, the drawing matches the imports."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import click
import pytest
import requests

from mock_server import RunningServer
from tests.structure.test_layers import ROOMS, imports, package
from workers.cli.command_line import Later, cli
from workers.connections import database
from workers.failures import FailureClass
from workers.records.tables import ItemStatus, RunStatus, Table

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MONITOR = ROOT / "docs" / "monitor" / "README.md"
WITH_EXAMPLES = [README, ROOT / "docs" / "write-a-source.md"]

PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m workers ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")
OPTION = re.compile(r"(--[a-z-]+)")
LINE = re.compile(r"python -m workers [^`\n#&]*")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:workers|scripts|docs|tests|mock_server)/[\w./-]+)`")
ADDRESS = "http://127.0.0.1:8001"


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


@lru_cache
def commands() -> dict[str, click.Command]:
    """Return every command by the words that call it; a group's inner commands after the group's name."""
    loaded: dict[str, click.Command] = {}
    for name, later in cli.commands.items():
        assert isinstance(later, Later)
        loaded[name] = command = later.load()
        inner = command.commands if isinstance(command, click.Group) else {}
        loaded |= {f"{name} {word}": inner_command for word, inner_command in inner.items()}
    return loaded


def called(text: str) -> set[str]:
    """Return the commands that a text calls: by two words where the first one is a group's."""
    groups = {name for name, command in commands().items() if isinstance(command, click.Group)}
    return {f"{name} {inner}" if name in groups and inner else name for name, inner in COMMAND.findall(text)}


def readme_source() -> str:
    return next(block for block in PYTHON.findall(README.read_text()) if block.startswith("# sources.py"))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as the forges make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- the examples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=title)
def test_every_python_block_compiles(page: Path) -> None:
    blocks = PYTHON.findall(page.read_text())

    assert blocks, f"{title(page)} has no example"
    for number, block in enumerate(blocks, start=1):
        compile(block, f"{title(page)}, block {number}", "exec")


def run_workers(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workers", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_readme_s_source_imports_from_a_folder_of_its_own(
    house: pytest.MonkeyPatch, mock_api: Callable[..., RunningServer], tmp_path: Path
) -> None:
    # Given the example, saved as a user would, beside an API with twelve items
    api = mock_api(items=12)
    source = readme_source()
    assert ADDRESS in source
    (tmp_path / "sources.py").write_text(source.replace(ADDRESS, api.url))

    # When the two commands below it are run
    migrated = run_workers(tmp_path, "migrate", "--create-models")
    imported = run_workers(tmp_path, "run", "products", "--inline")

    # Then each item is there, with the field that only its detail has
    assert migrated.returncode == 0, migrated.stderr
    assert imported.returncode == 0, imported.stderr
    assert "100 %, 12 of 12" in imported.stderr
    priced = database.db.execute_sql("SELECT count(*) FROM product WHERE price IS NOT NULL").fetchone()
    assert priced == (12,)
    # And it was requested once
    requested = requests.get(f"{api.url}/stats", timeout=5).json()["items"]
    assert requested == {str(number): 1 for number in range(1, 13)}


def test_the_readme_s_source_is_as_short_as_it_says() -> None:
    lines = [line for line in readme_source().splitlines() if line.strip() and not line.startswith("#")]

    assert len(lines) <= 26


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_command_that_is_mentioned_exists(page: Path) -> None:
    assert called(page.read_text()) <= set(commands())


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_option_that_is_shown_exists(page: Path) -> None:
    lines = LINE.findall(page.read_text())

    shown = {(name, option) for line in lines for name in called(line) for option in OPTION.findall(line)}

    known = {(name, option) for name, command in commands().items() for p in command.params for option in p.opts}
    assert shown <= known


def test_every_command_is_mentioned() -> None:
    mentioned = {name for page in PAGES for name in called(page.read_text())}

    assert {name for name, command in commands().items() if not command.hidden} <= mentioned


def test_each_command_is_explained_with_its_options_and_no_others() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    sections = dict(section.split("\n", 1) for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:])

    options = {name: set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) for name, section in sections.items()}

    visible = {name: command for name, command in commands().items() if not command.hidden}
    assert options == {n: {o for p in c.params for o in p.opts if o.startswith("--")} for n, c in visible.items()}


# --- the links and names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=title)
def test_every_link_and_image_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{title(page)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{title(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_file_that_is_named_exists(page: Path) -> None:
    missing = [name for name in PATH.findall(page.read_text()) if not (ROOT / name).exists()]

    assert missing == []


# --- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [*PAGES, MONITOR], ids=title)
def test_a_page_wraps_at_120_columns(page: Path) -> None:
    """All but tables, code and images, which cannot be broken."""
    lines = FENCED.sub("", page.read_text()).splitlines()

    assert [line for line in lines if len(line) > 120 and not line.startswith("|") and "![" not in line] == []


def test_the_architecture_fits_on_two_pages() -> None:
    assert len(ARCHITECTURE.read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", [*PAGES, MONITOR], ids=title)
def test_a_warning_has_one_form(page: Path) -> None:
    marked = re.findall(r"^.*\b[Ww]arning:.*$", FENCED.sub("", page.read_text()), re.MULTILINE)

    assert [line for line in marked if not re.match(r"\s*(- )?\*Warning:\* ", line)] == []


# --- the rooms --------------------------------------------------------------------------------------------------------


def folders() -> set[str]:
    """Return the rooms as folders of `workers/`, those of `monitor/` one by one."""
    found = {path.parent.relative_to(ROOT / "workers").as_posix() for path in (ROOT / "workers").glob("*/*.py")}
    inner = {path.parent.relative_to(ROOT / "workers").as_posix() for path in (ROOT / "workers").glob("monitor/*/*.py")}
    return (found - {"monitor"}) | inner


def drawing() -> dict[str, set[str]]:
    """Return the arrows of the drawing in architecture.md: a room, and the rooms right below it."""
    [text] = re.findall(r"^```mermaid\n(.*?)^```", ARCHITECTURE.read_text(), re.MULTILINE | re.DOTALL)
    names = dict(re.findall(r'(\w+)\["([^"]+)"\]', text))
    arrows: dict[str, set[str]] = {}
    for line in text.splitlines()[1:]:
        chain = [re.sub(r"\[.*", "", part).strip() for part in line.split("-->")]
        rooms = [names.get(part, part) for part in chain]
        for upper, lower in pairwise(rooms):
            arrows.setdefault(upper, set()).add(lower)
            arrows.setdefault(lower, set())
    return arrows


def below(room: str, arrows: dict[str, set[str]]) -> set[str]:
    """Return the rooms that can be reached from one along the arrows."""
    return {room}.union(*(below(lower, arrows) for lower in arrows[room]))


def test_the_architecture_names_every_room_with_its_own_sentence() -> None:
    rows = dict(re.findall(r"^\| `([\w/]+)/` \| (.+?) \|$", ARCHITECTURE.read_text(), re.MULTILINE))

    assert set(rows) == folders()
    for room, sentence in rows.items():
        own = ROOT / "workers" / room / "__init__.py"
        if own.exists():  # Streamlit puts monitor/entry on the import path: it is no package
            assert sentence == (ast.get_docstring(ast.parse(own.read_text())) or "").splitlines()[0], room


def test_the_drawing_has_every_room_and_points_down() -> None:
    arrows = drawing()

    assert set(arrows) == folders()
    order = {room: ROOMS.index(room) if room in ROOMS else ROOMS.index("ground") for room in arrows}
    upward = [f"{upper} --> {lower}" for upper in arrows for lower in arrows[upper] if order[lower] >= order[upper]]
    assert upward == []


def test_every_import_of_another_room_follows_the_arrows() -> None:
    # Given
    modules, arrows = package("workers"), drawing()

    def folder_of(module: str) -> str:
        path = "/".join(module.split(".")[1:])
        return next((room for room in arrows if path == room or path.startswith(f"{room}/")), "")

    # When
    crossing = {
        (folder_of(name), folder_of(other))
        for name, tree in modules.items()
        for other in imports(tree, name, set(modules))
        if other in modules
    }

    # Then
    missing = [f"{a} imports {b}" for a, b in crossing if a and b and b not in below(a, arrows)]
    assert sorted(missing) == [], "add these arrows to the drawing"


def test_every_function_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`(\w+)\.(\w+)(?:\([\w, ]*\))?`", ARCHITECTURE.read_text())
    defined = {
        (name.rpartition(".")[2], node.name)
        for name, tree in package("workers").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    methods = {
        (outer.name, inner.name)
        for tree in package("workers").values()
        for outer in ast.walk(tree)
        if isinstance(outer, ast.ClassDef)
        for inner in outer.body
        if isinstance(inner, ast.FunctionDef)
    }

    assert len(named) > 20
    assert {n for n in named if n[1] not in ("lua", "py")} - defined - methods == set()


def test_every_table_is_explained() -> None:
    tables = {model._meta.table_name for model in Table.__subclasses__()} | {"sluice_migrations"}

    assert set(re.findall(r"^\| `(sluice_\w+)` \|", (ROOT / "docs" / "tables.md").read_text(), re.MULTILINE)) == tables


# --- the glossary -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*RunStatus, *ItemStatus], ids=str)
def test_every_status_is_explained(status: str) -> None:
    assert f"| `{status}` | " in (ROOT / "docs" / "glossary.md").read_text()


@pytest.mark.parametrize("failure_class", FailureClass, ids=str)
def test_every_failure_class_is_named_with_its_action(failure_class: str) -> None:
    assert f"`{failure_class}`" in (ROOT / "docs" / "glossary.md").read_text()
    assert f"`{failure_class}`" in (ROOT / "docs" / "write-a-source.md").read_text()


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    ahead = [README]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        links = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(page.read_text())}
        ahead += [found for found in links if found.suffix == ".md" and found.exists() and found not in seen]

    assert {title(page) for page in DOCS} <= {title(page) for page in seen if page.is_relative_to(ROOT)}
