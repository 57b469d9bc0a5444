"""Loopback: decides whether an address can be reached from this machine only."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host: `localhost`, 127.0.0.1, ::1 ..."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
