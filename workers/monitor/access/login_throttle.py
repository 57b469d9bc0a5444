"""Limits how often a password can be tried: by one address, and by all addresses together."""

import threading
from collections import deque
from ipaddress import IPv6Address, ip_address

from workers import clock

#: Attempts a minute: of one address, with room for typing errors; of all, so that many addresses guess no faster.
OF_ONE, OF_ALL = 5, 30
SECONDS = 60.0


class LoginThrottle:
    """The attempts of the last minute, in memory: one process serves the page.

    *Warning:* an attacker with many addresses can keep others from logging in. Sessions that exist are not affected.
    """

    def __init__(self) -> None:
        self._attempts: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def acquire(self, address: str) -> float:
        """Take an attempt, or return how long to wait for one.

        Parameters:
          address(str): The client's.

        Returns:
          float: 0 where the attempt is allowed; else the seconds to wait.
        """
        network = _network(address)
        with self._lock:
            now = clock.monotonic()
            while self._attempts and self._attempts[0][0] <= now - SECONDS:
                self._attempts.popleft()
            own = [at for at, whose in self._attempts if whose == network]
            wait = max(_until(own, OF_ONE, now), _until([at for at, _ in self._attempts], OF_ALL, now))
            if not wait:
                self._attempts.append((now, network))
            return wait

    def forgive(self, address: str) -> None:
        """Forget the last attempt of an address, which was right. Wrong ones still count: there is another password."""
        network = _network(address)
        with self._lock:
            last = next((made for made in reversed(self._attempts) if made[1] == network), None)
            if last:
                self._attempts.remove(last)


def _until(attempts: list[float], most: int, now: float) -> float:
    return attempts[-most] + SECONDS - now if len(attempts) >= most else 0.0


def _network(address: str) -> str:
    """Return what counts as one address: for IPv6 a /64, because one customer has 2^64 addresses."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(int(ip) >> 64) if isinstance(ip, IPv6Address) else str(ip)
