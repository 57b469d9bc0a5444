"""An import from its first list page to its end, on both databases, in moved time."""

import itertools

import pytest
import requests

from mock_server import Fault
from models import Item
from workers import Connector, Limit, Skip, clock
from workers.control import runner
from workers.records import runs
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus


def start_inline(**options):
    return runner.run_inline(runner.start("items", who="test", door="test", send=False, **options))


def stats_of(server):
    return requests.get(f"{server.url}/stats", timeout=5).json()


def check_counts(run):
    """Counters equal the rows."""
    by_status = {
        status: RunItem.select().where(RunItem.run_id == run.id, RunItem.status == status).count()
        for status in ItemStatus
    }
    assert run.succeeded_count == by_status[ItemStatus.COMPLETED]
    assert run.failed_count == by_status[ItemStatus.FAILED]
    assert run.skipped_count == by_status[ItemStatus.SKIPPED]
    assert run.total_count == sum(by_status.values())


def test_an_import_brings_every_item_once_and_earns_no_429(moved_clock, mock_api, import_from):
    # Given an API of 250 items that allows 50 in 2 s and 200 in 10 s
    server = mock_api(items=250, limits="50/2,200/10")
    import_from(server.url, limits=(Limit(50, seconds=2), Limit(200, seconds=10)))

    # When they are imported
    run = start_inline()

    # Then all are there, once, and the API never had to refuse
    assert run.status == RunStatus.COMPLETED
    assert (run.total_count, run.succeeded_count, run.failed_count) == (250, 250, 0)
    assert Item.select().where(Item.price.is_null(False)).count() == 250
    seen = stats_of(server)
    assert seen["rejected"] == 0
    assert seen["accepted"] == 253
    assert set(seen["items"].values()) == {1}
    check_counts(run)


def test_an_import_is_as_fast_as_the_limits_allow(moved_clock, mock_api, import_from):
    # Given 253 requests on 50/2 s and 200/10 s, whose floor is 12 s
    server = mock_api(items=250, limits="50/2,200/10")
    import_from(server.url, limits=(Limit(50, seconds=2), Limit(200, seconds=10)))

    # When they are imported in time that passes only by waiting
    start_inline()

    # Then the last request came a thousandth over the floor at the most, and a second for the lanes' way back
    assert stats_of(server)["span_seconds"] <= 12 * 1.001 + 1


def test_every_sleep_is_counted_once_and_never_as_a_hit(moved_clock, mock_api, import_from):
    server = mock_api(items=190, limits="50/2")
    import_from(server.url, limits=(Limit(50, seconds=2),))

    run = start_inline()

    # 192 requests are four windows, so three closings
    assert (run.rate_limit_hits_count, run.rate_limit_sleeps_count) == (0, 3)
    assert run.total_sleep_seconds == pytest.approx(6, abs=0.5)


def test_an_api_with_no_items_is_a_completed_run_of_zero(mock_api, import_from):
    import_from(mock_api(items=0).url)

    run = start_inline()

    assert (run.status, run.total_count) == (RunStatus.COMPLETED, 0)


def test_a_second_import_neither_doubles_nor_blanks_a_row(mock_api, import_from):
    # Given items that were imported, one of them renamed here
    import_from(mock_api(items=12).url)
    start_inline()
    Item.update(name="renamed").where(Item.external_id == "3").execute()

    # When they are imported again
    run = start_inline()

    # Then there are still twelve, with their prices, and the name is the API's again
    assert run.succeeded_count == 12
    assert Item.select().count() == 12
    assert Item.select().where(Item.price.is_null()).count() == 0
    assert Item.get(Item.external_id == "3").name != "renamed"


def test_fresh_removes_at_the_end_what_is_no_longer_in_the_list(mock_api, import_from):
    import_from(mock_api(items=3).url)
    Item.create(external_id="old", name="left over")

    start_inline(fresh=True)

    assert sorted(item.external_id for item in Item.select()) == ["1", "2", "3"]


def test_a_skipped_item_ends_as_skipped_with_its_reason(mock_api, import_from):
    class Choosy(Item):
        class Meta:
            table_name = "items"

        def populate_from_api_response(self, data):
            if data["id"] == 2:
                raise Skip("not for sale")
            super().populate_from_api_response(data)

    import_from(mock_api(items=3).url, model=Choosy)

    run = start_inline()

    assert (run.succeeded_count, run.skipped_count) == (2, 1)
    assert RunItem.get(RunItem.status == ItemStatus.SKIPPED).failure_reason == "not for sale"
    check_counts(run)


def test_an_item_that_the_list_already_completes_costs_no_request(mock_api, import_from):
    class Listed(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self):
            return None

    server = mock_api(items=5)
    import_from(server.url, model=Listed)

    run = start_inline()

    assert run.succeeded_count == 5
    assert stats_of(server)["requests"] == 1


def test_a_row_tells_what_the_runs_did_with_it(mock_api, import_from):
    import_from(mock_api(items=2).url)
    first, second = start_inline(), start_inline()

    item = Item.get(Item.external_id == "2")

    assert item.import_status().run_id == second.id
    assert [status.run_id for status in item.import_statuses()] == [second.id, first.id]


def test_a_source_runs_once_at_a_time_and_the_next_starts_when_it_ends(mock_api, import_from):
    # Given a run of the source that is active
    import_from(mock_api(items=3).url)
    first = runner.start("items", who="test", door="test", send=False)

    # When another one is started
    second = runner.start("items", who="test", door="test", send=False)

    # Then it waits, says behind what, and begins when the first has ended
    assert second.status == RunStatus.PENDING
    assert runner.behind(second).id == first.id
    runner.run_inline(first)
    assert runs.get(second.id).status == RunStatus.RUNNING


def test_two_tenants_of_a_source_run_side_by_side(mock_api, import_from):
    import_from(mock_api(items=3).url)

    one = runner.start("items", who="test", door="test", tenant="north", send=False)
    other = runner.start("items", who="test", door="test", tenant="south", send=False)

    assert {one.status, other.status} == {RunStatus.RUNNING}


def test_a_retried_item_waits_30_60_120_and_240_seconds_and_then_fails(moved_clock, mock_api, import_from):
    # Given an item whose details answer 500 each time
    instants = []

    class Failing(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self):
            if self.id is not None:  # it is no probe at registration
                instants.append(clock.monotonic())
            return requests.Request("GET", "api/items/1")

    listing, broken = mock_api(items=1), mock_api(items=1, faults=(Fault("500", 1.0),))
    details = Connector("details", base_url=broken.url, limits=[Limit(500, seconds=20)])

    class TwoServers(Connector):
        def get_json(self, request, caller):
            return super().get_json(request, caller) if request.params else details.get_json(request, caller)

    source = import_from(listing.url, model=Failing)
    type(source).connector = TwoServers("list", base_url=listing.url, limits=[Limit(500, seconds=20)])

    # When it is imported
    run = start_inline()

    # Then it was tried five times, at the stated distances, and failed with its class and reason
    assert [round(b - a) for a, b in itertools.pairwise(instants)] == [30, 60, 120, 240]
    item = RunItem.get(RunItem.run_id == run.id)
    assert (item.status, item.failure_class, item.failure_count) == (ItemStatus.FAILED, "transient", 5)
    assert "answered 500" in item.failure_reason
    check_counts(run)


def test_the_failed_items_of_an_ended_run_can_be_tried_again(mock_api, import_from):
    # Given a run in which an item failed
    import_from(mock_api(items=4).url)
    run = start_inline()
    RunItem.update(status=ItemStatus.FAILED).where(RunItem.external_id == "2").execute()
    Run.update(succeeded_count=3, failed_count=1).execute()

    # When its failures are retried
    assert runner.retry_failed(run.id, who="test", door="test") == 1
    run = runner.run_inline(runs.get(run.id))

    # Then the run completes again, with exact counts
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 4, 0)
    check_counts(run)
