"""A row is the item's own, or it is not touched: databases give primary keys again, and rows go away meanwhile."""

from typing import Any

import pytest
from peewee import CharField, IntegerField, Model, TextField

from tests.helpers import registered_sources
from tests.helpers.model_imports import Api, Detailed, imported, items_of, register, serving
from workers import HasImportStatus, db
from workers.connections import database
from workers.control import runner
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus


class Thing(HasImportStatus, Detailed, Model):
    external_id = CharField(unique=True)
    name = TextField(null=True)

    class Meta:
        database = db
        table_name = "own_things"


@pytest.fixture(autouse=True)
def sources(house: pytest.MonkeyPatch, moved_clock: Any) -> None:
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()


def listed(*ids: str) -> list[dict[str, str]]:
    return [{"external_id": one} for one in ids]


def details(*ids: str) -> dict[str, Any]:
    return {one: {"name": f"name of {one}"} for one in ids}


def replace_row(external_id: str, by: str) -> None:
    """Delete a row, and give its primary key to another, as SQLite does by itself."""
    row = Thing.get(external_id=external_id)
    row.delete_instance()
    Thing.insert(id=row.id, external_id=by).execute()


def retried(run: Run) -> Run:
    runner.retry_failed(run.id, who="test", door="test")
    return runner.run_inline(Run.get_by_id(run.id))


def test_an_old_run_that_is_retried_does_not_write_the_row_that_has_the_primary_key_now() -> None:
    # Given a run with a failed item, whose row was deleted, and its primary key given to another
    with serving([listed("a", "b")], details("a") | {"b": 404}) as api:
        register(Thing, api.url)
        run = imported()
        replace_row("b", by="other")
        api.details |= details("b", "other")

        # When the item is tried again
        run = retried(run)

    # Then nothing was asked for it, the other row is as it was, and the item has failed with the reason
    assert (run.succeeded_count, run.failed_count) == (1, 1)
    status, reason = items_of(run)["b"]
    assert status == ItemStatus.FAILED
    assert "its row is no longer in the table" in reason
    assert "'other'" in reason
    assert api.asked.count("/things/b") == 1
    assert Thing.get(external_id="other").name is None


@pytest.mark.parametrize("by", ["other", None], ids=["given to another", "deleted"])
def test_a_row_that_goes_while_its_details_are_asked_for_fails_its_item(by: str | None) -> None:
    # Given a row that another program deletes, or replaces, between the request and the commit
    with serving([listed("a", "b", "c")], details("a", "b", "c")) as api:
        register(Thing, api.url)
        waiting = runner.start("things", who="test", door="test", send=False)
        gone = []

        def take_away(path: str) -> None:
            if path == "/things/b" and not gone:
                gone.append(path)
                with db.connection_context():
                    replace_row("b", by) if by else Thing.get(external_id="b").delete_instance()

        api.before_answer = take_away
        run = runner.run_inline(waiting)

    # Then the others are completed, and its item says that the row is gone
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    status, reason = items_of(run)["b"]
    assert status == ItemStatus.FAILED
    assert ("was given another external_id" if by else "no longer in the table") in reason
    assert {row.external_id: row.name for row in Thing.select()} == {
        "a": "name of a",
        "c": "name of c",
        **({by: None} if by else {}),
    }


def test_import_statuses_are_those_of_the_row_and_not_of_its_primary_key() -> None:
    with serving([listed("a", "b")], details("a") | {"b": 404}) as api:
        register(Thing, api.url)
        imported()
    replace_row("b", by="other")

    assert [item.status for item in Thing.get(external_id="a").import_statuses()] == [ItemStatus.COMPLETED]
    assert Thing.get(external_id="other").import_statuses() == []
    assert Thing.get(external_id="other").import_status() is None


def test_an_item_of_another_table_is_not_written_into_this_one() -> None:
    # Given a source whose model is another one since its run failed
    class Other(Detailed, Model):
        external_id = CharField(unique=True)
        name = TextField(null=True)

        class Meta:
            database = db
            table_name = "other_things"

    with serving([listed("a")], {"a": 404}) as api:
        register(Thing, api.url)
        run = imported()
        register(Other, api.url)
        Other.create(external_id="a")
        api.details = details("a")

        run = retried(run)

    assert run.failed_count == 1
    assert "its row is in own_things" in items_of(run)["a"][1]
    assert Other.get().name is None


def test_a_row_whose_primary_key_is_changed_by_its_details_fails_alone() -> None:
    with serving([listed("a", "b")], details("a") | {"b": {"id": 77, "name": "x"}}) as api:
        register(Thing, api.url)
        run = imported()

    assert (run.succeeded_count, run.failed_count) == (1, 1)
    assert "its primary key was changed" in items_of(run)["b"][1]
    assert sorted(row.id for row in Thing.select()) == [1, 2]


def test_a_row_that_cannot_be_read_fails_its_item_alone() -> None:
    """SQLite keeps any text in any column; Postgres has no such row."""
    if not database.is_sqlite():
        pytest.skip("Postgres keeps what fits the column only")

    class Counted(Detailed, Model):
        external_id = CharField(unique=True)
        token = IntegerField(null=True)
        name = TextField(null=True)

        class Meta:
            database = db
            table_name = "counted"

    Counted.token.python_value = lambda value: (
        None if value is None else int(value)
    )  # as a field of a user's own may do
    with serving([listed("a", "b", "c")], details("a", "b", "c")) as api:
        register(Counted, api.url)
        waiting = runner.start("things", who="test", door="test", send=False)
        api.before_answer = lambda path: spoil() if path == "/things" else None

        def spoil() -> None:
            db.connect(reuse_if_open=True)
            db.execute_sql("CREATE TRIGGER IF NOT EXISTS spoil AFTER INSERT ON sluice_run_items BEGIN "
                           "UPDATE counted SET token = 'no number' WHERE external_id = 'b'; END")  # fmt: skip
            db.close()

        run = runner.run_inline(waiting)

    assert (run.succeeded_count, run.failed_count) == (2, 1)
    assert "its row cannot be read: ValueError" in items_of(run)["b"][1]
    assert RunItem.select().where(RunItem.status == ItemStatus.COMPLETED).count() == 2


def test_items_made_before_rows_were_compared_are_worked_as_before(api: Api | None = None) -> None:
    """An installation that is brought up to date has items without a table's name: their primary key alone counts."""
    with serving([listed("a")], {"a": 404}) as served:
        register(Thing, served.url)
        run = imported()
        RunItem.update(item_type=None).execute()
        served.details = details("a")

        run = retried(run)

    assert run.succeeded_count == 1
    assert Thing.get().name == "name of a"
