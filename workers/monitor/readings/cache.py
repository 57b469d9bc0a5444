"""Shared readings: what all open browsers see is read once for them all."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from workers import clock
from workers.monitor.readings.unavailable import Unreadable

T = TypeVar("T")

#: A reading that nobody asked for during so many seconds is forgotten.
_FORGOTTEN_SECONDS = 60.0
#: How often such are looked for.
_SWEEP_SECONDS = 5.0
#: What is refreshed each second is a little younger than that, so that each tick shows another second.
EACH_TICK_SECONDS = 0.9
#: For so long a reading is waited for: a database that hangs says nothing, not even that it is away.
_PATIENCE_SECONDS = 3.0
_LEAST_SECONDS = 0.1
_SLOW = (
    "The database, Redis or the `get_connector` of a source hangs, or is under load: look at them, and at the log of "
    "the monitor. This page goes on by itself."
)


@dataclass
class _Reading:
    lock: threading.Lock = field(default_factory=threading.Lock)
    until: float = 0.0
    value: Any = None
    error: Exception | None = None
    #: Set when the reading that is under way is done, and when that began; None: none is.
    done: threading.Event | None = None
    began: float = 0.0


_readings: dict[Hashable, _Reading] = {}
_guard = threading.Lock()
_swept_at = 0.0


def shared(key: Hashable, seconds: float, read: Callable[[], T]) -> T:
    """Return what `read` returned, or raise what it raised, at most so many seconds ago, in whatever session.

    Sessions that ask at the same time wait for one reading. Errors are shared, too. It is read in a thread of its own:
    `read` draws nothing. *Warning:* the value is everybody's: do not change it.

    Parameters:
      key(Hashable): What it is a reading of, everything that it depends on included.
      seconds(float): For how long it is good.
      read(Callable): Reads it.

    Raises:
      Unreadable: It takes too long. It is not begun again before it has ended.
    """
    reading = _reading(key)
    with reading.lock:
        if reading.done is None and clock.monotonic() >= reading.until:
            _begin(reading, seconds, read)
        done, began = reading.done, reading.began
    if done and not done.wait(max(_LEAST_SECONDS, _PATIENCE_SECONDS - (clock.monotonic() - began))):
        raise Unreadable("It takes too long to read", _SLOW)
    with reading.lock:
        value, error = reading.value, reading.error
    if error is not None:
        raise error.with_traceback(None)  # else it would grow with each raise
    return value


def forget() -> None:
    """Forget every reading: somebody has changed something and wants to see it."""
    with _guard:
        _readings.clear()


def _begin(reading: _Reading, seconds: float, read: Callable[[], Any]) -> None:
    done = threading.Event()
    threading.Thread(target=_do, args=(reading, seconds, read, done), name="reading", daemon=True).start()
    reading.done, reading.began = done, clock.monotonic()  # it waits for the lock before it says that it has ended


def _do(reading: _Reading, seconds: float, read: Callable[[], Any], done: threading.Event) -> None:
    try:
        value, error = read(), None
    except Exception as raised:
        value, error = None, raised
    except BaseException as raised:  # a `sys.exit` of a user's: who waits would wait for ever
        value, error = None, RuntimeError(f"{type(raised).__name__}: {raised}")
    with reading.lock:
        reading.value, reading.error, reading.done = value, error, None
        reading.until = clock.monotonic() + seconds
    done.set()


def _reading(key: Hashable) -> _Reading:
    global _swept_at
    with _guard:
        now = clock.monotonic()
        if not 0 <= now - _swept_at < _SWEEP_SECONDS:
            _swept_at = now
            for old in [key for key, reading in _readings.items() if reading.until < now - _FORGOTTEN_SECONDS]:
                if _readings[old].done is None:
                    del _readings[old]
        return _readings.setdefault(key, _Reading(until=now))
