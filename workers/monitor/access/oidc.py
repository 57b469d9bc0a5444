"""Logging in by OpenID Connect: Streamlit talks to the provider, and its signed cookie says who somebody is.

What he may do, SLUICE_MONITOR_OPERATORS and SLUICE_MONITOR_VIEWERS say, each time anew.
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
from workers.monitor.access.session import Ended, Role, Session
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: Of Streamlit: the way to the provider, the way back, and the way out.
_START, _BACK, _OUT = "/auth/login", "/oauth2callback", "/auth/logout"


class OidcLogin:
    """People are known by the e-mail address that the provider says it has verified."""

    def __init__(self) -> None:
        settings = get_settings()
        self._lists = {Role.OPERATOR: settings.monitor_operators, Role.VIEWER: settings.monitor_viewers}
        self._lasts = timedelta(hours=settings.monitor_session_hours)
        self._ended = Ended(settings.data_dir)

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        claims = _claims(cookies)
        role = self._role_of(claims)
        if role is None:
            return None
        session = self._session_of(claims, role)
        return None if self.is_over(session) else session

    def is_over(self, session: Session) -> bool:
        return self._ended.has(session)

    def lets_through(self, path: str) -> bool:
        return path in (_START, _BACK, _OUT)

    async def answer(self, request: Request, session: Session | None) -> Response | None:
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
                    log.info("%r logged out of the page", session.name)
                return page(leave_page(_OUT))
            case _, path if path == _OUT and request.headers.get("sec-fetch-site") == "cross-site":
                return PlainTextResponse("Only a page of ours logs out.\n", HTTPStatus.FORBIDDEN)
        return None

    def _page_for(self, claims: Mapping[str, Any]) -> Response:
        """Return the way in or, for somebody who is known and in no list, why there is none for him."""
        email = str(claims.get("email", ""))
        if not claims or self._role_of(claims):
            return page(oidc_page())
        if not _is_verified(claims):
            why = "Your provider does not say that it has verified your e-mail address: ask whoever runs it to do so."
        else:
            why = "Ask whoever runs Sluice to add this address to SLUICE_MONITOR_VIEWERS or SLUICE_MONITOR_OPERATORS."
        log.warning("%r was not let in to the page: %s", email, why)
        return page(refused_page(email or "Who has no e-mail address", why), HTTPStatus.FORBIDDEN)

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
    """Return what the provider said of somebody; nothing where nobody is logged in, or the cookie is not ours."""
    signed = _get_signed_cookie_with_chunks(dict(cookies), USER_COOKIE_NAME)
    claims = json.loads(signed) if signed else {}
    return claims if isinstance(claims, dict) and claims.get("is_logged_in") is True else {}


def _is_verified(claims: Mapping[str, Any]) -> bool:
    return claims.get("email_verified") in (True, "true") and str(claims.get("email", "")).count("@") == 1
