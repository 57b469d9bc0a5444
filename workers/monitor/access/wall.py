"""The wall: what every request goes through before it reaches the page, its data, its scripts or its socket.

Outermost first: names that are not ours, pages that are not ours, people who have no session. Then the answer gets its
headers.
"""

import hashlib
import logging
import re
from base64 import b64encode
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from workers.monitor.access import hosts
from workers.monitor.access.login import Login, get_login
from workers.monitor.access.login_page import go
from workers.monitor.access.session import Session
from workers.monitor.html.document import shell

log = logging.getLogger(__name__)

_HEALTH = "/_stcore/health"
_FORMS = ("/login", "/logout")
#: Of Streamlit, and of no use to a page of ours: anybody who may look could fill the memory with uploads.
_CLOSED = ("/_stcore/upload_file", "/_stcore/metrics")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY_VIOLATION = 1008
_stands = False


def stands() -> bool:
    """Return whether this process serves its page behind the wall."""
    return _stands


class Wall:
    """ASGI middleware around all that Streamlit answers.

    Parameters:
      app(ASGIApp): What is behind the wall.
    """

    def __init__(self, app: ASGIApp) -> None:
        global _stands
        _stands = True
        self._app = app
        self._login = get_login()
        self._headers = _HEADERS | {"Content-Security-Policy": _policy()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] == "http":
            with_headers = _Sender(send, self._headers)
            answer = await self._answer(Request(scope, receive))
            await (answer or self._app)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """Return what stands in the way of a request; None where nothing does."""
        if refusal := _why_not(request, strict=request.method == "POST" and request.url.path in _FORMS):
            return PlainTextResponse(refusal, HTTPStatus.FORBIDDEN)
        if self._login is not None:
            session = self._login.session(request.cookies)
            if answer := await self._login.answer(request, session):
                return answer
            if not session and not self._login.lets_through(request.url.path):
                return _outside(request)
        closed = request.url.path.startswith(_CLOSED)
        return PlainTextResponse("There is nothing here.\n", HTTPStatus.NOT_FOUND) if closed else None

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = HTTPConnection(scope)
        session = self._login.session(visit.cookies) if self._login else None
        if _why_not(visit, strict=True) or (self._login and session is None):
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # before it is accepted: 403
        elif self._login and session:
            guarded = _Socket(self._login, session, receive, send)
            await self._app(scope, guarded.receive, guarded.send)
        else:
            await self._app(scope, receive, send)


class _Socket:
    """A socket that ends with its session: nothing more is said to the browser, and nothing more is heard from it."""

    def __init__(self, login: Login, session: Session, receive: Receive, send: Send) -> None:
        self._login, self._session = login, session
        self._receive, self._send = receive, send
        self._closed = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive" and self._login.is_over(self._session):
            await self._close()
            return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send" and self._login.is_over(self._session):
            await self._close()
        elif not self._closed:
            await self._send(message)

    async def _close(self) -> None:
        """Let the browser load its page anew, which leads it to the login; then hang up."""
        if self._closed:
            return
        self._closed = True
        again = ForwardMsg()
        again.auth_redirect.url = ""
        await self._send({"type": "websocket.send", "bytes": again.SerializeToString()})
        await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION})


class _Sender:
    """Sends an answer with our headers, unless it has them."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send, self._headers = send, headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            said = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                said.setdefault(name, value)
        await self._send(message)


def _outside(request: Request) -> Response:
    """Return the answer for somebody who was not let in."""
    looks, url = request.method in ("GET", "HEAD"), request.url
    if looks and url.path == _HEALTH:
        return PlainTextResponse("ok")
    if looks and "text/html" in request.headers.get("accept", ""):
        asked = f"{url.path}?{url.query}" if url.query else url.path
        return go("/login" if asked == "/" else f"/login?next={quote(asked, safe='/')}")
    return PlainTextResponse("Log in first, at /login\n", HTTPStatus.UNAUTHORIZED)


def _why_not(visit: HTTPConnection, *, strict: bool) -> str:
    """Return why a request is refused, whoever sends it; empty where it is not.

    Parameters:
      strict(bool): Whether it must come from a page of ours, because it changes something or lives on.
    """
    if not hosts.is_known(visit.headers.get("host")):
        return "The page does not answer to this name. If it is yours, add it to SLUICE_MONITOR_ALLOWED_HOSTS.\n"
    if strict and not hosts.is_own(visit.headers):
        return "Only a page of ours may send this.\n"
    return ""


def _policy() -> str:
    """Return what a page may load: what comes from here, and what it makes itself."""
    scripts = re.findall(r"<script>(.*?)</script>", shell(), re.DOTALL)
    own = " ".join(f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'self'; script-src 'self' blob: {own}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )
