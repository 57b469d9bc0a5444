"""The docs, held to the code: examples run, commands exist, links lead somewhere, every word of state is explained."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import click
import pytest
import requests

from mock_server import RunningServer
from workers.cli.command_line import Later, cli
from workers.connections import database
from workers.failures import FailureClass
from workers.records.tables import ItemStatus, RunStatus

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
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
    """Every command by the words that call it; a group's own with its name before."""
    found: dict[str, click.Command] = {}
    for name, later in cli.commands.items():
        assert isinstance(later, Later)
        found[name] = later.load()
        own = found[name].commands if isinstance(found[name], click.Group) else {}
        found |= {f"{name} {inner}": command for inner, command in own.items()}
    return found


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

    # When the two commands below it are typed
    migrated = run_workers(tmp_path, "migrate", "--create-models")
    imported = run_workers(tmp_path, "run", "products", "--inline")

    # Then each item is there, with what only its detail knows
    assert migrated.returncode == 0, migrated.stderr
    assert imported.returncode == 0, imported.stderr
    assert "100 %, 12 of 12" in imported.stderr
    priced = database.db.execute_sql("SELECT count(*) FROM product WHERE price IS NOT NULL").fetchone()
    assert priced == (12,)
    # And it was asked for once
    asked = requests.get(f"{api.url}/stats", timeout=5).json()["items"]
    assert asked == {str(number): 1 for number in range(1, 13)}


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

    told = {name: set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE)) for name, section in sections.items()}

    visible = {name: command for name, command in commands().items() if not command.hidden}
    assert told == {n: {o for p in c.params for o in p.opts if o.startswith("--")} for n, c in visible.items()}


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


def test_every_module_has_a_place_in_the_architecture() -> None:
    named = set(PATH.findall((ROOT / "docs" / "architecture.md").read_text()))

    modules = {f"workers/{path.name}" for path in (ROOT / "workers").glob("*.py")}

    assert modules - named <= {"workers/__init__.py", "workers/__main__.py", "workers/version.py"}


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
