"""docs/fields.md names each difference between the databases, and no other; and every kind of column that is tried."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest

from tests.helpers.field_kinds import BOTH, KINDS, Kind, Literal, prepare
from tests.helpers.field_rows import Row, insert_alone, is_readable, make
from tests.helpers.machine import ROOT
from workers.connections import database

REFUSED = "refused"
Table = dict[tuple[str, str], tuple[str, str]]


@contextmanager
def connected(url: str) -> Iterator[None]:
    database.connect(url)
    with database.connection():
        prepare()
        yield
    database.disconnect()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"{postgres_server}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def kept(kind: Kind) -> dict[str, Any]:
    """Return what a reader finds, by case, where each value is written by itself."""
    _, twin = make(f"one_{kind.name}", {kind.name: lambda: kind.make(null=True)})
    rows = [Row(case, {kind.name: value}) for case, value in kind.cases.items()]
    taken = [row for row in rows if insert_alone(twin, row) is None and is_readable(twin, row)]
    found = {row.external_id: twin.get(twin.external_id == row.external_id).__data__[kind.name] for row in taken}
    return {row.external_id: found.get(row.external_id, Literal(REFUSED)) for row in rows}


def title(kind: Kind) -> str:
    """Return a kind as a model's author writes it."""
    field = kind.make(null=True)
    points_elsewhere = isinstance(field, peewee.ForeignKeyField)  # its type is that of what it points at
    modifiers = ", ".join(map(str, () if points_elsewhere else field.get_modifiers() or ()))
    name = type(field).__name__
    return field.field_type if name == "RawField" else f"{name}({modifiers})" if modifiers else name


def observed(environment: pytest.MonkeyPatch, urls: list[str]) -> Table:
    portable = [kind for kind in KINDS.values() if kind.on == BOTH]
    found = []
    for url in urls:
        with connected(url):
            found.append({(kind.name, case): value for kind in portable for case, value in kept(kind).items()})
    differing = [key for key in found[0] if found[0][key] != found[1][key]]
    return {
        (title(KINDS[name]), spelled(KINDS[name].cases[case])): (
            spelled(found[0][name, case]),
            spelled(found[1][name, case]),
        )
        for name, case in differing
    }


def spelled(value: Any) -> str:
    return str(value) if isinstance(value, Literal) else repr(value).replace("datetime.", "")


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without their backticks."""
    section = (ROOT / "docs" / "fields.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_table_names_each_difference_between_the_databases_and_no_other(
    environment: pytest.MonkeyPatch, tmp_path: Path, postgres_url: str
) -> None:
    written = {(field, given): (sqlite, postgres) for field, given, sqlite, postgres in rows_of("Where they differ")}

    assert written == observed(environment, [f"sqlite:///{tmp_path}/fields.db", postgres_url])


def test_each_kind_of_column_that_is_tried_is_named_with_its_databases() -> None:
    written = {(name, where.lower()) for names, where in rows_of("What is tested") for name in names.split("`, `")}

    assert written == {(title(kind).partition("(")[0], " and ".join(kind.on)) for kind in KINDS.values()}
