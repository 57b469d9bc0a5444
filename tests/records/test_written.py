"""Written means written: what was changed in place, or given by default, is in the table, or is refused aloud."""

import copy
from decimal import Decimal
from typing import Any

import pytest
from peewee import (
    BigBitField,
    BooleanField,
    CharField,
    DecimalField,
    ForeignKeyField,
    IntegerField,
    JSONField,
    Model,
    TextField,
    fn,
)
from playhouse.postgres_ext import ArrayField

from tests.helpers import registered_sources
from tests.helpers.model_imports import Complete, Detailed, imported, items_of, register, serving
from workers import db
from workers.connections import database
from workers.records import changed_fields, schema
from workers.records.tables import ItemStatus, RunStatus


@pytest.fixture(autouse=True)
def sources(house: pytest.MonkeyPatch, moved_clock: Any) -> None:
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()


def model_with(base: type[Any] = Detailed, **fields: Any) -> Any:
    meta = type("Meta", (), {"database": db, "table_name": "written"})
    return type("Written", (base, Model), {"external_id": CharField(unique=True), **fields, "Meta": meta})


def listed(*ids: str) -> list[dict[str, str]]:
    return [{"external_id": one} for one in ids]


# --- in place ---------------------------------------------------------------------------------------------------------

IN_PLACE = {
    "a key of a dictionary": (lambda: JSONField(default=dict), lambda row: row.extra.update(a=1), {"a": 1}),
    "a list within a dictionary": (
        lambda: JSONField(default=lambda: {"tags": []}),
        lambda row: row.extra["tags"].append("x"),
        {"tags": ["x"]},
    ),
    "a list": (lambda: JSONField(default=list), lambda row: row.extra.append(1), [1]),
    "a value of another type": (
        lambda: JSONField(default=lambda: {"n": 1}),
        lambda row: row.extra.update(n=True),
        {"n": True},
    ),
    "a key that goes": (lambda: JSONField(default=lambda: {"a": 1, "b": 2}), lambda row: row.extra.pop("a"), {"b": 2}),
    "an array": (lambda: ArrayField(TextField, default=list), lambda row: row.extra.append("x"), ["x"]),
}


@pytest.mark.parametrize("by", ["detail", "list"])
@pytest.mark.parametrize("case", IN_PLACE)
def test_what_is_changed_in_place_is_written(case: str, by: str) -> None:
    # Given a field whose value is changed, and not assigned
    make, change, expected = IN_PLACE[case]
    if case == "an array" and database.is_sqlite():
        pytest.skip("arrays are Postgres's")

    class Changing(Detailed):
        def populate_from_api_response(self, data: Any) -> None:
            if by == "detail":
                change(self)

    def create_model_from_list_item(self: Any, item: Any) -> Any:
        row = self.model(**item)
        if by == "list":
            change(row)
        return row

    model = model_with(Changing, extra=make())
    with serving([listed("1", "2")], {"1": {}, "2": {}}) as api:
        register(model, api.url, create_model_from_list_item=create_model_from_list_item)
        run = imported()

    # Then it is in the table
    assert run.succeeded_count == 2
    changed = [row.extra for row in model.select()]
    assert changed == [expected] * 2
    assert repr(changed[0]) == repr(expected)  # True is not 1


def test_bits_are_written_and_looking_at_them_writes_nothing() -> None:
    class Flagged(Detailed):
        def populate_from_api_response(self, data: Any) -> None:
            if data["set"]:
                self.bits.set_bit(3)
            assert not self.bits.is_set(9)
            assert not self.maybe.is_set(0)

    model = model_with(Flagged, bits=BigBitField(), maybe=BigBitField(null=True, default=None))
    with serving([listed("1", "2")], {"1": {"set": True}, "2": {"set": False}}) as api:
        register(model, api.url)
        assert imported().succeeded_count == 2

    stored = model.select(model.external_id, model.bits, model.maybe).order_by(model.external_id).tuples()
    assert [(key, bytes(bits), maybe) for key, bits, maybe in stored] == [("1", b"\x08", None), ("2", b"", None)]


def test_what_was_not_touched_is_not_written() -> None:
    """Another program changes a column while the details are asked for: it keeps what that wrote."""
    model = model_with(name=TextField(null=True), extra=JSONField(default=dict), count=IntegerField(default=0))
    with serving([listed("1")], {"1": {"name": "new"}}) as api:
        register(model, api.url)

        def meanwhile(path: str) -> None:
            if path == "/things/1":
                with db.connection_context():
                    model.update(extra={"by": "another"}, count=5).execute()

        api.before_answer = meanwhile
        assert imported().succeeded_count == 1

    assert list(model.select(model.name, model.extra, model.count).tuples()) == [("new", {"by": "another"}, 5)]


def test_an_expression_is_written_as_save_would() -> None:
    class Counting(Detailed):
        def populate_from_api_response(self, data: Any) -> None:
            self.count = type(self).count + 1
            self.name = fn.UPPER(data["name"]) if data["name"] == "b" else data["name"]

    model = model_with(Counting, name=TextField(null=True), count=IntegerField(default=1))
    with serving([listed("1", "2", "3")], {n: {"name": name} for n, name in zip("123", "abc", strict=True)}) as api:
        register(model, api.url)
        assert imported().succeeded_count == 3

    assert sorted(model.select(model.name, model.count).tuples()) == [("B", 2), ("a", 2), ("c", 2)]


def test_a_related_row_that_is_saved_after_it_was_assigned_is_written() -> None:
    class Shelf(Model):
        label = CharField(default="new")

        class Meta:
            database = db
            table_name = "written_shelves"

    class Placed(Detailed):
        def populate_from_api_response(self, data: Any) -> None:
            shelf = Shelf()
            self.shelf = shelf
            shelf.save()

    model = model_with(Placed, shelf=ForeignKeyField(Shelf, null=True))
    schema.migrate([Shelf])
    with serving([listed("1")], {"1": {}}) as api:
        register(model, api.url)
        assert imported().succeeded_count == 1

    assert [row.shelf.label for row in model.select()] == ["new"]


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_defaults_are_there_and_only_new_rows_get_them() -> None:
    # Given a row that a person has changed, and a list that does not know the field
    class Seen(Complete):
        def get_external_id(self) -> str:
            assert self.active is True or self.id  # a new instance has its defaults
            return str(self.external_id)

    model = model_with(Seen, active=BooleanField(default=True), extra=JSONField(default=dict))
    with serving([listed("1", "2")]) as api:
        register(model, api.url)
        imported()
        model.update(active=False, extra={"by": "a person"}).where(model.external_id == "1").execute()

        run = imported()

    assert run.succeeded_count == 2
    assert sorted(model.select(model.external_id, model.active, model.extra).tuples(), key=lambda row: row[0]) == [
        ("1", False, {"by": "a person"}),
        ("2", True, {}),
    ]


def test_other_rows_made_by_a_source_s_method_keep_their_defaults() -> None:
    """Also other rows of the model itself: a parent that is created beside its child."""
    model = model_with(Complete, active=BooleanField(default=True), kind=CharField(default="child"))

    def create_model_from_list_item(self: Any, item: Any) -> Any:
        self.model.get_or_create(external_id="parent", defaults={"kind": "parent"})
        return self.model(**item)

    with serving([listed("1")]) as api:
        register(model, api.url, create_model_from_list_item=create_model_from_list_item)
        run = imported()

    assert run.succeeded_count == 1
    found = model.select(model.external_id, model.active, model.kind).order_by(model.external_id)
    assert list(found.tuples()) == [("1", True, "child"), ("parent", True, "parent")]


def test_a_default_that_is_one_object_is_not_shared_by_rows() -> None:
    model = model_with(Complete, extra=JSONField(default={"tags": []}))

    def create_model_from_list_item(self: Any, item: Any) -> Any:
        row = self.model(**item)
        row.extra["tags"].append(item["external_id"])
        return row

    with serving([listed("1", "2")]) as api:
        register(model, api.url, create_model_from_list_item=create_model_from_list_item)
        assert imported().succeeded_count == 2

    assert {row.external_id: row.extra for row in model.select()} == {"1": {"tags": ["1"]}, "2": {"tags": ["2"]}}
    assert model.extra.default == {"tags": []}


def test_a_copy_of_a_template_gives_what_was_given_to_it_alone() -> None:
    model = model_with(Complete, active=BooleanField(default=True), name=TextField(default="unnamed"))
    changed_fields.prepare(model)
    template = model(name="template")

    for row in (copy.deepcopy(template), copy.copy(template)):
        row.external_id = "1"
        assert changed_fields.names(row) == ("external_id", "name")


def test_an_instance_of_another_model_is_refused() -> None:
    other = type("Other", (Complete, Model), {"external_id": CharField(), "Meta": type("Meta", (), {"database": db})})
    model = model_with(Complete)
    with serving([listed("1", "2")]) as api:
        register(model, api.url, create_model_from_list_item=lambda self, item: other(**item))
        run = imported()

    assert (run.status, run.failed_count) == (RunStatus.COMPLETED, 2)
    assert "returned a Other" in items_of(run)["page 1, item 1"][1]


# --- numbers and characters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["detail", "list"])
def test_a_decimal_keeps_the_digits_the_api_wrote(by: str) -> None:
    """SQLite keeps 15 digits of a DecimalField, whatever it is given."""
    model = model_with(price=DecimalField(max_digits=20, decimal_places=2, null=True))
    literal = "12345678901234567.89"
    price = f'"price": {literal}'
    page = f'{{"data": [{{"external_id": "1"{", " + price if by == "list" else ""}}}]}}'
    with serving([page], {"1": f"{{{price}}}" if by == "detail" else {}}) as api:
        register(model, api.url, next_cursor=lambda self, data, cursor: None)
        assert imported().succeeded_count == 1

    stored = model.get().price
    assert stored == Decimal(literal) or (database.is_sqlite() and f"{stored:.14e}" == f"{Decimal(literal):.14e}")


UNSTORABLE = {
    "a NUL": ("a\0b", "NUL character"),
    "half a surrogate pair": ("a\ud800b", "surrogate"),
    "a NUL within JSON": ({"deep": ["a\0b"]}, "NUL character"),
    "a NUL in a key": ({"a\0b": 1}, "NUL character"),
    "text for a number": ("many", "IntegerField does not take it"),
    "infinity as text": ("Infinity", "no finite number"),
    "text for a decimal": ("cheap", "DecimalField does not take it"),
}
COLUMN = {"text for a number": "count", "infinity as text": "price", "text for a decimal": "price"}


@pytest.mark.parametrize("by", ["detail", "list"])
@pytest.mark.parametrize("case", UNSTORABLE)
def test_what_one_database_would_drop_or_refuse_is_refused_on_both_alone(case: str, by: str) -> None:
    value, said = UNSTORABLE[case]
    column = COLUMN.get(case, "extra" if isinstance(value, dict) else "name")
    model = model_with(
        name=TextField(null=True),
        extra=JSONField(null=True),
        count=IntegerField(null=True),
        price=DecimalField(null=True),
    )
    items, details = listed("1", "2", "3"), {n: {"name": "fine"} for n in "123"}
    if by == "list":
        items[1] |= {column: value}  # type: ignore[dict-item]
    else:
        details["2"] = {column: value}
    with serving([items], details) as api:
        register(model, api.url)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    status, reason = items_of(run)["2"]
    assert status == ItemStatus.FAILED
    assert said in reason
    assert column in reason
    assert [row.external_id for row in model.select().where(model.name == "fine")] == ["1", "3"]


def test_a_wide_model_and_a_large_page_fit_into_statements() -> None:
    """140 columns and 500 rows are 70,000 values: Postgres takes 65,535 in a statement, and SQLite 32,766."""
    columns = {f"c{n}": TextField(null=True) for n in range(140)}
    model = model_with(**columns)
    values = {name: name for name in columns}
    ids = [str(n) for n in range(500)]
    with serving([[{"external_id": one} | values for one in ids]], {one: {"c0": "detail"} for one in ids}) as api:
        register(model, api.url)
        runs = [imported(), imported()]

    assert [run.succeeded_count for run in runs] == [500, 500]
    assert model.select().where(model.c0 == "detail", model.c139 == "c139").count() == 500


# --- constraints ------------------------------------------------------------------------------------------------------


def test_a_deferred_constraint_that_one_item_breaks_fails_that_item() -> None:
    """It is checked at the commit of the whole page, when it is too late to say whose it is."""

    class Parent(Model):
        class Meta:
            database = db
            table_name = "deferred_parents"

    model = model_with(Complete, parent=ForeignKeyField(Parent, deferrable="INITIALLY DEFERRED"))
    schema.migrate([Parent])
    Parent.insert(id=1).execute()
    items = [{"external_id": str(n), "parent": 99 if n == 2 else 1} for n in range(4)]
    with serving([items, [{"external_id": "9", "parent": 1}]]) as api:
        register(model, api.url)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 4, 1)
    assert "could not be saved: IntegrityError" in items_of(run)["2"][1]
    assert sorted(row.external_id for row in model.select()) == ["0", "1", "3", "9"]


@pytest.mark.parametrize("deferrable", [None, "INITIALLY DEFERRED"])
def test_a_row_that_stands_before_the_one_it_refers_to_is_saved_when_that_is_there(deferrable: str | None) -> None:
    # Given a page with a child before its parent, and one item that cannot be saved
    model = model_with(Complete, code=IntegerField(null=True, unique=True), above=IntegerField(null=True))
    key = "INTEGER" if database.is_sqlite() else "SERIAL"
    db.execute_sql(
        f"CREATE TABLE written (id {key} PRIMARY KEY, external_id VARCHAR(255) NOT NULL UNIQUE, code INTEGER UNIQUE, "
        f"above INTEGER REFERENCES written (code) {f'DEFERRABLE {deferrable}' if deferrable else ''})"
    )
    child, parent = {"external_id": "child", "code": 1, "above": 2}, {"external_id": "parent", "code": 2}
    with serving([[child, parent, {"external_id": "orphan", "code": 3, "above": 99}]]) as api:
        register(model, api.url, create=False)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    assert items_of(run)["orphan"][0] == ItemStatus.FAILED
    assert sorted(model.select(model.external_id, model.above).tuples()) == [("child", 2), ("parent", None)]
