"""Auth objects and response hooks: what they raise is worth another attempt, and what they send takes a permit each."""

import hashlib
import re
from collections.abc import Callable

import pytest
import requests
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from tests.helpers.connectors import get, use_of
from tests.helpers.fixed_response import saying
from workers import Limit, testing
from workers.control import runner
from workers.errors import (
    AuthError,
    BudgetClosed,
    ConfigurationError,
    PermanentError,
    RateLimited,
    Refused,
    RetryableError,
)
from workers.records.tables import RunItem, RunStatus
from workers.sources.connector import Connector


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code, response.url = status, "https://auth.example.com/token?client_secret=s3cret-value-2"
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        return error
    raise AssertionError


class Raising(AuthBase):
    """An auth object whose token endpoint has a hiccup."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        raise self.error


class RaisingBasic(HTTPBasicAuth):
    """One whose password is a token, which it renews."""

    def __init__(self, error: BaseException) -> None:
        super().__init__("user", "old")
        self.error = error

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        raise self.error


RAISES = {
    "no connection": (requests.ConnectionError("Connection refused"), "ConnectionError: Connection refused"),
    "a timeout": (requests.Timeout("Read timed out"), "Timeout: Read timed out"),
    "503 of the token's endpoint": (http_error(503), "HTTPError: 503 Server Error: None for url: https://"),
    "401 of the token's endpoint": (http_error(401), "HTTPError: 401 Client Error: None for url: https://"),
    "another answer": (KeyError("access_token"), "KeyError: 'access_token'"),
    "no JSON": (ValueError("Expecting value: line 1"), "ValueError: Expecting value: line 1"),
    "a file that is missing": (FileNotFoundError(2, "No such file", "token"), "FileNotFoundError: [Errno 2] No such"),
    "a bug": (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    "several lines": (RuntimeError("one\ntwo"), "RuntimeError: one"),
    "without a text": (Unprintable(), "Unprintable"),
}


@pytest.mark.parametrize("kind", [Raising, RaisingBasic])
@pytest.mark.parametrize("name", RAISES)
def test_what_an_auth_object_raises_is_worth_another_attempt_and_costs_no_permit(connect, name, kind):
    error, words = RAISES[name]
    with saying(200) as server:
        connector = connect(server.url, auth=kind(error))

        with pytest.raises(RetryableError) as caught:
            get(connector)

    assert str(caught.value).startswith(f"the GET request was not sent: its auth, {kind.__name__}, raised {words}")
    assert "s3cret-value-2" not in str(caught.value)
    assert "two" not in str(caught.value)
    assert (server.connections, use_of(connector)) == (0, (0, 0))


def test_what_the_auth_of_one_request_raises_does_not_quote_its_secrets(connect):
    class Failing(AuthBase):
        def __init__(self):
            self.client_secret = "several words that are secret"

        def __call__(self, request):
            raise ValueError(f"refused: {self.client_secret}")

    with saying(200) as server:
        connector = connect(server.url)

        with pytest.raises(RetryableError, match=r"Failing, raised ValueError: refused: \*\*\*$"):
            connector.send(requests.Request("GET", "x", auth=Failing()), connector.permit_client())


def test_an_auth_object_that_returns_nothing_is_said_to(connect):
    with saying(200) as server, pytest.raises(RetryableError, match=r"its auth, .*Forgetful, raised AttributeError"):

        class Forgetful(AuthBase):
            def __call__(self, request):  # it forgot to return the request
                request.headers["X"] = "y"

        get(connect(server.url, auth=Forgetful()))


@pytest.mark.parametrize("error", [BudgetClosed(7, "its limiter's window is full"), Refused(7, "it answered 429")])
def test_an_auth_object_that_waits_for_a_limiter_of_its_own_says_nothing_of_the_run_s(connect, error):
    with saying(200) as server, pytest.raises(RateLimited) as caught:
        get(connect(server.url, auth=Raising(error)))

    assert (type(caught.value), caught.value.wait_seconds, caught.value.reason) == (RateLimited, 7, error.reason)


@pytest.mark.parametrize("error", [RateLimited(7, "the token's endpoint refuses"), PermanentError("no", "auth")])
def test_an_auth_object_may_say_itself_what_becomes_of_the_request(connect, error):
    with saying(200) as server, pytest.raises(type(error)) as caught:
        get(connect(server.url, auth=Raising(error)))

    assert caught.value is error


@pytest.mark.parametrize("auth", [("us€r", "word"), ("user", "w€rd"), HTTPBasicAuth("user", "w€rd")])
def test_a_password_that_cannot_be_sent_is_no_hiccup(connect, auth):
    with saying(200) as server, pytest.raises(PermanentError, match="is not a request that can be sent") as caught:
        get(connect(server.url, auth=auth))

    assert caught.value.failure_class == "contract"


@pytest.mark.parametrize("auth", ["token", ("a", "b", "c"), ["user", "word"], {"user": "word"}, 7])
def test_what_cannot_authenticate_is_refused_before_anything_runs(connect, auth):
    with pytest.raises(ConfigurationError, match=r"auth must be \(user, password\)"):
        connect("http://127.0.0.1:1", auth=auth)


def test_a_token_with_a_line_s_end_is_neither_sent_nor_quoted(connect):
    # Given a token that was read from a file, with the line's end
    class Token(AuthBase):
        def __call__(self, request):
            request.headers["Authorization"] = "Bearer s3cret-value-3\n"
            return request

    with saying(200) as server:
        connector = connect(server.url, auth=Token())

        with pytest.raises(PermanentError, match=r"is not a request that can be sent \(InvalidHeader\)") as caught:
            get(connector)

    assert "s3cret" not in str(caught.value)
    assert (server.connections, use_of(connector)) == (0, (0, 0))


def test_an_item_survives_a_hiccup_of_the_token_s_endpoint(moved_clock, import_from, mock_api):
    class Hiccup(AuthBase):
        calls = 0

        def __call__(self, request):
            Hiccup.calls += 1
            if Hiccup.calls in (1, 3):  # the list's first attempt, and the first item's
                raise requests.ConnectionError("Connection refused")
            return request

    api = mock_api(items=3)
    source = import_from(api.url, lanes=1)
    source.connector.auth = Hiccup()
    run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 3, 0)
    assert sorted(item.attempts for item in RunItem.select()) == [1, 1, 2]


# --- Digest -----------------------------------------------------------------------------------------------------------


def digesting(server) -> None:
    """Let a server answer 401 and a challenge unless a request has the right digest of "user" and "word"."""

    def hashed(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    def status_of(request: testing.Request) -> int:
        said = dict(re.findall(r'(\w+)="?([^",]+)"?', request.headers.get("Authorization", "")))
        if not said:
            return 401
        first, second = hashed("user:r:word"), hashed(f"{request.method}:{said['uri']}")
        right = hashed(f"{first}:{said['nonce']}:{said['nc']}:{said['cnonce']}:{said['qop']}:{second}")
        return 200 if said["response"] == right else 401

    server.status_of = status_of


CHALLENGE = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'


def test_digest_works_and_each_of_its_requests_takes_a_permit(connect):
    with saying(200, b'{"id": 7}', WWW_Authenticate=CHALLENGE) as server:
        digesting(server)
        connector = connect(server.url, auth=HTTPDigestAuth("user", "word"))

        first = connector.get_json(requests.Request("GET", "x"), connector.permit_client())
        assert (len(server.asked), use_of(connector)[1]) == (2, 2)

        # Then the next one is signed at once
        second = connector.get_json(requests.Request("GET", "y"), connector.permit_client())

    assert first == second == {"id": 7}
    assert (len(server.asked), use_of(connector)[1]) == (3, 3)


def test_digest_with_a_wrong_password_is_refused_after_two_requests(connect):
    with saying(200, b"{}", WWW_Authenticate=CHALLENGE) as server:
        digesting(server)
        connector = connect(server.url, auth=HTTPDigestAuth("user", "wrong"))

        with pytest.raises(AuthError, match="answered 401"):
            get(connector)

    assert (len(server.asked), use_of(connector)) == (2, (0, 2))


def test_digest_waits_for_the_permit_of_its_second_request_as_any_other(connect):
    with saying(200, b"{}", WWW_Authenticate=CHALLENGE) as server:
        digesting(server)
        connector = connect(server.url, auth=HTTPDigestAuth("user", "word"), limits=(Limit(1, seconds=60),))

        with pytest.raises(BudgetClosed):
            get(connector)

    assert len(server.asked) == 1


# --- hooks ------------------------------------------------------------------------------------------------------------


def hooked(hook: Callable[..., object]) -> requests.Request:
    return requests.Request("GET", "x", hooks={"response": hook})


def sent_with(connector: Connector, hook: Callable[..., object]) -> requests.Response:
    return connector.send(hooked(hook), connector.permit_client())


def test_a_hook_sees_the_whole_answer_and_may_change_it(connect):
    seen = []

    def hook(response, **_):
        seen.append((response.status_code, response.content))
        response._content = b'{"changed": true}'

    with saying(200, b'{"id": 7}') as server:
        connector = connect(server.url)

        assert connector.get_json(hooked(hook), connector.permit_client()) == {"changed": True}

    assert seen == [(200, b'{"id": 7}')]


def test_a_hook_that_renews_a_token_after_a_401_asks_again_with_a_permit(connect):
    with saying(401) as server:

        def renew(response, **options):
            if response.status_code != 401:
                return None
            server.status = 200
            again = response.request.copy()
            again.headers["Authorization"] = "Bearer new"
            return response.connection.send(again, **options)

        connector = connect(server.url)

        assert sent_with(connector, renew).status_code == 200

    assert (len(server.asked), server.asked[-1].headers["Authorization"]) == (2, "Bearer new")
    assert use_of(connector)[1] == 2


def test_an_api_that_refuses_what_is_signed_pauses_the_budget_though_its_challenges_are_answers(
    moved_clock, import_from
):
    # Given an API that challenges each request, and for five minutes refuses what answers the challenge
    said: list[int] = []

    def answer(request: testing.Request) -> testing.Response:
        body = {"id": 1, "name": "a", "description": "b", "price": 1}
        if request.target.startswith("/api/items?"):
            body = {"data": [{"id": n, "name": "a"} for n in range(1, 7)], "next_page_url": None}
        refused = moved_clock.monotonic() < ends_at and "data" not in body
        said.append(401 if "Authorization" not in request.headers else 429 if refused else 200)
        return testing.Response(said[-1], body, {"Retry-After": "20"})

    class Answering(AuthBase):
        def __call__(self, request):
            request.register_hook("response", self.answer)
            return request

        def answer(self, response, **options):
            if response.status_code != 401:
                return None
            again = response.request.copy()
            again.headers["Authorization"] = "Bearer of-an-answer-7"
            return response.connection.send(again, **options)

    ends_at = moved_clock.monotonic() + 300
    with testing.api(answer) as api:
        source = import_from(api.url, lanes=2)
        source.connector.auth = Answering()
        run = runner.run_inline(runner.start("items", who="test", door="test", send=False))

    # Then no item has ended for it, and few were sent
    assert (run.status, run.succeeded_count, run.failed_count) == (RunStatus.COMPLETED, 6, 0)
    assert said.count(429) <= 6


def test_what_a_hook_sends_goes_to_no_other_host(connect):
    with saying(200) as other, saying(401) as server:

        def stray(response, **options):
            again = response.request.copy()
            again.url = f"{other.url}/x"
            return response.connection.send(again, **options)

        connector = connect(server.url)

        with pytest.raises(PermanentError, match="a connector calls its own host only"):
            sent_with(connector, stray)

    assert other.connections == 0


def test_a_hook_that_asks_without_end_is_stopped(connect):
    with saying(401) as server:

        def insist(response, **options):
            return insist(response.connection.send(response.request, **options), **options)

        connector = connect(server.url, limits=(Limit(50, seconds=60),))

        with pytest.raises(PermanentError, match="its response hooks made more than 4 requests"):
            sent_with(connector, insist)

    assert (len(server.asked), use_of(connector)[1]) == (5, 5)


@pytest.mark.parametrize(
    ("hook", "kind", "words"),
    [
        (lambda response, **_: 1 / 0, RetryableError, "a response hook, <lambda>, raised ZeroDivisionError: division"),
        (lambda response, **_: "text", PermanentError, "a response hook, <lambda>, returned a str and not a response"),
    ],
)
def test_a_hook_that_fails_is_named(connect, hook, kind, words):
    with saying(200) as server:
        connector = connect(server.url)

        with pytest.raises(kind, match=f"the GET request: {words}"):
            sent_with(connector, hook)

    assert use_of(connector)[1] == 1
