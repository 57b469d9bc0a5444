"""Settling: a moment at the end of what is drawn, so that nothing of it is lost.

What a script draws waits for the server's event loop. Where the script has ended, and the browser asks for the next run
before the loop has come to it, Streamlit 1.67 drops it: a comment in `AppSession.request_rerun` says so. The answer to
a press that a tick followed at once was never seen, on a busy machine in two of fourteen tries.
"""

import time

_SECONDS = 0.03


def settle() -> None:
    """Wait until the server can have taken up what was drawn; to be called last, where a press may have been answered.

    The live part needs none: a second later it is drawn again. It is not guaranteed to be long enough.
    """
    time.sleep(_SECONDS)
