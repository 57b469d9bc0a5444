"""Checks the Host header (against DNS rebinding) and the Origin header (against requests from other sites)."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from workers.settings import get_settings


def is_allowed(host: str | None) -> bool:
    """Return whether a request's Host header names this page.

    With DNS rebinding, another site's name resolves to this address, and its Host header has that name. An IP address
    cannot be rebound, so any is accepted. Starlette's TrustedHostMiddleware accepts only listed ones.

    Parameters:
      host(str | None): The header, with or without a port.
    """
    name = _name(f"//{host or ''}")
    if name is None:
        return False
    settings = get_settings()
    return name in ("localhost", settings.monitor_host.lower(), *settings.monitor_allowed_hosts) or is_ip_address(name)


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Return whether this site's own page sent a request: whether Origin and Host are the same.

    Parameters:
      headers(Mapping): The headers of the request, by lower-case names.
    """
    try:
        origin, host = urlsplit(headers.get("origin", "")), headers.get("host", "")
    except ValueError:
        return False
    return origin.scheme in ("http", "https") and bool(host) and origin.netloc.lower() == host.lower()


def is_ip_address(name: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018, it raises where the port is invalid
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return (parts.hostname or "").rstrip(".") or None
