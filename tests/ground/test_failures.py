"""Failure classes: each has one action, refused credentials open the circuit, reasons are short and hold no secret."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from dramatiq.worker import Worker

from models import Item
from tests.helpers.machine import wait_until
from workers import Connector, Limit, testing
from workers.connections import database
from workers.control import runner
from workers.engine import actors, reaper
from workers.failures import ACTIONS, CIRCUIT, FailureClass, fingerprint, storable_reason
from workers.messaging import broker
from workers.records import lanes, runs
from workers.records.tables import ItemStatus, Lane, RunEvent, RunItem, RunStatus
from workers.reports.failure_groups import failure_groups
from workers.text.redaction import hide, redact

Answer = tuple[int, object]


@contextmanager
def api(detail: Callable[[int, str], Answer], items: int) -> Iterator[tuple[str, Counter[str]]]:
    """An API with `items` items; `detail(item_id, authorization)` returns their details. Its URL and its requests."""
    seen: Counter[str] = Counter()

    def answer(request: testing.Request) -> testing.Response:
        last = request.path.rpartition("/")[2]
        seen[last] += 1
        if last != "items":
            return testing.Response(*detail(int(last), request.headers.get("Authorization", "")))
        page = int(request.query["page"])
        first, end = (page - 1) * 100 + 1, min(page * 100, items)
        listed = [{"id": n, "name": f"item {n}"} for n in range(first, end + 1)]
        return testing.Response(200, {"data": listed, "next_page_url": end < items or None})

    with testing.api(answer) as server:
        yield server.url, seen


def good(item_id: int) -> Answer:
    return 200, {"id": item_id, "name": "a", "description": "b", "price": 1}


@contextmanager
def workers(threads: int) -> Iterator[None]:
    """Threads that consume messages, as a worker process does."""
    actors.declare(broker.get_broker())
    worker = Worker(broker.get_broker(), worker_threads=threads, worker_timeout=20)
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def start_inline():
    return runner.run_inline(runner.start("items", who="test", door="test", send=False))


# --- one action each


class Buggy(Item):
    class Meta:
        table_name = "items"

    def populate_from_api_response(self, data):
        if data.get("bug"):
            raise RuntimeError("forgot something")
        super().populate_from_api_response(data)


@pytest.mark.parametrize(
    ("answer", "failure_class", "attempts"),
    [
        ((500, {}), FailureClass.TRANSIENT, 5),
        ((401, {}), FailureClass.AUTH, 1),
        ((403, {}), FailureClass.AUTH, 1),
        ((404, {}), FailureClass.NOT_FOUND, 1),
        ((410, {}), FailureClass.NOT_FOUND, 1),
        ((422, {}), FailureClass.BAD_DATA, 1),
        ((200, {"id": 2}), FailureClass.BAD_DATA, 1),
        ((302, {}), FailureClass.CONTRACT, 1),
        ((200, {"bug": True}), FailureClass.BUG, 5),
    ],
)
def test_each_class_of_failure_has_its_action(moved_clock, import_from, answer, failure_class, attempts):
    # Given an API that answers so for one item of three
    with api(lambda item_id, _: answer if item_id == 2 else good(item_id), items=3) as (url, seen):
        import_from(url, model=Buggy)

        run = start_inline()

    # Then that one has failed with its class, after all its attempts, and the others are imported
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 1)
    failed = RunItem.get(RunItem.status == ItemStatus.FAILED)
    assert (failed.failure_class, failed.attempts, seen["2"]) == (failure_class, attempts, attempts)


def test_being_told_to_wait_is_no_failure(moved_clock, import_from):
    # Given an API that refuses one request
    refused = []

    def detail(item_id, _):
        if not refused:
            refused.append(item_id)
            return 429, {}
        return good(item_id)

    with api(detail, items=3) as (url, _):
        import_from(url)

        run = start_inline()

    # Then no attempt was spent, and nothing of it is stored with the item
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 3)
    assert {(item.attempts, item.failure_class, item.failure_count) for item in RunItem.select()} == {(1, None, 0)}


def test_every_class_has_an_action():
    assert set(ACTIONS) == set(FailureClass)


# --- the circuit


def test_credentials_that_are_refused_everywhere_fail_the_run_within_fifty_requests(import_from):
    # Given 300 items, 16 lanes in as many threads, and an API that lists them, and then refuses the key
    def detail(item_id, authorization):
        time.sleep(0.02)
        return (401, {}) if authorization == "Bearer north" else good(item_id)

    def connect(self, run):
        limits = [Limit(5000, seconds=20)]
        return Connector(
            f"of-{run.tenant}", base_url=url, limits=limits, headers={"Authorization": f"Bearer {run.tenant}"}
        )

    with api(detail, items=300) as (url, seen):
        import_from(url, get_connector=connect)

        # When a run with the refused key and one with a good one go side by side
        with workers(threads=32):
            refused = runner.start("items", who="test", door="test", tenant="north")
            other = runner.start("items", who="test", door="test", tenant="south")
            wait_until(lambda: runs.get(refused.id).status == RunStatus.FAILED, 20, "the circuit opens")
            wait_until(lambda: runs.get(other.id).status == RunStatus.COMPLETED, 60, "the other run ends")

    # Then the first one has failed, and says why; the other is untouched
    run = runs.get(refused.id)
    assert "the API refuses the credentials" in run.error_summary
    assert "answered 401: check the credentials" in run.error_summary
    attempted = RunItem.select().where(RunItem.run_id == run.id, RunItem.attempts > 0).count()
    assert CIRCUIT <= run.failed_count <= attempted <= 50 - 3  # list pages
    assert run.failed_count == RunItem.select().where(RunItem.run_id == run.id, RunItem.status == "failed").count()
    assert runs.get(other.id).succeeded_count == 300
    assert sum(seen.values()) == 2 * 3 + 300 + attempted


def test_a_run_whose_circuit_opened_goes_on_when_it_is_retried(moved_clock, import_from):
    # Given a key that was refused, and is accepted now
    accepted = []
    with api(lambda item_id, _: good(item_id) if accepted else (401, {}), items=60) as (url, _):
        import_from(url)
        run = start_inline()
        assert (run.status, run.failed_count) == (RunStatus.FAILED, CIRCUIT)
        accepted.append(True)

        # When the run is retried
        assert runner.retry_failed(run.id, who="test", door="test") == CIRCUIT
        run = runner.run_inline(runs.get(run.id))

    # Then it does what was left, too
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 60, 0)


def test_some_refused_items_among_others_do_not_open_the_circuit(moved_clock, import_from):
    with api(lambda item_id, _: (403, {}) if item_id % 3 else good(item_id), items=90) as (url, _):
        import_from(url)

        run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 30, 60)


def test_items_that_are_forbidden_one_by_one_never_keep_a_run_from_its_end(moved_clock, import_from):
    # Given a list whose last items are forbidden to this key, and its first ones are not
    with api(lambda item_id, _: (403, {}) if item_id > 40 else good(item_id), items=70) as (url, _):
        import_from(url)

        run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 40, 30)


def test_a_key_that_is_unknown_in_mid_run_opens_the_circuit(moved_clock, import_from):
    with api(lambda item_id, _: (401, {}) if item_id > 40 else good(item_id), items=70) as (url, _):
        import_from(url)

        run = start_inline()

    assert (run.status, run.failed_count) == (RunStatus.FAILED, CIRCUIT)


def test_items_that_need_no_request_tell_nothing_of_the_credentials(moved_clock, import_from):
    class Half(Item):
        class Meta:
            table_name = "items"

        def get_api_detail_request(self):
            return super().get_api_detail_request() if int(self.external_id) % 2 else None

    with api(lambda item_id, _: (401, {}), items=90) as (url, _):
        import_from(url, model=Half)

        run = start_inline()

    assert (run.status, run.failed_count) == (RunStatus.FAILED, CIRCUIT)


def test_a_run_too_short_for_the_circuit_fails_where_everything_was_refused(moved_clock, import_from):
    with api(lambda item_id, _: (403, {}), items=3) as (url, _):
        import_from(url)

        run = start_inline()

    assert (run.status, run.failed_count) == (RunStatus.FAILED, 3)
    assert "the API refuses the credentials (3 responses in a row): items details of " in run.error_summary


def test_a_retried_run_that_had_to_wait_opens_all_its_lanes(moved_clock, import_from):
    # Given a failed run one of whose lanes still sleeps, and another run that is active
    with api(lambda item_id, _: (401, {}), items=60) as (url, _):
        import_from(url, lanes=4)
        run = start_inline()
        Lane.update(due_at=database.now() + timedelta(seconds=60)).where(Lane.lane == 3).execute()
        other = runner.start("items", who="test", door="test", send=False)

        # When it is retried, and begins after the other one
        runner.retry_failed(run.id, who="test", door="test")
        assert runs.get(run.id).status == RunStatus.PENDING
        runner.cancel(other.id, who="test", door="test")
        reaper.revive(runs.get(run.id))

    assert runs.get(run.id).status == RunStatus.RUNNING
    assert lanes.alive(run.id) == 4


def test_the_next_run_of_the_source_starts_when_the_circuit_opens(moved_clock, import_from):
    with api(lambda item_id, _: (401, {}), items=30) as (url, _):
        import_from(url)
        first = runner.start("items", who="test", door="test", send=False)
        second = runner.start("items", who="test", door="test", send=False)

        runner.run_inline(first)

    assert runs.get(second.id).status == RunStatus.RUNNING


# --- what is stored


def test_failures_are_grouped_by_what_they_have_in_common(moved_clock, import_from):
    # Given items that fail in two ways
    with api(lambda item_id, _: (404, {}) if item_id % 2 else (422, {"message": f"no '{item_id}' of 7"}), 9) as (
        url,
        _,
    ):
        import_from(url)
        run = start_inline()

    # Then there are two groups, the larger first, each with its count and a sample
    groups = failure_groups(run.id)
    assert [(group.failure_class, group.count) for group in groups] == [("not_found", 5), ("bad_data", 4)]
    assert groups[0].reason.startswith("items details of ")
    assert groups[0].external_id in "13579"


def test_what_the_list_refused_is_grouped_and_holds_no_secret_either(moved_clock, import_from):
    # Given a source that cannot take some items of the list, in two ways
    class Picky(Item):
        class Meta:
            table_name = "items"

        def get_external_id(self):
            if self.external_id % 3 == 0:
                raise ValueError("no log-in with token=abcdef123456")
            if self.external_id % 3 == 1:
                raise KeyError("sku")
            return self.external_id

    with api(lambda item_id, _: good(item_id), items=6) as (url, _):
        import_from(url, model=Picky)
        run = start_inline()

    groups = failure_groups(run.id)
    assert [group.count for group in groups] == [2, 2]
    assert "abcdef123456" not in str(groups)
    assert "token=***" in str(groups)


def test_numbers_ids_and_quoted_text_do_not_tell_failures_apart():
    def of(reason, external_id=""):
        return fingerprint(FailureClass.BUG, reason, external_id)

    assert of("GET /api/items/1 answered 500 (5 attempts)") == of("GET /api/items/22 answered 500 (5 attempts)")
    assert of("KeyError: 'a'") == of("KeyError: 'b'")
    assert of("no row for blue-shirt", "blue-shirt") == of("no row for red-hat", "red-hat")
    assert of("id 6f1c2a7e-0000-4000-8000-0123456789ab is bad") == of("id 11111111-2222-4333-8444-555555555555 is bad")
    assert of("GET /api/items/1 answered 404") != of("the body is not JSON")
    assert fingerprint(FailureClass.AUTH, "x") != fingerprint(FailureClass.BUG, "x")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("postgresql://sluice:hunter22@db/shop is away", "postgresql://***@db/shop is away"),
        ("redis://:hunter22@cache:6379/0", "redis://***@cache:6379/0"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ('{"api_key": "abcdef123456", "page": 2}', '{"api_key": "***", "page": 2}'),
        ("GET /x?access_token=abcdef123456&page=2", "GET /x?access_token=***&page=2"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefgh was refused", "token *** was refused"),
        ("PASSWORD='hunter22'", "PASSWORD='***'"),
        ("the key s3cr3t-of-the-connector was refused", "the key *** was refused"),
        ("Authorization: Token abcdef", "Authorization: ***"),
        ("{'token': b'supersecret1'}", "{'token': b'***'}"),
        ('{\\"token\\": \\"supersecret1\\"}', '{\\"token\\": \\"***\\"}'),
        ("https://ghp_abcdef@github.example/x", "https://***@github.example/x"),
        ("https://u:p@ss@host/x", "https://***@host/x"),
        ("GET /api/items/42 answered 404", "GET /api/items/42 answered 404"),
        ("Invalid token: expired at noon", "Invalid token: expired at noon"),
        ("Basic authentication is required", "Basic authentication is required"),
        ("expected a token, found 7", "expected a token, found 7"),
    ],
)
def test_what_looks_like_a_secret_or_is_known_as_one_is_taken_out(said, kept):
    hide("s3cr3t-of-the-connector")

    assert redact(said) == kept
    assert redact(kept) == kept


def test_a_secret_in_an_exception_of_the_source_is_neither_stored_nor_logged(moved_clock, import_from, caplog):
    # Given a model whose exception quotes the connector's key
    class Quoting(Item):
        class Meta:
            table_name = "items"

        def populate_from_api_response(self, data):
            raise ValueError("https://u:topsecret1@api.example/ with X-Key=topsecret2 and topsecret3")

    with api(lambda item_id, _: good(item_id), items=1) as (url, _):
        limits = [Limit(500, seconds=20)]
        import_from(
            url, model=Quoting, connector=Connector("key", base_url=url, limits=limits, auth=("me", "topsecret3"))
        )

        run = start_inline()

    # Then what is stored of it holds no key
    stored = [RunItem.get().failure_reason, run.error_summary, *(event.detail for event in RunEvent.select())]
    assert "cannot take what the API answered" in stored[0]
    assert "topsecret1" not in str(stored)
    assert "topsecret3" not in str(stored)


@pytest.mark.parametrize("text", [None, "", "x" * 10_000, "a\0b", "half \ud800 a letter", "pass" + "word=" + "x" * 600])
def test_a_reason_is_bounded_and_of_characters_that_both_databases_take(house, text):
    reason = storable_reason(text)

    assert len(reason) <= 500
    assert "\0" not in reason
    reason.encode()
    run = runs.create("items", lanes=1, created_by="test", door="test")
    runs.note(run.id, "noted", who="test", door="test", detail=text)
    assert database.is_sqlite() or RunEvent.select().count() == 2
