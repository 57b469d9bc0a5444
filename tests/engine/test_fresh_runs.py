"""--fresh: rows that are no longer in the list are removed at the end of a run with a complete list; no other rows."""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import peewee
import pytest
import requests

from models import Item
from tests.helpers import registered_sources
from workers import ConfigurationError, Limit, Skip, UsageError, clock, testing
from workers.connections import database
from workers.control import runner
from workers.engine import fresh_runs as fresh_rows
from workers.engine.discovery import discover
from workers.engine.finalize import finalize
from workers.engine.fresh_runs import sources_of_table
from workers.messaging import process_heartbeat
from workers.monitor.actions import run_questions
from workers.records import cursor, old_rows, retention, runs, schema
from workers.records.tables import OldRow, Removal, Run, RunEvent, RunStatus
from workers.reports import run_stats

MANY = (Limit(1000, seconds=60),)


ANN = {"who": "ann", "door": "test"}


def nothing(number: int) -> None:
    """Do nothing."""


# --- an API whose list is what the test says --------------------------------------------------------------------------

#: A page of the list: its items, or the status with which it is refused.
Page = list[dict[str, Any]] | int


class Api:
    """A list of pages. `on_page` is called before each answer, with the page's number."""

    def __init__(self) -> None:
        self.url = ""
        self.pages: list[Page] = []
        self.total: int | None = None
        self.on_page: Callable[[int], None] = lambda number: None

    def answer(self, request: testing.Request) -> testing.Response:
        number = int(request.query["page"])
        self.on_page(number)
        page = self.pages[number - 1] if self.pages else []
        if isinstance(page, int):
            return testing.Response(page, {})
        following = {"next_page_url": "more"} if number < len(self.pages) else {}
        return testing.Response(200, {"data": page, "total": self.total} | following)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with testing.api(api.answer) as server:
        api.url = server.url
        yield api


class Listed(Item):
    """An item that the list completes, so that a run is its list."""

    class Meta:
        table_name = "items"

    def get_api_detail_request(self) -> None:
        return None


def read(self: Any, item: dict[str, Any]) -> Any:
    """A source's create_model_from_list_item that skips and refuses as the item says."""
    if item.get("skip"):
        raise Skip("not wanted")
    return self.model(external_id=item["id"], name=item["name"])


@pytest.fixture
def source(import_from: Callable[..., Any], moved_clock: clock.MovedClock, api: Api) -> Any:
    """The source of the API's list, which may be run with --fresh."""
    return import_from(api.url, model=Listed, limits=MANY, create_model_from_list_item=read)


def rows(*ids: object) -> list[dict[str, Any]]:
    return [{"id": str(n), "name": f"name {n}"} for n in ids]


def there(*ids: object, model: Any = Item) -> dict[str, int]:
    """Make rows, as an earlier run has left them; return their primary keys."""
    model.insert_many([{"external_id": str(n), "name": "old"} for n in ids]).execute()
    return dict(model.select(model.external_id, model.id).tuples())


def left(model: Any = Item) -> set[str]:
    return {external_id for (external_id,) in model.select(model.external_id).tuples()}


def start(**options: Any) -> Run:
    return runner.start("items", **ANN, send=False, fresh=True, **options)


def fresh(**options: Any) -> Run:
    return runner.run_inline(start(**options))


def why(run: Run) -> str:
    """What the doors say of a run that does not get on."""
    return run_stats.run_stats(runs.get(run.id)).why


def said(run: Run, what: str) -> str | None:
    """What the run's timeline says under a word; None where it does not stand there."""
    events = RunEvent.select().where(RunEvent.run_id == run.id, RunEvent.what == what)
    return events.order_by(RunEvent.id.desc()).get().detail if events.exists() else None


def hooked(
    source: Any, *, on_read: Callable[[int], None] = nothing, on_delete: Callable[[int], None] = nothing
) -> None:
    """Let the source's rows call back: with each row that is read, and with each deletion, and how many these were."""
    reads, deletions = count(1), count(1)

    class Calling(peewee.CharField):
        def python_value(self, value: Any) -> Any:
            on_read(next(reads))
            return value

    class Hooked(Listed):
        external_id = Calling(unique=True)

        class Meta:
            table_name = "items"

        @classmethod
        def delete(cls) -> Any:
            on_delete(next(deletions))
            return super().delete()

    type(source).fresh_query = lambda self, run: Hooked.select()


# --- a whole list -----------------------------------------------------------------------------------------------------


def test_rows_that_are_no_longer_in_a_whole_list_go_and_the_others_keep_their_keys(source: Any, api: Api) -> None:
    # Given five rows, of which the API still has two
    keys = there("a", "b", "c", "d", "e")
    api.pages = [rows("b", "new"), rows("d")]

    run = fresh()

    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 3)
    assert left() == {"b", "d", "new"}
    assert {n: Item.get(Item.external_id == n).id for n in ("b", "d")} == {n: keys[n] for n in ("b", "d")}
    assert said(run, "removed") == "3 rows that are no longer in the list"
    assert OldRow.select().count() == 0


def test_a_list_that_has_lost_nothing_removes_nothing_and_says_so(source: Any, api: Api) -> None:
    there("a")
    api.pages = [rows("a", "b")]

    run = fresh()

    assert left() == {"a", "b"}
    assert said(run, "removed") == "0 rows that are no longer in the list"


def test_a_run_without_fresh_removes_nothing(source: Any, api: Api) -> None:
    there("a")
    api.pages = [rows("b")]

    run = runner.run_inline(runner.start("items", **ANN, send=False))

    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "b"})
    assert said(run, "removed") is None


def test_a_failed_item_is_in_the_list_and_keeps_its_row(source: Any, api: Api) -> None:
    # Given a row whose details cannot be had any more
    class Detailed(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self) -> requests.Request | None:
            return requests.Request("GET", f"{api.url}?page=2") if self.external_id == "a" else None

    source.model = Detailed
    there("a", "gone")
    api.pages = [rows("a", "b"), 404]
    source.next_cursor = lambda data, cursor: None

    run = fresh()

    assert (run.status, run.failed_count) == (RunStatus.COMPLETED, 1)
    assert left() == {"a", "b"}


# --- a list that does not show what is gone ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 500])
def test_a_list_that_breaks_off_removes_nothing(source: Any, api: Api, status: int) -> None:
    there(*range(1000))
    api.pages = [rows(*range(100)), status]

    run = fresh()

    assert run.status == RunStatus.FAILED
    assert Item.select().count() == 1000


@pytest.mark.parametrize(
    ("page", "total", "why"),
    [
        ([], None, "the list was empty"),
        ([], 0, "the list was empty"),
        ([*rows("a"), {"id": "b"}], None, "1 item of the list could not become a row"),
        ([*rows("a"), {"id": "", "name": "b"}], None, "1 item of the list could not become a row"),
        ([*rows("a"), {"id": "b", "name": "x" * 5000}], None, None),
        ([*rows("a"), {"id": "b", "skip": True}], None, "1 item of the list skipped by the source"),
        (rows("a"), 2, "the API stated a total of 2, and 1 item came"),
        (rows("a", "x", "y"), 2, "the API stated a total of 2, and 3 items came"),
    ],
    ids=["empty", "empty, and says so", "refused", "no id", "too long", "skipped", "too few", "too many"],
)
def test_a_list_that_is_not_whole_removes_nothing_and_says_why(
    source: Any, api: Api, page: Page, total: int | None, why: str | None
) -> None:
    there("a", "b", "gone")
    api.pages, api.total = [page], total

    run = fresh()

    if why is None and database.is_sqlite():  # which keeps text of any length
        assert (run.failed_count, left()) == (0, {"a", "b"})
        return
    assert run.status == RunStatus.COMPLETED
    assert left() >= {"a", "b", "gone"}
    assert (why or "1 item of the list could not become a row") in str(said(run, "nothing removed"))
    assert OldRow.select().count() == 0


def test_an_empty_list_empties_a_table_only_where_a_person_has_said_so(source: Any, api: Api) -> None:
    there("a", "b")

    kept = fresh()
    assert left() == {"a", "b"}
    assert "--fresh --even-if-empty" in str(said(kept, "nothing removed"))

    emptied = fresh(even_if_empty=True)
    assert left() == set()
    assert said(emptied, "removed") == "2 rows that are no longer in the list"


def test_even_if_empty_means_nothing_without_fresh(source: Any) -> None:
    with pytest.raises(UsageError, match="--even-if-empty is for --fresh"):
        runner.start("items", **ANN, send=False, even_if_empty=True)


def test_an_empty_list_of_an_empty_table_completes(source: Any) -> None:
    assert said(fresh(), "removed") == "0 rows that are no longer in the list"


def test_a_list_that_was_not_whole_stays_so_when_the_run_is_retried(source: Any, api: Api) -> None:
    # Given a run that has one item less than the API stated, and whose items have all failed for the credentials
    class Detailed(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self) -> requests.Request:
            return requests.Request("GET", f"{api.url}?page=2")

    source.model = Detailed
    there("a", "b")
    api.pages, api.total = [rows("a"), 401], 2
    source.next_cursor = lambda data, cursor: None
    run = fresh()
    assert (run.status, left()) == (RunStatus.FAILED, {"a", "b"})

    # When the credentials are mended
    api.pages[1] = []
    source.model = Listed
    runner.retry_failed(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))

    # Then nothing is removed, as nothing would have been
    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "b"})
    assert "stated a total of 2" in str(said(run, "nothing removed"))


def test_a_run_that_failed_at_its_list_removes_what_is_gone_once_a_retry_has_read_all_of_it(
    source: Any, api: Api
) -> None:
    there("a", "b", "c")
    api.pages = [rows("a"), 404]
    run = fresh()
    assert (run.status, left()) == (RunStatus.FAILED, {"a", "b", "c"})

    api.pages[1] = rows("c")
    runner.retry_failed(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))

    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "c"})


# --- only old rows, and only its own ----------------------------------------------------------------------------------


def test_a_row_that_others_insert_while_the_list_is_read_stays(source: Any, api: Api) -> None:
    there("old")
    api.pages = [rows("a"), rows("b")]

    def insert(number: int) -> None:
        with database.connection():
            there(f"of others {number}")

    api.on_page = insert

    fresh()

    assert left() == {"a", "b", "of others 1", "of others 2"}


def test_rows_outside_of_fresh_query_stay(source: Any, api: Api) -> None:
    there("mine 1", "mine 2", "by hand")
    type(source).fresh_query = lambda self, run: Item.select().where(Item.external_id.startswith("mine"))
    api.pages = [rows("mine 1")]

    run = fresh()

    assert left() == {"mine 1", "by hand"}
    assert said(run, "removed") == "1 row that is no longer in the list"


def test_a_row_that_leaves_fresh_query_while_the_list_is_read_stays(source: Any, api: Api) -> None:
    there("a", "b")
    type(source).fresh_query = lambda self, run: Item.select().where(Item.name == "old")
    api.pages = [rows("c")]

    def take_over(number: int) -> None:
        with database.connection():
            Item.update(name="a person's").where(Item.external_id == "b").execute()

    api.on_page = take_over

    fresh()

    assert left() == {"b", "c"}


def test_a_key_that_was_given_to_another_row_meanwhile_is_not_the_old_row(source: Any, api: Api) -> None:
    keys = there("a", "old")
    api.pages = [rows("a")]

    def give_again(number: int) -> None:
        with database.connection():
            Item.delete().where(Item.external_id == "old").execute()
            Item.insert(id=keys["old"], external_id="another", name="a person's").execute()

    api.on_page = give_again

    fresh()

    assert left() == {"a", "another"}


def test_rows_without_a_unique_by_value_are_old_rows_too(
    import_from: Callable[..., Any], moved_clock: clock.MovedClock, api: Api
) -> None:
    class Loose(Listed):
        external_id = peewee.CharField(unique=True, null=True)

        class Meta:
            table_name = "loose"
            database = database.db

    Loose.create_table()
    import_from(api.url, model=Loose, limits=MANY)
    for external_id in ("a", "b", None, None):
        Loose.create(external_id=external_id, name="old")
    api.pages = [rows("b")]

    fresh()

    assert left(Loose) == {"b"}


def test_a_row_that_a_later_run_has_brought_is_not_removed_by_the_retry_of_an_earlier_one(
    source: Any, api: Api
) -> None:
    # Given a fresh run that failed, and a later one that has brought what the first had not seen
    there("a", "b", "c")
    api.pages = [rows("a"), 404]
    failed = fresh()
    api.pages = [rows("a", "b")]
    runner.run_inline(runner.start("items", **ANN, send=False))

    # When the first is retried, and its second page is there now
    api.pages = [rows("a"), rows("new")]
    runner.retry_failed(failed.id, **ANN)
    runner.run_inline(runs.get(failed.id))

    assert left() == {"a", "b", "new"}


def test_a_run_whose_old_rows_a_later_fresh_run_took_over_removes_nothing(source: Any, api: Api) -> None:
    there("a", "b")
    api.pages = [rows("a"), 404]
    failed = fresh()
    api.pages = [rows("a", "b")]
    later = fresh()

    api.pages = [rows("a"), rows("c")]
    runner.retry_failed(failed.id, **ANN)
    run = runner.run_inline(runs.get(failed.id))

    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "b", "c"})
    assert f"run {later.id} of items is fresh, too" in str(said(run, "nothing removed"))


# --- whose rows they are ----------------------------------------------------------------------------------------------


def with_tenants(source: Any) -> dict[str, Any]:
    return {"tenant": "acme"}


def with_its_own_connector(source: Any) -> dict[str, Any]:
    type(source).get_connector = lambda self, run: self.connector
    return {}


def with_another_source_on_its_table(source: Any) -> dict[str, Any]:
    registered_sources.SOURCES.append(type("Other", (type(source),), {"name": "others"})())
    runner.get_registry.cache_clear()
    return {}


SHARED = [with_tenants, with_its_own_connector, with_another_source_on_its_table]


@pytest.mark.parametrize("how", SHARED)
def test_fresh_is_refused_if_a_table_can_hold_rows_of_others(source: Any, how: Callable[..., Any]) -> None:
    options = how(source)

    with pytest.raises(ConfigurationError, match=r"def fresh_query\(self, run\): return Listed\.select\(\)"):
        start(**options)
    with pytest.raises(ConfigurationError, match="TestSource must say which"):
        runner.schedule("items", clock.now() + timedelta(hours=1), **ANN, fresh=True, **options)
    assert Run.select().count() == 0


@pytest.mark.parametrize("how", SHARED)
def test_a_scheduled_fresh_run_fails_if_the_source_does_not_allow_it_any_more(
    source: Any, api: Api, moved_clock: clock.MovedClock, how: Callable[..., Any]
) -> None:
    there("a")
    type(source).fresh_query = lambda self, run: Item.select()
    options = how(source)
    run = runner.schedule("items", clock.now() + timedelta(hours=1), **ANN, fresh=True, **options)
    del type(source).fresh_query
    moved_clock.advance(3601)
    runner.start_due()

    run = runner.run_inline(runs.get(run.id))

    assert run.status == RunStatus.FAILED
    assert "must say which of them a run may remove" in run.error_summary
    assert "a bug" not in run.error_summary
    assert left() == {"a"}


def test_a_run_whose_source_does_not_allow_fresh_at_its_end_removes_nothing(source: Any, api: Api) -> None:
    there("a")
    api.pages = [rows("b")]
    api.on_page = lambda number: setattr(type(source), "allow_fresh", False)

    run = fresh()

    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "b"})
    assert "set allow_fresh = True on TestSource" in str(said(run, "nothing removed"))


def test_a_retry_of_failed_items_says_nothing_more_of_a_removal_that_is_over(source: Any, api: Api) -> None:
    # Given a fresh run that has completed, with a failed item
    class Detailed(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self) -> requests.Request:
            return requests.Request("GET", f"{api.url}?page=2")

    source.model = Detailed
    source.next_cursor = lambda data, cursor: None
    there("gone")
    api.pages = [rows("a"), 404]
    run = fresh()
    assert (run.failed_count, said(run, "removed")) == (1, "1 row that is no longer in the list")

    # When that item is tried again, after another row was made
    there("by hand")
    source.model = Listed
    runner.retry_failed(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))

    assert (run.failed_count, left()) == (0, {"a", "by hand"})
    events = RunEvent.select().where(RunEvent.run_id == run.id)
    assert [event.what for event in events.order_by(RunEvent.id)].count("removed") == 1


def test_a_tenant_s_rows_go_and_the_others_stay(source: Any, api: Api) -> None:
    there("acme 1", "acme 2", "blue 1")
    type(source).fresh_query = lambda self, run: Item.select().where(Item.external_id.startswith(run.tenant))
    api.pages = [rows("acme 1")]

    fresh(tenant="acme")

    assert left() == {"acme 1", "blue 1"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda: Item.select().limit(5), "must have no limit"),
        (lambda: Item.select().offset(5), "must have no limit"),
        (lambda: None, "must return a select of Listed"),
        (Run.select, "must return a select of Listed"),
        (lambda: 1 / 0, "a bug in the source: ZeroDivisionError"),
    ],
)
def test_a_fresh_query_that_returns_no_select_fails_the_run(source: Any, api: Api, answer: Any, why: str) -> None:
    there("a")
    type(source).fresh_query = lambda self, run: answer()

    run = fresh()

    assert run.status == RunStatus.FAILED
    assert why in run.error_summary
    assert left() == {"a"}


def test_a_fresh_query_that_fails_at_the_end_fails_the_run_and_removes_nothing(source: Any, api: Api) -> None:
    there("a")
    api.pages = [rows("b")]
    asked: list[Run] = []

    def answer(self: Any, run: Run) -> Any:
        asked.append(run)
        return Item.select() if len(asked) == 1 else 1 / 0

    type(source).fresh_query = answer

    run = fresh()

    assert run.status == RunStatus.FAILED
    assert "could not be removed: ZeroDivisionError" in run.error_summary
    assert left() == {"a", "b"}


# --- while another run of the table is active -------------------------------------------------------------------------


def other_run(source: Any, **options: Any) -> Run:
    """An active run of another tenant, which writes to the same table."""
    type(source).fresh_query = lambda self, run: Item.select()
    return runner.start("items", **ANN, send=False, tenant="other", **options)


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.PAUSED])
def test_fresh_is_refused_while_another_run_of_the_table_is_active(source: Any, status: RunStatus) -> None:
    other = other_run(source)
    if status is RunStatus.PAUSED:
        runner.pause(other.id, **ANN)

    with pytest.raises(UsageError, match=f"Run {other.id} of items for other is {status}.*cancel it first"):
        start()


def test_fresh_is_refused_while_a_run_of_another_source_on_the_table_is_active(source: Any) -> None:
    with_another_source_on_its_table(source)
    type(source).fresh_query = lambda self, run: Item.select()
    assert sources_of_table(source) == ["items", "others"]
    other = runner.start("others", **ANN, send=False)

    with pytest.raises(UsageError, match=f"Run {other.id} of others is running"):
        start()


def test_a_fresh_run_waits_behind_the_active_run_of_its_own_source(source: Any) -> None:
    runner.start("items", **ANN, send=False)

    assert start().status == RunStatus.PENDING


def test_a_scheduled_fresh_run_that_begins_beside_another_removes_nothing(
    source: Any, api: Api, moved_clock: clock.MovedClock
) -> None:
    there("a")
    api.pages = [rows("b")]
    run = runner.schedule("items", clock.now() + timedelta(hours=1), **ANN, fresh=True)
    other = other_run(source)
    moved_clock.advance(3601)
    runner.start_due()

    run = runner.run_inline(runs.get(run.id))

    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "b"})
    assert f"run {other.id} of items, on the same table, was active" in str(said(run, "nothing removed"))


def test_a_fresh_run_beside_which_another_has_begun_removes_nothing(source: Any, api: Api) -> None:
    there("a")
    api.pages = [rows("b")]
    others: list[Run] = []

    def begin_another(number: int) -> None:
        with database.connection():
            others.append(other_run(source))

    api.on_page = begin_another

    run = fresh()

    assert (run.status, left()) == (RunStatus.COMPLETED, {"a", "b"})
    assert f"run {others[0].id} of items, on the same table, is running" in str(said(run, "nothing removed"))


def test_a_removal_beside_which_another_run_begins_removes_no_more(source: Any, api: Api) -> None:
    there(*range(1300))
    api.pages = [rows(1, 2)]
    run = start()
    others: list[Run] = []
    hooked(source, on_delete=lambda n: others.append(runner.start("items", tenant="other", send=False, **ANN)))

    run = runner.run_inline(run)

    assert (run.status, len(left())) == (RunStatus.COMPLETED, 800)
    assert said(run, "removed") == (
        f"500 rows that are no longer in the list, and no more: run {others[0].id} of items, on the same table, is "
        f"running; start a new run with --fresh"
    )


# --- rows that cannot go ----------------------------------------------------------------------------------------------


class Order(peewee.Model):
    """A user's own table, which refers to items."""

    item = peewee.ForeignKeyField(Item)

    class Meta:
        database = database.db
        table_name = "orders"


class Late(peewee.Model):
    """The same, whose constraint is looked at when a transaction ends."""

    item = peewee.ForeignKeyField(Item, deferrable="INITIALLY DEFERRED")

    class Meta:
        database = database.db
        table_name = "late_orders"


@pytest.mark.parametrize("referring", [Order, Late])
def test_a_row_that_another_table_refers_to_stays_and_the_run_fails_and_can_be_retried(
    source: Any, api: Api, referring: Any
) -> None:
    # Given 40 rows that the API does not have any more, two of them referred to by a table of the user's
    keys = there("a", *range(40))
    referring.create_table()
    for n in ("3", "17"):
        referring.create(item=keys[n])
    api.pages = [rows("a", "b")]

    # When
    run = fresh()

    # Then the others are gone, and the run says who forbids what
    table = referring._meta.table_name
    assert left() == {"a", "b", "3", "17"}
    assert run.status == RunStatus.FAILED
    assert "2 rows of items that are no longer in the list could not be removed, and stay" in run.error_summary
    assert f"the table '{table}'" in run.error_summary
    assert f"`retry {run.id}`" in run.error_summary
    assert "a bug" not in run.error_summary
    assert said(run, "removed") == "38 rows that are no longer in the list"
    if not database.is_sqlite():
        assert f"constraint '{table}_item_id_fkey'" in run.error_summary

    # And the page offers to go on with it
    question = run_questions.retry_failed(run)
    assert question.title == f"Continue run {run.id}?"
    assert "Rows that could not be removed are tried again." in question.sentences[0]

    # And when one of the two is mended, a retry removes that one
    referring.delete().where(referring.item == keys["3"]).execute()
    assert runner.retry_failed(run.id, **ANN) == 0
    run = runner.run_inline(runs.get(run.id))
    assert (run.status, left()) == (RunStatus.FAILED, {"a", "b", "17"})
    assert "1 row of items that is no longer" in run.error_summary

    # And when both are, the run completes
    referring.delete().execute()
    runner.retry_failed(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))
    assert (run.status, run.error_summary, left()) == (RunStatus.COMPLETED, None, {"a", "b"})
    assert said(run, "removed") == "40 rows that are no longer in the list"
    assert OldRow.select().count() == 0


def test_a_row_that_a_trigger_protects_stays_and_the_run_has_its_message(source: Any, api: Api) -> None:
    there(*range(40))
    when = "WHEN (old.external_id = '7')"
    if database.is_sqlite():
        keep = f"CREATE TRIGGER keep BEFORE DELETE ON items {when} BEGIN SELECT RAISE(ABORT, 'seven is kept'); END"
    else:
        body = "$$ BEGIN RAISE EXCEPTION 'seven is kept'; END $$ LANGUAGE plpgsql"
        database.db.execute_sql(f"CREATE FUNCTION keep() RETURNS trigger AS {body}")
        keep = f"CREATE TRIGGER keep BEFORE DELETE ON items FOR EACH ROW {when} EXECUTE FUNCTION keep()"
    database.db.execute_sql(keep)
    api.pages = [rows(1)]

    run = fresh()

    assert (run.status, left()) == (RunStatus.FAILED, {"1", "7"})
    assert "seven is kept" in run.error_summary


def test_a_table_from_which_nothing_may_be_deleted_fails_the_run_at_once(source: Any, api: Api) -> None:
    there(*range(40))
    tried = []

    def refuse(number: int) -> None:
        tried.append(number)
        raise peewee.ProgrammingError("permission denied for table items")

    hooked(source, on_delete=refuse)
    api.pages = [rows(1)]

    run = fresh()

    assert (run.status, len(left()), tried) == (RunStatus.FAILED, 40, [1])
    assert "permission denied for table items" in run.error_summary


# --- what dies, and what is stopped -----------------------------------------------------------------------------------


def dies(when: int) -> Callable[[int], None]:
    def at(number: int) -> None:
        if number == when:
            raise KeyboardInterrupt

    return at


def test_the_copy_resumes_at_the_key_at_which_a_worker_died(
    source: Any, api: Api, moved_clock: clock.MovedClock
) -> None:
    # Given a run whose worker died in the second chunk of keys
    there(*range(2500))
    hooked(source, on_read=dies(1500))
    run = start()
    with pytest.raises(KeyboardInterrupt):
        runner.run_inline(run)
    assert OldRow.select().count() == 1000
    process_heartbeat.Heartbeat("worker").write()
    assert why(run) == "records which rows exist, before it requests its list"

    # When its lease has ended, and another takes it up
    moved_clock.advance(1000)
    api.pages = [rows(1, 2)]
    run = runner.run_inline(runs.get(run.id))

    # Then every row was known, once
    assert (run.status, left()) == (RunStatus.COMPLETED, {"1", "2"})
    assert said(run, "removed") == "2,498 rows that are no longer in the list"


def test_a_copy_that_takes_longer_than_a_page_s_lease_keeps_its_page(
    source: Any, api: Api, moved_clock: clock.MovedClock
) -> None:
    there(*range(3500))
    api.pages = [rows(1)]
    run = start()
    taken = []

    def be_slow(number: int) -> None:
        if number % 1000 == 1:
            moved_clock.advance(80)
            taken.append(cursor.begin_page(run.id, 60))  # as another process would

    hooked(source, on_read=be_slow)
    run = runner.run_inline(run)

    assert taken[:4] == [None] * 4
    assert (run.status, left(), run.requests_count) == (RunStatus.COMPLETED, {"1"}, 1)


def test_a_copy_whose_run_is_paused_stops_and_continues_when_it_is_resumed(source: Any, api: Api) -> None:
    there(*range(2500))
    run = start()

    def pause(number: int) -> None:
        if number == 1500:
            runner.pause(run.id, **ANN)

    hooked(source, on_read=pause)
    api.pages = [rows(1)]
    discover(run.id)
    assert (OldRow.select().count(), runs.get(run.id).requests_count) == (1000, 0)

    runner.resume(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))

    assert (run.status, left()) == (RunStatus.COMPLETED, {"1"})


def test_a_removal_resumes_at_the_key_at_which_a_worker_died(
    source: Any, api: Api, moved_clock: clock.MovedClock
) -> None:
    # Given a removal that died within its second transaction
    there(*range(1300))
    hooked(source, on_delete=dies(2))
    api.pages = [rows(1, 2)]
    run = start()
    with pytest.raises(KeyboardInterrupt):
        runner.run_inline(run)
    assert (len(left()), runs.get(run.id).status) == (800, RunStatus.RUNNING)
    process_heartbeat.Heartbeat("worker").write()
    assert why(run) == "removes the rows that are no longer in its list: 500 so far"

    # When another takes it up
    moved_clock.advance(1000)
    run = runner.run_inline(runs.get(run.id))

    # Then each row is removed, and counted, once
    assert (run.status, left()) == (RunStatus.COMPLETED, {"1", "2"})
    assert said(run, "removed") == "1,298 rows that are no longer in the list"


def test_two_processes_do_not_remove_at_the_same_time(source: Any, api: Api) -> None:
    there("gone")
    api.pages = [rows("a")]
    run = start()
    taken = []
    hooked(source, on_delete=lambda number: taken.append(old_rows.take(run.id, 60)))

    run = runner.run_inline(run)

    assert taken == [None]
    assert (run.status, left()) == (RunStatus.COMPLETED, {"a"})


@pytest.mark.parametrize("status", [RunStatus.PAUSED, RunStatus.CANCELLED])
def test_a_removal_whose_run_is_stopped_removes_no_more(source: Any, api: Api, status: RunStatus) -> None:
    there(*range(1300))
    run = start()

    def stop(number: int) -> None:
        if number == 1:
            runs.move(run.id, status, **ANN)

    hooked(source, on_delete=stop)
    api.pages = [rows(1, 2)]
    discover(run.id)
    for _ in range(3):
        finalize(run.id)

    assert (runs.get(run.id).status, len(left())) == (status, 800)


def test_a_paused_removal_continues_when_it_is_resumed(source: Any, api: Api) -> None:
    there(*range(1300))
    run = start()
    hooked(source, on_delete=lambda n: runs.move(run.id, RunStatus.PAUSED, who="x", door="x") if n == 1 else None)
    api.pages = [rows(1, 2)]
    discover(run.id)
    finalize(run.id)
    assert len(left()) == 800

    runner.resume(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))

    assert said(run, "removed") == "1,298 rows that are no longer in the list"


def test_force_leaves_the_removal_to_the_workers(source: Any, api: Api, moved_clock: clock.MovedClock) -> None:
    there("gone")
    api.pages = [rows("a")]
    run = start()
    discover(run.id)
    moved_clock.advance(3600)

    assert "a worker deletes the rows that are no longer in the list" in runner.force(run.id, **ANN)

    assert runs.get(run.id).status == RunStatus.RUNNING
    finalize(run.id)
    assert (runs.get(run.id).status, left()) == (RunStatus.COMPLETED, {"a"})


def test_a_cancelled_run_removes_nothing_and_forgets_its_old_rows(source: Any, api: Api) -> None:
    there("a")
    api.pages = [rows("b"), rows("c")]
    run = start()

    def cancel(number: int) -> None:
        if number == 2:
            with database.connection():
                runner.cancel(run.id, who="me", door="test")

    api.on_page = cancel
    run = runner.run_inline(run)

    assert (run.status, left()) == (RunStatus.CANCELLED, {"a", "b"})
    assert OldRow.select().count() == 0


def test_retention_forgets_old_rows_that_nothing_can_need(source: Any, api: Api) -> None:
    # Given old rows that a process has left which died just after its run was cancelled
    there("a")
    api.pages = [404]
    run = fresh()
    assert OldRow.select().count() == 1
    Run.update(status=RunStatus.CANCELLED).execute()

    retention.prune(items_days=0, runs_days=0)

    assert OldRow.select().count() == 0
    assert Removal.select().where(Removal.run_id == run.id).exists()


def test_the_state_of_a_removal_is_removed_with_its_run(source: Any, api: Api, moved_clock: clock.MovedClock) -> None:
    there("a")
    api.pages = [rows("b")]
    fresh()
    moved_clock.advance(3 * 86_400)

    assert retention.prune(items_days=1, runs_days=2).runs == 1

    assert Removal.select().count() == 0


# --- in many chunks, and elsewhere ------------------------------------------------------------------------------------


def test_many_rows_go_in_chunks(source: Any, api: Api) -> None:
    there(*range(1000), "z")
    api.pages = [rows(*range(100, 200)), rows(*range(900, 1000))]

    run = fresh()

    assert left() == {str(n) for n in [*range(100, 200), *range(900, 1000)]}
    assert said(run, "removed") == "801 rows that are no longer in the list"


@pytest.fixture(params=["beside ours", "in our file"])
def theirs(request: pytest.FixtureRequest, house: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Any]:
    """A database object of the user's own: of the same SQLite file even, where ours is one."""
    path = str(tmp_path / "theirs.db")
    if request.param == "in our file" and database.is_sqlite():
        path = database.db.obj.database
    found = peewee.SqliteDatabase(path, pragmas={"journal_mode": "wal", "busy_timeout": 500, "foreign_keys": 1})
    yield found
    found.close()


def test_a_model_on_another_database_is_treated_alike(
    import_from: Callable[..., Any], moved_clock: clock.MovedClock, api: Api, theirs: Any
) -> None:
    class Elsewhere(Listed):
        class Meta:
            database = theirs
            table_name = "theirs"

    class Refers(peewee.Model):
        item = peewee.ForeignKeyField(Elsewhere)

        class Meta:
            database = theirs

    import_from(api.url, model=Elsewhere, limits=MANY)
    with theirs.connection_context():
        theirs.create_tables([Elsewhere, Refers])
        keys = there(*range(1200), model=Elsewhere)
        Refers.create(item=keys["40"])
    api.pages = [rows("1", "new")]

    run = fresh()

    with theirs.connection_context():
        assert left(Elsewhere) == {"1", "new", "40"}
        Refers.delete().execute()
    assert run.status == RunStatus.FAILED
    assert "the table 'refers' may refer to it" in run.error_summary
    runner.retry_failed(run.id, **ANN)
    run = runner.run_inline(runs.get(run.id))
    with theirs.connection_context():
        assert left(Elsewhere) == {"1", "new"}
    assert said(run, "removed") == "1,199 rows that are no longer in the list"


class ByUuid(Listed):
    id = peewee.UUIDField(primary_key=True, default=uuid.uuid4)


class ByText(Listed):
    external_id = peewee.CharField(primary_key=True)
    id = peewee.IntegerField(null=True)


class BySaving(Listed):
    save_each = True


@pytest.mark.parametrize("model", [ByUuid, ByText, BySaving])
def test_rows_of_other_keys_and_ways_to_be_saved_are_treated_alike(
    import_from: Callable[..., Any], moved_clock: clock.MovedClock, api: Api, model: Any
) -> None:
    model._meta.set_table_name("of_other_keys")
    model.create_table()
    import_from(api.url, model=model, limits=MANY)
    for n in range(1500):
        model.create(external_id=f"it's {n}", name="old")
    api.pages = [[{"id": f"it's {n}", "name": "new"} for n in (1, 700, 1499, 1600)]]

    run = fresh()

    assert left(model) == {"it's 1", "it's 700", "it's 1499", "it's 1600"}
    assert said(run, "removed") == "1,497 rows that are no longer in the list"


# --- what only a table, or another run, can bring about ---------------------------------------------------------------


class Node(peewee.Model):
    """Rows that refer to rows of their own table."""

    external_id = peewee.CharField(unique=True)
    name = peewee.CharField()
    parent = peewee.ForeignKeyField("self", null=True)

    class Meta:
        database = database.db
        table_name = "nodes"

    def get_external_id(self):
        return self.external_id

    def get_api_detail_request(self):
        return None

    def populate_from_api_response(self, data):
        pass


def test_a_total_that_changes_from_page_to_page_removes_nothing(source, api):
    # Given a list from which b goes after its page was read, so that c slips to that page
    there("a", "b", "c", "d")
    api.on_page = lambda number: setattr(api, "total", 4 if number == 1 else 3)
    api.pages = [rows("a", "b"), rows("d")]

    run = fresh()

    assert left() == {"a", "b", "c", "d"}
    assert "another total while the list was read" in said(run, "nothing removed")


@pytest.mark.parametrize("size", [10, 1200])
def test_rows_that_refer_to_each_other_all_go(import_from, moved_clock, api, size):
    import_from(api.url, model=Node, limits=MANY, create_model_from_list_item=read)
    schema.migrate([Node])
    Node.insert_many([{"external_id": str(n), "name": "old"} for n in range(size)]).execute()
    keys = [key for (key,) in Node.select(Node.id).order_by(Node.id).tuples()]
    Node.update(parent=keys[0]).where(Node.id > keys[size // 2]).execute()
    api.pages = [rows("keep")]

    run = fresh()

    assert (run.status, left(Node)) == (RunStatus.COMPLETED, {"keep"})


def test_a_row_that_another_run_brings_before_it_is_deleted_stays(source, api):
    # Given four old rows, which are removed by halves because another table refers to the last one
    keys = there("keep", "a", "b", "c", "d")
    Order.create_table()
    Order.create(item=keys["d"])
    api.pages = [rows("keep")]

    # When another run's list brings a row of the second half while the first half is removed
    hooked(source, on_delete=lambda n: fresh_rows.seen(source, [str(keys["c"])]) if n == 2 else None)
    run = fresh()

    # Then it stays, as the row that is referred to
    assert left() == {"keep", "c", "d"}
    assert "1 row of items that is no longer in the list could not be removed" in run.error_summary


def test_a_cancel_in_the_middle_says_how_many_rows_are_gone(source, api, moved_clock):
    # Given a removal whose turn ends with each 500 rows
    there(*range(1200))
    api.pages = [rows("a")]
    hooked(source, on_delete=lambda number: moved_clock.advance(5))
    run = start()

    def cancel_after_the_first(run):
        if run.status == RunStatus.RUNNING and Removal.select().where(Removal.removed_count > 0).exists():
            runner.cancel(run.id, **ANN)

    run = runner.run_inline(run, cancel_after_the_first)

    assert (run.status, Item.select().count()) == (RunStatus.CANCELLED, 701)
    assert said(run, "removed").startswith("500 rows that were no longer in the list")
