"""Tries: how often a password may be tried, by one address and by all of them. What is over it waits."""

import threading
from collections import deque
from ipaddress import IPv6Address, ip_address

from workers import clock

#: So many in a minute: of one address, for whoever mistypes; of all, so that a thousand addresses guess no faster.
OF_ONE, OF_ALL = 5, 30
SECONDS = 60.0


class Tries:
    """The tries of the last minute. Kept in memory: the page is served by one process.

    *Warning:* Whoever has many addresses can keep others from logging in. Who is logged in notices nothing of it.
    """

    def __init__(self) -> None:
        self._made: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def take(self, address: str) -> float:
        """Take a try, or say how long there is none.

        Parameters:
          address(str): The client's.

        Returns:
          float: 0 where it may try now; else after how many seconds it may.
        """
        neighbour = _neighbourhood(address)
        with self._lock:
            now = clock.monotonic()
            while self._made and self._made[0][0] <= now - SECONDS:
                self._made.popleft()
            own = [at for at, whose in self._made if whose == neighbour]
            wait = max(_until(own, OF_ONE, now), _until([at for at, _ in self._made], OF_ALL, now))
            if not wait:
                self._made.append((now, neighbour))
            return wait

    def forgive(self, address: str) -> None:
        """Forget the last try of an address: it knew a password. Its wrong ones count on: there is another password."""
        neighbour = _neighbourhood(address)
        with self._lock:
            last = next((made for made in reversed(self._made) if made[1] == neighbour), None)
            if last:
                self._made.remove(last)


def _until(made: list[float], most: int, now: float) -> float:
    return made[-most] + SECONDS - now if len(made) >= most else 0.0


def _neighbourhood(address: str) -> str:
    """Return what counts as one address: of IPv6, one customer has 2^64."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(int(ip) >> 64) if isinstance(ip, IPv6Address) else str(ip)
