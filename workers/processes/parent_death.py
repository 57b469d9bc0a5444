"""Makes a child process receive SIGTERM when its parent dies, so that none is left behind (Linux only)."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes a child receive SIGTERM when the thread that started it ends, even by SIGKILL.

    *Warning:* on systems other than Linux it returns None, and a child outlives a parent that is killed.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        # Until its program is started, a child has its parent's handlers, which would ignore the signal.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent died before prctl: no signal would come
            os._exit(1)

    return bind
