"""An item or page that an API always refuses does not pause its budget: it waits alone; the fifth refusal fails it."""

from typing import Any

import pytest
from peewee import CharField, Model

from tests.helpers import registered_sources
from tests.helpers.model_imports import Api, Complete, Detailed, fresh_model, imported, items_of, register, serving
from workers import Connector, Limit
from workers.connections import database
from workers.control import runner
from workers.engine.rate_limit_refusals import Refusals
from workers.records import items, runs
from workers.records.tables import RunItem, RunStatus
from workers.settings import get_settings

IDS = [str(n) for n in range(12)]
PAGE = [[{"external_id": n} for n in IDS]]
DETAILS: dict[str, Any] = {n: {"name": f"n{n}"} for n in IDS}
SOON, BARE = {"Retry-After": "1"}, dict[str, str]()
#: Every way in which an API asks to wait.
REFUSALS = {
    "429 and Retry-After": (429, SOON),
    "429 without it": (429, BARE),
    "503 and Retry-After": (503, SOON),
    "403 and Retry-After": (403, SOON),
    "429, an hour": (429, {"Retry-After": "3600"}),
}


@pytest.fixture
def thing(house, moved_clock):
    house.setenv("SLUICE_TICK_SECONDS", "60")
    return fresh_model(house, Detailed)


def asked_for(api: Api, external_id: str) -> int:
    return api.asked.count(f"/things/{external_id}")


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_an_item_that_is_always_refused_ends_at_the_fifth_time_and_the_others_are_in(thing, refusal):
    with serving(PAGE, DETAILS | {"7": refusal}) as api:
        source = register(thing, api.url)

        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 11, 1)
    item = RunItem.get(RunItem.run_id == run.id, RunItem.external_id == "7")
    assert (item.failure_class, asked_for(api, "7")) == ("rate_limited", 5)
    assert item.failure_reason.startswith("refused 5 times though others were answered: ")
    assert str(refusal[0]) in item.failure_reason
    # And the budget is open
    assert source.connector.limiter.snapshot().paused_for_seconds == 0.0


def test_the_only_item_left_is_known_by_a_control(thing):
    # Given a run of one item, that is always refused
    with serving([[{"external_id": "7"}]], {"7": (429, SOON)}) as api:
        register(thing, api.url)

        run = imported()

    # Then the list's first page was asked again, to know whose refusals these are: before the third, after each since
    assert (run.status, run.failed_count) == (RunStatus.COMPLETED, 1)
    assert asked_for(api, "7") == 5
    assert api.asked.count("/things") == 5


@pytest.mark.parametrize(("allowed", "seconds", "given"), [(1, 2, 10), (1, 1, 20)])
def test_limits_that_are_higher_than_the_api_s_cost_time_and_no_item(thing, moved_clock, allowed, seconds, given):
    # Given an API that allows a fraction of what it is taken to allow: items are refused in turns, each of them often
    answered: list[float] = []
    with serving(PAGE, dict(DETAILS)) as api:

        def refuse_too_many(path: str) -> None:
            now, name = moved_clock.monotonic(), path.removeprefix("/things/")
            answered[:] = [at for at in answered if at > now - seconds]
            refused = len(answered) >= allowed
            answered.extend([] if refused else [now])
            if name in DETAILS:
                api.details[name] = (429, {"Retry-After": str(seconds)}) if refused else DETAILS[name]
            else:
                api.pages[0] = (429, {"Retry-After": str(seconds)}) if refused else PAGE[0]

        api.before_answer = refuse_too_many
        limits = [Limit(given, seconds=seconds)]
        register(thing, api.url, connector=Connector("given", base_url=api.url, limits=limits), lanes=8)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 12, 0)


def test_an_api_that_refuses_everything_for_a_while_costs_no_item(thing, moved_clock):
    # Given an API that refuses all that is asked for ten minutes, the only item left and the list alike
    with serving([[{"external_id": "7"}]], dict(DETAILS)) as api:
        register(thing, api.url)
        ends_at: list[float] = []

        def refuse_all(path: str) -> None:
            if path == "/things/7" and not ends_at:
                ends_at.append(moved_clock.monotonic() + 600)
            refused = bool(ends_at) and moved_clock.monotonic() < ends_at[0]
            api.pages[0] = (429, SOON) if refused else [{"external_id": "7"}]
            api.details["7"] = (429, SOON) if refused else {"name": "seven"}

        api.before_answer = refuse_all
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 1, 0)


def test_an_api_that_refuses_everything_for_good_ends_the_run_after_a_day(thing, moved_clock):
    # Given an API that answers its list once, and then refuses that, too, by which an item's refusals are judged
    begun = moved_clock.monotonic()
    with serving([[{"external_id": "7"}]], {"7": (429, SOON)}) as api:

        def refuse_from_then_on(path: str) -> None:
            if path == "/things/7":
                api.pages[0] = (429, SOON)

        api.before_answer = refuse_from_then_on
        register(thing, api.url)

        run = imported()

    assert (run.status, run.failed_count) == (RunStatus.COMPLETED, 1)
    assert "and nothing else was answered" in items_of(run)["7"][1]
    assert 25 <= (moved_clock.monotonic() - begun) / 3600 < 31


def test_items_that_are_refused_together_once_are_all_in(thing):
    # Given an API that refuses each item at its first asking: nothing else was answered before the second
    refused: set[str] = set()
    with serving(PAGE, dict(DETAILS)) as api:

        def refuse_first(path: str) -> None:
            name = path.removeprefix("/things/")
            if name in DETAILS:
                api.details[name] = DETAILS[name] if name in refused else (429, SOON)
                refused.add(name)

        api.before_answer = refuse_first
        register(thing, api.url)
        run = imported()

    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 12)


@pytest.mark.parametrize("refusal", [(429, SOON), (503, SOON), (403, SOON)])
def test_a_list_page_that_is_always_refused_fails_the_run_at_the_fifth_time(thing, refusal):
    # Given a second page that is refused, though the first one is answered
    with serving([PAGE[0][:3], refusal], DETAILS) as api:
        register(thing, api.url)

        run = imported()

    assert run.status == RunStatus.FAILED
    assert run.error_summary.startswith("list page 2: refused 5 times though others were answered: ")


def test_a_list_that_is_refused_for_ever_and_nothing_else_answered_ends_after_a_day(thing, moved_clock):
    begun = moved_clock.monotonic()
    with serving([(429, BARE)], {}) as api:
        register(thing, api.url)

        run = imported()

    assert run.status == RunStatus.FAILED
    assert run.error_summary.startswith("list page 1: refused ")
    assert "and nothing else was answered" in run.error_summary
    assert 25 * 3600 <= moved_clock.monotonic() - begun <= 30 * 3600
    assert len(api.asked) < 60


def test_a_refused_item_is_asked_behind_the_others(thing):
    with serving(PAGE, DETAILS | {"0": (429, SOON)}) as api:
        register(thing, api.url, lanes=1)

        imported()

    first, second = [n for n, path in enumerate(api.asked) if path == "/things/0"][:2]
    assert first == 1
    assert second > 4


def test_retry_begins_to_count_anew(thing):
    with serving(PAGE, DETAILS | {"7": (429, SOON)}) as api:
        register(thing, api.url)
        run = imported()
        api.details["7"] = {"name": "seven"}

        runner.retry_failed(run.id, who="test", door="test")
        assert Refusals.of(RunItem.get(RunItem.external_id == "7").metadata) == Refusals()
        run = runner.run_inline(runs.get(run.id))

    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 12)


def test_refusals_spend_no_attempts(thing):
    # Given an item that fails four times and is refused in between: it has its fifth attempt
    answers = iter([500, (429, SOON), 500, 500, (429, SOON), 500, {"name": "seven"}])
    with serving(PAGE, dict(DETAILS)) as api:

        def next_answer(path: str) -> None:
            if path == "/things/7":
                api.details["7"] = next(answers)

        api.before_answer = next_answer
        register(thing, api.url)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 12, 0)


def test_items_that_need_no_request_wait_for_no_permit(house, moved_clock):
    # Given a budget that the list has used up for a day
    from workers import Connector, Limit

    class Whole(Model, Complete):
        external_id = CharField(unique=True)

        class Meta:
            database = database.db

    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()
    begun = moved_clock.monotonic()
    with serving(PAGE) as api:
        connector = Connector("one-a-day", base_url=api.url, limits=[Limit(1, seconds=86_400)])
        register(Whole, api.url, connector=connector)

        run = imported()

    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 12)
    assert moved_clock.monotonic() - begun < 60
    assert items_of(run)["0"] == ("completed", "")
    assert get_settings().max_attempts == 5
    assert items.next_due(run.id) is None
