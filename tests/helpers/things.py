"""What the tests of this folder stand on: an API that serves what a test says, and a source for any model."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import requests
from peewee import CharField, Model, TextField

from tests.helpers import hosts
from workers import Connector, ImportSource, Limit, path, settings
from workers.connections import database
from workers.control import runner
from workers.records import schema
from workers.records.tables import Run, RunEvent, RunItem
from workers.sources import registry

Pages = Sequence[Sequence[Any]]


class Api:
    """A loopback API. `pages` and `details` may be changed while it serves; `asked` holds the paths it was asked for.

    Parameters:
      pages(Sequence): The list, page by page. In place of a page: a status, a status with headers, or the text of the
        answer.
      details(dict): External id -> the details' body, or what may stand in place of a page.
    """

    def __init__(self, pages: Pages, details: dict[str, Any]) -> None:
        self.pages, self.details = list(pages), details
        self.asked: list[str] = []
        self.before_answer: Callable[[str], object] = lambda path: None
        self.url = ""

    def answer(self, target: str) -> tuple[int, Any, dict[str, str]]:
        where = urlsplit(target)
        self.asked.append(where.path)
        self.before_answer(where.path)
        if where.path == "/things":
            number = int(parse_qs(where.query)["page"][0])
            page = self.pages[number - 1] if number <= len(self.pages) else []
            if isinstance(page, list):
                page = {"data": page, "next_page_url": "/next" if number < len(self.pages) else None}
            return _answer(page)
        return _answer(self.details.get(unquote(where.path.removeprefix("/things/")), 404))


def _answer(meant: Any) -> tuple[int, Any, dict[str, str]]:
    """Return status, body and headers of what a test says is to be answered."""
    if isinstance(meant, tuple):
        return meant[0], {}, meant[1]
    return (meant, {}, {}) if isinstance(meant, int) else (200, meant, {})


@contextlib.contextmanager
def serving(pages: Pages, details: dict[str, Any] | None = None) -> Iterator[Api]:
    """Serve an API for the length of a block."""
    api = Api(pages, details or {})

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            status, body, headers = api.answer(self.path)
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield api
        server.shutdown()


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
    house.setenv("SLUICE_SOURCES", "tests.helpers.hosts:SOURCES")
    hosts.SOURCES.clear()
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
    hosts.SOURCES[:] = [one for one in hosts.SOURCES if one.name != name] + [source]
    settings.get_settings.cache_clear()
    registry.get_registry.cache_clear()
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
