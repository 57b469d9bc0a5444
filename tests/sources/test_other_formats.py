"""A body that is no JSON: another format ends at once, for it will be the same the next time; a broken one does not."""

import pytest
import requests

from tests.helpers.connectors import get
from tests.helpers.fixed_response import saying
from workers.control import runner
from workers.errors import PermanentError, RetryableError
from workers.records.tables import RunStatus
from workers.sources.connector import Connector
from workers.version import VERSION

LINES = b'{"id": 1}\n{"id": 2}\n{"id": 3}\n'
XML = b'<?xml version="1.0"?><items><item/></items>'

#: Content type, body, and what is said of it; empty where another attempt may bring JSON.
BODIES: dict[str, tuple[str, bytes, str]] = {
    "JSON lines": ("application/x-ndjson", LINES, "JSON lines (application/x-ndjson)"),
    "JSON lines, jsonl": ("application/jsonl; charset=utf-8", LINES, "JSON lines (application/jsonl)"),
    "JSON lines, said to be JSON": ("application/json", LINES, "JSON lines (application/json)"),
    "JSON lines, said to be text": ("text/plain", LINES, "JSON lines (text/plain)"),
    "JSON lines of lists": ("application/json", b"[1]\r\n\r\n[2]\r\n", "JSON lines (application/json)"),
    "JSON lines, the last one cut": ("application/json", b'{"id": 1}\n{"id": 2}\n{"i', "JSON lines (application/json)"),
    "a sequence": ("application/json-seq", b'\x1e{"id": 1}\n\x1e{"id": 2}\n', "JSON lines (application/json-seq)"),
    "CSV": ("text/csv", b"id,name\n1,a\n", "text/csv (text/csv)"),
    "CSV, capitals": ("Text/CSV; header=present", b"id,name\n1,a\n", "text/csv (Text/CSV)"),
    "tabs": ("text/tab-separated-values", b"id\tname\n", "text/tab-separated-values (text/tab-separated-values)"),
    "XML": ("application/xml", XML, "XML (application/xml)"),
    "XML, of some kind": ("application/vnd.api+xml", XML, "XML (application/vnd.api+xml)"),
    "XML without its declaration": ("text/xml", b"<items/>", "XML (text/xml)"),
    "XML, said to be JSON": ("application/json", b"\n" + XML, "XML (application/json)"),
    "HTML as XML": ("application/xhtml+xml", b"<html/>", "XML (application/xhtml+xml)"),
    "PDF": ("application/pdf", b"%PDF-1.7", "application/pdf (application/pdf)"),
    "an image": ("image/png", b"\x89PNG", "image/png (image/png)"),
    "a sheet": (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        b"PK\x03\x04",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet (application/vnd",
    ),
    "a form": ("application/x-www-form-urlencoded", b"a=1&b=2", "application/x-www-form-urlencoded (application/x-www"),
    "a page": ("text/html", b"<!DOCTYPE html><html>Down</html>", ""),
    "a page that begins as XML": ("text/html", b'<?xml version="1.0"?><!DOCTYPE html><html/>', ""),
    "a page, said to be JSON": ("application/json", b"<html>Down</html>", ""),
    "cut JSON": ("application/json", b'{"data": [{"id": 1}, {"i', ""),
    "cut JSON of several lines": ("application/json", b'{\n  "data": [\n    {"id": 1},\n    {"i', ""),
    "JSON with a page behind it": ("application/json", b'{"data": []}\n<html>Down</html>', ""),
    "JSON with text behind it": ("application/json", b'{"data": []}\nFatal error', ""),
    "text": ("text/plain", b"Down for maintenance", ""),
    "text of lines": ("text/plain", b"Down, sorry\nBack soon, maybe", ""),
    "lines of numbers": ("text/plain", b"1\n2\n3\n", ""),
    "cut JSON of unknown bytes": ("application/octet-stream", b'{"a', ""),
    "cut JSON of a kind": ("application/vnd.api+json", b'{"a', ""),
    "no type": ("", b"x", ""),
    "a type that is none": ("json", b'{"a', ""),
    "nothing, said to be CSV": ("text/csv", b"", ""),
    "nothing, said to be JSON lines": ("application/x-ndjson", b" \n", ""),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_another_format_is_a_broken_contract_and_a_broken_one_is_worth_another_attempt(connect, name):
    media, body, said = BODIES[name]
    with saying(200, body, **({"Content_Type": media} if media else {})) as server:
        connector = connect(server.url)

        with pytest.raises(PermanentError if said else RetryableError) as caught:
            connector.get_json(requests.Request("GET", "x"), connector.permit_client())

    assert caught.value.failure_class == ("contract" if said else "transient")
    assert (f"answered 200 with {said}" if said else "with a body that is not JSON") in str(caught.value)


@pytest.mark.parametrize("media", ["text/csv", "application/x-ndjson", "text/html", "application/xml", ""])
def test_json_is_taken_whatever_its_type_says(connect, media):
    with saying(200, b'{"id": 1}', **({"Content_Type": media} if media else {})) as server:
        connector = connect(server.url)

        assert connector.get_json(requests.Request("GET", "x"), connector.permit_client()) == {"id": 1}


def test_a_list_of_json_lines_is_downloaded_once(import_from, moved_clock):
    with saying(200, LINES, Content_Type="application/x-ndjson") as server:
        import_from(server.url)
        run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    assert run.status == RunStatus.FAILED
    assert "with JSON lines (application/x-ndjson) instead of JSON" in run.error_summary
    assert len(server.asked) == 1


# --- what is sent with each request -----------------------------------------------------------------------------------


def sent(connector: Connector, server, **headers: str) -> dict[str, str | None]:
    get(connector, headers=headers)
    return {name: server.asked[-1].headers[name] for name in ("User-Agent", "Accept-Encoding", "Accept")}


OURS = {"User-Agent": f"sluice/{VERSION}", "Accept-Encoding": "gzip, deflate", "Accept": "application/json"}


@pytest.mark.parametrize("name", ["User-Agent", "user-agent", "USER-AGENT"])
def test_each_request_says_who_asks_unless_it_is_told_otherwise(connect, name):
    with saying(200) as server:
        assert sent(connect(server.url), server) == OURS
        assert sent(connect(server.url, headers={name: "shop/2"}), server) == OURS | {"User-Agent": "shop/2"}
        assert sent(connect(server.url, headers={name: "a"}), server, **{name: "b"}) == OURS | {"User-Agent": "b"}
        assert len(server.asked[-1].headers.get_all("User-Agent")) == 1
