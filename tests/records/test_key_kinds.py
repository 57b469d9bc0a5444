"""Every kind of column as the key by which rows are found again: a second import finds the rows of the first."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import peewee
import pytest
from playhouse.sqlite_ext import AutoIncrementField

from tests.helpers.field_kinds import PEEWEE, RAW, Kind, here, prepare
from tests.helpers.field_rows import plain
from workers import ConfigurationError, db
from workers.connections import database
from workers.records import changed_fields, upserts
from workers.records.upserts import Change
from workers.sources import model_keys

#: Postgres has no order of these, or has GIN indexes for them: there is no unique index.
NO_UNIQUE_INDEX = {
    *(
        "array_of_integers",
        "array_of_texts",
        "array_of_arrays",
        "array_of_decimals",
        "binary_json",
        "hstore",
        "tsvector",
    ),
    *("postgres_json", "plain_json", "xml", "point"),
}
#: The text of these says exactly which row is meant; an item keeps its row's primary key as text.
EXACT = {
    *("integer", "big_integer", "small_integer", "ip", "char", "fixed_char", "text", "uuid", "binary_uuid"),
    "foreign_key",
}
AUTOMATIC = (peewee.AutoField, peewee.BigAutoField, peewee.IdentityField, AutoIncrementField)


@pytest.fixture
def connected(environment: pytest.MonkeyPatch, database_url: str) -> Iterator[None]:
    database.connect(database_url)
    with database.connection():
        prepare()
        yield


def keyed(name: str, key: peewee.Field) -> Any:
    """Return a model whose rows are known by a column."""
    meta = type("Meta", (), {"database": db, "table_name": f"by_{name}"})
    return type(f"By{name}", (peewee.Model,), {"Meta": meta, "key": key, "note": peewee.TextField(null=True)})


def values_of(kind: Kind, model: Any) -> list[Any]:
    """Return the values of a kind that are in a table by the driver, one by one: the first of those that are alike."""
    kept = []
    for case, value in plain(kind.values).items():
        with suppress(Exception), db.atomic():
            assert (kind.name, case) != ("varchar", "spaces"), (
                "Postgres cuts them off: the key that is stored is another"
            )
            assert case not in kind.barred
            model(key=value).save(force_insert=True)
            kept.append(value)
    model.delete().execute()
    return kept


def imported_twice(model: Any, values: list[Any]) -> list[Any]:
    """Import rows, and again with another note; return the notes that are stored, and what was done to each row."""
    changed_fields.prepare(model)
    found: list[Any] = []
    for note in ("old", "new"):
        with db.atomic():
            stored = upserts.upsert(model, [model(key=value, note=note) for value in values], "key")
            found.append({each.change for each in stored})
    return [*found, [note for (note,) in model.select(model.note).tuples()]]


def test_rows_are_found_again_by_a_unique_column_of_any_kind(connected: None) -> None:
    found, expected = {}, {}
    for kind in here():
        if kind.name not in NO_UNIQUE_INDEX:
            model = keyed(kind.name, kind.make(unique=True))
            model.create_table()
            values = values_of(kind, model)
            expected[kind.name] = [{Change.CREATED}, {Change.UPDATED}, ["new"] * len(values)] if values else []
            found[kind.name] = imported_twice(model, values) if values else []

    assert found == expected
    assert len([name for name, notes in expected.items() if notes]) >= 30


def test_a_primary_key_of_any_kind_is_worked_with_or_refused_at_registration(connected: None) -> None:
    worked = {}
    for kind in here():
        if kind.name not in {each.name for each in (*PEEWEE, *RAW)}:
            continue
        model = keyed(kind.name, kind.make(primary_key=True))
        if kind.name not in EXACT:
            with pytest.raises(ConfigurationError, match="id = AutoField"):
                model_keys.check("S", model, "key")
            continue
        model_keys.check("S", model, "key")
        model.create_table()
        values = values_of(kind, model)
        worked[kind.name] = imported_twice(model, values) == [
            {Change.CREATED},
            {Change.UPDATED},
            ["new"] * len(values),
        ]

    assert worked == dict.fromkeys(EXACT, True)


@pytest.mark.parametrize("field", AUTOMATIC, ids=lambda field: field.__name__)
def test_an_automatic_key_that_the_list_gives_is_kept(connected: None, field: type[peewee.Field]) -> None:
    if field is (peewee.IdentityField if database.is_sqlite() else AutoIncrementField):
        pytest.skip("the other database's")
    model = keyed(field.__name__, field())
    model.create_table()

    assert imported_twice(model, [7, 3]) == [{Change.CREATED}, {Change.UPDATED}, ["new", "new"]]
    assert {key for (key,) in model.select(model.key).tuples()} == {3, 7}
