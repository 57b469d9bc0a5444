"""A batch of rows that a database refuses is saved row by row: the bad rows are refused, the others are saved."""

import sqlite3

import peewee
import pytest
from peewee import CharField, ForeignKeyField, Model, SqliteDatabase

from workers.records import row_batch
from workers.records.row_batch import Refusal


class Part(Model):
    name = CharField(unique=True)
    whole = ForeignKeyField("self", field="name", null=True)


@pytest.fixture
def place(tmp_path):
    place = SqliteDatabase(tmp_path / "parts.db", pragmas={"foreign_keys": 1})
    with place.bind_ctx([Part]), place.connection_context():
        place.create_tables([Part])
        yield place


@pytest.fixture
def batches():
    return []


@pytest.fixture
def write(batches):
    def write(rows):
        batches.append(len(rows))
        return [Part.create(name=name, whole=whole).id for name, whole in rows]

    return write


def stored():
    return sorted(part.name for part in Part.select())


def test_good_rows_are_saved_together(place, write, batches):
    results = row_batch.save_together(place, [("a", None), ("b", "a")], write)

    assert [saved for _, saved in results] == [1, 2]
    assert batches == [2]
    assert stored() == ["a", "b"]


@pytest.mark.parametrize("save", [row_batch.save_together, row_batch.save_each])
def test_a_bad_row_is_refused_alone_and_its_reason_is_given(place, write, save):
    results = dict(save(place, [("a", None), ("b", "missing"), ("c", "a")], write))

    assert stored() == ["a", "c"]
    assert [row for row, saved in results.items() if isinstance(saved, Refusal)] == [("b", "missing")]
    assert results["b", "missing"].reason == (
        "the row could not be saved: IntegrityError: FOREIGN KEY constraint failed"
    )


def test_inside_a_transaction_a_refused_row_leaves_the_others_in_it(place, write):
    with place.atomic():
        Part.create(name="before")
        row_batch.save_together(place, [("before", None), ("a", None)], write)

    assert stored() == ["a", "before"]


@pytest.mark.parametrize(("passes", "expected"), [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"])])
def test_a_row_that_refers_to_a_later_one_is_saved_in_a_later_pass(place, write, passes, expected):
    results = row_batch.save_together(place, [("c", "b"), ("b", "a"), ("a", None)], write, passes=passes)

    assert stored() == expected
    assert sorted(name for (name, _), saved in results if not isinstance(saved, Refusal)) == expected
    assert len(results) == 3


def test_passes_end_when_none_of_them_saves_a_row(place, write, batches):
    row_batch.save_together(place, [("a", "missing"), ("b", "missing")], write, passes=10)

    assert batches == [2, 1, 1]


def test_no_row_is_blamed_for_a_database_that_is_away(place):
    def write(rows):
        raise peewee.OperationalError("unable to open database file") from sqlite3.OperationalError()

    with pytest.raises(peewee.OperationalError):
        row_batch.save_together(place, [("a", None)], write)
