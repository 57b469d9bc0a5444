"""The login: how people come to a session, and how they end it."""

import logging
import threading
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from workers.monitor.access import password
from workers.monitor.access.login_page import go, logout_page, page, password_page
from workers.monitor.access.login_throttle import Tries
from workers.monitor.access.session import Ended, Role, Session, Sessions
from workers.processes import page_access
from workers.settings import Settings, get_settings
from workers.text.durations import duration

log = logging.getLogger(__name__)

_LONGEST_BODY = 4096
_LONGEST_NAME = 60


class Login(Protocol):
    """A way to log in."""

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        """Return whose session a request's cookies carry; None where it is over, or not ours."""

    def is_over(self, session: Session) -> bool:
        """Return whether a session has ended since it was returned."""

    def lets_through(self, path: str) -> bool:
        """Return whether a path is open to those who have no session, because it leads to one."""

    async def answer(self, request: Request, session: Session | None) -> Response | None:
        """Answer what is about logging in or out; None for any other request."""


@lru_cache(maxsize=1)
def get_login() -> Login | None:
    """Return how people log in; None where everybody on this machine may come in.

    Raises:
      ConfigurationError: It cannot be as the settings have it; the message names the fix.
    """
    settings = get_settings()
    if settings.monitor_login == "oidc":
        from workers.monitor.access.oidc import OidcLogin

        return OidcLogin()
    hashes = _hashes(settings)
    return PasswordLogin(settings, hashes) if hashes else None


def check() -> None:
    """Check that the page may be served where the settings have it, and that the login's files can be written.

    Raises:
      ConfigurationError: Others could reach it without a login; or the login is not set up.
    """
    page_access.check()
    if get_settings().monitor_login == "password":
        get_login()


class PasswordLogin:
    """A password for each role. Whoever knows one has that role, by the name he gives."""

    def __init__(self, settings: Settings, hashes: Mapping[Role, str]) -> None:
        self._hashes = hashes
        self._hours = settings.monitor_session_hours
        self._cookie = f"sluice_session_{settings.monitor_port}"  # a browser's cookies know no ports
        self._sessions = Sessions(settings.data_dir, hashes)
        self._ended = Ended(settings.data_dir)
        self._tries = Tries()
        self._one_at_a_time = threading.Lock()  # each try takes 32 MB while it lasts

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        session = self._sessions.read(cookies.get(self._cookie, ""))
        return None if session is None or self.is_over(session) else session

    def is_over(self, session: Session) -> bool:
        return self._ended.has(session)

    def lets_through(self, path: str) -> bool:
        return False

    async def answer(self, request: Request, session: Session | None) -> Response | None:
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
            return PlainTextResponse("This is no form of ours.\n", HTTPStatus.BAD_REQUEST)
        onward, name = local_path(form.get("next", "/")), _printable(form.get("name", ""))
        address = request.client.host if request.client else ""
        if wait := self._tries.take(address):
            said = f"Too many tries. Try again in {duration(wait + 0.5)}."
            answer = page(password_page(onward, name, said), HTTPStatus.TOO_MANY_REQUESTS)
            answer.headers["Retry-After"] = f"{wait + 0.5:.0f}"
            return answer
        role = await run_in_threadpool(self._role_of, form.get("password", ""))
        if role is None:
            log.warning("a wrong password for the page, from %s", address)
            return page(password_page(onward, name, "That is not the password."), HTTPStatus.FORBIDDEN)
        self._tries.forgive(address)
        session, token = self._sessions.begin(role, name or role.value, self._hours)
        log.info("%r logged in to the page as %s, from %s", session.name, role.value, address)
        return self._with_cookie(go(onward), token, request)

    def _role_of(self, typed: str) -> Role | None:
        """Return whose password it is. Every hash is tried, so that the time tells nothing."""
        with self._one_at_a_time:
            found = [role for role, kept in self._hashes.items() if password.matches(typed, kept)]
        return found[0] if found else None

    def _log_out(self, request: Request, session: Session | None) -> Response:
        if request.method != "POST":
            return page(logout_page(session.name)) if session else go("/login")
        if session:
            self._ended.add(session)
            log.info("%r logged out of the page", session.name)
        answer = go("/login")
        answer.delete_cookie(self._cookie)
        return answer

    def _with_cookie(self, answer: Response, token: str, request: Request) -> Response:
        answer.set_cookie(
            self._cookie,
            token,
            max_age=round(self._hours * 3600),
            httponly=True,
            samesite="lax",  # strict would ask for the password again after a click on a link in a mail
            secure=request.url.scheme == "https",
        )
        return answer


def local_path(path: str) -> str:
    """Return a path where it is one of ours, and the first page's otherwise."""
    plain = path.isprintable() and path.startswith("/") and not path.startswith(("//", "/\\", "/login", "/logout"))
    return path if plain else "/"


def _hashes(settings: Settings) -> dict[Role, str]:
    """Return the password's hash of each role that has one: of two equal passwords, the first counts."""
    kept = {Role.OPERATOR: settings.monitor_password, Role.VIEWER: settings.monitor_viewer_password}
    return {role: text for role, text in kept.items() if text}


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a small form; None where it is none, or no small one."""
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
