"""Caches what pages read: all open browsers share one reading, and a slow reading delays none of them for long."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from workers import clock
from workers.monitor.readings.unreadable import Unreadable

T = TypeVar("T")

#: A reading that was not used for this time is removed.
_FORGOTTEN_SECONDS = 60.0
#: How often such readings are looked for.
_SWEEP_SECONDS = 5.0
#: The validity of what is refreshed each second: a little less, so that each tick reads again.
EACH_TICK_SECONDS = 0.9
#: The timeout of a reading: a database that hangs does not report an error.
_PATIENCE_SECONDS = 3.0
_LEAST_SECONDS = 0.1
_SLOW = (
    "The database, Redis or the `get_connector` of a source hangs or is overloaded: check them, and the monitor's log. "
    "This page recovers automatically."
)


@dataclass
class _Reading:
    lock: threading.Lock = field(default_factory=threading.Lock)
    until: float = 0.0
    value: Any = None
    error: Exception | None = None
    #: Set when the current reading is done; None where none is under way. And when it began.
    done: threading.Event | None = None
    began: float = 0.0


_readings: dict[Hashable, _Reading] = {}
_guard = threading.Lock()
_swept_at = 0.0


def cached(key: Hashable, seconds: float, read: Callable[[], T]) -> T:
    """Return what `read` returned, or raise what it raised, within the last `seconds`, in any session.

    Sessions that ask at the same time wait for one reading. Errors are cached, too. A thread of its own reads: `read`
    draws nothing.

    Parameters:
      key(Hashable): Identifies the reading, with everything that it depends on.
      seconds(float): How long the value is valid.
      read(Callable): Reads the value.

    Raises:
      Unreadable: It takes too long. It is not started again before it has ended.

    *Warning:* all sessions share the value: do not change it.
    """
    reading = _reading(key)
    with reading.lock:
        if reading.done is None and clock.monotonic() >= reading.until:
            _begin(reading, seconds, read)
        done, began = reading.done, reading.began
    if done and not done.wait(max(_LEAST_SECONDS, _PATIENCE_SECONDS - (clock.monotonic() - began))):
        raise Unreadable("Reading takes too long", _SLOW)
    with reading.lock:
        value, error = reading.value, reading.error
    if error is not None:
        raise error.with_traceback(None)  # else the traceback would grow with each raise
    return value


def forget() -> None:
    """Forget every reading, so that a change is visible at the next tick."""
    with _guard:
        _readings.clear()


def _begin(reading: _Reading, seconds: float, read: Callable[[], Any]) -> None:
    done = threading.Event()
    threading.Thread(target=_do, args=(reading, seconds, read, done), name="reading", daemon=True).start()
    reading.done, reading.began = done, clock.monotonic()  # the thread waits for the lock before it sets `done`


def _do(reading: _Reading, seconds: float, read: Callable[[], Any], done: threading.Event) -> None:
    try:
        value, error = read(), None
    except Exception as raised:
        value, error = None, raised
    except BaseException as raised:  # a `sys.exit` in a user's code must not leave sessions waiting
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
