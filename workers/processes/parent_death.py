"""A child process must not outlive whoever watches it: it is told to end when its parent dies (Linux)."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes a child receive SIGTERM when the thread that started it ends, however that ends.

    Elsewhere than on Linux it returns None: a child whose parent is killed is then left behind.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        # Until its program is started, a child has its parent's handlers: they would swallow the signal.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before prctl: the signal would never come
            os._exit(1)

    return bind
