"""Logs people in by OpenID Connect: Streamlit talks to the provider, and its signed cookie names the person.

The role comes from SLUICE_MONITOR_OPERATORS and SLUICE_MONITOR_VIEWERS, at each request.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from streamlit import user_info
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME
from streamlit.web.server.starlette.starlette_websocket import _get_signed_cookie_with_chunks

from workers.monitor.access.login_page import go, leave_page, logout_page, oidc_page, page, refused_page
from workers.monitor.access.session import EndedSessions, Role, Session
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: Streamlit's paths: to the provider, back from it, and to the logout.
_START, _BACK, _OUT = "/auth/login", "/oauth2callback", "/auth/logout"


class OidcLogin:
    """Identifies a person by the e-mail address that the provider has verified."""

    def __init__(self) -> None:
        settings = get_settings()
        self._lists = {Role.OPERATOR: settings.monitor_operators, Role.VIEWER: settings.monitor_viewers}
        self._lasts = timedelta(hours=settings.monitor_session_hours)
        self._ended = EndedSessions(settings.data_dir)

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        claims = _claims(cookies)
        role = self._role_of(claims)
        if role is None:
            return None
        session = self._session_of(claims, role)
        return None if self.is_over(session) else session

    def is_over(self, session: Session) -> bool:
        return self._ended.has(session)

    def is_open(self, path: str) -> bool:
        return path in (_START, _BACK, _OUT)

    async def respond(self, request: Request, session: Session | None) -> Response | None:
        match request.method, request.url.path:
            case (("GET" | "HEAD"), "/login"):
                return go("/") if session else self._page_for(_claims(request.cookies))
            case (("GET" | "HEAD"), "/login/start"):
                return go(user_info.generate_login_redirect_url("default"))
            case "GET", "/logout":
                return page(logout_page(session.name)) if session else go("/login")
            case "POST", "/logout":
                if session:
                    self._ended.add(session)
                    log.info("%r logged out", session.name)
                return page(leave_page(_OUT))
            case _, path if path == _OUT and request.headers.get("sec-fetch-site") == "cross-site":
                return PlainTextResponse("Only this site's own pages can log out.\n", HTTPStatus.FORBIDDEN)
        return None

    def _page_for(self, claims: Mapping[str, Any]) -> Response:
        """Return the login page; for a person who is logged in at the provider without a role, the refusal."""
        email = str(claims.get("email", ""))
        if not claims or self._role_of(claims):
            return page(oidc_page())
        if not _is_verified(claims):
            why = "Your provider has not verified your e-mail address. Ask its administrator to verify it."
        else:
            lists = "SLUICE_MONITOR_VIEWERS or SLUICE_MONITOR_OPERATORS"
            why = f"Ask the administrator of Sluice to add this address to {lists}."
        log.warning("%r was refused: %s", email, why)
        return page(refused_page(email or "An account without an e-mail address", why), HTTPStatus.FORBIDDEN)

    def _role_of(self, claims: Mapping[str, Any]) -> Role | None:
        if not _is_verified(claims):
            return None
        email = str(claims.get("email", "")).lower()
        domain = f"@{email.rpartition('@')[2]}"
        return next((role for role, names in self._lists.items() if email in names or domain in names), None)

    def _session_of(self, claims: Mapping[str, Any], role: Role) -> Session:
        issued = datetime.fromtimestamp(float(claims.get("iat") or 0), UTC)
        number = hashlib.sha256(f"{claims.get('iss')} {claims.get('sub')} {claims.get('iat')}".encode()).hexdigest()
        return Session(number[:32], role, str(claims["email"])[:100], issued + self._lasts)


def _claims(cookies: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the provider's claims about the person; empty where the cookie is missing or not valid."""
    signed = _get_signed_cookie_with_chunks(dict(cookies), USER_COOKIE_NAME)
    claims = json.loads(signed) if signed else {}
    return claims if isinstance(claims, dict) and claims.get("is_logged_in") is True else {}


def _is_verified(claims: Mapping[str, Any]) -> bool:
    return claims.get("email_verified") in (True, "true") and str(claims.get("email", "")).count("@") == 1
