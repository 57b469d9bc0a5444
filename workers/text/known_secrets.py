"""The secrets that are known: those of the settings for good, a connector's while it lives, a request's for an hour."""

import base64
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from weakref import WeakSet

from workers import clock

#: Shorter ones are not hidden: they would take letters out of every sentence.
SHORTEST = 3
#: Longer ones are not remembered; a header has 8,000 bytes at most with most servers.
_LONGEST = 10_000
#: What a request brought, a renewed token or a signature, is forgotten when it was not seen again for so long.
KEPT_SECONDS = 3600.0
#: The most of them that are remembered: beyond it the older half is forgotten.
MOST_RECENT = 1_000
#: Base64 of longer ones is not looked for; a password is shorter.
_LONGEST_IN_BASE64 = 256
_SHORTEST_IN_BASE64 = 8

_for_good: set[str] = set()
_recent: dict[str, float] = {}
_lock = threading.RLock()  # a signal handler may log while its thread has it


class Held:
    """The secrets of one owner, hidden for as long as the owner keeps this.

    Parameters:
      secrets(Iterable[str]): Those that stay.
      current(Callable | None): Returns those that may change; asked whenever a text is redacted.
    """

    def __init__(self, secrets: Iterable[str], current: Callable[[], Iterable[str]] | None = None) -> None:
        self._secrets = frozenset(filter(is_usable, secrets))
        self._current = current
        note(self._secrets)  # what is logged of an owner that was dropped is hidden for a while, too
        _held.add(self)

    def secrets(self) -> set[str]:
        """Return the secrets as they are now."""
        return {*self._secrets, *filter(is_usable, self._now())}

    def _now(self) -> Iterable[str]:
        try:
            return self._current() if self._current else ()
        except Exception:  # another thread changes the object, or it hides its attributes
            return ()


_held: "WeakSet[Held]" = WeakSet()


def is_usable(secret: object) -> bool:
    """Whether a value is text that can be looked for."""
    return isinstance(secret, str) and SHORTEST <= len(secret) <= _LONGEST and bool(secret.strip())


def hide(secret: str | None) -> None:
    """Let this text never be logged, stored or shown from now on, for as long as the process lives.

    *Warning:* it is remembered for good: what a connector or a request brings is for `Held` and `note`.
    """
    if secret is not None and is_usable(secret):
        _for_good.add(secret)


def note(secrets: Iterable[str]) -> None:
    """Let these texts be hidden until `KEPT_SECONDS` after they were noted last."""
    now = clock.monotonic()
    for secret in secrets:
        if secret in _recent:
            _recent[secret] = now
        elif is_usable(secret):
            with _lock:
                _recent[secret] = now
                _forget(now)


def forget() -> None:
    """Forget what requests brought. What connectors that live hold stays hidden."""
    with _lock:
        _recent.clear()


def _forget(now: float) -> None:
    if len(_recent) <= MOST_RECENT and now - _forgotten_at[0] < KEPT_SECONDS / 10:
        return
    _forgotten_at[0] = now
    by_age = sorted(_recent.items(), key=lambda one: one[1])
    if len(by_age) > MOST_RECENT:
        by_age, dropped = by_age[MOST_RECENT // 2 :], by_age[: MOST_RECENT // 2]
        for secret, _ in dropped:
            _recent.pop(secret, None)
    for secret, at in by_age:
        if now - at <= KEPT_SECONDS:
            break
        _recent.pop(secret, None)


_forgotten_at = [0.0]


def known() -> list[str]:
    """Return each secret that is to be hidden now, and its base64, the longest first."""
    since = clock.monotonic() - KEPT_SECONDS
    with _lock:
        recent = {secret for secret, at in _recent.items() if at >= since}
    held = {secret for owner in list(_held) for secret in owner.secrets()}
    found = _for_good | recent | held
    return sorted(found.union(*map(_in_base64, found)), key=len, reverse=True)


@lru_cache(maxsize=MOST_RECENT)
def _in_base64(secret: str) -> frozenset[str]:
    """Return what of a secret stands in the base64 of any text that holds it, as of `user:password`."""
    body = secret.encode("utf-8", "surrogatepass")
    if len(body) > _LONGEST_IN_BASE64:
        return frozenset()
    inner = (_inner(body, offset) for offset in range(3))
    found = {text for text in inner if len(text) >= _SHORTEST_IN_BASE64}
    return frozenset(found | {text.translate(_URL_SAFE) for text in found})


_URL_SAFE = str.maketrans("+/", "-_")


def _inner(body: bytes, offset: int) -> str:
    """Return the base64 of a secret that begins at this byte of three, without the digits that its neighbours share."""
    encoded = base64.b64encode(b"\0" * offset + body).decode().rstrip("=")
    first = (0, 2, 3)[offset]
    shared = (len(body) + offset) % 3 != 0
    return encoded[first : len(encoded) - shared]
