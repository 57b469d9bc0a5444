"""Any error of a user's code spends an attempt: after five of them the item, or the run, has failed with the reason."""

import asyncio
from typing import Any

import pytest
from peewee import OperationalError, TextField

from tests.helpers.model_imports import Detailed, fresh_model, imported, items_of, register, serving
from workers import Connector, Limit
from workers.connections import database
from workers.control import runner
from workers.errors import BudgetClosed, BudgetUnknown, DependencyDown, LongWait, RateLimited, Refused, RetryableError
from workers.records import lanes, runs
from workers.records.tables import RunItem, RunStatus

IDS = [str(n) for n in range(6)]
PAGE = [[{"external_id": n} for n in IDS]]
DETAILS = {n: {"name": f"n{n}"} for n in IDS}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unsaid(RetryableError):
    def __str__(self) -> str:
        raise SystemExit("no words")


class Odd(RateLimited):
    def __init__(self) -> None:
        Exception.__init__(self, "come back later")


ERRORS: dict[str, BaseException] = {
    "SystemExit": SystemExit(3),
    "CancelledError": asyncio.CancelledError(),
    "GeneratorExit": GeneratorExit(),
    "unspeakable": Unspeakable(),
    "unsaid": Unsaid(),
    "RateLimited 0": RateLimited(0, "too many"),
    "RateLimited -5": RateLimited(-5, "too many"),
    "RateLimited inf": RateLimited(float("inf"), "too many"),
    "RateLimited nan": RateLimited(float("nan"), "too many"),
    "RateLimited 1e15": RateLimited(1e15, "too many"),
    "RateLimited of their own": Odd(),
    "RateLimited, by a budget of its own": BudgetClosed(5, "another API's window is full"),
    "RateLimited, by another API": Refused(5, "another API answered 429"),
    "RateLimited, by another API, for days": LongWait(5, "another API answered 429", 200_000),
    "DependencyDown": DependencyDown("the cache is away"),
    "DependencyDown, by a budget of its own": BudgetUnknown("another Redis is away"),
    "OperationalError": OperationalError("server closed the connection unexpectedly"),
    "MemoryError": MemoryError(),
    "ConnectionError": ConnectionError("its own socket"),
    "TimeoutError": TimeoutError(),
}
TRANSIENT = {"unsaid", "DependencyDown", "DependencyDown, by a budget of its own", "OperationalError"}
#: A connector that raises one of these is met by whole turns.
SOME = {
    name: ERRORS[name]
    for name in ("SystemExit", "unspeakable", "RateLimited inf", "DependencyDown", "OperationalError")
}


@pytest.fixture
def thing(house, moved_clock):
    house.setenv("SLUICE_TICK_SECONDS", "60")
    return fresh_model(house, Detailed)


def raising(errors: dict[str, BaseException], method: str, model: type[Any]) -> type[Any]:
    """Return a model whose items raise these errors, by their ids, in one of its methods."""
    before = getattr(model, method)

    def do(self: Any, *given: Any) -> Any:
        if self.external_id in errors:
            raise errors[self.external_id]
        return before(self, *given)

    setattr(model, method, do)
    return model


def failing_connector(error: BaseException, times: float) -> tuple[Any, list[bool]]:
    """Return a get_connector that raises so often once the list is read, and where it notes that."""
    raised: list[bool] = []

    def get_connector(self: Any, run: Any) -> Any:
        if runs.get(run.id).discovered_at and len(raised) < times:
            raised.append(True)
            raise error
        return self.connector

    return get_connector, raised


@pytest.mark.parametrize("method", ["get_api_detail_request", "populate_from_api_response"])
def test_items_whose_methods_raise_anything_end_and_the_others_are_in(thing, method):
    # Given items of which each raises something else, and six that raise nothing
    page = [[{"external_id": n} for n in (*IDS, *ERRORS)]]
    with serving(page, DETAILS | {name: {"name": "a"} for name in ERRORS}) as api:
        register(raising(ERRORS, method, thing), api.url)

        run = imported()

    # Then those have failed, each with its class and reason, after five attempts
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 6, len(ERRORS))
    for item in RunItem.select().where(RunItem.run_id == run.id, RunItem.external_id.in_(list(ERRORS))):
        name = item.external_id
        its_class = "rate_limited" if "RateLimited" in name else "transient" if name in TRANSIENT else "bug"
        assert (item.status, item.failure_class, item.failure_count) == ("failed", its_class, 5), name
        assert item.failure_reason


def test_a_wait_that_a_source_asks_for_is_bounded(thing, moved_clock):
    begun = moved_clock.monotonic()
    with serving(PAGE, DETAILS) as api:
        register(raising({"3": RateLimited(1e15, "too many")}, "populate_from_api_response", thing), api.url)

        imported()

    assert moved_clock.monotonic() - begun < 5 * 3600


def test_a_row_that_a_field_cannot_read_fails_its_item(thing):
    class Odd(TextField):
        def python_value(self, value: Any) -> Any:
            if value == "3":
                raise SystemExit("odd")
            return value

    class Thing(thing):
        odd = Odd(null=True)

    with serving([[{"external_id": n, "odd": n} for n in IDS]], DETAILS) as api:
        register(Thing, api.url)

        run = imported()

    assert run.status == RunStatus.COMPLETED
    assert {n: status for n, (status, _) in items_of(run).items() if status != "completed"} == {"3": "failed"}
    assert "odd" in items_of(run)["3"][1]


def test_a_column_that_the_table_lacks_fails_the_run_and_says_which(thing):
    # Given a table that loses a column once the list is read
    def get_connector(self: Any, run: Any) -> Any:
        there = {column.name for column in database.db.get_columns("thing")}
        if runs.get(run.id).discovered_at and "name" in there:
            database.db.execute_sql("ALTER TABLE thing DROP COLUMN name")
        return self.connector

    with serving(PAGE, DETAILS) as api:
        register(thing, api.url, get_connector=get_connector)

        run = imported()

    # Then no item is to blame
    assert (run.status, run.failed_count) == (RunStatus.FAILED, 0)
    assert "5 turns in a row ended in an error (bug)" in run.error_summary
    assert "name" in run.error_summary
    assert {item.attempts for item in RunItem.select()} == {0}


@pytest.mark.parametrize("error", SOME.values(), ids=SOME)
def test_a_connector_that_fails_once_is_made_at_the_next_turn(thing, error):
    get_connector, raised = failing_connector(error, 1)
    with serving(PAGE, DETAILS) as api:
        register(thing, api.url, get_connector=get_connector)

        run = imported()

    assert raised
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 6)


@pytest.mark.parametrize("error", SOME.values(), ids=SOME)
def test_a_connector_that_always_fails_fails_the_run_with_the_reason(thing, error):
    get_connector, _ = failing_connector(error, float("inf"))
    with serving(PAGE, DETAILS) as api:
        register(thing, api.url, get_connector=get_connector)

        run = imported()

        assert run.status == RunStatus.FAILED
        assert "5 turns in a row ended in an error (bug): SourceError: ThingSource.get_connector" in run.error_summary
        assert type(error).__name__ in run.error_summary

        # And a retry completes the run, once the connector is repaired
        register(thing, api.url)
        runner.retry_failed(run.id, who="test", door="test")
        run = runner.run_inline(runs.get(run.id))
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 6)


@pytest.mark.parametrize("method", ["get_list_request", "next_cursor"])
def test_a_list_that_waits_for_a_budget_of_its_own_for_good_fails_the_run(thing, method):
    def do(self: Any, *given: Any) -> Any:
        raise BudgetClosed(5, "another API's window is full")

    with serving(PAGE, DETAILS) as api:
        register(thing, api.url, **{method: do})

        run = imported()

    assert run.status == RunStatus.FAILED
    assert "refused 5 times" in run.error_summary


@pytest.mark.parametrize("method", ["get_list_request", "get_list_items", "next_cursor", "get_connector"])
def test_a_list_whose_method_raises_anything_fails_the_run_with_the_reason(thing, method):
    for error in SOME.values():

        def do(self: Any, *given: Any, error: BaseException = error) -> Any:
            raise error

        with serving(PAGE, DETAILS) as api:
            register(thing, api.url, **{method: do})

            run = imported()

        assert run.status == RunStatus.FAILED, error
        assert run.error_summary.startswith("list page 1: "), error


def test_crashes_that_are_not_in_a_row_do_not_fail_the_run(thing):
    turns = iter(range(100))

    def get_connector(self: Any, run: Any) -> Any:
        if runs.get(run.id).discovered_at and next(turns) % 2:
            raise KeyError("now and then")
        return self.connector

    details = {str(n): {"name": "a"} for n in range(60)}
    with serving([[{"external_id": n} for n in details]], details) as api:
        register(thing, api.url, get_connector=get_connector)

        run = imported()

    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 60)


@pytest.mark.parametrize("weight", [-1, 0, 1.5, float("nan"), float("inf"), "2", True, 20_000])
def test_a_weight_that_is_not_valid_fails_its_item_at_once_without_a_request(thing, weight):
    class Weighing(Connector):
        def weigh(self, request: Any) -> Any:
            return weight if request.url.endswith("/3") else 1

    with serving(PAGE, DETAILS) as api:
        register(thing, api.url, connector=Weighing("weighed", base_url=api.url, limits=[Limit(10_000, seconds=1)]))

        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 5, 1)
    failed = RunItem.get(RunItem.run_id == run.id, RunItem.status == "failed")
    assert (failed.external_id, failed.failure_class, failed.failure_count) == ("3", "contract", 1)
    assert "/things/3" not in api.asked


def test_the_last_crash_of_a_run_is_known_while_its_lane_waits(thing):
    lanes.open_for(7, 2)
    assert lanes.last_crash(7) is None

    assert lanes.crashed(7, 1, 1, "KeyError: 'a'") == 1
    assert lanes.crashed(7, 1, 0, "of an earlier turn") == 0

    found = lanes.last_crash(7)
    assert found is not None
    assert (found.lane, found.crashes, found.crash_reason) == (1, 1, "KeyError: 'a'")
    lanes.worked(7, 1)
    assert lanes.last_crash(7) is None
