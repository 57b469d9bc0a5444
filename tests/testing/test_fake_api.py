"""The fake API: how a route is found, what each kind of answer sends, refusals on demand, limits enforced."""

import json

import pytest
import requests

from workers import Limit, testing
from workers.testing import Request, Response


def get(api: testing.FakeApi, target: str) -> requests.Response:
    return requests.get(f"{api.url}{target}", timeout=5)


@pytest.mark.parametrize(
    ("answer", "status", "content", "content_type"),
    [
        ({"a": 1}, 200, b'{"a": 1}', "application/json"),
        ([1, 2], 200, b"[1, 2]", "application/json"),
        (404, 404, b"{}", "application/json"),
        (204, 204, b"", None),
        (Response(418, {"message": "no"}), 418, b'{"message": "no"}', "application/json"),
        (Response(200, b"\x00\xff"), 200, b"\x00\xff", None),
        (Response(200, "<p>", {"Content-Type": "text/html"}), 200, b"<p>", "text/html"),
        (lambda request: {"path": request.path}, 200, b'{"path": "/x"}', "application/json"),
        (lambda request: lambda request: 503, 503, b"{}", "application/json"),
    ],
)
def test_an_answer_is_sent_as_documented(answer, status, content, content_type):
    with testing.api({"/x": answer}) as api:
        response = get(api, "/x?page=1")

    assert (response.status_code, response.content) == (status, content)
    assert response.headers.get("Content-Type") == content_type


def test_a_route_is_found_by_its_query_then_its_path_then_its_pattern():
    routes = {"/x?page=2": ["second"], "/x": ["any"], "/x/{id}/y": lambda request: dict(request.parts)}
    with testing.api(routes) as api:
        found = [get(api, target).json() for target in ("/x?page=2", "/x?page=3", "/x/a%2Fb/y")]
        missing = get(api, "/x/1")

    assert found == [["second"], ["any"], {"id": "a/b"}]
    assert missing.status_code == 404
    assert api.paths == ["/x", "/x", "/x/a%2Fb/y", "/x/1"]


def test_a_request_is_recorded_with_its_query_headers_and_body():
    with testing.api(lambda request: 200) as api:
        requests.post(f"{api.url}/x?a=1&b=", json={"n": 1}, headers={"X-Key": "k"}, timeout=5)

    (request,) = api.requests
    assert (request.method, request.target, request.query) == ("POST", "/x?a=1&b=", {"a": "1", "b": ""})
    assert (request.json(), request.headers["x-key"]) == ({"n": 1}, "k")


def test_answers_in_turn_end_with_the_last_one_again_and_again():
    with testing.api({"/x": testing.in_turn(500, Response(429), {"ok": True})}) as api:
        assert [get(api, "/x").status_code for _ in range(4)] == [500, 429, 200, 200]


def test_requests_are_refused_after_so_many_as_often_as_asked_for():
    with testing.api({"/x": {}}) as api:
        get(api, "/x")
        api.refuse_after(1, Response(429, {}), times=2)

        assert [get(api, "/x").status_code for _ in range(4)] == [200, 429, 429, 200]


def test_limits_are_enforced_by_the_clock_in_use():
    with testing.moved_clock() as clock, testing.api({"/x": {}}, limits=[Limit(2, seconds=10)]) as api:
        statuses = [get(api, "/x").status_code for _ in range(2)]
        clock.advance(4)
        refused = get(api, "/x")
        clock.advance(6)
        statuses.append(get(api, "/x").status_code)

    assert statuses == [200, 200, 200]
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "6")


def test_an_error_of_a_route_is_answered_with_500_and_raised_at_the_end():
    def broken(request: Request) -> object:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"), testing.api({"/x": broken}) as api:
        status, body = get(api, "/x").status_code, get(api, "/x").content

    assert status == 500
    assert "no such thing" in json.loads(body)["message"]


def test_a_connection_is_kept_for_several_requests():
    with testing.api({"/x": {}}) as api, requests.Session() as session:
        for _ in range(3):
            session.get(f"{api.url}/x", timeout=5)

    assert (len(api.requests), api.connections) == (3, 1)
