"""304: what a conditional request asked for is unchanged, and so complete; anywhere else it is no answer."""

import pytest
import requests
from peewee import CharField, Model

from tests.helpers.connectors import get
from tests.helpers.fixed_response import saying
from tests.helpers.model_imports import imported, items_of, register
from workers import db, path, testing
from workers.errors import NotModified, PermanentError
from workers.records.tables import RunStatus


class Tagged(Model):
    external_id = CharField(unique=True)
    name = CharField(null=True)
    etag = CharField(null=True)

    class Meta:
        database = db

    def get_external_id(self) -> str:
        return self.external_id

    def get_api_detail_request(self) -> requests.Request:
        headers = {"If-None-Match": self.etag} if self.etag else {}
        return requests.Request("GET", path("things", self.external_id), headers=headers)

    def populate_from_api_response(self, data) -> None:
        self.name = data["name"]


@pytest.fixture
def sources(house: pytest.MonkeyPatch, moved_clock: object) -> None:
    house.setenv("SLUICE_SOURCES", "tests.helpers.registered_sources:SOURCES")


@pytest.mark.parametrize("save_each", [False, True])
def test_an_item_whose_details_are_unchanged_is_completed_and_its_row_left(sources, save_each):
    # Given rows of an earlier run, of which one is unchanged, one has a tag that is out of date, and one has none
    Tagged.save_each = save_each
    asked = []

    def answer(request: testing.Request):
        asked.append(request.path)
        if request.path == "/things":
            return {"data": [{"external_id": n} for n in "abc"], "next_page_url": None}
        name = request.path.rpartition("/")[2]
        return {"name": f"new {name}"} if name != "a" else 304

    with testing.api(answer) as api:
        register(Tagged, api.url)
        for name, etag in (("a", '"1"'), ("b", '"1"'), ("c", None)):
            Tagged.create(external_id=name, name=f"old {name}", etag=etag)
        run = imported()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 3, 0)
    assert {status for status, _ in items_of(run).values()} == {"completed"}
    rows = {row.external_id: (row.name, row.etag) for row in Tagged.select()}
    assert rows == {"a": ("old a", '"1"'), "b": ("new b", '"1"'), "c": ("new c", None)}
    assert len(asked) == 4


def test_a_304_that_nobody_asked_for_is_a_broken_contract(sources):
    listed = {"data": [{"external_id": "a"}], "next_page_url": None}
    with testing.api({"/things": listed, "/things/a": 304}) as api:
        register(Tagged, api.url)
        run = imported()

    ((status, reason),) = items_of(run).values()
    assert (status, run.failed_count) == ("failed", 1)
    assert reason == (
        "things details of a answered 304, which is valid only for a request with If-None-Match or If-Modified-Since"
    )


def test_a_list_page_must_have_a_body(sources):
    def get_list_request(self, cursor, per_page):
        return requests.Request("GET", "things", headers={"If-None-Match": '"1"'})

    with testing.api({"/things": 304}) as api:
        register(Tagged, api.url, get_list_request=get_list_request)
        run = imported()

    assert run.status == RunStatus.FAILED
    assert "things answered 304: not modified, so there is no body. Send list requests without" in run.error_summary


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"If-None-Match": '"1"'}, NotModified),
        ({"if-none-match": '"1"'}, NotModified),
        ({"If-Modified-Since": "Sun, 01 Mar 2026 12:00:00 GMT"}, NotModified),
        ({"If-Match": '"1"'}, PermanentError),
        ({}, PermanentError),
    ],
)
def test_a_304_is_known_by_what_was_asked(connect, headers, kind):
    with saying(304, b"") as server:
        with pytest.raises(PermanentError) as caught:
            get(connect(server.url), headers=headers)
        assert type(caught.value) is kind
        assert caught.value.failure_class == "contract"

        # Or by what the connector always sends
        with pytest.raises(kind):
            get(connect(server.url, headers=headers))
