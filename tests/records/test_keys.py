"""Keys: the database compares them, for it may do so otherwise than Python; a re-import writes only what differs."""

import datetime
import decimal
import itertools
import threading
import uuid
from functools import partial
from typing import Any

import peewee
import pytest
from peewee import (
    AutoField,
    BareField,
    BigIntegerField,
    BinaryUUIDField,
    BlobField,
    CharField,
    CompositeKey,
    DateTimeField,
    DecimalField,
    FixedCharField,
    FloatField,
    IntegerField,
    IPField,
    Model,
    TextField,
    TimestampField,
    UUIDField,
)

from tests.helpers import registered_sources
from tests.helpers.model_imports import Complete, Detailed, changes_of, imported, items_of, notes_of, register, serving
from workers import db
from workers.connections import database
from workers.connections.commit_retry import retry_commit
from workers.errors import ConfigurationError
from workers.records import changed_fields, schema, upserts
from workers.records.tables import ItemStatus, RunStatus


@pytest.fixture(autouse=True)
def sources(house: pytest.MonkeyPatch, moved_clock: Any) -> None:
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()


def keyed(field: Any, base: type[Any] = Complete, **fields: Any) -> Any:
    """Make a model whose key is this field."""
    body = {"external_id": field, "name": TextField(null=True)} | fields
    meta = type("Meta", (), {"database": db, "table_name": "keyed"})
    return type("Keyed", (base, Model), body | {"Meta": meta})


class Citext(TextField):
    field_type = "CITEXT"


def ignoring_case() -> Any:
    if database.is_sqlite():
        return CharField(unique=True, collation="NOCASE")
    db.execute_sql("CREATE EXTENSION IF NOT EXISTS citext")
    return Citext(unique=True)


UUID_TEXT = "5D3F0E0A-5C6B-4F0B-9B0E-0A0B0C0D0E0F"
KEYS = {
    "case is ignored": (ignoring_case, "Bob@x.io", "bob@x.io", "Bob@x.io"),
    "a UUID in upper case": (lambda: UUIDField(unique=True), UUID_TEXT.lower(), UUID_TEXT, UUID_TEXT.lower()),
    "a UUID without dashes": (
        lambda: UUIDField(unique=True),
        UUID_TEXT,
        UUID_TEXT.replace("-", ""),
        UUID_TEXT.lower(),
    ),
    "a number as text": (lambda: BigIntegerField(unique=True), 7, "7", "7"),
    "text as a number": (lambda: CharField(unique=True), "7", 7, "7"),
    "trailing blanks": (lambda: FixedCharField(unique=True, max_length=6), "ab", "ab  ", "ab"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_key_in_another_spelling_is_the_same_row(case: str) -> None:
    # Given a row whose key the API spells otherwise the next time
    make, first, second, stored = KEYS[case]
    model = keyed(make())
    with serving([[{"external_id": first, "name": "one"}]]) as api:
        register(model, api.url)
        before = imported()
        api.pages = [[{"external_id": second, "name": "two"}]]

        # When it is imported again
        after = imported()

    # Then it is one row, with what came last; and the item has the key as it is stored
    assert [row.name for row in model.select()] == ["two"]
    assert [changes_of(before), changes_of(after)] == [(1, 0, 0), (0, 1, 0)]
    assert items_of(after) == {stored: (ItemStatus.COMPLETED, "")}


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_two_spellings_on_one_page_are_one_row_and_the_later_counts(known: bool) -> None:
    model = keyed(ignoring_case(), note=TextField(null=True))
    spellings = [{"external_id": "Ann", "name": "early", "note": "n"}, {"external_id": "ANN", "name": "late"}]
    with serving([[{"external_id": "Ann", "name": "old"}]] if known else [spellings]) as api:
        register(model, api.url)
        run = imported()
        if known:
            api.pages = [spellings]
            run = imported()

    assert [row.name for row in model.select()] == ["late"]
    assert run.total_count == run.succeeded_count == 1
    assert sum(changes_of(run)) == 1


VALUES = {
    "a rounded decimal": (
        lambda: DecimalField(unique=True, max_digits=10, decimal_places=2),
        ["1.005", decimal.Decimal("1.005")],
    ),
    "a float": (lambda: FloatField(unique=True), [0.1, 0.1]),
    "an aware datetime": (
        lambda: DateTimeField(unique=True),
        [datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)] * 2,
    ),
    "bytes": (lambda: BlobField(unique=True), [b"\x00\xff", b"\x00\xff"]),
    "a UUID in bytes": (lambda: BinaryUUIDField(unique=True), [uuid.UUID(UUID_TEXT)] * 2),
    "an instant in seconds": (lambda: TimestampField(unique=True, default=None), [1_700_000_000] * 2),
    "any type": (lambda: BareField(unique=True) if database.is_sqlite() else TextField(unique=True), ["x", "x"]),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_key_of_any_type_is_found_again(case: str) -> None:
    make, spellings = VALUES[case]
    model = keyed(make())
    changed_fields.prepare(model)
    schema.migrate([model])

    changes = []
    for value, name in zip(spellings, "ab", strict=True):
        with db.atomic():
            changes += [
                stored.change for stored in upserts.upsert(model, [model(external_id=value, name=name)], "external_id")
            ]

    assert changes == ["created", "updated"]
    assert [row.name for row in model.select()] == ["b"]


def test_a_model_whose_select_hides_rows_is_written_whole() -> None:
    # Given a model that hides what was deleted
    class Hiding(Complete, Model):
        external_id = CharField(unique=True)
        name = TextField()
        deleted = peewee.BooleanField(default=False)

        class Meta:
            database = db
            table_name = "hiding"

        @classmethod
        def select(cls, *fields: Any) -> Any:
            return super().select(*fields).where(~cls.deleted)

    with serving([[{"external_id": str(n), "name": "new"} for n in range(3)]]) as api:
        register(Hiding, api.url)
        Hiding.create(external_id="1", name="old", deleted=True)

        # When a deleted row comes again
        run = imported()

    # Then it is updated as the others are, and stays deleted
    assert run.succeeded_count == 3
    assert changes_of(run) == (2, 1, 0)
    found = peewee.ModelSelect(Hiding, [Hiding.external_id, Hiding.name, Hiding.deleted]).order_by(Hiding.external_id)
    assert list(found.tuples()) == [("0", "new", False), ("1", "new", True), ("2", "new", False)]


def test_several_fields_make_a_key() -> None:
    # Given two shops with the same article numbers
    class Article(Complete, Model):
        shop = CharField()
        external_id = CharField()
        name = TextField()

        class Meta:
            database = db
            table_name = "articles"
            indexes = ((("shop", "external_id"), True),)

        def get_external_id(self) -> str:
            return f"{self.shop}:{self.external_id}"

    articles = [{"shop": s, "external_id": str(n), "name": f"{s}{n}"} for s in ("north", "south") for n in range(3)]
    with serving([articles]) as api:
        register(Article, api.url, unique_by=("shop", "external_id"))

        # When they are imported twice
        runs = [imported(), imported()]

    # Then each has its row, once
    assert [changes_of(run) for run in runs] == [(6, 0, 0), (0, 0, 6)]
    assert [run.succeeded_count for run in runs] == [6, 6]
    assert sorted(row.name for row in Article.select()) == ["north0", "north1", "north2", "south0", "south1", "south2"]


@pytest.mark.parametrize("pages", [1, 2], ids=["on one page", "on two pages"])
def test_two_rows_that_share_an_id_are_told_apart_or_refused(pages: int) -> None:
    # Given a source whose external id does not say which shop is meant
    class Vague(Complete, Model):
        shop = CharField()
        external_id = CharField()

        class Meta:
            database = db
            table_name = "vague"
            indexes = ((("shop", "external_id"), True),)

    north, south = {"shop": "north", "external_id": "1"}, {"shop": "south", "external_id": "1"}
    with serving([[north, south]] if pages == 1 else [[north], [south]]) as api:
        register(Vague, api.url, unique_by=("shop", "external_id"))

        run = imported()

    # Then the second is refused, by its place, and counted
    assert (run.total_count, run.succeeded_count, run.failed_count) == (2, 1, 1)
    status, reason = items_of(run)["page 1, item 2" if pages == 1 else "page 2, item 1"]
    assert status == ItemStatus.FAILED
    assert "let get_external_id return different ids for the two" in reason


@pytest.mark.parametrize("item", [{"external_id": None}, {}], ids=["null", "missing"])
def test_an_item_without_its_key_is_refused_alone(item: dict[str, Any]) -> None:
    model = keyed(CharField(unique=True, null=True), get_external_id=lambda self: self.name)
    with serving([[{"external_id": "1", "name": "a"}, item | {"name": "b"}, {"external_id": "3", "name": "c"}]]) as api:
        register(model, api.url)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    assert "comes without external_id" in items_of(run)["b"][1]


def test_a_default_is_a_part_of_the_key() -> None:
    model = keyed(CharField(), shop=CharField(default="main"))
    model._meta.indexes = ((("shop", "external_id"), True),)
    with serving([[{"external_id": "1", "name": "a"}]]) as api:
        register(model, api.url, unique_by=("shop", "external_id"))
        runs = [imported(), imported()]

    assert [changes_of(run) for run in runs] == [(1, 0, 0), (0, 0, 1)]
    assert [(row.shop, row.external_id) for row in model.select()] == [("main", "1")]


def test_rows_that_save_themselves_are_counted_as_the_others() -> None:
    saved = []

    class Saving(Complete):
        save_each = True

        def save(self, *args: Any, **kwargs: Any) -> Any:
            saved.append(self.external_id)
            return super().save(*args, **kwargs)  # type: ignore[misc]

    model = keyed(CharField(unique=True), Saving)
    with serving([[{"external_id": str(n), "name": "a"} for n in range(3)]]) as api:
        register(model, api.url)
        first = imported()
        api.pages = [[{"external_id": str(n), "name": "a" if n else "b"} for n in range(4)]]
        second = imported()

    assert [changes_of(run) for run in (first, second)] == [(3, 0, 0), (1, 1, 2)]
    assert sorted(saved)[:4] == ["0", "0", "0", "0"]  # its list, and its details, twice each
    assert model.get(external_id="0").name == "b"


# --- keys that cannot be used are refused at registration ------------------------------------------------------------


def primary(field: Any) -> Any:
    body = {"id": field, "external_id": CharField(unique=True)}
    return type("Odd", (Complete, Model), body | {"Meta": type("Meta", (), {"database": db, "table_name": "odd"})})


def of_two_columns() -> Any:
    meta = type("Meta", (), {"database": db, "primary_key": CompositeKey("a", "external_id")})
    body = {"a": CharField(), "external_id": CharField(unique=True), "Meta": meta}
    return type("Odd", (Complete, Model), body)


def without_a_key() -> Any:
    meta = type("Meta", (), {"database": db, "primary_key": False})
    return type("Odd", (Complete, Model), {"external_id": CharField(unique=True), "Meta": meta})


def without_a_database() -> Any:
    return type("Odd", (Complete, Model), {"external_id": CharField(unique=True)})


def on_mysql() -> Any:
    meta = type("Meta", (), {"database": peewee.MySQLDatabase("x")})
    return type("Odd", (Complete, Model), {"external_id": CharField(unique=True), "Meta": meta})


REFUSED = {
    "several columns": (of_two_columns, "primary key of several columns.*id = AutoField"),
    "no primary key": (without_a_key, "no primary key.*id = AutoField"),
    "bytes": (lambda: primary(BlobField(primary_key=True)), "primary key .* is a BlobField.*AutoField"),
    "a float": (lambda: primary(FloatField(primary_key=True)), "is a FloatField"),
    "a decimal": (lambda: primary(DecimalField(primary_key=True)), "is a DecimalField"),
    "a date": (lambda: primary(DateTimeField(primary_key=True)), "is a DateTimeField"),
    "seconds": (lambda: primary(TimestampField(primary_key=True)), "is a TimestampField"),
    "any type": (lambda: primary(BareField(primary_key=True)), "is a BareField"),
    "no database": (without_a_database, "has no database.*database = db"),
    "MySQL": (on_mysql, "is on MySQL"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_primary_key_that_items_cannot_point_at_is_refused_with_the_fix(case: str) -> None:
    make, said = REFUSED[case]
    with pytest.raises(ConfigurationError, match=said):
        register(make(), "http://127.0.0.1:1", create=False)


@pytest.mark.parametrize("unique_by", ["name", "nothing", (), ("external_id", "external_id"), ("external_id", "name")])
def test_what_is_not_unique_is_no_key(unique_by: Any) -> None:
    with pytest.raises(ConfigurationError, match="unique_by"):
        register(keyed(CharField(unique=True)), "http://127.0.0.1:1", create=False, unique_by=unique_by)


PRIMARY = {
    "AutoField": AutoField,
    "UUIDField": lambda: UUIDField(primary_key=True, default=uuid.uuid4),
    "BinaryUUIDField": lambda: BinaryUUIDField(primary_key=True, default=uuid.uuid4),
    "IPField": lambda: IPField(primary_key=True, default=lambda: f"10.0.0.{next(NUMBERS)}"),
    "CharField": lambda: CharField(primary_key=True, default=lambda: f"key {next(NUMBERS)}/?"),
    "IntegerField": lambda: IntegerField(primary_key=True, default=lambda: next(NUMBERS)),
}
NUMBERS = itertools.count(1)


@pytest.mark.parametrize("kind", PRIMARY)
def test_items_point_at_rows_by_this_primary_key(kind: str) -> None:
    model = keyed(CharField(unique=True), Detailed, id=PRIMARY[kind]())
    names = {str(n): f"name {n}" for n in range(5)}
    with serving([[{"external_id": n} for n in names]], {n: {"name": name} for n, name in names.items()}) as api:
        register(model, api.url)
        runs = [imported(), imported()]

    assert [(run.succeeded_count, run.failed_count) for run in runs] == [(5, 0), (5, 0)]
    assert {row.external_id: row.name for row in model.select()} == names
    assert [changes_of(run) for run in runs] == [(5, 0, 0), (0, 0, 5)]


def test_a_primary_key_that_is_too_long_refuses_its_item_alone() -> None:
    model = keyed(CharField(unique=True), id=TextField(primary_key=True))
    listed = [{"id": "k", "external_id": "short"}, {"id": "k" * 300, "external_id": "long"}]
    with serving([listed]) as api:
        register(model, api.url)
        run = imported()

    assert (run.succeeded_count, run.failed_count) == (1, 1)
    assert "300 characters, and 255 can be kept" in items_of(run)["long"][1]


def test_a_table_without_its_unique_index_is_refused_before_the_run() -> None:
    register(keyed(CharField(unique=True)), "http://127.0.0.1:1", create=False)
    db.execute_sql("CREATE TABLE keyed (id INTEGER PRIMARY KEY, external_id VARCHAR(255), name TEXT)")

    with pytest.raises(ConfigurationError, match=r"no unique index on \(external_id\).*create one"):
        imported()


def test_of_two_models_of_one_class_name_each_gets_its_unique_index() -> None:
    def product(table: str) -> Any:
        meta = type("Meta", (), {"database": db, "table_name": table})
        return type("Product", (Complete, Model), {"external_id": CharField(unique=True), "Meta": meta})

    north, south = product("north_products"), product("south_products")
    with serving([[{"external_id": "1"}]]) as api:
        register(north, api.url, name="north")
        register(south, api.url, name="south")
        schema.migrate([north, south])  # twice is harmless
        runs = [imported("north"), imported("south"), imported("south")]

    assert [run.succeeded_count for run in runs] == [1, 1, 1]
    for model in (north, south):
        assert [index.columns for index in db.get_indexes(model._meta.table_name) if index.unique][0:1]
        with pytest.raises(peewee.IntegrityError), db.atomic():
            model.create(external_id="1")


# --- a re-import ------------------------------------------------------------------------------------------------------


def test_a_known_row_costs_no_value_of_a_sequence() -> None:
    model = keyed(CharField(unique=True))
    with serving([[{"external_id": str(n), "name": "x"} for n in range(100)]]) as api:
        register(model, api.url)
        runs = [imported() for _ in range(5)]
        api.pages = [[{"external_id": "new", "name": "x"}]]
        imported()

    assert [changes_of(run) for run in runs] == [(100, 0, 0)] + [(0, 0, 100)] * 4
    assert model.get(external_id="new").id == 101


def test_created_updated_and_unchanged_rows_are_counted() -> None:
    model = keyed(CharField(unique=True), price=DecimalField(max_digits=8, decimal_places=2, null=True))
    with serving([[{"external_id": str(n), "name": "x", "price": "1.5"} for n in range(10)]]) as api:
        register(model, api.url)
        imported()
        api.pages = [[{"external_id": str(n), "name": "x", "price": 1.5 if n < 7 else 2} for n in range(12)]]
        run = imported()

    assert changes_of(run) == (2, 3, 7)


def test_two_writers_of_the_same_keys_in_another_order_lose_no_page() -> None:
    """Of four writers of shuffled keys one may meet a deadlock, as any two transactions may: its commit is repeated."""
    model = keyed(CharField(unique=True))
    changed_fields.prepare(model)
    schema.migrate([model])
    failures: list[BaseException] = []

    def commit(step: int, attempt: int) -> None:
        with db.atomic():
            keys = [str(n) for n in range(60)][::step]
            upserts.upsert(model, [model(external_id=key, name=f"{step} {attempt}") for key in keys], "external_id")

    def write(step: int) -> None:
        with db.connection_context():
            try:
                for attempt in range(20):
                    retry_commit(partial(commit, step, attempt), {db.obj}, lambda error: 60.0)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(step,)) for step in (1, -1, 7, -7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failures == []
    assert model.select().count() == 60
    assert {row.name.partition(" ")[2] for row in model.select()} == {"19"}


def test_rows_that_another_tenant_writes_too_are_noted() -> None:
    model = keyed(CharField(unique=True))
    with serving([[{"external_id": str(n)} for n in range(75)]]) as api:
        register(model, api.url)
        first = imported(tenant="north")
        second = imported(tenant="south")
        third = imported(tenant="south")

    assert "rows shared by tenants" not in notes_of(first)
    assert "75 by north" in notes_of(second)["rows shared by tenants"]
    assert "75 by north" in notes_of(third)["rows shared by tenants"]
