"""One request, one permit: each response is mapped to an error, an unsent request costs nothing, no secret leaks."""

import contextlib
import gzip
import json
import logging
import re
import socket
import ssl
import subprocess
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime
from pathlib import Path

import pytest
import requests
from requests.auth import HTTPBasicAuth, HTTPDigestAuth

from mock_server import Fault
from tests.helpers.connectors import get, use_of
from tests.helpers.fixed_response import saying
from tests.helpers.keep_alive import keep_alive_server
from tests.helpers.machine import free_port
from tests.helpers.socket_servers import behaving, drip, reset
from workers import Connector, Limit, clock
from workers.errors import AuthError, ConfigurationError, PermanentError, RateLimited, RetryableError
from workers.sources.transport import sent_by
from workers.text.redaction import redact

# --- each answer, sorted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_a_success_is_returned_and_completes_its_permit(connect, status):
    with saying(status, b"" if status == 204 else b'{"id": 7}') as server:
        connector = connect(server.url)

        response = get(connector, "api/items/7")

    assert response.status_code == status
    assert response.content == server.body
    assert use_of(connector) == (0, 1)


@pytest.mark.parametrize(
    ("status", "kind", "failure_class", "text"),
    [
        (301, PermanentError, "contract", "redirects are not followed; set base_url to the final address"),
        (302, PermanentError, "contract", "redirects are not followed"),
        (307, PermanentError, "contract", "redirects are not followed"),
        (400, PermanentError, "bad_data", "the GET request answered 400: no such field"),
        (401, AuthError, "auth", "the GET request answered 401: check the credentials of connector 'api'"),
        (403, AuthError, "auth", "the GET request answered 403: check the credentials of connector 'api'"),
        (404, PermanentError, "not_found", "the GET request answered 404"),
        (408, RetryableError, "transient", "the GET request answered 408"),
        (410, PermanentError, "not_found", "the GET request answered 410"),
        (418, PermanentError, "bad_data", "the GET request answered 418: no such field"),
        (421, RetryableError, "transient", "the GET request answered 421"),
        (422, PermanentError, "bad_data", "the GET request answered 422: no such field"),
        (425, RetryableError, "transient", "the GET request answered 425"),
        (500, RetryableError, "transient", "the GET request answered 500"),
        (502, RetryableError, "transient", "the GET request answered 502"),
        (503, RetryableError, "transient", "the GET request answered 503"),
        (599, RetryableError, "transient", "the GET request answered 599"),
    ],
)
def test_each_status_is_an_error_of_what_to_do_next(connect, status, kind, failure_class, text):
    with saying(status, b'{"message": "no such field"}', Location="http://127.0.0.1:1/") as server:
        connector = connect(server.url)

        with pytest.raises(kind, match=re.escape(text)) as caught:
            get(connector, "api/x")

    # Then the answer has completed the permit, whatever it said
    assert type(caught.value) is kind
    assert caught.value.failure_class == failure_class
    assert use_of(connector) == (0, 1)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b"[" * 100_000, b'{"message": ""}', b"\xff\xfe"])
def test_a_refusal_without_a_readable_message_is_told_without_one(connect, body):
    with saying(400, body) as server, pytest.raises(PermanentError, match=r"answered 400$"):
        get(connect(server.url))


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b'{"a": ', b"\xff"])
def test_a_body_that_is_not_json_is_worth_another_attempt(connect, body):
    with saying(200, body, Content_Type="text/html; charset=utf-8") as server:
        connector = connect(server.url)

        with pytest.raises(RetryableError, match=r"answered 200 with a body that is not JSON \(text/html"):
            connector.get_json(requests.Request("GET", "x"), connector.permit_client())


# --- what is sent, and where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "url", "path"),
    [
        ("", "api/items", "/api/items"),
        ("/", "/api/items", "/api/items"),
        ("/v2", "items", "/v2/items"),
        ("/v2/", "items?page=2", "/v2/items?page=2"),
        ("/v2", "/items", "/items"),
    ],
)
def test_a_relative_url_joins_the_base_url(connect, base, url, path):
    with saying(200) as server:
        get(connect(server.url + base), url)

    assert server.asked[0].target == path


def test_a_next_page_url_with_the_host_in_it_is_called_if_the_host_is_ours(connect):
    with saying(200) as server:
        get(connect(server.url), f"{server.url}/api/items?page=2")

    assert server.asked[0].target == "/api/items?page=2"


def test_headers_credentials_and_body_go_out_together(connect):
    with saying(200) as server:
        connector = connect(server.url, headers={"X-Team": "a", "X-Both": "a"}, auth=("user", "word"))
        request = requests.Request("POST", "x", headers={"X-Both": "b"}, params={"q": "1"}, json={"n": 1})

        connector.send(request, connector.permit_client())

    sent = server.asked[0]
    assert (sent.method, sent.target, sent.body) == ("POST", "/x?q=1", b'{"n": 1}')
    assert (sent.headers["X-Team"], sent.headers["X-Both"]) == ("a", "b")
    assert sent.headers["Authorization"] == "Basic dXNlcjp3b3Jk"
    assert sent.headers["Accept"] == "application/json"


def test_a_redirect_is_not_followed_and_its_body_not_read_for_ever(connect):
    # Given two servers, one of which points to the other
    with saying(200) as other, saying(302, b"x" * 100_000, Location=f"{other.url}/elsewhere") as server:
        connector = connect(server.url)

        with pytest.raises(PermanentError, match="redirects are not followed"):
            get(connector)

    # Then one request has been sent, with one permit
    assert (len(server.asked), len(other.asked)) == (1, 0)
    assert use_of(connector) == (0, 1)


@pytest.mark.parametrize("location", ["http://[", "//", "\x80", "javascript:alert(1)"])
def test_a_redirect_to_nowhere_is_a_redirect_all_the_same(connect, location):
    with saying(302, Location=location) as server, pytest.raises(PermanentError, match="redirects are not followed"):
        get(connect(server.url))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:{port}/x",
        "http://127.0.0.1:1/x",
        "https://127.0.0.1:{port}/x",
        "//127.0.0.2:{port}/x",
        "ftp://127.0.0.1:{port}/x",
        "file:///etc/passwd",
        "http://127.0.0.1:{port}@127.0.0.2/x",
        "http://127.0.0.2\\@127.0.0.1:{port}/x",  # two parsers see two hosts here: what is sent is what counts
        "http://127.0.0.1:99999/x",
        "http://[::1/x",
    ],
)
def test_another_host_is_never_called_and_costs_no_permit(connect, url):
    with saying(200) as server:
        connector = connect(server.url)

        with pytest.raises(PermanentError) as caught:
            get(connector, url.format(port=server.server_port))

    assert caught.value.failure_class == "contract"
    assert server.connections == 0
    assert use_of(connector) == (0, 0)


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        ("http://user:s3cret@127.0.0.1", "auth="),
        ("http://user@127.0.0.1", "auth="),
        ("ftp://127.0.0.1", "http:// or https://"),
        ("127.0.0.1:8001", "http:// or https://"),
        ("http://", "http:// or https://"),
        ("", "http:// or https://"),
    ],
)
def test_a_base_url_that_cannot_be_says_so_at_once(base_url, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
        Connector("api", base_url=base_url, limits=[Limit(10, seconds=60)])

    assert "s3cret" not in str(caught.value)


def test_a_login_that_answers_by_itself_sends_no_request_without_a_permit(connect):
    # Given an API that challenges again and again, and a login that answers challenges with a request of its own
    with saying(401, WWW_Authenticate='Digest realm="r", nonce="n", qop="auth"') as server:
        connector = connect(server.url, auth=HTTPDigestAuth("user", "word"))

        with pytest.raises(AuthError):
            get(connector)

    assert len(server.asked) == 2
    assert use_of(connector) == (0, 2)


def test_cookies_of_one_answer_do_not_go_with_the_next_request(connect):
    with saying(200, Set_Cookie="session=abc") as server:
        connector = connect(server.url)
        get(connector)
        get(connector)

    assert "Cookie" not in server.asked[1].headers


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRETS = {"header": "s3cret-header", "user": "s3cret-user", "password": "s3cret-password", "query": "s3cret-query"}


@pytest.mark.parametrize("trouble", ["refused", "unknown", "reset", "silent", "401", "400", "500", "302", "429", "cut"])
def test_no_secret_is_in_what_an_error_says(connect, trouble, caplog):
    # Given secrets in the headers, the credentials and the query, and trouble of every kind
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, logger="urllib3.connectionpool")  # its debug lines are urllib3's own affair
    with contextlib.ExitStack() as stack:
        cut = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"", times=1)
        url = {
            "refused": lambda: f"http://127.0.0.1:{free_port()}",
            "unknown": lambda: "http://nowhere.invalid",
            "reset": lambda: stack.enter_context(behaving(reset)),
            "silent": lambda: stack.enter_context(behaving(lambda _: time.sleep(0.5))),
            "cut": lambda: stack.enter_context(behaving(cut)),
        }.get(trouble, lambda: stack.enter_context(saying(int(trouble))).url)()
        connector = connect(
            url,
            headers={"Authorization": f"Bearer {SECRETS['header']}"},
            auth=HTTPBasicAuth(SECRETS["user"], SECRETS["password"]),
            timeout_seconds=0.3,
        )

        # When a request fails
        with pytest.raises((RetryableError, PermanentError, RateLimited)) as caught:
            get(connector, f"x?key={SECRETS['query']}", params={"token": SECRETS["query"]})

    # Then no secret is in the error, its traceback or the log
    texts = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert [secret for secret in SECRETS.values() if secret in texts] == []


@pytest.mark.parametrize("value", ["Bearer s3cret\n", " s3cret", "s3cret\u20ac", 7])
def test_a_header_that_cannot_be_sent_is_not_quoted(connect, value):
    with saying(200) as server:
        connector = connect(server.url, headers={"Authorization": value})

        with pytest.raises(PermanentError, match="is not a request that can be sent") as caught:
            get(connector)

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    assert server.connections == 0


# --- no answer --------------------------------------------------------------------------------------------------------


def test_a_refused_connection_gives_its_permit_back(connect):
    url = f"http://127.0.0.1:{free_port()}"
    connector = connect(url)

    with pytest.raises(RetryableError, match=f"the GET request: {url}/? refuses connections"):
        get(connector)

    assert use_of(connector) == (0, 0)


def test_a_name_that_nobody_knows_gives_its_permit_back(connect):
    connector = connect("http://nowhere.invalid")

    with pytest.raises(RetryableError, match=r"the host name in http://nowhere\.invalid:80 is not known"):
        get(connector)

    assert use_of(connector) == (0, 0)


def test_a_connection_that_is_not_made_in_time_gives_its_permit_back(connect):
    # Given a server whose backlog is full, so that the next handshake is not answered
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        connector = connect(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.3)

        with pytest.raises(RetryableError, match=r"the GET request: no connection within 0.3 s"):
            get(connector)

    assert use_of(connector) == (0, 0)


def test_a_path_that_speaks_of_refusals_does_not_make_a_broken_connection_a_refused_one(connect):
    with behaving(reset) as url:
        connector = connect(url)

        with pytest.raises(RetryableError, match="the connection broke"):
            get(connector, "api/refused/NewConnectionError")

    assert use_of(connector) == (1, 1)


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (reset, "the connection broke"),
        (lambda _: None, "the connection broke"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n"), "what came back is not HTTP"),
        (lambda _: time.sleep(0.8), "no answer within 0.4 s"),
    ],
    ids=["reset", "closed", "not HTTP", "silent"],
)
def test_a_request_without_an_answer_holds_its_permit(connect, behave, said):
    # Given a server that may have counted the request
    with behaving(behave) as url:
        connector = connect(url, timeout_seconds=0.4)

        with pytest.raises(RetryableError, match=said):
            get(connector)

    # Then its permit is in flight until the API cannot count it any more
    assert use_of(connector) == (1, 1)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: ", b"x"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n", b" "],
        [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b" "],
    ],
    ids=["header lines", "one header", "body", "chunks", "one chunk", "body until the end"],
)
def test_an_answer_that_drips_ends_at_the_deadline(connect, pieces):
    # Given a server that sends a little often enough for no single read to time out
    with behaving(drip(*pieces)) as url:
        connector = connect(url, timeout_seconds=0.5)
        started = time.monotonic()

        with pytest.raises(RetryableError, match=r"(no answer|not complete) within 0.5 s"):
            get(connector)

        assert 0.4 < time.monotonic() - started < 2


def test_connecting_waiting_and_reading_share_one_deadline(connect):
    # Given an answer whose head takes most of the time, and whose body takes most of it again
    def behave(connection: socket.socket) -> None:
        time.sleep(0.4)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(0.4)
        connection.sendall(b"}")

    with behaving(behave) as url, pytest.raises(RetryableError, match=r"the answer was not complete within 0.6 s"):
        get(connect(url, timeout_seconds=0.6))


@pytest.mark.parametrize("head", [b"Content-Length: 50", b"Transfer-Encoding: chunked"])
def test_an_answer_that_breaks_off_is_worth_another_attempt_and_has_completed_its_permit(connect, head):
    with behaving(drip(b"HTTP/1.1 200 OK\r\n", head + b'\r\n\r\n5\r\n{"a":', times=1)) as url:
        connector = connect(url)

        with pytest.raises(RetryableError, match="the GET request: the answer broke off"):
            get(connector)

    assert use_of(connector) == (0, 1)


@pytest.mark.parametrize("kind", ["reset", "malformed", "html"])
def test_the_mock_api_s_broken_answers_are_worth_another_attempt(connect, mock_api, kind):
    server = mock_api(items=3, faults=(Fault(kind, 1.0),))
    connector = connect(server.url)

    with pytest.raises(RetryableError):
        connector.get_json(requests.Request("GET", "api/items/1"), connector.permit_client())


def test_a_certificate_that_is_not_valid_is_said_to_be(connect, tmp_path: Path):
    # Given a server with a self-signed certificate
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is missing: it makes the certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    with keep_alive_server(context=context) as server, pytest.raises(RetryableError, match="is its certificate valid"):
        get(connect(server.url))


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_a_compressed_body_is_unpacked(connect):
    with saying(200, gzip.compress(b'{"id": 7}'), Content_Encoding="gzip") as server:
        connector = connect(server.url)

        assert connector.get_json(requests.Request("GET", "x"), connector.permit_client()) == {"id": 7}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_a_body_over_the_limit_is_not_read_to_its_end(connect, environment, compressed):
    # Given a limit of 100,000 bytes, and a body of fifty million, which compressed is small
    environment.setenv("SLUICE_MAX_BODY_BYTES", "100000")
    body = gzip.compress(bytes(50_000_000), 1) if compressed else bytes(50_000_000)
    headers = {"Content_Encoding": "gzip"} if compressed else {}
    with saying(200, body, **headers) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        connector = connect(server.url)

        with pytest.raises(PermanentError, match=r"over SLUICE_MAX_BODY_BYTES \(100,000 bytes\)"):
            get(connector)

    assert use_of(connector) == (0, 1)


def test_a_body_of_exactly_the_limit_is_read(connect, environment):
    environment.setenv("SLUICE_MAX_BODY_BYTES", "100000")
    with saying(200, b" " * 100_000) as server:
        assert len(get(connect(server.url)).content) == 100_000


# --- 429 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "5"}, 6),
        ({"Retry-After": "2.5"}, 3.5),
        ({"Retry-After": "99999999"}, 3600),
        ({"Retry-After": "Sun, 01 Mar 2026 12:00:30 GMT", "Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, 31),
    ],
    ids=["seconds", "a decimal", "too long", "a date"],
)
def test_a_retry_after_pauses_the_whole_budget(connect, moved_clock, status, headers, seconds):
    with saying(status, **headers) as server:
        connector = connect(server.url)
        caller = connector.permit_client(run_id=1)

        with pytest.raises(RateLimited) as caught:
            connector.send(requests.Request("GET", "x"), caller)

        # Then the next request is not sent, by any client
        with pytest.raises(RateLimited, match="paused"):
            get(connector)

    assert caught.value.wait_seconds == pytest.approx(seconds, abs=0.01)
    assert f"api: the API answered {status}, Retry-After {headers['Retry-After'][:40]}" in str(caught.value)
    assert connector.limiter.snapshot().paused_for_seconds == pytest.approx(seconds, abs=0.01)
    assert (len(server.asked), caller.usage.hits) == (1, 1)
    assert use_of(connector) == (0, 1)


def test_a_retry_after_date_is_read_by_our_clock_where_the_server_tells_none(connect, moved_clock):
    at = format_datetime(clock.now().replace(microsecond=0), usegmt=True).replace("00:00:00", "00:00:20")
    answer = f"HTTP/1.1 429 No\r\nRetry-After: {at}\r\n\r\n".encode()
    with behaving(drip(answer, times=1)) as url, pytest.raises(RateLimited) as caught:
        get(connect(url))

    assert caught.value.wait_seconds == 21


def test_a_429_without_retry_after_pauses_for_the_shortest_window(connect, moved_clock):
    with saying(429) as server:
        connector = connect(server.url, limits=(Limit(10, seconds=60), Limit(5, seconds=7)))

        with pytest.raises(RateLimited, match="without Retry-After") as caught:
            get(connector)

    assert caught.value.wait_seconds == 7.007
    assert connector.limiter.snapshot().paused_for_seconds == 7.007


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}])
def test_a_503_that_asks_for_no_wait_is_an_ordinary_failure(connect, headers):
    with saying(503, **headers) as server:
        connector = connect(server.url)

        with pytest.raises(RetryableError, match="answered 503"):
            get(connector)

    assert connector.limiter.snapshot().hits == 0


def test_the_mock_api_s_429_is_obeyed(connect, moved_clock, mock_api):
    # Given a connector that believes in more than the API allows
    server = mock_api(items=5, limits="2/10")
    connector = connect(server.url, limits=(Limit(5, seconds=10),))
    for _ in range(2):
        get(connector, "api/items/1")

    # When it is refused, and waits for the time that the API asked for
    with pytest.raises(RateLimited) as caught:
        get(connector, "api/items/1")
    assert caught.value.wait_seconds == 11
    moved_clock.advance(11)

    # Then the API answers again
    assert get(connector, "api/items/1").status_code == 200


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_two_connectors_of_one_name_share_a_budget(connect):
    with saying(200) as server:
        one, other = connect(server.url, "shared"), connect(server.url, "shared")
        third = connect(server.url, "its-own")
        for _ in range(5):
            get(one)
            get(other)

        with pytest.raises(RateLimited, match="shared: window 10/60 s full"):
            get(one)
        assert get(third).status_code == 200


def test_a_connector_is_shared_by_threads_and_keeps_its_connections(connect):
    # Given sixteen threads and one connector
    with saying(200, b'{"n": 1}') as server:
        connector = connect(server.url, limits=(Limit(1000, seconds=60),))

        def work(_: int) -> int:
            caller = connector.permit_client()
            found = [connector.get_json(requests.Request("GET", "x"), caller)["n"] for _ in range(20)]
            caller.flush()
            return sum(found)

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(work, range(16))) == 320

    # Then each thread's connection is used again and again
    assert len(server.asked) == 320
    assert server.connections <= 16
    assert use_of(connector) == (0, 320)


def test_each_request_on_a_connection_has_a_deadline_of_its_own(connect):
    # Given a server that takes most of the time for each answer, on one connection
    with saying(200) as server:
        server.delay_seconds = 0.35
        connector = connect(server.url, timeout_seconds=0.6)

        # Then three in a row are in time
        assert [get(connector).status_code for _ in range(3)] == [200, 200, 200]
        assert server.connections == 1


def test_the_json_of_an_answer_is_what_the_api_sent(connect, mock_api):
    server = mock_api(items=3)
    connector = connect(server.url)

    item = connector.get_json(requests.Request("GET", "api/items/2"), connector.permit_client())

    assert item["id"] == 2
    assert json.dumps(item)


def test_a_header_that_is_bytes_is_sent(connect):
    # Given an auth object that sets one, as OAuth 1 does
    class Signing(requests.auth.AuthBase):
        def __call__(self, request):
            request.headers["Authorization"] = b"OAuth abc"
            return request

    with saying(200) as api:
        get(connect(api.url, auth=Signing()))

        assert api.asked[-1].headers["Authorization"] == "OAuth abc"


@pytest.mark.parametrize("auth", [("me", b"secret-password"), ("me", "secret-password")])
def test_a_password_is_known_as_a_secret_whatever_its_type(connect, auth):
    connect("http://127.0.0.1:1", auth=auth)

    assert redact("it is secret-password") == "it is ***"


def test_nothing_is_sent_once_the_request_s_time_is_over(connect):
    # Given a body that is slower to come than the request may take
    received = []

    def slow_body():
        time.sleep(0.4)
        yield b"late"

    def listen(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := connection.recv(1000):
                received.append(piece)

    with behaving(listen) as url, pytest.raises(RetryableError, match="no answer within"):
        get(connect(url, timeout_seconds=0.2), data=slow_body())

    # Then it never left
    assert b"late" not in b"".join(received)


def test_a_process_that_was_stopped_with_a_permit_in_its_hand_sends_nothing(connect):
    with saying(200) as api:
        connector = connect(api.url)
        get(connector)
        asked = len(api.asked)

        with pytest.raises(requests.RequestException), sent_by(clock.monotonic() - 1):
            connector._adapter.send(requests.Request("GET", api.url).prepare(), timeout=5)

        assert len(api.asked) == asked
