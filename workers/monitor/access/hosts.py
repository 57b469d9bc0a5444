"""Hosts: which names the page answers to, and which requests come from a page of its own."""

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from workers.settings import get_settings


def is_known(host: str | None) -> bool:
    """Return whether a request's Host header is a name of ours.

    A page of somebody else whose name was made to lead here (DNS rebinding) has that name. A number cannot be made to
    lead elsewhere, so any is known.

    Parameters:
      host(str | None): The header, with or without a port.
    """
    name = _name(f"//{host or ''}")
    if name is None:
        return False
    settings = get_settings()
    return name in ("localhost", settings.monitor_host.lower(), *settings.monitor_allowed_hosts) or is_number(name)


def is_own(headers: Mapping[str, str]) -> bool:
    """Return whether a page of ours sent a request: whether its origin is where it goes.

    Parameters:
      headers(Mapping): The request's, by their names in small letters.
    """
    try:
        origin, host = urlsplit(headers.get("origin", "")), headers.get("host", "")
    except ValueError:
        return False
    return origin.scheme in ("http", "https") and bool(host) and origin.netloc.lower() == host.lower()


def is_number(name: str) -> bool:
    """Return whether a host is an IP address."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018, it raises where it is none
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return (parts.hostname or "").rstrip(".") or None
