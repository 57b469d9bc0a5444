"""Decides how people log in (password, OpenID Connect, none), and whether the page can be served at its address."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from workers.monitor.access.password_login import PasswordLogin
from workers.monitor.access.session import Role, Session
from workers.processes import page_access
from workers.settings import Settings, get_settings


class Login(Protocol):
    """A way to log in: by password or by OpenID Connect."""

    def session(self, cookies: Mapping[str, str]) -> Session | None:
        """Return the session that a request's cookies carry; None where it has ended or is not valid."""

    def is_over(self, session: Session) -> bool:
        """Return whether a session has ended since it was returned."""

    def is_open(self, path: str) -> bool:
        """Return whether a path is open without a session, because the login needs it."""

    async def respond(self, request: Request, session: Session | None) -> Response | None:
        """Respond to a request that logs in or out; return None for any other request."""


@lru_cache(maxsize=1)
def get_login() -> Login | None:
    """Return how people log in; None where no login is needed, because only this machine reaches the page.

    Raises:
      ConfigurationError: The settings do not allow a login; the message names the repair.
    """
    settings = get_settings()
    if settings.monitor_login == "oidc":
        from workers.monitor.access.oidc_login import OidcLogin

        return OidcLogin()
    hashes = _hashes(settings)
    return PasswordLogin(settings, hashes) if hashes else None


def check() -> None:
    """Check that the page can be served at the address in the settings, and that the login's files can be written.

    Raises:
      ConfigurationError: Others could reach it without a login, or the login is not set up.
    """
    page_access.check()
    if get_settings().monitor_login == "password":
        get_login()


def _hashes(settings: Settings) -> dict[Role, str]:
    """Return the password's hash of each role that has one: of two equal passwords, the first is used."""
    kept = {Role.OPERATOR: settings.monitor_password, Role.VIEWER: settings.monitor_viewer_password}
    return {role: text for role, text in kept.items() if text}
