"""Handles SIGTERM, SIGINT and SIGHUP: the first requests a stop, one that comes over two seconds later ends at once."""

import atexit
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from workers import clock

log = logging.getLogger(__name__)

#: honcho, systemd and terminals signal the whole process group, and a parent forwards its signal: one request.
_ONE_REQUEST_SECONDS = 2.0

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_asked: list[tuple[int, float]] = []


def on_stop(*, within: float | None = None, at_once: Callable[[], None] = lambda: None) -> None:
    """Set `clock.stop_requested` when SIGTERM, SIGINT or SIGHUP comes; on a second one, later, end at once.

    Parameters:
      within(float | None): The process ends at most this many seconds after the request, even if it hangs.
      at_once(Callable): Called before the process ends at once.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    threading.Thread(target=_read_signals, args=(ours, within, at_once), name="stop", daemon=True).start()
    # Not in a handler: Python runs it when the main thread wakes, which can be seconds after the signal, and the main
    # thread can then hold the lock of the event.
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    for number in _NUMBERS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _do_nothing)
    atexit.register(_ignore)


def exit_code() -> int:
    """Return the exit code of a process that was asked to stop: 129, 130 or 143."""
    return 128 + (_asked[0][0] if _asked else signal.SIGINT)


def _read_signals(pipe: int, within: float | None, at_once: Callable[[], None]) -> None:
    """Read the numbers of signals from the pipe, in a thread."""
    patience: float | None = None
    while select.select([pipe], [], [], patience)[0]:
        number, now = os.read(pipe, 1)[0], time.monotonic()
        if number in _NUMBERS and not _asked:
            _asked.append((number, now))
            clock.stop_requested.set()
        elif number in _NUMBERS and now - _asked[0][1] > _ONE_REQUEST_SECONDS:
            break
        if within is not None and _asked:
            patience = max(0.0, _asked[0][1] + within - now)
    else:
        number = _asked[0][0]
        log.warning("the process has not stopped within %.1f s of the request: it ends at once", within)
    at_once()
    os._exit(128 + number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Replace the default handler, which would end the process."""


def _ignore() -> None:
    """Ignore signals while the interpreter ends: it restores the default handlers, which would kill the process."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


def name_of(number: int) -> str:
    """Return a signal's name; a real-time signal has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
