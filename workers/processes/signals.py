"""Being asked to stop: once is a request, again more than two seconds later is an order."""

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

#: honcho, systemd and terminals signal the whole group, and a parent passes its signal on: that is one request.
_ONE_REQUEST_SECONDS = 2.0

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_asked: list[tuple[int, float]] = []


def on_stop(*, within: float | None = None, at_once: Callable[[], None] = lambda: None) -> None:
    """Set `clock.stop_requested` when SIGTERM, SIGINT or SIGHUP comes; on a second one, later, end at once.

    Parameters:
      within(float | None): How many seconds after the request the process ends at the latest, whatever hangs.
      at_once(Callable): Called before it ends like that.
    """
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    threading.Thread(target=_hear, args=(ours, within, at_once), name="stop", daemon=True).start()
    # Not in a handler: Python runs it when the main thread wakes, which may be seconds after the signal, and the main
    # thread may then be inside the event's own lock.
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    for number in _NUMBERS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _do_nothing)


def exit_code() -> int:
    """Return the exit code of a process that ended because it was asked to: 129, 130 or 143."""
    return 128 + (_asked[0][0] if _asked else signal.SIGINT)


def _hear(pipe: int, within: float | None, at_once: Callable[[], None]) -> None:
    """Read the numbers of signals as they come."""
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
        log.warning("not everything has ended %.1f s after the request to stop: it is left as it is", within)
    at_once()
    os._exit(128 + number)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Stand where the default would end the process."""


def name_of(number: int) -> str:
    """Return a signal's name; a real-time signal has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
