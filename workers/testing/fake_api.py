"""Serve a fake API on loopback: routes as values or functions, every request recorded, limits enforced."""

import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from workers import clock
from workers.limiter.budget import Limit

#: Statuses that never have a body.
_NO_BODY = {204, 304}


@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    Attributes:
      method: GET, POST ...
      target: Path and query, as sent.
      headers: Looked up without regard to case.
      body: Its bytes.
      parts: What the `{name}` parts of its route stand for, percent-decoded.
    """

    method: str
    target: str
    headers: Message
    body: bytes = b""
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The path, without the query; percent-encoded as it was sent."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the query; of a repeated one, the last."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def json(self) -> Any:
        """Return the body, decoded from JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Response:
    """A response with a status and headers of its own.

    Attributes:
      status: The HTTP status.
      body: `bytes` and `str` are sent as they are, None is an empty body, everything else is sent as JSON.
      headers: Sent in addition; one of the same name replaces `Content-Length` or `Content-Type: application/json`.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


#: What a route answers with: a `Response`, a status (an int), a function of the request that returns an answer, or the
#: JSON body of a 200.
Answer = Any

#: Path -> answer. A path is "/products", "/products/{id}", or with its query "/products?page=2". Or one function of the
#: request, for everything.
Routes = Mapping[str, Answer] | Callable[[Request], Answer]


class FakeApi:
    """A fake API while it serves.

    Attributes:
      url(str): Its base URL.
      routes(Routes): May be changed, or replaced, while it serves.
      requests(list[Request]): Every request that arrived, in order, refused ones included.
      connections(int): How many connections were opened.
    """

    def __init__(self, routes: Routes, limits: Sequence[Limit] = ()) -> None:
        self.url = ""
        self.routes = routes
        self.requests: list[Request] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._limits = limits
        self._counted: list[float] = []
        self._refusals: list[tuple[int, Answer]] = []
        self._errors: list[Exception] = []

    @property
    def paths(self) -> list[str]:
        """The path of each request that arrived, without its query."""
        return [request.path for request in list(self.requests)]

    def refuse_after(self, requests: int, answer: Answer = 503, *, times: int = 1) -> None:
        """Let `requests` more requests pass, then refuse the next `times` ones with `answer`."""
        with self._lock:
            first = len(self.requests) + requests
            self._refusals += [(first + number, answer) for number in range(times)]

    def respond(self, request: Request) -> Response:
        """Record a request and return the response to it. An error of a route is a 500, and raised when `api` ends."""
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            refusals = [answer for at, answer in self._refusals if at == number] or self._over_limit()
        try:
            return _response(refusals[0] if refusals else self._route(request), request)
        except Exception as error:
            self._errors.append(error)
            return Response(500, {"message": f"the route failed: {error!r}"})

    def raise_errors(self) -> None:
        """Raise the first error that a route's function raised, where one did."""
        if self._errors:
            raise self._errors[0]

    def _route(self, request: Request) -> Answer:
        if callable(self.routes):
            return self.routes
        for path in (request.target, request.path):
            if path in self.routes:
                return self.routes[path]
        for route, answer in self.routes.items():
            if "{" in route and (found := _pattern(route).fullmatch(request.path)):
                parts = {name: unquote(part) for name, part in found.groupdict().items()}
                return _response(answer, replace(request, parts=parts))
        return Response(404, {"message": f"no route for {request.path}"})

    def _over_limit(self) -> list[Answer]:
        """Count a request against the limits; return a 429 where one is full. Call it with the lock held."""
        now = clock.monotonic()
        wait = max((self._wait_seconds(limit, now) for limit in self._limits), default=0.0)
        if wait > 0:
            return [Response(429, {"message": "too many requests"}, {"Retry-After": str(math.ceil(wait))})]
        if self._limits:
            self._counted.append(now)
        return []

    def _wait_seconds(self, limit: Limit, now: float) -> float:
        recent = [at for at in self._counted if at > now - limit.seconds]
        return recent[-limit.requests] + limit.seconds - now if len(recent) >= limit.requests else 0.0


@contextmanager
def api(routes: Routes, *, limits: Sequence[Limit] = ()) -> Iterator[FakeApi]:
    """Serve a fake API on 127.0.0.1 for the length of a block.

    Parameters:
      routes(Routes): What it answers; a path without a route is a 404.
      limits(Sequence[Limit]): Enforced as a log of requests, by the clock in use: what is over is a 429 with
        Retry-After.

    Raises:
      Exception: When the block ends: the first error of a route's function.

    *Warning:* functions run in the server's threads, several at a time.
    """
    fake = FakeApi(routes, limits)
    with serve(fake):
        yield fake


@contextmanager
def serve(fake: FakeApi) -> Iterator[None]:
    """Serve an API that is there already. Errors are those of `api`."""
    server = _Server(fake)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    fake.raise_errors()


def in_turn(*answers: Answer) -> Callable[[Request], Answer]:
    """Return a route that gives one answer after the other, and the last one from then on."""
    left, lock = list(answers), threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            return left.pop(0) if len(left) > 1 else left[0]

    return answer


def _response(answer: Answer, request: Request) -> Response:
    while callable(answer):
        answer = answer(request)
    if isinstance(answer, Response):
        return answer
    if isinstance(answer, int):
        return Response(answer, None if answer in _NO_BODY else {})
    return Response(200, answer)


def _pattern(route: str) -> re.Pattern[str]:
    """Return the expression of a path with `{name}` parts; each stands for one part between slashes."""
    pieces = re.split(r"\{(\w+)\}", route)
    return re.compile("".join(f"(?P<{piece}>[^/]+)" if i % 2 else re.escape(piece) for i, piece in enumerate(pieces)))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the default of five refuses lanes that connect at the same moment

    def __init__(self, fake: FakeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake
        fake.url = f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> Any:
        self.fake.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each response waits 40 ms for an acknowledgement
    wbufsize = 65_536
    server: _Server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        response = self.server.fake.respond(Request(self.command, self.path, self.headers, body))
        content, headers = _encoded(response)
        self.send_response_only(response.status)  # without a Date: it would not be that of a moved clock
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def _encoded(response: Response) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of a response's body, and all of its headers."""
    headers = {}
    if response.body is None:
        content = b""
    elif isinstance(response.body, (bytes, str)):
        content = response.body if isinstance(response.body, bytes) else response.body.encode()
    else:
        content = json.dumps(response.body).encode()
        headers["Content-Type"] = "application/json"
    return content, headers | {"Content-Length": str(len(content))} | dict(response.headers)
