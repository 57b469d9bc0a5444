"""Failures end as a readable reason of their item or run: nothing hangs, and the rest is imported."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from peewee import OperationalError

from mock_server import Fault
from models import Item
from workers import ConfigurationError, Limit, Skip, UnknownSource, testing
from workers.control import runner
from workers.engine.discovery import discover
from workers.messaging import broker
from workers.records import runs
from workers.records.tables import ItemStatus, RunItem, RunStatus
from workers.reports.run_stats import recent_runs


def start_inline():
    return runner.run_inline(runner.start("items", who="test", door="test", send=False))


@contextmanager
def api(answers: dict[str, tuple[int, object]], content_type: str = "application/json") -> Iterator[str]:
    """A server that says exactly these things: path -> (status, body)."""

    def answer(request: testing.Request) -> testing.Response:
        status, body = answers.get(request.path, (404, {"message": "nothing here"}))
        headers = {"Content-Type": content_type}
        if 300 <= status < 400:
            headers["Location"] = "http://127.0.0.1:1/elsewhere"
        return testing.Response(status, body, headers)

    with testing.api(answer) as server:
        yield server.url


def page(*items: object) -> tuple[int, object]:
    return 200, {"data": list(items), "next_page_url": None}


def detail(item_id: int) -> tuple[int, object]:
    return 200, {"id": item_id, "name": "a", "description": "b", "price": 1}


def test_an_unknown_source_lists_the_known_ones(import_from):
    import_from("http://127.0.0.1:1")

    with pytest.raises(UnknownSource, match=r"'nothing'\. Known sources: items"):
        runner.start("nothing", who="test", door="test", send=False)


def test_a_base_url_that_refuses_connections_fails_the_run_after_its_attempts(moved_clock, import_from):
    import_from("http://127.0.0.1:1")

    run = start_inline()

    assert run.status == RunStatus.FAILED
    assert "http://127.0.0.1:1 refuses connections" in run.error_summary
    assert moved_clock.elapsed_seconds == pytest.approx(30 + 60 + 120 + 240, abs=1)


def test_a_detail_that_answers_404_fails_that_item_without_another_attempt(import_from):
    with api({"/api/items": page({"id": 1, "name": "a"}, {"id": 2, "name": "b"}), "/api/items/2": detail(2)}) as url:
        import_from(url)

        run = start_inline()

    assert (run.succeeded_count, run.failed_count) == (1, 1)
    failed = RunItem.get(RunItem.status == ItemStatus.FAILED)
    assert (failed.failure_class, failed.attempts) == ("not_found", 1)
    assert failed.failure_reason == "items details of 1 answered 404"


def test_a_row_that_cannot_be_saved_fails_alone_and_its_batch_is_saved(import_from):
    # Given a detail whose price no column can hold
    answers = {f"/api/items/{n}": detail(n) for n in (1, 2, 3)}
    answers["/api/items/2"] = (200, {"description": "x", "price": ["a", "lot"]})
    with api({"/api/items": page(*({"id": n, "name": "a"} for n in (1, 2, 3))), **answers}) as url:
        import_from(url)

        run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    assert RunItem.get(RunItem.status == ItemStatus.FAILED).external_id == "2"
    assert Item.select().where(Item.price.is_null(False)).count() == 2


def test_refused_credentials_are_an_auth_failure(import_from):
    with api({"/api/items": page({"id": 1, "name": "a"}), "/api/items/1": (401, {})}) as url:
        import_from(url)

        start_inline()

    assert RunItem.get().failure_class == "auth"


def test_flaky_answers_are_tried_again_until_all_is_in(moved_clock, mock_api, import_from):
    faults = tuple(Fault(kind, 0.03) for kind in ("500", "503", "malformed", "html", "reset"))
    server = mock_api(items=80, faults=faults, seed=3)
    import_from(server.url, per_page=20)

    run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 80, 0)
    assert sum(requests.get(f"{server.url}/stats", timeout=5).json()["faults"].values()) > 0


def test_a_limit_set_too_high_earns_one_hit_a_burst_and_one_pause_for_all(moved_clock, mock_api, import_from):
    # Given a client that takes the API for more generous than it is
    server = mock_api(items=100, limits="20/2,40/10")
    import_from(server.url, limits=(Limit(20, seconds=2), Limit(43, seconds=10)))

    # When it imports 102 things
    run = start_inline()

    # Then it is refused once a window, and every item is imported
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 100)
    rejected = requests.get(f"{server.url}/stats", timeout=5).json()["rejected"]
    assert 1 <= run.rate_limit_hits_count <= 2
    assert rejected == run.rate_limit_hits_count


def test_a_source_that_skips_a_list_item_gives_its_reason(mock_api, import_from):
    class OnlyFirst(Item):
        class Meta:
            table_name = "items"

        def get_external_id(self):
            if self.external_id != 1:
                raise Skip("only the first is wanted")
            return self.external_id

    import_from(mock_api(items=3).url, model=OnlyFirst)

    run = start_inline()

    assert (run.status, run.succeeded_count, run.skipped_count) == (RunStatus.COMPLETED, 1, 2)
    assert {item.failure_reason for item in RunItem.select().where(RunItem.status == ItemStatus.SKIPPED)} == {
        "only the first is wanted"
    }


def test_a_model_without_a_table_refuses_the_run_and_names_the_command(import_from):
    class Untabled(Item):
        class Meta:
            table_name = "not_there"

    import_from("http://127.0.0.1:1", model=Untabled)

    with pytest.raises(ConfigurationError, match="migrate --create-models"):
        start_inline()


def test_an_inline_run_takes_up_the_one_whose_process_was_killed(mock_api, import_from):
    # Given a run that has read its list, and whose process is gone
    import_from(mock_api(items=5).url)
    first = runner.start_inline("items", who="test", door="test")
    with broker.captured(lambda *message: None):
        discover(first.id)

    # When the next inline run comes
    second = runner.start_inline("items", who="test", door="test")

    # Then it is the same run, and it completes
    assert second.id == first.id
    assert runner.run_inline(second).succeeded_count == 5


def test_a_tenant_that_the_source_does_not_know_fails_the_run_and_hides_no_other(import_from, moved_clock):
    import_from("http://127.0.0.1:1", get_connector=lambda self, run: {}[run.tenant])
    run = runner.start("items", who="test", door="test", tenant="typo", send=False)
    assert [one.id for one in recent_runs()] == [run.id]

    run = runner.run_inline(run)

    assert run.status == RunStatus.FAILED
    assert "KeyError: 'typo'" in run.error_summary


def test_a_list_page_of_many_thousands_is_taken_in_pieces(import_from):
    class Listed(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self):
            return None

    with api({"/api/items": page(*({"id": n, "name": "a"} for n in range(1, 7001)))}) as url:
        import_from(url, model=Listed, per_page=7000)
        run = runner.start("items", who="test", door="test", send=False)
        with broker.captured(lambda *message: None):
            discover(run.id)

    assert runs.get(run.id).total_count == Item.select().count() == 7000


def test_an_item_is_not_blamed_for_a_commit_that_fails_while_it_waits(moved_clock, mock_api, import_from):
    # Given a lane that has done an item, and a database that refuses its commit once, while it waits for the window
    server = mock_api(items=4)
    source = import_from(server.url, limits=(Limit(2, seconds=1.5),), lanes=1)
    saves = []

    class Refusing(Item):
        class Meta:
            table_name = "items"

        save_each = True

        def save(self, *args, **kwargs):
            saves.append(self.external_id)
            if len(saves) > 4 and not refused:
                refused.append(self.external_id)
                raise OperationalError("database is locked")
            return super().save(*args, **kwargs)

    refused = []
    type(source).model = Refusing

    # When the run continues
    run = start_inline()

    # Then every item is in, none was asked for twice or failed
    assert refused
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 4, 0)
    assert set(requests.get(f"{server.url}/stats", timeout=5).json()["items"].values()) == {1}
