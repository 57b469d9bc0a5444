"""The examples of docs/write-a-source.md, as they stand there, against APIs that misbehave."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from flask import Flask, jsonify, request

from tests.helpers import registered_sources
from workers import settings, testing
from workers.control import runner
from workers.records import schema
from workers.records.tables import ItemStatus, Run, RunEvent, RunItem, RunStatus
from workers.sources import registry

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "write-a-source.md").read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.usefixtures("moved_clock")
ADDRESS = "http://127.0.0.1:8001"


class Service:
    """A Flask app on a real socket, and the paths it was asked for."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.asked: list[str] = []
        self.url = ""
        app.before_request(lambda: self.asked.append(request.full_path.rstrip("?")))

    def answer(self, asked: testing.Request) -> testing.Response:
        headers = list(asked.headers.items())
        made = self.app.test_client().open(asked.target, method=asked.method, headers=headers, data=asked.body)
        return testing.Response(made.status_code, made.data, dict(made.headers))


@pytest.fixture
def serve() -> Iterator[Callable[[Flask], Service]]:
    with ExitStack() as stack:

        def start(app: Flask) -> Service:
            service = Service(app)
            service.url = stack.enter_context(testing.api(service.answer)).url
            return service

        yield start


@pytest.fixture
def example(house: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """example(text, url, name): run the docs' block that holds `text` as the module `name`, its sources registered."""
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()
    settings.get_settings.cache_clear()

    def run(name: str, code: str) -> ModuleType:
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, f"write-a-source.md, {name}", "exec"), module.__dict__)
        return module

    def load(text: str, url: str, name: str = "example") -> ModuleType:
        (code,) = [block for block in BLOCK.findall(DOCS) if text in block]
        (base,) = [block for block in BLOCK.findall(DOCS) if block.startswith("# sources.py")]
        assert base.count(ADDRESS) == 1
        if "sources" not in sys.modules or getattr(sys.modules["sources"], "__file__", None):
            run("sources", base.replace(ADDRESS, url))
        module = run(name, code)
        for kind in [kind for kind in vars(module).values() if isinstance(kind, type)]:
            if kind.__module__ == name and issubclass(kind, registry.ImportSource):
                source = kind()
                registered_sources.SOURCES.append(source)
                schema.migrate([source.model])
        registry.get_registry.cache_clear()
        return module

    return load


def start_inline(name: str) -> Run:
    return runner.run_inline(runner.start(name, who="test", door="test", send=False))


def notes_of(run: Run) -> list[tuple[str, str]]:
    query = RunEvent.select().where(RunEvent.run_id == run.id, RunEvent.door == "discovery").order_by(RunEvent.id)
    return [(event.what, event.detail) for event in query]


# --- an offset, and pages that are shorter than asked for -------------------------------------------------------------


def offsets(count: int, cap: int = 10_000, hidden: frozenset[int] = frozenset()) -> Flask:
    """A list by offset that gives `cap` items at most, and leaves out what is hidden, wherever that stands."""
    app = Flask("offsets")

    @app.get("/api/offsets")
    def page() -> Any:
        first, most = int(request.args["offset"]), min(cap, int(request.args["limit"]))
        numbers = range(first + 1, min(first + most, count) + 1)
        return jsonify([{"id": n, "name": f"item {n}"} for n in numbers if n not in hidden])

    @app.get("/api/items/<int:number>")
    def item(number: int) -> Any:
        return jsonify(id=number, name=f"item {number}", description="-", price=1.5)

    return app


@pytest.mark.parametrize(
    ("app", "ids", "pages"),
    [
        (lambda: offsets(1000, cap=50), set(range(1, 1001)), 21),
        (lambda: offsets(500, hidden=frozenset({350, 351, 352})), set(range(1, 501)) - {350, 351, 352}, 7),
        (lambda: offsets(500, hidden=frozenset({398, 399, 400})), set(range(1, 501)) - {398, 399, 400}, 7),
        (lambda: offsets(250), set(range(1, 251)), 4),
        (lambda: offsets(200), set(range(1, 201)), 3),
        (lambda: offsets(0), set(), 1),
    ],
    ids=["50 at most", "3 of 100 left out of page 4", "the last 3 of page 4", "a short end", "a full end", "nothing"],
)
def test_a_list_by_offset_is_read_to_its_end_whatever_the_size_of_its_pages(serve, example, app, ids, pages):
    service = serve(app())
    module = example("api/offsets", service.url)

    run = start_inline("products")

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, len(ids), 0)
    assert {int(row.external_id) for row in module.ProductSource.model.select()} == ids
    assert len([asked for asked in service.asked if asked.startswith("/api/offsets")]) == pages
    assert notes_of(run) == []


def test_a_source_that_takes_a_short_page_for_the_last_is_noted(serve, example):
    # Given the source that the docs had before: it continues while a page has as many items as it asked for
    service = serve(offsets(1000, cap=50))
    module = example("api/offsets", service.url)
    module.ProductSource.next_cursor = lambda self, data, cursor: cursor + len(data) if len(data) == 100 else None

    run = start_inline("products")

    # Then it has 50 of 1,000, and the run says so
    assert (run.status, run.total_count) == (RunStatus.COMPLETED, 50)
    ((what, detail),) = notes_of(run)
    assert what == "short last page"
    assert detail.startswith("the list ended at a page of 50 where 100 were asked for, and the API states no total")


# --- the note on a short last page ------------------------------------------------------------------------------------


def paged(sizes: list[int], total: int | None = None, doubled: bool = False, unnamed: int = 0) -> Flask:
    """Pages of these sizes; one item twice, or some without what the source reads."""
    app = Flask("paged")

    @app.get("/api/items")
    def page() -> Any:
        number = int(request.args["page"])
        first = sum(sizes[: number - 1])
        items = [{"id": n, "name": f"item {n}"} for n in range(first + 1, first + sizes[number - 1] + 1)]
        if doubled:
            items[-1] = items[0]
        for item in items[:unnamed]:
            del item["name"]
        more = {} if total is None else {"total": total}
        return jsonify(data=items, next_page_url="more" if number < len(sizes) else None, **more)

    @app.get("/api/items/<int:number>")
    def item(number: int) -> Any:
        return jsonify(id=number, name=f"item {number}", description="-", price=1.5)

    return app


@pytest.mark.parametrize(
    ("app", "noted"),
    [
        (lambda: paged([10, 4]), [("short last page", "4")]),
        (lambda: paged([4]), [("short last page", "4")]),
        (lambda: paged([10, 10]), []),
        (lambda: paged([10, 0]), []),
        (lambda: paged([0]), []),
        (lambda: paged([4, 10]), []),
        (lambda: paged([10, 4], total=14), []),
        (lambda: paged([10, 4], total=20), [("list changed", "20")]),
        (lambda: paged([10], doubled=True), []),
        (lambda: paged([9], doubled=True), [("short last page", "9")]),
        (lambda: paged([10], unnamed=3), []),
        (lambda: paged([10, 4], unnamed=4), [("short last page", "4")]),
        (lambda: paged([12, 11]), []),
    ],
    ids=[
        *("short", "the only page", "full", "empty", "no item at all", "short, but not the last", "with its total"),
        *("with another total", "full with its doubles", "short with its doubles", "full with its refused ones"),
        *("all of it refused", "more than was asked for"),
    ],
)
def test_a_last_page_shorter_than_asked_for_is_noted_where_no_total_says_that_all_came(serve, import_from, app, noted):
    import_from(serve(app()).url, per_page=10)

    found = notes_of(start_inline("items"))

    assert [what for what, _ in found] == [what for what, _ in noted]
    assert all(
        f" {number} " in detail or f" {number};" in detail
        for (_, number), (_, detail) in zip(noted, found, strict=True)
    )


# --- only what has changed --------------------------------------------------------------------------------------------


def second(number: int) -> str:
    return f"2026-12-01T10:{number // 60:02}:{number % 60:02}Z"


def offers(changes: dict[int, int]) -> Flask:
    """A list of offers, by the second of their change: those of `updated_since` and after, the oldest first."""
    app = Flask("offers")

    @app.get("/api/offers")
    def page() -> Any:
        number, size = int(request.args["page"]), int(request.args["perPage"])
        rows = [(second(at), offer) for offer, at in changes.items() if second(at) >= request.args["updated_since"]]
        some = sorted(rows)[(number - 1) * size : number * size]
        return jsonify(data=[{"id": offer, "name": f"offer {offer}", "updated_at": at} for at, offer in some])

    return app


def test_all_that_has_changed_since_the_newest_row_is_read_though_the_run_saves_newer_ones(serve, example):
    # Given a row here, another one that changed in its very second, and 400 that changed after it, two in each second
    changes = {1: 0, 2: 0} | {number: 1 + number // 2 for number in range(3, 403)}
    service = serve(offers(changes))
    module = example("class ChangedOffers", service.url)
    module.Offer.create(external_id="1", name="as it was", updated_at=second(0))

    # When
    run = start_inline("changed-offers")

    # Then all are here, each page was asked for with the same mark, and the row of that second is here, too
    assert (run.status, run.succeeded_count) == (RunStatus.COMPLETED, 402)
    assert {int(row.external_id): row.updated_at for row in module.Offer.select()} == {
        number: second(at) for number, at in changes.items()
    }
    asked = [requests.utils.unquote(path) for path in service.asked]
    assert [re.search(r"updated_since=([^&]+)&.*&page=(\d+)", path).groups() for path in asked] == [
        (second(0), str(number)) for number in range(1, 7)
    ]
    assert notes_of(run) == []


def test_a_mark_that_is_read_for_each_page_passes_over_half_of_them(serve, example):
    # Given the obvious source
    changes = {number: number for number in range(1, 401)}
    service = serve(offers(changes))
    module = example("class ChangedOffers", service.url)
    module.Offer.create(external_id="0", name="as it was", updated_at=second(0))
    frozen = module.ChangedOffers.mark
    module.ChangedOffers.mark = lambda self, cursor: {
        "since": frozen(self, 1)["since"],
        "page": 1 if cursor == 1 else cursor["page"],
    }

    start_inline("changed-offers")

    # Then it ends content with 200 of 400
    assert module.Offer.select().where(module.Offer.external_id != "0").count() == 200


def test_the_next_run_begins_at_the_newest_row_and_one_that_broke_off_leaves_nothing_out(serve, example):
    changes = {number: number for number in range(1, 251)}
    app = offers(changes)
    broken = [True]
    service = serve(app)
    app.before_request_funcs.setdefault(None, []).append(
        lambda: ("gone", 404) if broken[0] and request.args["page"] == "3" else None
    )
    module = example("class ChangedOffers", service.url)

    # Given a first run that broke off at its third page
    assert start_inline("changed-offers").status == RunStatus.FAILED
    assert module.Offer.select().count() == 200

    # When it works again, and three have changed meanwhile
    broken[0] = False
    changes |= {5: 260, 6: 260, 251: 261}
    run = start_inline("changed-offers")

    # Then the second run has read what was left, from the newest row on
    assert run.succeeded_count == 54
    assert {int(row.external_id): row.updated_at for row in module.Offer.select()} == {
        number: second(at) for number, at in changes.items()
    }


# --- details that have pages of their own -----------------------------------------------------------------------------

LINES = {"1": 3, "2": 5, "3": 12, "4/b": 7, "5": 0, "6": 5}


def orders(lines: dict[str, int], size: int = 5) -> Flask:
    """Orders, whose detail holds their first lines and says whether there are more; lines come by five at most."""
    app = Flask("orders")

    def lines_of(order: str, number: int) -> dict[str, Any]:
        first, last = (number - 1) * size + 1, min(number * size, lines[order])
        some = [{"id": f"{order}-{n}", "order_id": order, "article": f"article {n}"} for n in range(first, last + 1)]
        return {"lines": some, "next": f"?page={number + 1}" if last < lines[order] else None, "total": lines[order]}

    @app.get("/api/orders")
    def page() -> Any:
        return jsonify(data=[{"id": order} for order in lines], next_page_url=None, total=len(lines))

    @app.get("/api/orders/<path:rest>")
    def detail(rest: str) -> Any:
        order = rest.removesuffix("/lines")
        return jsonify(id=order, **lines_of(order, int(request.args.get("page", 1))))

    return app


def test_an_order_whose_lines_have_more_pages_fails_instead_of_being_cut(serve, example):
    module = example("# orders.py", serve(orders(LINES)).url, "orders")

    run = start_inline("orders")

    # Then the two long ones have failed, with the reason, and no row holds a part of its lines
    failed = RunItem.select().where(RunItem.run_id == run.id, RunItem.status == ItemStatus.FAILED)
    assert {(item.external_id, item.failure_class) for item in failed} == {("3", "bad_data"), ("4/b", "bad_data")}
    assert all("its lines have more than one page" in item.failure_reason for item in failed)
    rows = {row.external_id: row.lines for row in module.Order.select()}
    assert {order: len(json.loads(text)) for order, text in rows.items() if text is not None} == {
        order: count for order, count in LINES.items() if count <= 5
    }


def test_lines_as_a_list_of_their_own_are_all_imported(serve, example):
    service = serve(orders(LINES))
    example("# orders.py", service.url, "orders")
    module = example("class OrderLineSource", service.url)
    start_inline("orders")

    run = start_inline("order-lines")

    assert (run.status, run.failed_count) == (RunStatus.COMPLETED, 0)
    found = {(row.order_id, row.external_id) for row in module.OrderLine.select()}
    assert found == {(order, f"{order}-{n}") for order, count in LINES.items() for n in range(1, count + 1)}
    # And each page of each order was asked for once
    asked = [path for path in service.asked if "/lines?" in path]
    assert len(asked) == len(set(asked)) == 1 + 1 + 3 + 2 + 1 + 1


def test_lines_without_orders_say_what_is_missing(serve, example):
    service = serve(orders({}))
    example("# orders.py", service.url, "orders")
    example("class OrderLineSource", service.url)

    run = start_inline("order-lines")

    assert (run.status, run.error_summary) == (
        RunStatus.FAILED,
        "list page 1: there are no orders: import them first",
    )
    assert service.asked == []


# --- details that have not changed ------------------------------------------------------------------------------------


def tagged() -> Flask:
    """Three items whose details have an ETag; a client that sends it gets no body again."""
    app = Flask("tagged")
    app.config["sent"] = []

    @app.get("/api/items")
    def page() -> Any:
        return jsonify(data=[{"id": n, "name": f"item {n}"} for n in (1, 2, 3)])

    @app.get("/api/items/<int:number>")
    def item(number: int) -> Any:
        tag = f'"{number}-1"'
        if request.headers.get("If-None-Match") == tag:
            return "", 304
        app.config["sent"].append(number)
        answer = jsonify(id=number, name=f"item {number}", description="-", price=1.5)
        answer.headers["ETag"] = tag
        return answer

    return app


def test_details_that_have_not_changed_are_not_sent_again(serve, example):
    app = tagged()
    service = serve(app)
    module = example("If-None-Match", service.url)

    class TaggedSource(sys.modules["sources"].ProductSource):
        name = "tagged"
        model = module.Product

        def create_model_from_list_item(self, item: Any) -> Any:
            return module.Product(external_id=item["id"], name=item["name"])

    registered_sources.SOURCES.append(TaggedSource())
    schema.migrate([module.Product])
    registry.get_registry.cache_clear()

    runs = [start_inline("tagged") for _ in range(2)]

    assert [(run.status, run.succeeded_count) for run in runs] == [(RunStatus.COMPLETED, 3)] * 2
    assert sorted(app.config["sent"]) == [1, 2, 3]
    assert [row.etag for row in module.Product.select().order_by(module.Product.id)] == ['"1-1"', '"2-1"', '"3-1"']
    assert {row.description for row in module.Product.select()} == {"-"}
