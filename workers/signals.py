"""Being asked to stop: once is a request, again more than two seconds later is an order."""

import os
import signal
import threading
import time
from types import FrameType

from workers import clock

#: honcho, systemd and terminals signal the whole group, and a parent passes its signal on: that is one request.
_ONE_REQUEST_SECONDS = 2.0


_asked: list[tuple[int, float]] = []


def on_stop() -> None:
    """Set `clock.stop_requested` when SIGTERM or SIGINT comes; on a second one, later, end at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if not _asked:
            _asked.append((number, time.monotonic()))
            # Not from here: the main thread may be inside the event's own lock.
            threading.Thread(target=clock.stop_requested.set).start()
        elif time.monotonic() - _asked[0][1] > _ONE_REQUEST_SECONDS:
            os._exit(128 + number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def exit_code() -> int:
    """Return the exit code of a process that ended because it was asked to: 130 or 143."""
    return 128 + (_asked[0][0] if _asked else signal.SIGINT)
