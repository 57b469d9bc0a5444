"""Remembers secrets to hide: those of the settings always, a connector's while it exists, a request's for an hour."""

import base64
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache
from weakref import WeakSet

from workers import clock

#: Shorter secrets are not hidden: they would remove letters from every sentence.
SHORTEST = 3
#: Longer secrets are not remembered; most servers limit a header to 8,000 bytes.
_LONGEST = 10_000
#: A secret from a request (a renewed token, a signature) is forgotten when it was not seen again for that long.
KEPT_SECONDS = 3600.0
#: The most secrets from requests that are remembered; beyond it the older half is forgotten.
MOST_RECENT = 1_000
#: The base64 form of longer secrets is not searched; a password is shorter.
_LONGEST_IN_BASE64 = 256
_SHORTEST_IN_BASE64 = 8

_permanent: set[str] = set()
_recent: dict[str, float] = {}
_lock = threading.RLock()  # a signal handler can log while its thread holds the lock


class OwnedSecrets:
    """The secrets of one owner. They are hidden as long as the owner keeps this object.

    Parameters:
      secrets(Iterable[str]): The secrets that never change.
      current(Callable | None): Returns the secrets that can change; called whenever a text is redacted.
    """

    def __init__(self, secrets: Iterable[str], current: Callable[[], Iterable[str]] | None = None) -> None:
        self._secrets = frozenset(filter(is_usable, secrets))
        self._current = current
        note(self._secrets)  # they stay hidden for an hour after the owner is gone
        _owned.add(self)

    def secrets(self) -> set[str]:
        """Return the current secrets."""
        return {*self._secrets, *filter(is_usable, self._now())}

    def _now(self) -> Iterable[str]:
        try:
            return self._current() if self._current else ()
        except Exception:  # another thread changes the object, or its attributes cannot be read
            return ()


_owned: "WeakSet[OwnedSecrets]" = WeakSet()


def is_usable(secret: object) -> bool:
    """Return whether a value is text that can be searched for."""
    return isinstance(secret, str) and SHORTEST <= len(secret) <= _LONGEST and bool(secret.strip())


def hide(secret: str | None) -> None:
    """Hide this text in everything that is logged, stored or shown, until the process ends.

    *Warning:* it is never forgotten. For the secrets of a connector or a request use `OwnedSecrets` and `note`.
    """
    if secret is not None and is_usable(secret):
        _permanent.add(secret)


def note(secrets: Iterable[str]) -> None:
    """Hide these texts until `KEPT_SECONDS` after they were noted last."""
    now = clock.monotonic()
    for secret in secrets:
        if secret in _recent:
            _recent[secret] = now
        elif is_usable(secret):
            with _lock:
                _recent[secret] = now
                _forget(now)


def forget() -> None:
    """Forget the secrets from requests. Secrets of existing connectors stay hidden."""
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
    """Return each secret to hide now, and its base64 forms, longest first."""
    since = clock.monotonic() - KEPT_SECONDS
    with _lock:
        recent = {secret for secret, at in _recent.items() if at >= since}
    owned = {secret for owner in list(_owned) for secret in owner.secrets()}
    secrets = _permanent | recent | owned
    return sorted(secrets.union(*map(_in_base64, secrets)), key=len, reverse=True)


@lru_cache(maxsize=MOST_RECENT)
def _in_base64(secret: str) -> frozenset[str]:
    """Return the part of a secret's base64 that is the same in any encoded text, such as `user:password`."""
    body = secret.encode("utf-8", "surrogatepass")
    if len(body) > _LONGEST_IN_BASE64:
        return frozenset()
    inner = (_inner(body, offset) for offset in range(3))
    encoded = {text for text in inner if len(text) >= _SHORTEST_IN_BASE64}
    return frozenset(encoded | {text.translate(_URL_SAFE) for text in encoded})


_URL_SAFE = str.maketrans("+/", "-_")


def _inner(body: bytes, offset: int) -> str:
    """Return the base64 of a secret at this offset of three bytes, without the digits it shares with its neighbours."""
    encoded = base64.b64encode(b"\0" * offset + body).decode().rstrip("=")
    first = (0, 2, 3)[offset]
    shared = (len(body) + offset) % 3 != 0
    return encoded[first : len(encoded) - shared]
