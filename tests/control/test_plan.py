"""`plan` and the forecast under it: against the limiter itself in moved time, and what one list page shows."""

import heapq
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.floor import floor_seconds
from mock_server import Fault, parse_limits
from models import Item
from tests.helpers.limiters import SECOND, move_to, now_us, use
from workers import Connector, Limit, RateLimiter
from workers.cli.plan import plan as command
from workers.control.plan import plan
from workers.errors import PermanentError, RateLimited, RetryableError, UsageError
from workers.records.activation import activate
from workers.records.runs import create
from workers.records.tables import BudgetRow, Run, RunItem
from workers.reports.budget_states import budget_state, known_budgets
from workers.reports.forecast import Gate, Rule, Work, gates_of, rules_of, seconds_for, steady_seconds

TWO = (Limit(50, seconds=2), Limit(200, seconds=10))
#: Windows are taken that much longer than they are.
LONGER = 1.001

#: What is the same on both databases is looked at on one.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def rules(*limits: Limit) -> list[Rule]:
    return [Rule(limit.requests, limit.window_microseconds / 1e6) for limit in limits]


# --- the arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", [1, 50, 51, 200, 201, 250, 251, 1010, 4152])
@pytest.mark.parametrize("text", ["50/2,200/10", "500/20,2000/100", "7/3"])
def test_answered_at_once_it_is_the_floor(text: str, requests: int) -> None:
    windows = parse_limits(text)
    limits = rules(*[Limit(window.limit, seconds=window.seconds) for window in windows])

    seconds = seconds_for(Work(0, requests).instant, limits)

    assert seconds == pytest.approx(LONGER * floor_seconds(windows, requests))


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (Work(0, 0), 0.0),
        (Work(3, 0, page_seconds=2.0, page_pause_seconds=0.5), 7.0),
        (Work(0, 9, detail_seconds=2.0, detail_pause_seconds=0.5, strands=4), 7.0),
        (Work(0, 8, detail_seconds=2.0, detail_pause_seconds=0.5, strands=4), 4.5),
        (Work(0, 9, detail_seconds=2.0, strands=9, apart_seconds=0.25), 4.0),
        (Work(2, 2, page_seconds=1.0, page_pause_seconds=0.5, detail_seconds=3.0, strands=4), 6.0),
    ],
    ids=["nothing", "pages in turn", "a third round", "two rounds", "one after the other", "pages, then details"],
)
def test_without_limits_it_is_what_the_strands_take(work: Work, seconds: float) -> None:
    assert seconds_for(work, ()) == pytest.approx(seconds)


def test_a_window_is_longer_by_an_answer() -> None:
    work = Work(0, 11, detail_seconds=0.5, strands=20)

    assert seconds_for(work, [Rule(5, 10.0)]) == pytest.approx(2 * (0.5 + 10.0) + 0.5)


def test_what_is_used_is_in_the_way_of_the_rest() -> None:
    assert seconds_for(Work(0, 3).instant, (), [Gate(2, 7.0)]) == 7.0
    assert seconds_for(Work(0, 2).instant, (), [Gate(2, 7.0)]) == 0.0


LIMITS = st.lists(
    st.builds(Limit, st.integers(1, 60), seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0])), min_size=1, max_size=3
)
WORKS = st.builds(
    Work,
    st.integers(0, 30),
    st.integers(0, 300),
    page_seconds=st.sampled_from([0.0, 0.1, 1.0]),
    detail_seconds=st.sampled_from([0.0, 0.1, 1.0]),
    detail_pause_seconds=st.sampled_from([0.0, 0.01]),
    strands=st.integers(1, 20),
)


@settings(deadline=None, max_examples=30)
@given(work=WORKS, limits=LIMITS)
def test_it_is_never_below_the_floor_and_more_is_never_sooner(work: Work, limits: list[Limit]) -> None:
    seconds = seconds_for(work, rules(*limits))

    assert seconds >= seconds_for(work.instant, rules(*limits))
    assert seconds >= seconds_for(work, ())
    for more in (
        Work(**vars(work) | {"pages": work.pages + 1}),
        Work(**vars(work) | {"details": work.details + 1}),
        Work(**vars(work) | {"detail_seconds": work.detail_seconds + 0.1}),
        Work(**vars(work) | {"strands": max(1, work.strands - 1)}),
    ):
        assert seconds_for(more, rules(*limits)) >= seconds - 1e-9


@settings(deadline=None, max_examples=30)
@given(work=WORKS, limits=LIMITS)
def test_leaving_out_whole_rounds_changes_little(work: Work, limits: list[Limit]) -> None:
    long = Work(**vars(work) | {"pages": 10 * work.pages, "details": 10 * work.details})

    shortened = seconds_for(long, rules(*limits), one_by_one=400)

    longest_round = max(limit.seconds for limit in limits) + 1.0
    assert shortened == pytest.approx(seconds_for(long, rules(*limits)), rel=0.01, abs=longest_round)


def test_five_million_requests_take_their_steady_time() -> None:
    limits = rules(Limit(500, seconds=20), Limit(2000, seconds=100))
    work = Work(50_000, 5_000_000, strands=16)

    steady = steady_seconds(work, limits)

    assert steady == pytest.approx(5_050_000 / 2000 * 100 * LONGER)
    assert seconds_for(work, limits) == pytest.approx(steady, abs=2 * 100)


# --- against the limiter itself ---------------------------------------------------------------------------------------


def really(limiter: RateLimiter, work: Work) -> float:
    """Let callers do the work with the limiter's permits; the seconds until the last answer."""
    began, order = now_us(), itertools.count()
    for count, latency, strands in (
        (work.pages, work.page_seconds, 1),
        (work.details, work.detail_seconds, work.strands),
    ):
        left = count
        events = [(now_us(), next(order), limiter.permit_client(), None) for _ in range(strands)]
        while events:
            instant, _, caller, permit = heapq.heappop(events)
            move_to(max(instant, now_us()))
            if permit:
                caller.answered(permit)
                caller.flush()
            if not left:
                continue
            try:
                permit = caller.acquire(50.0)
            except RateLimited as closed:
                again = now_us() + max(1, round(closed.wait_seconds * SECOND))
                heapq.heappush(events, (again, next(order), caller, None))
                continue
            left -= 1
            heapq.heappush(events, (now_us() + round(latency * SECOND), next(order), caller, permit))
    return (now_us() - began) / SECOND


@pytest.mark.parametrize(
    ("limits", "options", "work"),
    [
        (TWO, {}, Work(3, 260, strands=16)),
        (TWO, {}, Work(4, 260, page_seconds=0.3, detail_seconds=0.3, strands=16)),
        (TWO, {}, Work(4, 100, page_seconds=0.3, detail_seconds=0.9, strands=5)),
        (TWO, {"share": 0.5}, Work(1, 220, detail_seconds=0.1, strands=16)),
        (TWO, {"profile": "paced"}, Work(1, 120, strands=6)),
        (TWO, {"profile": "paced"}, Work(1, 80, page_seconds=0.4, detail_seconds=0.4, strands=6)),
        ((Limit(50, seconds=2, burst=4),), {"profile": "paced"}, Work(1, 70, detail_seconds=0.1, strands=3)),
        ((Limit(5, seconds=2),), {"profile": "paced"}, Work(1, 20, detail_seconds=0.1, strands=2)),
    ],
    ids=[
        "burst",
        "slow answers",
        "few strands",
        "a share",
        "paced",
        "paced, slow",
        "paced, its burst",
        "one at a time",
    ],
)
def test_the_limiter_lets_them_go_as_it_was_forecast(new: Callable[..., RateLimiter], limits, options, work) -> None:
    limiter = new(*limits, **options)
    state = limiter.snapshot()

    forecast = seconds_for(work, rules_of(state), gates_of(state))

    assert forecast == pytest.approx(really(limiter, work), rel=0.01, abs=0.2)


@pytest.mark.parametrize(
    ("used", "off_seconds"),
    [([(30, 0.0)], 0.0), ([(50, 1.0)], 1.0), ([(50, 2.1), (50, 2.1), (40, 0.3)], 2.5), ([(50, 2.1)] * 4, 0.4)],
    ids=["just now", "a full short window", "some of three openings", "a full long window"],
)
def test_what_a_budget_has_given_is_waited_for_as_far_as_that_can_be_told(
    new: Callable[..., RateLimiter], used: list[tuple[int, float]], off_seconds: float
) -> None:
    # Given a budget that was used a while ago
    limiter, work = new(*TWO), Work(0, 199, strands=16)
    for count, idle_seconds in used:
        use(limiter.permit_client(), count)
        move_to(now_us() + round(idle_seconds * SECOND))
    state = limiter.snapshot()

    # When more is forecast than what is left of it
    forecast = seconds_for(work, rules_of(state), gates_of(state))

    # Then it waits, by what is known of the age of that
    assert forecast == pytest.approx(really(limiter, work), abs=off_seconds + 0.06)
    assert forecast > seconds_for(work, rules_of(state))


def test_requests_that_weigh_more_take_the_places_of_others(new: Callable[..., RateLimiter]) -> None:
    state = new(Limit(50, seconds=2)).snapshot()

    assert rules_of(state, 2.5)[0].places == 20


# --- the page ---------------------------------------------------------------------------------------------------------


class Complete(Item):
    """An item of which the list says all, if its number is even."""

    class Meta:
        table_name = "items"

    def get_api_detail_request(self):
        return None if int(self.external_id) % 2 == 0 else super().get_api_detail_request()


def requests_of(api: Any) -> dict[str, Any]:
    return dict(requests.get(f"{api.url}/stats", timeout=5).json())


def test_one_request_tells_what_a_run_comes_to_and_nothing_is_written(mock_api, import_from) -> None:
    # Given a list of ten pages, and wide limits of its own
    api = mock_api(items=1000, limits="50/2,200/10")
    import_from(api.url, limits=TWO)

    # When a run of it is planned
    made = plan("items")

    # Then the page's total gives the rest
    assert (made.items, made.items_on_page, made.per_page, made.pages, made.requests) == (1000, 100, 100, 10, 1010)
    assert (made.detail_share, made.slowest, made.strands) == (1.0, "limits", 16)
    assert made.floor_seconds == pytest.approx(50 * LONGER)
    assert made.floor_seconds < made.seconds < 60
    assert made.limits == ("50/2 s", "200/10 s")
    assert made.remarks == ()

    # And one request was made, with one permit; no run, no item and no row
    assert (requests_of(api)["requests"], requests_of(api)["pages"]) == (1, {"1": 1})
    assert [window.used for window in budget_state(known_budgets()[0]["api-of-items"]).windows] == [1, 1]
    assert [table.select().count() for table in (Run, RunItem, Item)] == [0, 0, 0]
    assert BudgetRow.select().count() == 1, "its permit is covered by the watermark"


@on_sqlite
def test_a_list_that_states_no_total_is_told_by_the_thousand(mock_api, import_from) -> None:
    import_from(mock_api(items=1000).url, limits=TWO, total_key=None)

    made = plan()

    assert (made.items, made.pages, made.requests, made.seconds, made.floor_seconds) == (None,) * 5
    assert made.items_on_page == 100
    assert made.seconds_per_1000 == pytest.approx(1010 / 200 * 10.01, rel=0.1)
    assert made.unknowns[0] == "how many items there are: total_key is None; at least 100"


@on_sqlite
@pytest.mark.parametrize(("items", "pages", "asked"), [(0, 1, 0), (40, 1, 40)])
def test_a_list_that_ends_on_its_first_page_needs_no_total(mock_api, import_from, items, pages, asked) -> None:
    import_from(mock_api(items=items).url, total_key="no such key")

    made = plan()

    assert (made.items, made.pages, made.requests) == (items, pages, pages + asked)


@on_sqlite
def test_items_that_the_list_completes_need_no_request_and_those_it_spoils_are_told(mock_api, import_from) -> None:
    # Given items of which every second one is complete, and a source that does not take number 7
    def create_model_from_list_item(self, item):
        return Complete(external_id="" if item["id"] == 7 else item["id"], name=item["name"])

    import_from(mock_api(items=1000).url, model=Complete, create_model_from_list_item=create_model_from_list_item)

    made = plan()

    # Then 49 of 100 are asked for
    assert (made.items, made.detail_share, made.requests) == (1000, 0.49, 10 + 490)
    assert made.refused == {"page 1, item 7": "page 1, item 7 has no usable id: it is empty"}


def test_a_run_beside_it_or_before_it_is_told(mock_api, import_from) -> None:
    # Given a run of the same source, one of another tenant, and one that asks another API
    import_from("http://127.0.0.1:1", name="other")
    import_from(mock_api(items=10).url)
    assert activate(create("other", lanes=16, created_by="ann", door="cli").id)
    behind = create("items", lanes=16, created_by="ann", door="cli")
    beside = create("items", lanes=48, created_by="ann", door="cli", tenant="bob")
    assert activate(behind.id) and activate(beside.id)

    made = plan("items")

    # Then the first two are listed
    assert made.remarks == (
        f"run {behind.id} of items is running: a new one waits until it has ended",
        f"run {beside.id} of items is running on the same budget, with 48 lanes: this run gets about 25 % of "
        "the permits",
    )


@on_sqlite
def test_a_paused_budget_is_not_waited_for_and_nothing_is_asked(mock_api, import_from) -> None:
    # Given a budget that its API has closed for a minute
    api = mock_api(items=10)
    source = import_from(api.url)
    caller = source.connector.permit_client()
    with pytest.raises(RateLimited):
        caller.report(caller.acquire(5.0), 429, {"Retry-After": "60"})
    caller.flush()

    # When a run is planned
    with pytest.raises(RateLimited, match=r"paused: .*, until \d\d:\d\d:\d\d UTC: try again in 1 min"):
        plan()

    # Then no request was made
    assert requests_of(api)["requests"] == 0


@on_sqlite
def test_a_window_that_the_request_fills_tells_when_the_run_begins(mock_api, import_from) -> None:
    import_from(mock_api(items=3).url, limits=(Limit(1, seconds=30),))

    made = plan()

    assert 29 < made.starts_in_seconds <= 30.03
    assert made.why_closed.startswith("window 1/30 s full; opens in 30 s")
    assert made.seconds == pytest.approx(made.starts_in_seconds + 3 * 30.03, abs=3)


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [("html", RetryableError, "a body that is not JSON"), ("500", RetryableError, "items list page 1 answered 500")],
)
@on_sqlite
def test_what_the_api_answers_instead_is_told(mock_api, import_from, fault, error, said) -> None:
    import_from(mock_api(items=10, faults=(Fault(fault, 1.0),)).url)

    with pytest.raises(error, match=said):
        plan()


@on_sqlite
def test_a_mistake_of_the_source_is_named_as_such(mock_api, import_from) -> None:
    def fail(*_):
        raise KeyError("shop")

    url = mock_api(items=10).url
    import_from(url, get_list_request=fail)
    with pytest.raises(PermanentError, match=r"TestSource.get_list_request fails: KeyError: 'shop'"):
        plan()

    import_from(url, get_connector=fail, name="other")
    with pytest.raises(UsageError, match=r"TestSource.get_connector fails for no tenant: does it need --tenant\?"):
        plan("other")


@on_sqlite
def test_a_model_that_cannot_tell_of_an_unsaved_row_is_taken_to_need_a_request(mock_api, import_from) -> None:
    class Shy(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self):
            raise ValueError("no id yet")

    import_from(mock_api(items=10).url, model=Shy)

    made = plan()

    assert made.requests == 11
    assert "fails on an unsaved row (ValueError: no id yet)" in made.unknowns[0]


@on_sqlite
def test_a_tenant_s_plan_is_of_its_own_api(mock_api, import_from) -> None:
    bobs = Connector("api-of-bob", base_url=mock_api(items=10).url, limits=[Limit(7, seconds=3)])
    import_from("http://127.0.0.1:1", get_connector=lambda self, run: bobs if run.tenant == "bob" else self.connector)

    made = plan(tenant="bob")

    assert (made.tenant, made.items, made.limits) == ("bob", 10, ("7/3 s",))


# --- the command ------------------------------------------------------------------------------------------------------


@on_sqlite
def test_the_command_says_it_in_words_and_as_json(mock_api, import_from) -> None:
    import_from(mock_api(items=4110).url, limits=(Limit(500, seconds=20), Limit(2000, seconds=100)))

    in_words = CliRunner().invoke(command, ["items"], standalone_mode=False)
    as_json = CliRunner().invoke(command, ["--json"], standalone_mode=False)

    assert (in_words.return_value, as_json.return_value) == (0, 0)
    text = " ".join(in_words.stdout.split())
    assert "size 4,110 items, 42 list pages, 4,152 requests" in text
    assert "duration about 3 min 2" in text
    assert "limited by the rate limits: more lanes would not help limits 500/20 s, 2000/100 s" in text
    assert "unknown whether the other items are like the 100 on this page" in text
    assert json.loads(as_json.stdout)["requests"] == 4152


@on_sqlite
def test_the_command_says_what_it_can_of_a_list_without_a_total(mock_api, import_from) -> None:
    import_from(mock_api(items=1000, latency_seconds=0.1).url, total_key=None, lanes=1)

    done = CliRunner().invoke(command, [], standalone_mode=False)

    text = " ".join(done.stdout.split())
    assert "size at least 100 items, 100 on each list page; the total is unknown" in text
    assert re.search(r"duration about \d+ min \d+ s for each 1,000 items", text)
    assert re.search(r"limited by the number of lanes, 1: each response takes about \d\.\d\d s", text)
