"""Checks every request before Streamlit sees it: Host, Origin, session; and adds security headers to responses.

The page, its data, its scripts and its WebSocket all pass it.
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
from workers.monitor.html.index_html import index_html

log = logging.getLogger(__name__)

_HEALTH = "/_stcore/health"
_FORMS = ("/login", "/logout")
#: Streamlit's paths that no page needs: with uploads, any viewer could fill the memory.
_CLOSED = ("/_stcore/upload_file", "/_stcore/metrics")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_POLICY_VIOLATION = 1008
_active = False


def is_active() -> bool:
    """Return whether this process serves the page with these checks."""
    return _active


class AccessMiddleware:
    """ASGI middleware around all of Streamlit.

    Parameters:
      app(ASGIApp): Streamlit's app.
    """

    def __init__(self, app: ASGIApp) -> None:
        global _active
        _active = True
        self._app = app
        self._login = get_login()
        self._headers = _HEADERS | {"Content-Security-Policy": _policy()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            with_headers = _Sender(send, self._headers)
            response = await self._respond(Request(scope, receive))
            await (response or self._app)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, send)

    async def _respond(self, request: Request) -> Response | None:
        """Return the response of the login or the refusal of a request; None where Streamlit responds."""
        if refusal := _why_refused(request, strict=request.method == "POST" and request.url.path in _FORMS):
            return PlainTextResponse(refusal, HTTPStatus.FORBIDDEN)
        if self._login is not None:
            session = self._login.session(request.cookies)
            if response := await self._login.respond(request, session):
                return response
            if not session and not self._login.is_open(request.url.path):
                return _without_session(request)
        closed = request.url.path.startswith(_CLOSED)
        return PlainTextResponse("Not found.\n", HTTPStatus.NOT_FOUND) if closed else None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        session = self._login.session(request.cookies) if self._login else None
        if _why_refused(request, strict=True) or (self._login and session is None):
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # before it is accepted, this is a 403
        elif self._login and session:
            guarded = _SessionSocket(self._login, session, receive, send)
            await self._app(scope, guarded.receive, guarded.send)
        else:
            await self._app(scope, receive, send)


class _SessionSocket:
    """A WebSocket that closes when its session ends: nothing more is sent to the browser or received from it."""

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
        """Make the browser reload its page, which leads to the login; then close the socket."""
        if self._closed:
            return
        self._closed = True
        again = ForwardMsg()
        again.auth_redirect.url = ""
        await self._send({"type": "websocket.send", "bytes": again.SerializeToString()})
        await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION})


class _Sender:
    """Adds the security headers to a response that does not have them."""

    def __init__(self, send: Send, headers: Mapping[str, str]) -> None:
        self._send, self._headers = send, headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers.setdefault(name, value)
        await self._send(message)


def _without_session(request: Request) -> Response:
    """Return the response to a request without a session."""
    reads, url = request.method in ("GET", "HEAD"), request.url
    if reads and url.path == _HEALTH:
        return PlainTextResponse("ok")
    if reads and "text/html" in request.headers.get("accept", ""):
        target = f"{url.path}?{url.query}" if url.query else url.path
        return go("/login" if target == "/" else f"/login?next={quote(target, safe='/')}")
    return PlainTextResponse("Log in first, at /login\n", HTTPStatus.UNAUTHORIZED)


def _why_refused(request: HTTPConnection, *, strict: bool) -> str:
    """Return why a request is refused, with or without a session; empty where it is not.

    Parameters:
      strict(bool): Whether it must come from this site's own pages: a form, or a WebSocket.
    """
    if not hosts.is_allowed(request.headers.get("host")):
        return "This host name is not allowed. If it is yours, add it to SLUICE_MONITOR_ALLOWED_HOSTS.\n"
    if strict and not hosts.is_same_origin(request.headers):
        return "Only this site's own pages can send this request.\n"
    return ""


def _policy() -> str:
    """Return the Content-Security-Policy: a page can load only what this server sends or the page itself creates."""
    scripts = re.findall(r"<script>(.*?)</script>", index_html(), re.DOTALL)
    own = " ".join(f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return (
        f"default-src 'self'; script-src 'self' blob: {own}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )
