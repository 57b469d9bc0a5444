"""Fields, values and models of a user's own making, as other people's projects have them."""

import datetime
import uuid
from decimal import Decimal
from typing import Any

import peewee
import pytest
from peewee import CharField, DecimalField, Field, IntegerField, Model, TextField, UUIDField
from playhouse.postgres_ext import ArrayField

from tests.helpers import registered_sources
from tests.helpers.model_imports import Complete, Detailed, changes_of, imported, items_of, register, serving
from workers import HasImportStatus, db
from workers.connections import database
from workers.control import runner
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus


@pytest.fixture(autouse=True)
def sources(house: pytest.MonkeyPatch, moved_clock: Any) -> None:
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()


def model_of(base: type[Any] = Detailed, *, table: str = "own_fields", **fields: Any) -> Any:
    options = {"database": db, "table_name": table} | fields.pop("options", {})
    columns = {"external_id": CharField(unique=True)} | fields
    return type("Own", (base, Model), columns | {"Meta": type("Meta", (), options)})


def listed(*ids: str) -> list[dict[str, Any]]:
    return [{"external_id": one} for one in ids]


class Instant(Field):
    """Text on the way in; on the way out what the driver makes of the column."""

    field_type = "TIMESTAMPTZ"

    def db_value(self, value: Any) -> Any:
        return value and value.isoformat()

    def python_value(self, value: Any) -> Any:
        if isinstance(value, str) and not database.is_sqlite():
            raise AttributeError("psycopg gives a datetime")
        return datetime.datetime.fromisoformat(value) if isinstance(value, str) else value


class Money:
    """A value without an equality of its own."""

    def __init__(self, cents: int) -> None:
        self.cents = cents


class MoneyField(IntegerField):
    def adapt(self, value: Any) -> Any:
        return value.cents if isinstance(value, Money) else int(value)

    def python_value(self, value: Any) -> Any:
        return Money(value)


def test_a_field_that_reads_what_the_driver_gives_is_written() -> None:
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)

    class Dated(Detailed):
        def populate_from_api_response(self, data: Any) -> None:
            self.at = datetime.datetime.fromisoformat(data["at"])

    model = model_of(Dated, at=Instant(null=True))
    with serving([listed("1")], {"1": {"at": at.isoformat()}}) as api:
        register(model, api.url)
        run = imported()

    assert (run.succeeded_count, run.failed_count) == (1, 0)
    assert model.get().at == at


def test_a_default_without_an_equality_is_not_put_over_what_is_stored() -> None:
    model = model_of(price=MoneyField(default=lambda: Money(0)), name=TextField(null=True))
    with serving([listed("1", "2")], {"1": {"price": 5}, "2": {"price": 6}}) as api:
        register(model, api.url)
        imported()
        api.details = {"1": {"name": "a"}, "2": {"name": "b"}}
        run = imported()

    assert run.succeeded_count == 2
    assert changes_of(run) == (0, 0, 2)
    assert sorted((row.name, row.price.cents) for row in model.select()) == [("a", 5), ("b", 6)]


def test_random_defaults_are_those_of_the_instance() -> None:
    made = {}
    model = model_of(Complete, id=UUIDField(primary_key=True, default=uuid.uuid4), token=UUIDField(default=uuid.uuid4))

    def create_model_from_list_item(self: Any, item: Any) -> Any:
        row = self.model(**item)
        made[item["external_id"]] = (row.id, row.token)
        return row

    with serving([listed("1", "2")]) as api:
        register(model, api.url, create_model_from_list_item=create_model_from_list_item)
        assert imported().succeeded_count == 2
        first = dict(made)
        assert imported().succeeded_count == 2

    assert {row.external_id: (row.id, row.token) for row in model.select()} == first


def test_an_instance_of_a_subclass_is_a_row_of_its_table() -> None:
    model = model_of(Complete, kind=TextField(default="plain"), name=TextField(null=True))
    special = type("Special", (model,), {"Meta": type("Meta", (), {"table_name": "own_fields"})})
    with serving([[{"external_id": "1", "name": "a"}]]) as api:
        register(model, api.url, create_model_from_list_item=lambda self, item: special(kind="special", **item))
        run = imported()

    assert (run.succeeded_count, run.failed_count) == (1, 0)
    assert list(model.select(model.external_id, model.kind, model.name).tuples()) == [("1", "special", "a")]


@pytest.mark.parametrize("name", ["v", "t", "order", "Odd Table"])
def test_a_table_may_have_any_name(name: str) -> None:
    model = model_of(table=name, group=IntegerField(null=True), chosen=TextField(null=True, column_name="select"))
    with serving([listed("1")], {"1": {"group": 2}}) as api:
        register(model, api.url)
        runs = [imported(), imported()]

    assert [run.succeeded_count for run in runs] == [1, 1]
    assert model.get().group == 2


def test_a_loaded_instance_that_is_changed_in_place_is_written() -> None:
    model = model_of(Complete, extra=peewee.JSONField(default=dict))

    def create_model_from_list_item(self: Any, item: Any) -> Any:
        row = self.model.get_or_none(self.model.external_id == item["external_id"]) or self.model(**item)
        row.extra["seen"] = row.extra.get("seen", 0) + 1
        return row

    with serving([listed("1")]) as api:
        register(model, api.url, create_model_from_list_item=create_model_from_list_item)
        assert [changes_of(imported()), changes_of(imported())] == [(1, 0, 0), (0, 1, 0)]

    assert model.get().extra == {"seen": 2}


def test_rows_that_save_themselves_write_what_the_others_would() -> None:
    """Also with only_save_dirty, where save() does not see a change in place."""

    class Saving(Detailed):
        save_each = True

        def populate_from_api_response(self, data: Any) -> None:
            self.extra.update(a=1)
            self.price = data["price"]

    model = model_of(
        Saving,
        options={"only_save_dirty": True},
        extra=peewee.JSONField(default=dict),
        price=DecimalField(max_digits=20, decimal_places=2, null=True),
    )
    with serving([listed("1")], {"1": '{"price": 12345678901234567.89}'}) as api:
        register(model, api.url)
        assert imported().succeeded_count == 1

    row = model.get()
    assert row.extra == {"a": 1}
    assert database.is_sqlite() or row.price == Decimal("12345678901234567.89")


def test_decimals_in_an_array_keep_their_digits() -> None:
    if database.is_sqlite():
        pytest.skip("arrays are Postgres's")
    model = model_of(prices=ArrayField(DecimalField, {"max_digits": 20, "decimal_places": 2}, null=True))
    with serving([listed("1")], {"1": '{"prices": [12345678901234567.89, 1.5]}'}) as api:
        register(model, api.url)
        run = imported()
        assert (run.succeeded_count, items_of(run)) == (1, {"1": (ItemStatus.COMPLETED, "")})

    assert model.get().prices == [Decimal("12345678901234567.89"), Decimal("1.50")]


def test_a_detail_may_repeat_the_primary_key_in_another_type() -> None:
    model = model_of(external_id=IntegerField(primary_key=True), name=TextField(null=True))
    with serving([[{"external_id": 5}]], {"5": {"external_id": "5", "name": "a"}}) as api:
        register(model, api.url)
        assert imported().succeeded_count == 1

    assert model.get().name == "a"


def test_tables_of_one_name_in_two_schemas_are_two_types() -> None:
    if database.is_sqlite():
        pytest.skip("an attached file is another database")
    models = {}
    with serving([listed("1")], {"1": 404}) as api:
        for schema in ("north", "south"):
            db.execute_sql(f"CREATE SCHEMA {schema}")
            tracked = type("Tracked", (HasImportStatus, Detailed), {})
            models[schema] = model_of(tracked, options={"schema": schema}, name=TextField(null=True))
            register(models[schema], api.url, name=schema)
        imported("north")
        api.details = {"1": {"name": "a"}}
        imported("south")

    found = {schema: [one.status for one in model.get().import_statuses()] for schema, model in models.items()}
    assert found == {"north": [ItemStatus.FAILED], "south": [ItemStatus.COMPLETED]}


def test_an_item_whose_id_was_kept_as_the_list_gave_it_finds_its_row() -> None:
    """Versions before kept "007" where the column holds 7."""
    model = model_of(external_id=IntegerField(unique=True), name=TextField(null=True))
    with serving([[{"external_id": "007"}]], {"7": 404}) as api:
        register(model, api.url)
        run = imported()
        RunItem.update(external_id="007").execute()
        api.details = {"7": {"name": "Bond"}}
        runner.retry_failed(run.id, who="test", door="test")
        run = runner.run_inline(Run.get_by_id(run.id))

    assert run.succeeded_count == 1
    assert model.get().name == "Bond"


@pytest.mark.parametrize("lost", ["table", "column"])
@pytest.mark.parametrize("when", ["list", "details"])
def test_a_table_or_column_that_goes_in_the_middle_of_a_run_ends_it_with_the_reason(lost: str, when: str) -> None:
    model = model_of(name=TextField(null=True))
    with serving([listed("1", "2"), listed("3")], {one: {"name": "a"} for one in "123"}) as api:
        register(model, api.url)
        waiting = runner.start("things", who="test", door="test", send=False)
        gone: list[str] = []

        def take_away(path: str) -> None:
            at = api.asked.count("/things") == 2 if when == "list" else path.startswith("/things/")
            if at and not gone:
                gone.append(path)
                with db.connection_context():
                    table = "DROP TABLE own_fields"
                    db.execute_sql(table if lost == "table" else "ALTER TABLE own_fields DROP COLUMN name")

        api.before_answer = take_away
        run = runner.run_inline(waiting)

    assert run.status in (RunStatus.COMPLETED, RunStatus.FAILED)
    assert run.failed_count or run.error_summary
    reasons = [reason for _, reason in items_of(run).values() if reason] + [run.error_summary or ""]
    assert any("own_fields" in reason or "name" in reason for reason in reasons)
