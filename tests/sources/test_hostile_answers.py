"""What if the API sends nonsense? It ends as a classed failure or a failed run that says why: no hang, crash or gap."""

import contextlib
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import time
import traceback
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from peewee import OperationalError

from models import Item
from tests.helpers import registered_sources
from tests.helpers.connectors import get, use_of
from tests.helpers.fixed_response import saying
from tests.helpers.raw_api import Answer, api, detail, http, page, row
from tests.helpers.socket_servers import behaving, drip
from workers import ConfigurationError, Limit, PermanentError, RetryableError, Skip, clock
from workers.control import runner
from workers.engine.discovery import discover
from workers.messaging import broker
from workers.records import cursor, runs
from workers.records.tables import ItemStatus, Run, RunEvent, RunItem, RunStatus
from workers.settings import get_settings
from workers.sources import transport
from workers.sources.registry import get_registry

MANY = (Limit(1000, seconds=60),)


@pytest.fixture
def import_again(import_from: Callable[..., Any]) -> Callable[..., Any]:
    """As `import_from`, but the source takes the place of the one before it."""

    def register(url: str, **attributes: Any) -> Any:
        registered_sources.SOURCES.clear()
        return import_from(url, **attributes)

    return register


def start_inline() -> Run:
    return runner.run_inline(runner.start("items", who="test", door="test", send=False))


def read_the_list(run: Run) -> None:
    """Let one message do what it can: all pages, or one that fails. What it sends goes nowhere."""
    with broker.captured(lambda *message: None):
        discover(run.id)


def following(self, data, cursor):
    return data["next"]


# --- one answer, whichever request it is for: what it is, how it is filed, what is said -------------------------------

GZIP_BOMB = gzip.compress(bytes(1_000_000)) * 40
HUGE = b"[" + b"0," * 60_000 + b"0]"


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


NONSENSE: dict[str, tuple[Answer, str, str]] = {
    "html": (http("<html>Sign in</html>", media="text/html"), "transient", "a body that is not JSON (text/html)"),
    "cut JSON": (http('{"data": [{"id": 1}, {"i'), "transient", "a body that is not JSON (application/json)"),
    "nothing": (http(), "transient", "a body that is not JSON"),
    "an odd content type": (http("x", media="\x1b[31m<&>"), "transient", "not JSON (an invalid content type)"),
    "latin-1": (http('{"data": "é"}'.encode("latin-1")), "transient", "a body that is not JSON"),
    "no content": (http(status="204 No Content"), "bad_data", "answered 204: the response has no body"),
    "NaN": (http('{"data": [NaN]}'), "bad_data", "with NaN, which JSON does not have"),
    "Infinity": (http('{"data": [-Infinity]}'), "bad_data", "with -Infinity, which JSON does not have"),
    "a number no float holds": (http('{"data": [1e400]}'), "bad_data", "with 1e400, a number larger than a float can"),
    "a long number": (http('{"data": ' + "9" * 10_000 + "}"), "bad_data", "with a number of too many digits"),
    "deep nesting": (http("[" * 49_000 + "]" * 49_000), "bad_data", "with JSON that is nested too deeply"),
    "plain, said to be gzip": (
        http("{}", "Content-Encoding: gzip"),
        "transient",
        "is not compressed as its Content-Enc",
    ),
    "plain, said to be br": (
        http("{}", "Content-Encoding: br"),
        "contract",
        "has a Content-Encoding that was not asked",
    ),
    "packed twice": (
        http(gzip.compress(gzip.compress(b"{}")), "Content-Encoding: gzip, gzip"),
        "contract",
        "has a Content-Encoding that was not asked",
    ),
    "a long body": (http(HUGE), "contract", "the body is over SLUICE_MAX_BODY_BYTES (100,000 bytes)"),
    "a long body, its length untold": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + HUGE,
        "contract",
        "the body is over SLUICE_MAX_BODY_BYTES",
    ),
    "a long body in chunks": (
        http(chunked(HUGE[:50_000], HUGE[50_000:]), "Transfer-Encoding: chunked"),
        "contract",
        "the body is over SLUICE_MAX_BODY_BYTES",
    ),
    "a gzip bomb": (http(GZIP_BOMB, "Content-Encoding: gzip"), "contract", "the body is over SLUICE_MAX_BODY_BYTES"),
    "a redirect": (
        http(status="302 Found", media="text/html"),
        "contract",
        "answered 302: redirects are not followed; set base_url to the final address",
    ),
    "another protocol": (http(status="101 Switching"), "contract", "answered 101: another protocol was not asked for"),
    "a body cut off": (http("{", "Content-Length: 50"), "transient", "the answer broke off"),
    "chunks cut off": (http(b"50\r\n{", "Transfer-Encoding: chunked"), "transient", "the answer broke off"),
    "chunks that are none": (http(b"zz\r\n{", "Transfer-Encoding: chunked"), "transient", "the answer broke off"),
    "a chunk below zero": (http(b"-1\r\n" + HUGE, "Transfer-Encoding: chunked"), "transient", "the answer broke off"),
    "two lengths": (http("{}", "Content-Length: 2", "Content-Length: 3"), "transient", "not HTTP (InvalidHeader)"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "transient", "what came back is not HTTP (BadStatusLine)"),
    "a status that is none": (b"HTTP/1.1 abc OK\r\n\r\n", "transient", "what came back is not HTTP (BadStatusLine)"),
    "another HTTP": (b"HTTP/7.1 200 OK\r\n\r\n{}", "transient", "what came back is not HTTP (UnknownProtocol)"),
    "a header that is none": (http("{}", "this is no header"), "transient", "what came back is not HTTP (NotHTTP)"),
    "too many headers": (http("{}", *(f"X-{n}: 1" for n in range(101))), "transient", "not HTTP (HTTPException)"),
    "a long header": (http("{}", f"X: {'x' * 70_000}"), "transient", "what came back is not HTTP (LineTooLong)"),
    "a closed connection": (lambda connection: None, "transient", "the connection broke"),
    "only interim answers": (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "transient", "not HTTP (NotHTTP)"),
    "500": (http("oops", status="500 No"), "transient", "answered 500"),
    "500 with nonsense in it": (http("{}", "Content-Encoding: gzip", status="500 No"), "transient", "answered 500"),
    "404 in HTML": (http("<html>", status="404 No", media="text/html"), "not_found", "answered 404"),
    "401 with a long body": (http(HUGE, status="401 No"), "auth", "answered 401: check the credentials"),
    "an unknown status": (http("{}", status="418 No"), "bad_data", "answered 418"),
}


def test_each_kind_of_nonsense_instead_of_a_list_fails_the_run_and_says_what_came(moved_clock, import_again, house):
    house.setenv("SLUICE_MAX_BODY_BYTES", "100000")
    said, asked = {}, {}
    for name, (answer, _, _) in NONSENSE.items():
        # When a list page is answered so
        with api({"/api/items": answer}) as server:
            import_again(server.url)
            run = start_inline()
        assert (run.status, run.total_count) == (RunStatus.FAILED, None), name
        said[name], asked[name] = run.error_summary, len(server.asked)

    # Then the run has failed with what came, after five attempts where the next one may have been better
    for name, (_, failure_class, words) in NONSENSE.items():
        assert said[name].startswith("list page 1: items"), (name, said[name])
        assert words in said[name], (name, said[name])
        assert asked[name] == (5 if failure_class == "transient" else 1), name


def test_each_kind_of_nonsense_instead_of_a_detail_fails_that_item_alone(moved_clock, import_from, house):
    # Given a list of items, each of which has another sort of nonsense for its detail, and one good one among them
    house.setenv("SLUICE_MAX_BODY_BYTES", "100000")
    answers = {f"/api/items/{n}": answer for n, (answer, _, _) in enumerate(NONSENSE.values(), start=1)}
    answers["/api/items/0"] = detail(0)
    with api({"/api/items": page(*(row(n) for n in range(len(NONSENSE) + 1))), **answers}) as server:
        import_from(server.url, lanes=1)

        run = start_inline()

    # Then the good one is in, and each other one says what came, and is filed under what is to be done about it
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 1, len(NONSENSE))
    items = {item.external_id: item for item in RunItem.select()}
    for n, (name, (_, failure_class, words)) in enumerate(NONSENSE.items(), start=1):
        item = items[str(n)]
        assert (item.failure_class, item.attempts) == (failure_class, 5 if failure_class == "transient" else 1), name
        assert f"items details of {n}" in item.failure_reason and words in item.failure_reason, (
            name,
            item.failure_reason,
        )


def test_a_detail_of_another_shape_is_bad_data(import_from):
    bodies = ["7", '"text"', "null", "[]", '{"id": 1}', "true", "{}"]
    answers = {f"/api/items/{n}": http(body) for n, body in enumerate(bodies)}
    with api({"/api/items": page(*(row(n) for n in range(len(bodies)))), **answers}) as server:
        import_from(server.url)

        run = start_inline()

    assert (run.status, run.failed_count, len(server.asked)) == (RunStatus.COMPLETED, len(bodies), 1 + len(bodies))
    assert {item.failure_class for item in RunItem.select()} == {"bad_data"}
    reasons = {item.external_id: item.failure_reason for item in RunItem.select()}
    assert "Item cannot take what the API answered: KeyError: 'description'" in reasons["4"]


SHAPES: dict[str, tuple[object, str]] = {
    "another key": ({"items": []}, "the body is not what TestSource reads: KeyError: 'data'"),
    "a number": ({"data": 7}, "the body holds no list of items but a int"),
    "text": ({"data": "text"}, "the body holds no list of items but a str"),
    "null": ({"data": None}, "the body holds no list of items but a NoneType"),
    "an object": ({"data": {"a": 1}}, "the body holds no list of items but a dict"),
    "only a list": ([], "the body is not what TestSource reads: TypeError"),
    "only null": (None, "the body is not what TestSource reads: TypeError"),
    "only text": ("text", "the body is not what TestSource reads: TypeError"),
    "far too many": ({"data": [0] * 100_001}, "it holds 100,001 items, and 100,000 are the most that are taken at"),
}


def test_a_page_of_another_shape_fails_the_run_at_once(import_again):
    for name, (body, said) in SHAPES.items():
        with api({"/api/items": http(json.dumps(body))}) as server:
            import_again(server.url)

            run = start_inline()

        assert (run.status, len(server.asked)) == (RunStatus.FAILED, 1), name
        assert run.error_summary.startswith(f"list page 1: {said}"), name


# --- JSON, however it is written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", '"latin-1"'])
def test_json_is_read_in_the_charset_that_is_named_where_it_is_not_utf_8(connect, charset):
    with saying(
        200, '{"name": "Zoë"}'.encode("latin-1"), **{"Content-Type": f"application/json; charset={charset}"}
    ) as api:
        connector = connect(api.url)

        assert connector.get_json(requests.Request("GET", "x"), connector.permit_client()) == {"name": "Zoë"}


@pytest.mark.parametrize("encoding", ["UTF-8", "none", "binary", "identity, identity", "aws-chunked"])
def test_a_word_for_no_packing_at_all_is_no_reason_to_refuse_a_body(connect, encoding):
    with saying(200, b"{}", **{"Content-Encoding": encoding}) as api:
        connector = connect(api.url)

        assert connector.get_json(requests.Request("GET", "x"), connector.permit_client()) == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_every_encoding_it_may_have_whatever_charset_is_said(connect, encoding):
    body = '{"name": "Zoë"}'.encode(encoding)
    with saying(200, body, Content_Type="application/json; charset=no-such-thing") as server:
        connector = connect(server.url)

        assert connector.get_json(requests.Request("GET", "x"), connector.permit_client()) == {"name": "Zoë"}


def test_an_early_hint_is_passed_over(connect):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    with behaving(drip(hints + http('{"id": 7}'), times=1)) as url:
        connector = connect(url)

        assert connector.get_json(requests.Request("GET", "x"), connector.permit_client()) == {"id": 7}


def test_a_body_that_is_no_text_is_refused_in_no_time(connect):
    # Given ten megabytes of bytes that could be in any encoding
    with saying(200, bytes(range(128, 256)) * 80_000) as server:
        connector = connect(server.url, timeout_seconds=30)
        started = time.monotonic()

        with pytest.raises(RetryableError, match="a body that is not JSON"):
            connector.get_json(requests.Request("GET", "x"), connector.permit_client())

    # Then the charset was not guessed: that takes minutes
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("message", ['["a"]', "{}", "7", "null", '"  "', "NaN", "[" * 900 + "]" * 900])
def test_a_refusal_whose_message_is_no_text_is_told_without_it(connect, message):
    body = f'{{"message": {message}}}'.encode()
    with saying(400, body) as server, pytest.raises(PermanentError, match=r"answered 400$"):
        get(connect(server.url))


def test_a_refusal_tells_one_line_of_its_message_at_most(connect):
    with (
        saying(400, json.dumps({"message": "no such field\n" + "x" * 1000}).encode()) as server,
        pytest.raises(PermanentError, match=r"answered 400: no such field$"),
    ):
        get(connect(server.url))


# --- time -------------------------------------------------------------------------------------------------------------


def endless(first: bytes, again: bytes) -> Callable[[socket.socket], None]:
    """Send `first`, and then `again` as fast as it is taken, for longer than anybody should listen."""

    def behave(connection: socket.socket) -> None:
        ends_at = time.monotonic() + 5
        with contextlib.suppress(OSError):
            connection.sendall(first)
            while time.monotonic() < ends_at:
                connection.sendall(again)

    return behave


@pytest.mark.parametrize(
    "behave",
    [
        endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1000),
        endless(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n",
            chunked(gzip.compress(b"") * 100)[:-5],
        ),
    ],
    ids=["trailers", "gzip members of nothing"],
)
def test_an_answer_without_an_end_that_is_never_silent_ends_at_the_deadline(connect, behave):
    with behaving(behave) as url:
        connector = connect(url, timeout_seconds=0.5)
        started = time.monotonic()

        with pytest.raises(RetryableError, match=r"was not complete within 0.5 s"):
            get(connector)

    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "pieces",
    [[b"HTTP/1.1 200 OK\r\nX: ", b"x"], [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "]],
    ids=["headers", "body"],
)
def test_an_item_whose_detail_drips_fails_at_its_deadline_and_the_others_are_imported(import_from, house, pieces):
    # Given a detail that comes byte by byte, and two attempts
    house.setenv("SLUICE_BACKOFF_SECONDS", "0.01")
    house.setenv("SLUICE_REQUEST_TIMEOUT_SECONDS", "0.2")
    slow = drip(*pieces, times=100, pause_seconds=0.02)

    def behave(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            slow(connection)

    with api({"/api/items": page(row(1), row(2)), "/api/items/1": behave, "/api/items/2": detail(2)}) as server:
        import_from(server.url, lanes=1)

        run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 1, 1)
    failed = RunItem.get(RunItem.status == ItemStatus.FAILED)
    assert (failed.failure_class, failed.attempts) == ("transient", 2)
    assert "within 0.2 s" in failed.failure_reason


@pytest.fixture
def deaf() -> Iterator[Callable[[], tuple[str, int]]]:
    """Make addresses that do not answer a handshake: their backlog is full."""
    with contextlib.ExitStack() as stack:

        def make() -> tuple[str, int]:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
            address: tuple[str, int] = listener.getsockname()
            return address

        yield make


def test_the_addresses_of_a_host_share_the_time_to_connect(deaf):
    # Given a host with four addresses, of which the third answers
    with socket.create_server(("127.0.0.1", 0)) as listener:
        addresses = [deaf(), deaf(), listener.getsockname(), deaf()]

        # When one second is left for all of them
        started = clock.monotonic()
        with transport.first_that_answers(addresses, started + 1.0) as connection:
            # Then the first two have had a quarter each, and all that is left is there for the answer
            assert connection.getpeername() == listener.getsockname()
            assert 0.5 <= clock.monotonic() - started < 0.7
            assert 0.3 < connection.gettimeout() <= 0.5


def test_addresses_that_do_not_answer_take_no_longer_than_one(deaf):
    started = clock.monotonic()

    with pytest.raises(TimeoutError):
        transport.first_that_answers([deaf(), deaf(), deaf()], started + 0.3)

    assert 0.2 < clock.monotonic() - started < 1.5


def test_no_connection_is_made_where_finding_the_address_took_all_the_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(TimeoutError, match="no time is left"):
            transport.first_that_answers([listener.getsockname()], clock.monotonic() - 1)

        listener.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_request_that_is_taken_too_slowly_ends_at_the_deadline(connect):
    # Given a server that takes a piece of a long request often enough for no single one to time out
    piece = 1_000_000

    def behave(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            taken = 0
            while got := len(connection.recv(100_000)):
                taken += got
                if taken > piece:
                    taken = 0
                    time.sleep(0.1)

    with behaving(behave) as url:
        connector = connect(url, timeout_seconds=0.4)
        pieces = (bytes(piece) for _ in range(50))
        started = time.monotonic()

        with pytest.raises(RetryableError, match=r"no answer within 0.4 s"):
            connector.send(requests.Request("POST", "x", data=pieces), connector.permit_client())

        assert time.monotonic() - started < 2


@pytest.mark.parametrize("host", ["x" * 64, "a..b"])
def test_a_host_that_can_have_no_name_gives_its_permit_back(connect, host):
    connector = connect(f"http://{host}.invalid")

    with pytest.raises((RetryableError, PermanentError)):
        get(connector)

    assert use_of(connector) == (0, 0)


# --- memory -----------------------------------------------------------------------------------------------------------

#: Fetches each path with a limit of 1 MB, and prints what was said, and by how many kB the process has grown at most.
CHILD = """
import json, sys
import requests
from workers import Connector, Limit, SluiceError

def peak():  # not ru_maxrss: it begins with what the parent process had
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

api = Connector("bombs", base_url=sys.argv[1], limits=[Limit(100, seconds=60)], timeout_seconds=20)
caller = api.permit_client()
api.get_json(requests.Request("GET", "plain"), caller)
before, said = peak(), {}
for path in sys.argv[2:]:
    try:
        api.get_json(requests.Request("GET", path), caller)
    except SluiceError as error:
        said[path] = str(error)
caller.flush()
print(json.dumps({"said": said, "grown": peak() - before}))
"""


def deflated(megabytes: int) -> bytes:
    """Zeros in one stream of deflate, a block each megabyte: blocks that begin afresh are all alike."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports a process's peak memory")
def test_no_bomb_takes_more_memory_than_a_body_may_have(environment, redis_server):
    # Given bodies that are a gigabyte or more when they are unpacked, or that say a chunk has no end
    gigabyte = gzip.compress(bytes(10_000_000), 9) * 100
    unending = endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", bytes(1_000_000))
    answers: dict[str, Answer | list[Answer]] = {
        "/plain": http("{}"),
        "/gzip": http(gigabyte, "Content-Encoding: gzip"),
        "/gzip-in-chunks": http(chunked(gigabyte), "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
        "/deflate": http(deflated(1000), "Content-Encoding: deflate"),
        "/twice": http(gzip.compress(gigabyte), "Content-Encoding: gzip, gzip"),
        "/five-times": http(gzip.compress(gigabyte), "Content-Encoding: gzip, gzip, gzip, gzip, gzip"),
        "/br": http(b"\x00" * 100, "Content-Encoding: br"),
        "/zstd": http(b"\x00" * 100, "Content-Encoding: zstd"),
        "/unending-chunk": unending,
    }
    bombs = [path.lstrip("/") for path in answers if path != "/plain"]
    variables = {"SLUICE_REDIS_URL": redis_server, "SLUICE_MAX_BODY_BYTES": "1000000", "SLUICE_PREFIX": "bombs"}

    # When a process of its own fetches them
    with api(answers) as server:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, server.url, *bombs],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    # Then each is refused, and the process has grown by some megabytes at most
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["said"]) == bombs
    assert all("over SLUICE_MAX" in found["said"][path] for path in ("gzip", "gzip-in-chunks", "deflate"))
    assert all("was not asked for" in found["said"][path] for path in ("twice", "five-times", "br", "zstd"))
    assert "broke off" in found["said"]["unending-chunk"]
    assert found["grown"] < 30_000


# --- where requests go, and what is shown -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_redirect_to_another_host_brings_it_no_request_and_no_credentials(connect, status):
    # Given an API that sends its callers to another server
    with api({}) as other:
        moved = http("{}", f"Location: {other.url}/api/items/1", status=status)
        with api({"/api/items/1": moved}) as server:
            connector = connect(server.url, headers={"X-Api-Key": "s3cret"}, auth=("user", "word"))

            with pytest.raises(PermanentError, match="redirects are not followed") as caught:
                get(connector, "api/items/1")

    # Then that one has heard nothing at all
    assert (len(server.asked), other.asked) == (1, [])
    assert caught.value.failure_class == "contract"
    assert other.url not in str(caught.value)


def test_a_next_page_on_another_host_fails_the_run_and_brings_that_host_no_request(import_from):
    # Given a source that goes where the API says the next page is
    def by_link(self, cursor, per_page):
        return requests.Request("GET", "api/items" if cursor == 1 else cursor)

    with api({}) as other, api({"/api/items": page(row(1), next=f"{other.url}/api/items?key=s3cret")}) as server:
        import_from(server.url, get_list_request=by_link, next_cursor=following)

        run = start_inline()

    # Then the run ends there, and the reason does not show the link
    assert (run.status, other.asked) == (RunStatus.FAILED, [])
    assert "a connector calls its own host only" in run.error_summary
    assert "s3cret" not in run.error_summary


def test_headers_that_are_none_bring_no_url_into_the_log(connect, caplog):
    with behaving(drip(http("{}", "this is no header"), times=1)) as url, pytest.raises(RetryableError):
        get(connect(url), "x?key=s3cret")

    assert "s3cret" not in caplog.text


SECRET = "never" + "-to-be-shown"


def test_no_secret_is_in_what_nonsense_makes_the_connector_say(connect, environment, caplog):
    environment.setenv("SLUICE_MAX_BODY_BYTES", "100000")
    # Given each kind of nonsense in turn, and a request that carries secrets
    for name, (answer, _, _) in NONSENSE.items():
        with api({"/x": answer}) as server:
            connector = connect(server.url, headers={"X-Api-Key": SECRET}, auth=("user", SECRET), limits=MANY)

            with pytest.raises((RetryableError, PermanentError)) as caught:
                connector.get_json(requests.Request("GET", "x", params={"key": SECRET}), connector.permit_client())

        # Then no secret is in the error, its traceback or the log
        assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text, name


# --- items that cannot be taken ---------------------------------------------------------------------------------------


NO_IDS: list[tuple[object, str]] = [
    (None, "it is nothing"),
    (True, "it is a bool"),
    (1.0, "it is a float"),
    ([1], "it is a list"),
    ({"a": 1}, "it is a dict"),
    ("", "it is empty"),
    (" \t", "it is empty"),
    ("x" * 256, "it has 256 characters, and 255 can be kept"),
    (10**255, "it has 256 characters"),
    ("a\0b", "it holds a character that no database keeps"),
    ("half \ud800 a letter", "it holds a character that no database keeps"),
    ("page 1, item 1", "it looks like a place on a page"),
]


def test_an_item_whose_id_cannot_be_one_is_refused_alone(import_from):
    # Given a page of them, with a good item before and after each
    listed = [item for n, (item_id, _) in enumerate(NO_IDS) for item in (row(f"good {n}"), row(item_id))]
    body = json.dumps({"data": listed, "next_page_url": None})
    with api({"/api/items": http(body)}) as server:
        import_from(server.url)
        run = runner.start("items", who="test", door="test", send=False)
        read_the_list(run)

    # Then the good ones are in, and each refused one says where it stood and why
    assert runs.get(run.id).total_count == 2 * len(NO_IDS)
    assert {item.external_id for item in Item.select()} == {f"good {n}" for n in range(len(NO_IDS))}
    refused = {item.external_id: item for item in RunItem.select().where(RunItem.item_id.is_null())}
    assert len(refused) == len(NO_IDS)
    for n, (_, said) in enumerate(NO_IDS):
        item = refused[f"page 1, item {2 * n + 2}"]
        assert (item.status, item.failure_class) == (ItemStatus.FAILED, "bad_data")
        assert item.failure_reason.startswith(f"page 1, item {2 * n + 2} has no usable id: {said}")


def test_an_id_that_can_be_kept_is(import_from):
    ids = [7, -7, "8", "Zoë", "x" * 255, 10**254, "0" * 255, " a"]
    with api({"/api/items": page(*(row(item_id) for item_id in ids))}) as server:
        import_from(server.url)
        run = runner.start("items", who="test", door="test", send=False)
        read_the_list(run)

    expected = {str(item_id) for item_id in ids}
    assert {item.external_id for item in RunItem.select()} == {item.external_id for item in Item.select()} == expected


def test_a_uuid_is_an_id(import_from):
    known = uuid.uuid4()
    with api({"/api/items": page(row(str(known)))}) as server:
        source = import_from(server.url)

        class Known(Item):
            class Meta:
                table_name = "items"

            def get_external_id(self):
                return uuid.UUID(self.external_id)

        type(source).model = Known
        run = runner.start("items", who="test", door="test", send=False)
        read_the_list(run)

    assert RunItem.get().external_id == str(known)


def test_items_that_are_no_objects_or_lack_what_is_read_fail_alone(import_from):
    # Given a page of which one item is good
    answers = {"/api/items": page(row(1), {"name": "b"}, 7, None, "text", [], {}), "/api/items/1": detail(1)}
    with api(answers) as server:
        import_from(server.url)

        run = start_inline()

    # Then the good one is in, and each other one says where it stood and why
    assert (run.status, run.succeeded_count, run.failed_count, run.total_count) == (RunStatus.COMPLETED, 1, 6, 7)
    reasons = {item.external_id: item.failure_reason for item in RunItem.select().where(RunItem.status == "failed")}
    assert set(reasons) == {f"page 1, item {n}" for n in range(2, 8)}
    assert "page 1, item 2 cannot become a Item: KeyError: 'id'" in reasons["page 1, item 2"]


def test_values_that_no_database_stores_fail_their_item_alone(import_from):
    # Given items with half a letter and with a number no column holds, in the list and in a detail
    wrong = http(json.dumps({"description": "half \ud800 a letter", "price": 1}))
    large = http('{"description": "b", "price": ' + "9" * 4000 + "}")
    answers = {"/api/items": page(row(1), {"id": 2, "name": "\udfff"}, row(3), row(4))}
    with api(answers | {"/api/items/1": detail(1), "/api/items/3": wrong, "/api/items/4": large}) as server:
        import_from(server.url)

        run = start_inline()

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 1, 3)
    failed = {item.external_id: item for item in RunItem.select().where(RunItem.status == ItemStatus.FAILED)}
    assert {item.failure_class for item in failed.values()} == {"bad_data"}
    assert all("the row could not be saved" in failed[n].failure_reason for n in ("2", "3", "4"))


def test_an_answer_that_no_database_can_store_is_stored_without_what_it_cannot(import_from):
    texts = ["bad \u0000 id", "half \ud800 a letter"]
    answers = {f"/api/items/{n}": http(json.dumps({"message": t}), status="422 No") for n, t in enumerate(texts)}
    with api({"/api/items": page(row(0), row(1)), **answers}) as server:
        import_from(server.url)

        run = start_inline()

    assert (run.status, run.failed_count) == (RunStatus.COMPLETED, 2)
    for item in RunItem.select():
        assert item.failure_reason.startswith(f"items details of {item.external_id} answered 422: ")


def test_an_id_that_comes_twice_is_imported_once(import_from):
    # Given an id that is twice on a page and again on the next, as text and as a number
    answers: dict[str, Answer | list[Answer]] = {
        "/api/items?page=1&perPage=100": page(row(1), {"id": 1, "name": "later"}, row(2), following="2"),
        "/api/items?page=2&perPage=100": page(row("2"), row(3)),
    }
    with api(answers | {f"/api/items/{n}": detail(n) for n in (1, 2, 3)}) as server:
        import_from(server.url)

        run = start_inline()

    # Then there is one item and one row for each, the later word counts, and each detail was asked for once
    assert (run.status, run.succeeded_count, run.total_count) == (RunStatus.COMPLETED, 3, 3)
    assert {(item.external_id, item.name) for item in Item.select()} == {("1", "later"), ("2", "a"), ("3", "a")}
    assert sorted(server.asked)[:3] == ["/api/items/1", "/api/items/2", "/api/items/3"]
    assert len(server.asked) == 5


# --- lists that do not end --------------------------------------------------------------------------------------------


def by_cursor(self, cursor, per_page):
    return requests.Request("GET", "api/items", params={"page": json.dumps(cursor)})


def test_a_list_that_repeats_itself_and_brings_nothing_new_fails_the_run(import_from):
    # Given a list that says after each page that there is another, and shows the same items again
    with api({"/api/items": page(row(1), row(2), row(3), 7, following="more")}) as server:
        import_from(server.url)

        run = start_inline()

    # Then it is given up at the first page that came before, with the items it has
    assert run.status == RunStatus.FAILED
    assert "its items came before, on another page: does TestSource.get_list_request ask" in run.error_summary
    assert len(server.asked) == 2
    assert Item.select().count() == 3


def test_a_page_that_names_itself_as_the_next_one_fails_the_run(import_from):
    with api({"/api/items": page(row(1), next=1)}) as server:
        import_from(server.url, next_cursor=following)

        run = start_inline()

    said = "list page 1: it names itself as the next one: does TestSource.next_cursor advance?"
    assert (run.status, run.error_summary) == (RunStatus.FAILED, said)
    assert len(server.asked) == 1


def test_a_cursor_that_names_its_own_page_is_known_again_after_it_was_kept(import_from):
    # Given a source that hands the API's cursor on as a tuple
    with api({"/api/items": page(row(1), next=[1, 2])}) as server:
        import_from(server.url, get_list_request=by_cursor, next_cursor=lambda self, data, cursor: tuple(data["next"]))

        run = start_inline()

    assert run.status == RunStatus.FAILED
    assert "it names itself as the next one" in run.error_summary
    assert len(server.asked) == 2


def test_cursors_that_go_in_a_circle_fail_the_run(import_from):
    # Given pages A, B and A again, of items and of none that can be taken
    answers: dict[str, Answer | list[Answer]] = {
        "/api/items": page(row(1), next="a"),
        "/api/items?page=%22a%22": page(row(2), next="b"),
        "/api/items?page=%22b%22": page(7, 8, next="a"),
    }
    with api(answers) as server:
        import_from(server.url, get_list_request=by_cursor, next_cursor=following)

        run = start_inline()

    assert run.status == RunStatus.FAILED
    assert "it names page a, which was read before, as the next one" in run.error_summary
    assert len(server.asked) == 3
    assert run.total_count == 2


def counted(items: Callable[[int], list[object]]) -> Callable[[socket.socket], None]:
    """A list page that says there is another, its items made from its number; the hundredth ends what should have."""
    numbers = iter(range(1, 1000))

    def behave(connection: socket.socket) -> None:
        number = next(numbers)
        connection.sendall(page(*items(number), following="more" if number < 100 else None))

    return behave


def test_a_list_that_brings_the_same_refused_items_for_ever_fails_the_run(import_from):
    # Given a list of three sorts of pages, on none of which an item can be taken
    with api({"/api/items": counted(lambda n: [n % 3, {"name": "b"}])}) as server:
        import_from(server.url)

        run = start_inline()

    # Then each may come once
    assert run.status == RunStatus.FAILED
    assert "its items came before, on another page" in run.error_summary
    assert len(server.asked) == 3 + 1


def test_a_list_that_skips_the_same_items_for_ever_fails_the_run(import_from):
    class Unwanted(Item):
        class Meta:
            table_name = "items"

        def get_external_id(self):
            raise Skip("not wanted")

    with api({"/api/items": counted(lambda n: [row(1)])}) as server:
        import_from(server.url, model=Unwanted)

        run = start_inline()

    assert (run.status, run.skipped_count, len(server.asked)) == (RunStatus.FAILED, 1, 2)


def test_a_list_of_empty_pages_fails_the_run(import_from):
    with api({"/api/items": counted(lambda n: [])}) as server:
        import_from(server.url, max_empty_pages=40)

        run = start_inline()

    assert (run.status, len(server.asked)) == (RunStatus.FAILED, 41)
    assert "41 list pages in a row had no item" in run.error_summary


def test_a_list_that_brings_ever_new_items_fails_the_run_at_its_most(import_again):
    brings = {
        "new items": lambda n: [row(2 * n), row(2 * n + 1)],
        "new refused ones": lambda n: [f"{n}a", f"{n}b"],
        "both": lambda n: [row(n), {"id": [n]}],
    }
    for name, items in brings.items():
        with api({"/api/items": counted(items)}) as server:
            import_again(server.url, max_items=31)

            run = start_inline()

        # Then the page that passes the bound is not taken, and the reason says what to do
        assert (run.status, run.total_count, len(server.asked)) == (RunStatus.FAILED, 30, 16), name
        assert run.error_summary.endswith(
            "the list brought more than 31 items: does TestSource.next_cursor ever return None? "
            "Set max_items on TestSource if the list is that long"
        )
        assert RunItem.select().where(RunItem.run_id == run.id).count() == 30


def test_a_long_list_of_refused_items_is_read_to_its_end(import_from):
    # Given thirty pages none of whose items can be taken, no two alike
    pages = counted(lambda n: [n])
    last = 30

    def behave(connection: socket.socket) -> None:
        if len(server.asked) < last:
            pages(connection)
        else:
            connection.sendall(page(row(1)))

    with api({"/api/items": behave, "/api/items/1": detail(1)}) as server:
        import_from(server.url)

        run = start_inline()

    assert (run.status, run.failed_count, run.succeeded_count) == (RunStatus.COMPLETED, last - 1, 1)


def test_a_cursor_that_cannot_be_kept_fails_the_run_and_says_so(import_again):
    unkept = ["NaN", "1e999", '"a\\u0000b"', '"\\ud800"', f'"{"x" * 9000}"']
    kept = ["[" * 500 + "]" * 500, "{}", '"\\\\u0000"', '"\\ud83d\\ude00"', '{"after": [1, null]}']
    last = http('{"data": [], "next": null}')
    for written in unkept + kept:
        with api({"/api/items": [http(f'{{"data": [], "next": {written}}}'), last]}) as server:
            import_again(server.url, next_cursor=following, get_list_request=by_cursor)

            run = start_inline()

        assert run.status == (RunStatus.COMPLETED if written in kept else RunStatus.FAILED), written[:20]
        reason = run.error_summary or ""
        assert written in kept or re.search(
            r"returned what cannot be kept as a cursor: |NaN, which JSON|with 1e999, a", reason
        )


# --- lists that change ------------------------------------------------------------------------------------------------


def noted(run: Run) -> list[str]:
    return [
        event.detail for event in RunEvent.select().where(RunEvent.run_id == run.id, RunEvent.what == "list changed")
    ]


def test_a_list_that_shrinks_while_it_is_read_leaves_a_line_in_the_timeline(import_from):
    # Given a list of four, from which one goes while it is read, so that another slips to the page before
    answers: dict[str, Answer | list[Answer]] = {
        "/api/items?page=1&perPage=100": page(row(1), row(2), following="2", total=4),
        "/api/items?page=2&perPage=100": page(row(4), total=3),
    }
    with api(answers | {f"/api/items/{n}": detail(n) for n in (1, 2, 4)}) as server:
        import_from(server.url)
        run = start_inline()
        assert noted(run) == []  # all that was there at last came

        # When more go than come
        server.answers["/api/items?page=2&perPage=100"] = page(row(4), 7, total=5)
        run = start_inline()

    assert run.status == RunStatus.COMPLETED
    (detail_,) = noted(run)
    assert detail_.startswith("the API stated a total of 4 at first and 5 at last; 4 items came.")
    assert runs.get(run.id).metadata["first_total"] == 4


def test_a_total_is_a_whole_number_that_agrees_or_it_is_none(import_again):
    for total in (3, 3.0, "4", None, True, [], -1, 10**30):
        with api({"/api/items": page(row(1), row(1), row(2), 7, total=total)}) as server:
            import_again(server.url)
            run = runner.start("items", who="test", door="test", send=False)
            read_the_list(run)
            runner.cancel(run.id, who="test", door="test")

        assert (runs.get(run.id).total_count, noted(run)) == (3, []), total


def test_the_total_is_looked_up_where_the_source_says_or_nowhere(import_again):
    for key, stated in (("total", 5), ("count", 6), (None, 0), ("nothing", 0)):
        with api({"/api/items": page(row(1), total=5, count=6)}) as server:
            import_again(server.url, total_key=key)
            run = runner.start("items", who="test", door="test", send=False)
            read_the_list(run)
            runner.cancel(run.id, who="test", door="test")

        assert len(noted(run)) == bool(stated)
        assert not stated or f"stated a total of {stated}; 1 items came" in noted(run)[0]


# --- pages that kill, pages that fail ---------------------------------------------------------------------------------


def test_a_page_that_kills_its_process_each_time_fails_the_run_before_it_is_asked_for_again(moved_clock, import_from):
    # Given a list page that five workers have died of: each claimed it, and ended without a result
    with api({"/api/items": page(row(1))}) as server:
        import_from(server.url)
        run = runner.start("items", who="test", door="test", send=False)
        for _ in range(get_settings().max_attempts):
            assert cursor.begin_page(run.id, 90)
            moved_clock.advance(91)

        # When the next one comes
        read_the_list(run)

        # Then it sends no request, and the run says why it ended
        run = runs.get(run.id)
        assert (run.status, server.asked) == (RunStatus.FAILED, [])
        assert run.error_summary == "list page 1: the worker died, or lost its lease, 5 times while it read this page"

        # And a retry reads it, with all attempts
        runner.retry_failed(run.id, who="test", door="test")
        read_the_list(run)
        assert runs.get(run.id).discovered_at is not None
        assert server.asked.count("/api/items?page=1&perPage=100") == 1


def test_a_page_that_failed_before_it_killed_says_both(moved_clock, import_from):
    with api({"/api/items": http("<html>", media="text/html")}) as server:
        import_from(server.url)
        run = runner.start("items", who="test", door="test", send=False)
        read_the_list(run)
        for _ in range(get_settings().max_attempts - 1):
            moved_clock.advance(91)
            assert cursor.begin_page(run.id, 90)
        moved_clock.advance(91)

        read_the_list(run)

    run = runs.get(run.id)
    assert (run.status, len(server.asked)) == (RunStatus.FAILED, 1)
    assert "died, or lost its lease, in the last of 5 attempts to read this page. Before that: list page 1" in (
        run.error_summary
    )
    assert "not JSON (text/html)" in run.error_summary


def test_a_page_that_fails_five_times_fails_the_run_and_retry_goes_on_at_its_cursor(moved_clock, import_from):
    # Given a list whose second page is a sign-in page, and whose server mends that after five requests
    answers: dict[str, Answer | list[Answer]] = {
        "/api/items?page=1&perPage=100": page(row(1), following="2"),
        "/api/items?page=2&perPage=100": [*[http("<html>Sign in</html>", media="text/html")] * 5, page(row(2))],
    }
    with api(answers | {f"/api/items/{n}": detail(n) for n in (1, 2)}) as server:
        import_from(server.url)
        run = start_inline()

        # Then the run has failed with the reason, after all its waits, with what it has
        assert (run.status, run.total_count, run.discovery_cursor) == (RunStatus.FAILED, 1, 2)
        assert run.error_summary == ("list page 2: items answered 200 with a body that is not JSON (text/html)")
        assert moved_clock.elapsed_seconds == pytest.approx(30 + 60 + 120 + 240, abs=1)

        # When it is retried
        with broker.captured(lambda *message: None):
            runner.retry_failed(run.id, who="test", door="test")
        run = runner.run_inline(runs.get(run.id))

    # Then it continues at that page: the first is not requested again, and all items are imported
    assert (run.status, run.succeeded_count, run.total_count) == (RunStatus.COMPLETED, 2, 2)
    assert server.asked.count("/api/items?page=1&perPage=100") == 1
    assert server.asked.count("/api/items?page=2&perPage=100") == 6


def test_a_page_that_the_database_does_not_take_spends_no_attempt(moved_clock, import_from):
    # Given a database that is locked when the page's rows are saved
    class Refusing(Item):
        class Meta:
            table_name = "items"

        save_each = True

        def save(self, *args, **kwargs):
            if not locked:
                return super().save(*args, **kwargs)
            raise OperationalError("database is locked")

    locked = True
    with api({"/api/items": page(row(1))}) as server:
        import_from(server.url, model=Refusing)
        run = runner.start("items", who="test", door="test", send=False)

        # When that lasts longer than a page has attempts
        for _ in range(get_settings().max_attempts + 1):
            with pytest.raises(OperationalError):
                read_the_list(run)
            moved_clock.advance(6)
        locked = False
        read_the_list(run)

    # Then the page is in as soon as it is over
    assert runs.get(run.id).total_count == 1


@pytest.mark.parametrize(
    ("attribute", "value"),
    [*(("max_items", value) for value in (0, True, "5", 10**10)), ("total_key", 5), ("total_key", ["total"])],
)
def test_a_bound_that_is_none_is_refused_with_its_name(import_from, attribute, value):
    import_from("http://127.0.0.1:1", **{attribute: value})

    with pytest.raises(ConfigurationError, match=f"TestSource: {attribute} must be"):
        get_registry()


def test_a_list_that_was_taken_for_endless_may_be_read_on_once_its_source_is_mended(mock_api, import_from):
    # Given a run that failed, for its source asked for the first page again
    server = mock_api(items=30)

    def first_page_only(self, cursor, per_page):
        return requests.Request("GET", "api/items", params={"page": 1, "perPage": per_page})

    source = import_from(server.url, per_page=10, get_list_request=first_page_only)
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))
    assert (run.discovery_cursor, run.total_count) == (2, 10)
    assert "its items came before" in run.error_summary

    # When the source is mended, and the run retried
    type(source).get_list_request = lambda self, cursor, per_page: requests.Request(
        "GET", "api/items", params={"page": cursor, "perPage": per_page}
    )
    runner.retry_failed(run.id, who="test", door="test")
    run = runner.run_inline(runs.get(run.id))

    # Then it has read on from there to the end
    assert (run.status, run.total_count) == (RunStatus.COMPLETED, 30)
