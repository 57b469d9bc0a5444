"""A list is endless if a cursor or a page repeats; pages without new items do not end it."""

import json
from typing import Any

import pytest
import requests
from peewee import IntegerField

from tests.helpers.model_imports import Complete, fresh_model, imported, items_of, notes_of, register, serving
from workers.control import runner
from workers.errors import ConfigurationError, PermanentError, Skip
from workers.records import runs
from workers.records.tables import ListPage, Run, RunItem, RunStatus
from workers.sources.registry import get_registry

FAILED, COMPLETED = RunStatus.FAILED, RunStatus.COMPLETED


@pytest.fixture
def thing(house, moved_clock):
    return fresh_model(house, Complete)


def rows(*ids: Any) -> list[dict[str, Any]]:
    return [{"external_id": str(one)} for one in ids]


def outcome(run: Run) -> tuple[str, int, int, int]:
    return run.status, run.succeeded_count, run.failed_count, run.skipped_count


def skipping(self: Any, item: Any) -> Any:
    if not item["external_id"].startswith("wanted"):
        raise Skip("filtered")
    return self.model(**item)


# --- pages that bring nothing new are no reason to stop


def test_a_filtered_list_is_read_to_its_end(thing):
    pages = [*(rows(f"a{n}", f"b{n}") for n in range(22)), rows("wanted")]
    with serving(pages) as api:
        register(thing, api.url, create_model_from_list_item=skipping)

        run = imported()

    assert outcome(run) == (COMPLETED, 1, 0, 44)


def test_items_that_are_all_known_already_do_not_end_a_list(thing):
    # Given pages that bring the same items in another order, as lists do that are sorted by what changes
    ids = [f"t{n}" for n in range(6)]
    pages = [rows(*page_ids) for page_ids in ([*ids[n:], *ids[:n]] for n in range(6))] + [rows("last")]
    with serving(pages) as api:
        register(thing, api.url)

        run = imported()

    assert outcome(run) == (COMPLETED, 7, 0, 0)


def test_months_without_orders_do_not_end_a_list(thing):
    pages: list[Any] = [rows("first"), *([] for _ in range(40)), rows("last")]
    with serving(pages) as api:
        register(thing, api.url)

        run = imported()

    assert outcome(run) == (COMPLETED, 2, 0, 0)


def test_rows_that_the_database_refuses_do_not_end_a_list(house, thing):
    class Strict(thing):
        number = IntegerField(null=True)

        class Meta:
            table_name = "strict"

    pages = [[{"external_id": f"x{n}", "number": 2**80 + n}] for n in range(22)] + [rows("last")]
    with serving(pages) as api:
        register(Strict, api.url)

        run = imported()

    assert outcome(run) == (COMPLETED, 1, 22, 0)


# --- what comes again is


def by_cursor(self: Any, cursor: Any, per_page: int) -> requests.Request:
    return requests.Request("GET", "things", params={"page": 1, "cursor": json.dumps(cursor)})


@pytest.mark.parametrize(
    ("cursors", "said"),
    [
        ({1: 1}, "list page 1: it names itself as the next one"),
        ({1: 2, 2: 2}, "list page 2: it names itself as the next one"),
        ({1: 2, 2: 3, 3: 1}, "list page 3: it names page 1, which was read before, as the next one"),
        ({1: "a", "a": "b", "b": "a"}, "list page b: it names page a, which was read before, as the next one"),
        ({1: [0, 1], (0, 1): [0, 1]}, "list page [0, 1]: it names itself as the next one"),
    ],
    ids=["itself", "the second itself", "the first again", "a circle", "a list"],
)
def test_a_cursor_that_comes_again_fails_the_run(thing, cursors, said):
    def following(self: Any, data: Any, cursor: Any) -> Any:
        return cursors[tuple(cursor) if isinstance(cursor, list) else cursor]

    numbers = iter(range(100))
    with serving([[]]) as api:
        api.before_answer = lambda path: api.pages.__setitem__(0, rows(next(numbers)))
        register(thing, api.url, get_list_request=by_cursor, next_cursor=following)

        run = imported()

    assert run.status == FAILED
    assert run.error_summary == f"{said}: does ThingSource.next_cursor advance?"


@pytest.mark.parametrize("after", [1, 2, 60])
def test_a_page_that_comes_again_fails_the_run_however_many_came_between(thing, after):
    # Given an API that counts its pages modulo some number
    def get_list_request(self: Any, cursor: Any, per_page: int) -> requests.Request:
        return requests.Request("GET", "things", params={"page": (cursor - 1) % after + 1})

    with serving([rows(n) for n in range(after)]) as api:
        register(thing, api.url, get_list_request=get_list_request, next_cursor=lambda self, data, cursor: cursor + 1)

        run = imported()

    assert (run.status, len(api.asked)) == (FAILED, after + 1)
    assert run.error_summary == (
        f"list page {after + 1}: its items came before, on another page: does ThingSource.get_list_request ask for "
        "the page its cursor names?"
    )


@pytest.mark.parametrize("most", [1, 30])
def test_as_many_empty_pages_as_a_source_says_are_read_and_no_more(thing, most):
    with serving([rows("first"), *([] for _ in range(60))]) as api:
        register(thing, api.url, max_empty_pages=most)

        run = imported()

    assert (run.status, len(api.asked)) == (FAILED, 1 + most + 1)
    assert run.error_summary == (
        f"list page {most + 2}: {most + 1:,} list pages in a row had no item: does ThingSource.next_cursor ever "
        "return None? Set max_empty_pages on ThingSource if that many may be empty"
    )


def test_a_list_that_has_ended_keeps_nothing_of_its_pages(thing):
    with serving([rows(n) for n in range(5)]) as api:
        register(thing, api.url)

        run = imported()

    assert run.status == COMPLETED
    assert ListPage.select().count() == 0


# --- the first cursor


@pytest.mark.parametrize("first", [0, None, "", {"after": None}])
def test_the_first_cursor_is_the_source_s(thing, first):
    given: list[Any] = []

    def get_list_request(self: Any, cursor: Any, per_page: int) -> requests.Request:
        given.append(cursor)
        return requests.Request("GET", "things", params={"page": len(given)})

    with serving([rows("a"), rows("b"), rows("c")]) as api:
        register(
            thing,
            api.url,
            first_cursor=first,
            get_list_request=get_list_request,
            next_cursor=lambda self, data, cursor: ["second", "third", None][len(given) - 1],
        )

        run = imported()

    assert outcome(run) == (COMPLETED, 3, 0, 0)
    assert given == [first, "second", "third"]


def test_a_list_that_counts_from_zero_continues_with_page_one(thing):
    def get_list_request(self: Any, cursor: Any, per_page: int) -> requests.Request:
        return requests.Request("GET", "things", params={"page": cursor + 1})

    with serving([rows("a"), rows("b"), rows("c")]) as api:
        register(thing, api.url, first_cursor=0, get_list_request=get_list_request)

        run = imported()

    assert outcome(run) == (COMPLETED, 3, 0, 0)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        *(("first_cursor", value) for value in (object(), {1, 2}, float("nan"), b"a")),
        *(("max_empty_pages", value) for value in (0, -1, 1.5, "10", True, None, 10**9)),
        *(("partial_list", value) for value in (1, "yes", None)),
    ],
)
def test_what_a_list_cannot_be_is_refused_when_its_source_is_registered(thing, attribute, value):
    with pytest.raises(ConfigurationError, match=f"ThingSource: {attribute} must be"):
        register(thing, "http://127.0.0.1:1", **{attribute: value})


# --- a page that cannot be had


REFUSED = {400: "bad_data", 404: "not_found", 410: "not_found", 422: "bad_data", 500: "transient", 401: "auth"}


@pytest.mark.parametrize("status", [400, 410, 500, 401])
def test_a_partial_list_is_imported_and_the_missing_page_is_reported(thing, status):
    # Given a list whose third page cannot be had
    with serving([rows(1, 2), rows(3), status, rows(4)]) as api:
        register(thing, api.url, partial_list=True)

        run = imported()

        # Then the run is not what it would be if the list were whole
        assert outcome(run) == (COMPLETED, 3, 1, 0)
        missing = RunItem.get(RunItem.run_id == run.id, RunItem.status == "failed")
        assert (missing.external_id, missing.failure_class) == ("page 3, and what follows", REFUSED[status])
        assert str(status) in missing.failure_reason
        assert notes_of(run)["list cut short"].startswith("3 items came before it. list page 3: ")

        # And once the page is to be had, the list can be read anew: nothing is counted twice
        api.pages[2] = rows("3b")
        assert runner.retry_failed(run.id, who="test", door="test", from_start=True) == 0
        run = runner.run_inline(runs.get(run.id))
    assert outcome(run) == (COMPLETED, 5, 0, 0)
    assert run.total_count == 5


def test_a_partial_list_ends_where_its_source_says_so_in_a_class_of_its_own(thing):
    def get_list_request(self, cursor, per_page):
        if cursor == 2:
            raise PermanentError("there is no more", "a class of its own")
        return requests.Request("GET", "things", params={"page": cursor})

    with serving([rows(1), rows(2)]) as api:
        register(thing, api.url, partial_list=True, get_list_request=get_list_request, next_cursor=lambda *_: 2)

        run = imported()

    assert outcome(run) == (COMPLETED, 1, 1, 0)
    missing = RunItem.get(RunItem.run_id == run.id, RunItem.status == "failed")
    assert (missing.failure_class, missing.failure_reason) == ("bad_data", "list page 2: there is no more")


def test_a_page_that_cannot_be_read_fails_the_run_of_any_other_source(thing):
    with serving([rows(1, 2), 400]) as api:
        register(thing, api.url)

        run = imported()

    assert run.status == FAILED
    assert items_of(run) == {"1": ("pending", ""), "2": ("pending", "")}


def test_the_first_page_of_a_partial_list_fails_the_run(thing):
    with serving([400]) as api:
        register(thing, api.url, partial_list=True)

        run = imported()

    assert (run.status, run.total_count) == (FAILED, None)


def test_a_partial_list_removes_no_rows(thing):
    with serving([rows(1), rows(2), rows(3)]) as api:
        register(thing, api.url, partial_list=True, allow_fresh=True)
        imported()
        api.pages[2] = 400

        run = imported(fresh=True)

    assert run.status == COMPLETED
    assert "nothing removed" in notes_of(run)
    assert thing.select().count() == 3


def test_a_list_whose_cursor_has_died_is_read_from_the_start(thing):
    # Given a run that failed at a cursor which the API forgot
    dead: list[Any] = []

    def get_list_request(self: Any, cursor: Any, per_page: int) -> requests.Request:
        return requests.Request("GET", "things", params={"page": 9 if cursor in dead else int(str(cursor)[-1])})

    def following(self: Any, data: Any, cursor: Any) -> Any:
        n = int(str(cursor)[-1])
        return f"c{len(dead)}{n + 1}" if n < 3 else None

    pages: list[Any] = [rows(1), rows(2), 503, *([] for _ in range(5)), 410]
    with serving(pages) as api:
        register(thing, api.url, get_list_request=get_list_request, next_cursor=following)
        run = imported()
        assert (run.status, run.total_count) == (FAILED, 2)
        dead.append(run.discovery_cursor)
        api.pages[2] = rows(3)

        # When it is retried at that cursor, it fails again; from the start it completes
        runner.retry_failed(run.id, who="test", door="test")
        assert runner.run_inline(runs.get(run.id)).status == FAILED
        runner.retry_failed(run.id, who="test", door="test", from_start=True)
        run = runner.run_inline(runs.get(run.id))

    assert outcome(run) == (COMPLETED, 3, 0, 0)
    assert notes_of(run)["retry"].endswith("and its list from the first page")


def test_only_an_ended_run_reads_its_list_from_the_start(thing):
    with serving([rows(1)]) as api:
        register(thing, api.url)
        run = runner.start("things", who="test", door="test", send=False)

        with pytest.raises(Exception, match="only a run that has ended can read its list from the start"):
            runner.retry_failed(run.id, who="test", door="test", from_start=True)
    assert get_registry()["things"]
