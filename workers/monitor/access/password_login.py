"""Logs people in by a password for each role, throttles attempts, and keeps the session in a signed cookie."""

import logging
import threading
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from workers.monitor.access import password
from workers.monitor.access.login_page import go, logout_page, page, password_page
from workers.monitor.access.login_throttle import LoginThrottle
from workers.monitor.access.session import EndedSessions, Role, Session, Sessions
from workers.settings import Settings
from workers.text.durations import duration

log = logging.getLogger(__name__)

_LONGEST_BODY = 4096
_LONGEST_NAME = 60


class PasswordLogin:
    """A password for each role. A person gives a password, which decides the role, and a name of their choice."""

    def __init__(self, settings: Settings, hashes: Mapping[Role, str]) -> None:
        self._hashes = hashes
        self._hours = settings.monitor_session_hours
        self._cookie = f"sluice_session_{settings.monitor_port}"  # cookies of one host are shared by all its ports
        self._sessions = Sessions(settings.data_dir, hashes)
        self._ended = EndedSessions(settings.data_dir)
        self._throttle = LoginThrottle()
        self._one_at_a_time = threading.Lock()  # each check takes 32 MB of memory

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        session = self._sessions.read(cookies.get(self._cookie, ""))
        return None if session is None or self.is_over(session) else session

    def is_over(self, session: Session) -> bool:
        return self._ended.has(session)

    def is_open(self, path: str) -> bool:
        return False

    async def respond(self, request: Request, session: Session | None) -> Response | None:
        match request.method, request.url.path:
            case (("GET" | "HEAD"), "/login"):
                onward = local_path(request.query_params.get("next", "/"))
                return go(onward) if session else page(password_page(onward))
            case "POST", "/login":
                return await self._log_in(request)
            case _, "/logout":
                return self._log_out(request, session)
        return None

    async def _log_in(self, request: Request) -> Response:
        form = await _form(request)
        if form is None:
            return PlainTextResponse("This is not the login form.\n", HTTPStatus.BAD_REQUEST)
        onward, name = local_path(form.get("next", "/")), _printable(form.get("name", ""))
        address = request.client.host if request.client else ""
        if wait := self._throttle.acquire(address):
            error = f"Too many attempts. Try again in {duration(wait + 0.5)}."
            response = page(password_page(onward, name, error), HTTPStatus.TOO_MANY_REQUESTS)
            response.headers["Retry-After"] = f"{wait + 0.5:.0f}"
            return response
        role = await run_in_threadpool(self._role_of, form.get("password", ""))
        if role is None:
            log.warning("login with a wrong password, from %s", address)
            return page(password_page(onward, name, "Wrong password."), HTTPStatus.FORBIDDEN)
        self._throttle.forgive(address)
        session, token = self._sessions.begin(role, name or role.value, self._hours)
        log.info("%r logged in as %s, from %s", session.name, role.value, address)
        return self._with_cookie(go(onward), token, request)

    def _role_of(self, typed: str) -> Role | None:
        """Return the role of a password. Every hash is checked, so that the time reveals nothing."""
        with self._one_at_a_time:
            roles = [role for role, hashed in self._hashes.items() if password.matches(typed, hashed)]
        return roles[0] if roles else None

    def _log_out(self, request: Request, session: Session | None) -> Response:
        if request.method != "POST":
            return page(logout_page(session.name)) if session else go("/login")
        if session:
            self._ended.add(session)
            log.info("%r logged out", session.name)
        response = go("/login")
        response.delete_cookie(self._cookie)
        return response

    def _with_cookie(self, response: Response, token: str, request: Request) -> Response:
        response.set_cookie(
            self._cookie,
            token,
            max_age=round(self._hours * 3600),
            httponly=True,
            samesite="lax",  # strict would require a login after a click on a link in an e-mail
            secure=request.url.scheme == "https",
        )
        return response


def local_path(path: str) -> str:
    """Return a path of this site; the first page for any other text."""
    is_local = path.isprintable() and path.startswith("/") and not path.startswith(("//", "/\\", "/login", "/logout"))
    return path if is_local else "/"


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None where the body is not a form, or too large."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            return None
    try:
        fields = parse_qs(body.decode(), max_num_fields=10)
    except ValueError:
        return None
    return {name: values[0] for name, values in fields.items()}


def _printable(name: str) -> str:
    return "".join(c for c in name if c.isprintable()).strip()[:_LONGEST_NAME]
