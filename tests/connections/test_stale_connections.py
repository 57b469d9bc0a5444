"""Idle HTTP connections that the server has closed: most are not used again, and at most a few requests fail."""

import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.helpers.connectors import use_of
from tests.helpers.keep_alive import keep_alive_server
from workers import Limit, clock
from workers.control import runner
from workers.errors import RetryableError
from workers.records.tables import RunItem, RunStatus
from workers.sources import transport
from workers.sources.connector import Connector
from workers.sources.missing_response import is_stale


def ask(connector: Connector, method: str = "GET") -> int:
    """Send a request; return how many the caller counted."""
    caller = connector.permit_client()
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    try:
        connector.send(requests.Request(method, "x", data=body), caller)
    finally:
        caller.flush()
    return caller.take_usage().requests


def closed_by_now(seconds: float = 0.15) -> None:
    time.sleep(seconds)  # the other side's timer


# --- those that show it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_connection_that_was_closed_while_idle_is_not_used_again(connect, how, method):
    with keep_alive_server(idle_seconds=0.05, idle_close=how) as server:
        connector = connect(server.url)
        ask(connector)
        closed_by_now()

        ask(connector, method)

    # Then nothing was lost: two requests on two connections, and a permit for each
    assert server.received == [(1, "GET"), (2, method)]
    assert use_of(connector) == (0, 2)


def test_a_server_that_closes_after_each_answer_and_does_not_say_so_costs_a_connection_each(connect):
    with keep_alive_server(closes_after_each=True) as server:
        connector = connect(server.url)
        for _ in range(3):
            ask(connector)
            closed_by_now(0.05)

    assert [method for _, method in server.received] == ["GET"] * 3
    assert use_of(connector) == (0, 3)


@pytest.mark.parametrize(
    ("header", "idle_seconds", "connections"),
    [
        (b"", 14.0, 1),
        (b"", 16.0, 2),
        (b"Keep-Alive: timeout=5\r\n", 3.0, 1),
        (b"Keep-Alive: timeout=5\r\n", 4.5, 2),
        (b"Keep-Alive: timeout=5, max=100\r\n", 4.5, 2),
        (b"Keep-Alive: max=100, timeout = 5\r\n", 4.5, 2),
        (b"Keep-Alive: timeout=600\r\n", 14.0, 1),
        (b"Keep-Alive: timeout=600\r\n", 16.0, 2),
        (b"Keep-Alive: timeout=soon\r\n", 14.0, 1),
        (b"Keep-Alive: \r\n", 14.0, 1),
    ],
)
def test_a_connection_that_was_idle_for_long_is_not_used_again(connect, moved_clock, header, idle_seconds, connections):
    # Given a server that keeps the connection, or what stands before it and drops without a word
    with keep_alive_server(header=header) as server:
        connector = connect(server.url)
        ask(connector)
        clock.sleep(idle_seconds)

        ask(connector)

    assert server.connections == connections


# --- those that do not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_kept_connection_swallows_is_asked_again_on_a_new_one_with_a_permit_of_its_own(connect, method, how):
    with keep_alive_server(answers=1, swallows=how) as server:
        connector = connect(server.url)
        ask(connector)

        sent = ask(connector, method)

    # Then the first permit counts as long as the server may count its request
    assert server.received == [(1, "GET"), (1, method), (2, method)]
    assert (sent, use_of(connector)) == (2, (1, 3))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_may_have_been_done_is_not_asked_twice(connect, method):
    with keep_alive_server(answers=1) as server:
        connector = connect(server.url)
        ask(connector)

        with pytest.raises(
            RetryableError, match=rf"the {method} request: the API closed a connection that it had kept open"
        ):
            ask(connector, method)

    assert server.received == [(1, "GET"), (1, method)]
    assert use_of(connector) == (1, 2)


@pytest.mark.parametrize(
    "piece",
    [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n", b"\r\n"],
)
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_request_of_which_an_answer_had_begun_is_not_asked_again(connect, piece, how):
    with keep_alive_server(answers=1, swallows=how, before_closing=piece) as server:
        connector = connect(server.url)
        ask(connector)

        with pytest.raises(RetryableError):
            connector.get_json(requests.Request("GET", "x"), connector.permit_client())

    assert server.received == [(1, "GET"), (1, "GET")]


def test_a_new_connection_that_is_closed_is_no_kept_one(connect):
    with keep_alive_server(answers=0) as server:
        connector = connect(server.url)

        with pytest.raises(RetryableError, match=r"the connection broke \(ConnectionError\)"):
            ask(connector)

    assert server.received == [(1, "GET")]


def test_a_request_is_asked_again_once(connect):
    # Given a server that stops answering altogether
    with keep_alive_server(answers=1) as server:
        connector = connect(server.url)
        ask(connector)
        server.answers = 0

        with pytest.raises(RetryableError, match="the connection broke"):
            ask(connector)

    assert server.received == [(1, "GET"), (1, "GET"), (2, "GET")]
    assert use_of(connector) == (2, 3)


def test_the_second_try_does_not_take_another_kept_connection(connect):
    # Given four kept connections, all of which swallow what comes next
    with keep_alive_server(answers=1) as server, ThreadPoolExecutor(4) as pool:
        connector = connect(server.url)
        together = threading.Barrier(4)

        def body() -> bytes:
            together.wait(5)
            return b"{}"

        server.body = body
        list(pool.map(lambda _: ask(connector), range(4)))
        server.body = lambda: b"{}"
        kept = server.connections

        assert ask(connector) == 2

    assert len(server.received) == 4 + 2
    assert server.connections == kept + 1


def test_a_server_that_drops_idle_connections_without_a_sign_is_found_out_once(connect, moved_clock):
    # Given connections that swallow whatever comes after 2 s of idleness
    with keep_alive_server(swallows_after_seconds=2.0) as server:
        connector = connect(server.url, limits=(Limit(1000, seconds=1),))
        for _ in range(6):
            ask(connector)
            clock.sleep(3.0)

        # Then one request was lost, and connections that rested for 1.5 s are not used for ten minutes
        assert (len(server.received), server.connections) == (7, 6)
        for idle_seconds in (1.0, 1.6):
            ask(connector)
            clock.sleep(idle_seconds)
        ask(connector)
        assert (len(server.received), server.connections) == (10, 8)


def test_without_a_permit_for_the_second_try_the_reset_is_what_is_told(connect):
    # Given a budget of two requests
    with keep_alive_server(answers=1) as server:
        connector = connect(server.url, limits=(Limit(2, seconds=60),))
        ask(connector)

        with pytest.raises(RetryableError, match="the API closed a connection that it had kept open"):
            ask(connector)

    assert server.received == [(1, "GET"), (1, "GET")]
    assert use_of(connector) == (1, 2)


def test_a_server_that_hangs_is_not_asked_again(connect):
    with keep_alive_server(answers=1, swallows="hang") as server:
        connector = connect(server.url, timeout_seconds=0.3)
        ask(connector)

        with pytest.raises(RetryableError, match=r"no answer within 0.3 s"):
            ask(connector)

    assert server.received == [(1, "GET"), (1, "GET")]


# --- the same within TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    try:
        subprocess.run([*command, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is missing: it makes the certificate")
    return certificate, key


@pytest.fixture
def send(certificate, environment):
    """send(url): one request through the adapter, which trusts the certificate."""
    adapter = transport.DeadlineAdapter(pool_connections=4, pool_maxsize=4, max_retries=0)

    def send(url: str) -> bytes:
        answer = adapter.send(requests.Request("GET", url).prepare(), timeout=3, verify=str(certificate[0]))
        return answer.content

    yield send
    adapter.close()


def tls(certificate: tuple[Path, Path], version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tls_connection_is_used_again_until_it_is_closed(certificate, send, version):
    with keep_alive_server(context=tls(certificate, version), idle_seconds=0.2) as server:
        assert [send(server.url) for _ in range(3)] == [b"{}"] * 3
        assert server.connections == 1
        closed_by_now(0.4)

        assert send(server.url) == b"{}"

    assert (server.connections, len(server.received)) == (2, 4)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_tls_connection_that_swallows_a_request_is_known_as_stale(certificate, send, how, version):
    with keep_alive_server(context=tls(certificate, version), answers=1, swallows=how) as server:
        send(server.url)

        with pytest.raises(requests.RequestException) as caught:
            send(server.url)

    assert is_stale(caught.value)


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_on_connections_that_swallow_every_other_request_spends_no_attempt(import_from, mock_api, house):
    # Given an API behind a server that answers one request of each connection and swallows the next
    with keep_alive_server(answers=1) as server:
        pages = b'{"data": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "next_page_url": null}'
        detail = b'{"description": "b", "price": 1}'
        bodies = iter([pages, detail, detail])
        server.body = lambda: next(bodies)
        import_from(server.url, lanes=1, limits=(Limit(20, seconds=1),))
        run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 2, 0)
    assert [item.attempts for item in RunItem.select()] == [1, 1]
    assert (len(server.received), run.requests_count) == (5, 5)
