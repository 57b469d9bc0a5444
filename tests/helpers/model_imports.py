"""Import into any model: an API whose pages and details a test states, and a source registered for the model."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

import requests
from peewee import CharField, Model, TextField

from tests.helpers import registered_sources
from workers import Connector, ImportSource, Limit, path, testing
from workers.connections import database
from workers.control import runner
from workers.records import schema
from workers.records.tables import Run, RunEvent, RunItem
from workers.sources import registry

Pages = Sequence[Sequence[Any]]


class Api:
    """A fake API. `pages` and `details` can be changed while it serves; `asked` has the paths of its requests.

    Parameters:
      pages(Sequence): The list, page by page. In place of a page: a status, a status with headers, or the text of the
        response.
      details(dict): External id -> the details' body, or what can stand in place of a page.
    """

    def __init__(self, pages: Pages, details: dict[str, Any]) -> None:
        self.pages, self.details = list(pages), details
        self.asked: list[str] = []
        self.before_answer: Callable[[str], object] = lambda path: None
        self.url = ""

    def answer(self, request: testing.Request) -> testing.Response:
        self.asked.append(request.path)
        self.before_answer(request.path)
        if request.path == "/things":
            number = int(request.query["page"])
            page: Any = self.pages[number - 1] if number <= len(self.pages) else []
            if isinstance(page, list):
                page = {"data": page, "next_page_url": "/next" if number < len(self.pages) else None}
            return _response(page)
        return _response(self.details.get(unquote(request.path.removeprefix("/things/")), 404))


def _response(stated: Any) -> testing.Response:
    """Return the response that a test states: a status, a status with headers, text, or a JSON body."""
    if isinstance(stated, tuple):
        return testing.Response(stated[0], {}, stated[1])
    if isinstance(stated, int):
        return testing.Response(stated, {})
    return testing.Response(200, stated, {"Content-Type": "application/json"})


@contextlib.contextmanager
def serving(pages: Pages, details: dict[str, Any] | None = None) -> Iterator[Api]:
    """Serve an API for the length of a block."""
    api = Api(pages, details or {})
    with testing.api(api.answer) as server:
        api.url = server.url
        yield api


class Detailed:
    """An Importable by shape: details are asked for by `external_id`, and set as fields of their names."""

    def get_external_id(self) -> Any:
        return self.external_id  # type: ignore[attr-defined]

    def get_api_detail_request(self) -> requests.Request | None:
        return requests.Request("GET", path("things", self.get_external_id()))

    def populate_from_api_response(self, data: Any) -> None:
        for name, value in data.items():
            setattr(self, name, value)


class Complete(Detailed):
    """As `Detailed`, but the list already has everything."""

    def get_api_detail_request(self) -> None:
        return None


def fresh_model(house: Any, *mixins: type) -> Any:
    """Return a model of a table `thing` in our database; this process has the sources alone that a test registers."""
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")
    registered_sources.SOURCES.clear()
    meta = type("Meta", (), {"database": database.db, "legacy_table_names": False})
    fields = {"external_id": CharField(unique=True), "name": TextField(null=True), "Meta": meta}
    return type("Thing", (Model, *mixins), fields)


def register(model: Any, url: str, *, name: str = "things", create: bool = True, **attributes: Any) -> ImportSource:
    """Register a source of a model, beside those there are, and create its table."""

    def get_list_request(self: Any, cursor: Any, per_page: int) -> requests.Request:
        return requests.Request("GET", "things", params={"page": cursor})

    def create_model_from_list_item(self: Any, item: Any) -> Any:
        return self.model(**item)

    methods = {"get_list_request": get_list_request, "create_model_from_list_item": create_model_from_list_item}
    connector = Connector(f"api-of-{name}", base_url=url, limits=[Limit(10_000, seconds=1)])
    common = {"name": name, "model": model, "connector": connector, "total_key": None, "lanes": 2}
    source = type("ThingSource", (ImportSource,), common | methods | attributes)()
    registered_sources.register(source, replace=True)
    registry.get_registry()
    if create:
        schema.migrate([model])
    return source


def imported(name: str = "things", **options: Any) -> Run:
    """Do a whole run of a source in this process."""
    return runner.run_inline(runner.start(name, who="test", door="test", send=False, **options))


def items_of(run: Run) -> dict[str, tuple[str, str]]:
    """Return external id -> status and reason of a run's items."""
    found = RunItem.select().where(RunItem.run_id == run.id).order_by(RunItem.id)
    return {item.external_id: (item.status, item.failure_reason or "") for item in found}


def notes_of(run: Run) -> dict[str, str]:
    """Return the run's timeline: what -> detail."""
    return {event.what: event.detail or "" for event in RunEvent.select().where(RunEvent.run_id == run.id)}


def changes_of(run: Run) -> tuple[int, int, int]:
    """Return how many rows the run's list created, updated and left as they were."""
    return run.rows_created, run.rows_updated, run.rows_unchanged
