"""Adapt the limiters that are compared: Sluice's and others, each used as its own documentation says."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mock_server import Window
from workers.connections.redis_client import redis_client
from workers.errors import RateLimited
from workers.limiter.budget import Budget, Limit, Profile
from workers.limiter.rate_limiter import RateLimiter

INSTALL = "make bench-limiter"

_REQUEST_SECONDS = 30.0
#: Between two looks, where a peer cannot say how long to wait: what its documentation sleeps, or a little more.
_LOOK_SECONDS = 0.01
_DRAMATIQ_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Place:
    """Where a limiter counts, and what: the same for every process that shares it.

    Parameters:
      redis_url: The Redis, with or without a database's number.
      prefix: Begins the names of the limiter's keys, as far as it lets us.
      windows: What the API allows.
    """

    redis_url: str
    prefix: str
    windows: tuple[Window, ...]

    @property
    def shortest_first(self) -> list[Window]:
        return sorted(self.windows, key=lambda window: window.seconds)


class Turn:
    """One thread's way of waiting for its turn. This one does not wait: it only heeds Retry-After."""

    def wait(self) -> None:
        """Return when the next request may be sent."""

    def report(self, status: int, headers: Mapping[str, str]) -> None:
        """Take notice of the response; after a 429 the same request waits for its turn again."""
        if status == 429:
            time.sleep(float(headers["Retry-After"]))

    def leave(self) -> None:
        """Take notice that this thread makes no more requests."""


#: What a process makes once for all its threads; it is then called once in each.
Queue = Callable[[], Turn]


# --- ours


class _Ours(Turn):
    def __init__(self, limiter: RateLimiter) -> None:
        self._caller = limiter.permit_client()

    def wait(self) -> None:
        while True:
            try:
                self._permit = self._caller.acquire(_REQUEST_SECONDS)
                return
            except RateLimited as refusal:
                time.sleep(refusal.wait_seconds)

    def report(self, status: int, headers: Mapping[str, str]) -> None:
        with suppress(RateLimited):  # the next take waits for it
            self._caller.report(self._permit, status, headers)

    def leave(self) -> None:
        self._caller.flush()


def limiter_of(place: Place, profile: Profile = "burst") -> RateLimiter:
    """Return a Sluice limiter for a place."""
    limits = [Limit(window.limit, seconds=window.seconds) for window in place.windows]
    return RateLimiter(Budget("bench", limits, profile=profile), redis_client(place.redis_url), prefix=place.prefix)


def _ours(profile: Profile) -> Callable[[Place], Queue]:
    def queue(place: Place) -> Queue:
        limiter = limiter_of(place, profile)
        return lambda: _Ours(limiter)

    return queue


# --- limits: a moving window is asked for each limit, and says when its oldest entry leaves it


class _Limits(Turn):
    def __init__(self, limiter: Any, items: list[Any], name: str) -> None:
        self._limiter, self._items, self._name = limiter, items, name

    def wait(self) -> None:
        # First test, then hit: what one limit has counted before the other refuses cannot be given back.
        while not (self._all(self._limiter.test) and self._all(self._limiter.hit)):
            full = [item for item in self._items if not self._limiter.test(item, self._name)]
            opens = max((self._limiter.get_window_stats(item, self._name).reset_time for item in full), default=0.0)
            time.sleep(max(_LOOK_SECONDS, opens - time.time()))

    def _all(self, ask: Callable[[Any, str], bool]) -> bool:
        return all(ask(item, self._name) for item in self._items)


def _limits(place: Place) -> Queue:
    from limits import RateLimitItemPerSecond
    from limits.storage import RedisStorage
    from limits.strategies import MovingWindowRateLimiter

    limiter = MovingWindowRateLimiter(RedisStorage(place.redis_url, key_prefix=place.prefix))
    items = [RateLimitItemPerSecond(window.limit, int(window.seconds)) for window in place.shortest_first]
    return lambda: _Limits(limiter, items, "bench")


# --- pyrate-limiter: all rates in one bucket, and try_acquire sleeps


class _Pyrate(Turn):
    def __init__(self, limiter: Any) -> None:
        self._limiter = limiter

    def wait(self) -> None:
        while not self._limiter.try_acquire("bench"):
            time.sleep(_LOOK_SECONDS)


def _pyrate(place: Place) -> Queue:
    from pyrate_limiter import Limiter, Rate, RedisBucket
    from redis import Redis

    rates = [Rate(window.limit, round(window.seconds * 1000)) for window in place.shortest_first]
    limiter = Limiter(RedisBucket.init(rates, Redis.from_url(place.redis_url), f"{place.prefix}:bench"))
    # By itself it forgets what is old every 10 s, a tenth of the API's long window: here as often, as windows go.
    limiter.bucket_factory.leak_interval = round(place.shortest_first[-1].seconds * 100)
    return lambda: _Pyrate(limiter)


# --- dramatiq: one limiter a window, which can only be asked again


class _Dramatiq(Turn):
    def __init__(self, longest_first: list[Any]) -> None:
        self._limiters = longest_first

    def wait(self) -> None:
        # What the longer window has granted is kept while the shorter one is full: asked anew, each try would spend it.
        for limiter in self._limiters:
            while not self._granted_by(limiter):
                time.sleep(_DRAMATIQ_LOOK_SECONDS)

    @staticmethod
    def _granted_by(limiter: Any) -> bool:
        with limiter.acquire(raise_on_failure=False) as granted:
            return bool(granted)


def _dramatiq(place: Place) -> Queue:
    from dramatiq.rate_limits import WindowRateLimiter
    from dramatiq.rate_limits.backends import RedisBackend

    backend = RedisBackend(url=place.redis_url)
    limiters = [
        WindowRateLimiter(backend, f"{place.prefix}:{window}", limit=window.limit, window=int(window.seconds))
        for window in reversed(place.shortest_first)
    ]
    return lambda: _Dramatiq(limiters)


# --- all of them


@dataclass(frozen=True)
class Peer:
    """A limiter, and what it must be for.

    Parameters:
      name: What it is called by.
      queue: Makes it, once in each process.
      story: How it is used here, in a few words.
      package: The distribution it comes from; empty for ours and for none.
      whole_seconds: Its windows are whole seconds.
      ours: It is what is measured.
    """

    name: str
    queue: Callable[[Place], Queue]
    story: str
    package: str = ""
    whole_seconds: bool = False
    ours: bool = False

    def cannot(self, windows: tuple[Window, ...]) -> str:
        """Return why it cannot be measured on these windows; empty when it can."""
        if self.package and installed(self.package) is None:
            return f"not installed: {INSTALL}"
        if self.whole_seconds and any(window.seconds % 1 for window in windows):
            return "its windows are whole seconds"
        return ""


PEERS = {
    peer.name: peer
    for peer in (
        Peer("ours", _ours("burst"), "profile burst", ours=True),
        Peer("ours-auto", _ours("auto"), "profile auto", ours=True),
        Peer("ours-paced", _ours("paced"), "profile paced", ours=True),
        Peer("limits", _limits, "MovingWindowRateLimiter on Redis", "limits", whole_seconds=True),
        Peer("pyrate-limiter", _pyrate, "RedisBucket, both rates, blocking", "pyrate-limiter"),
        Peer("dramatiq", _dramatiq, "WindowRateLimiter on Redis, one a window", "dramatiq", whole_seconds=True),
        Peer("retry", lambda place: Turn, "no limiter: sends, and heeds Retry-After"),
    )
}


def installed(package: str) -> str | None:
    """Return the version of a distribution, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Return the versions of the limiters that are set beside ours."""
    packages = [peer.package for peer in PEERS.values() if peer.package]
    return {package: installed(package) or f"not installed: {INSTALL}" for package in packages}
