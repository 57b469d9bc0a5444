"""Random models and batches: written together by the package, they are what the driver makes of each row by itself."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.helpers.field_kinds import KINDS, prepare
from tests.helpers.field_pairs import differences, examine, judge, make_pair, package_list, shrink
from tests.helpers.field_rows import Row
from workers.connections import database


@pytest.fixture
def connected(environment: pytest.MonkeyPatch, database_url: str) -> Iterator[None]:
    """A database of each kind, with the types and tables that the columns stand on."""
    database.connect(database_url)
    with database.connection():
        prepare()
        yield


def test_40_random_batches_are_written_as_the_driver_writes_each_row(connected: None) -> None:
    pairs, _, reports = examine(f"test:{n}" for n in range(40))

    assert pairs == 40
    assert reports == []


def test_a_writer_that_loses_nulls_is_found_and_the_smallest_case_is_one_null(connected: None) -> None:
    # Given a writer that leaves out what is NULL
    def careless(model: Any, rows: Sequence[Row]) -> set[str]:
        given = [{name: value for name, value in row.given.items() if value is not None} for row in rows]
        return package_list(model, [Row(row.external_id, some) for row, some in zip(rows, given, strict=True)])

    def found(pair: Any) -> list[str]:
        return [] if pair.detail else differences(pair, by_list=careless)

    # When it writes random batches
    known = judge(kind for kind in KINDS.values() if kind.name in ("integer", "text", "date"))
    pair = next(pair for pair in (make_pair(f"test:{n}", known) for n in range(40)) if found(pair))
    smallest = shrink(pair, found)

    # Then
    assert len(smallest.columns) == len(smallest.batch) == 1
    assert [set(row.given.values()) for row in smallest.batch] == [{None}]
