"""Waits briefly after a page is drawn: Streamlit 1.67 drops output that its event loop has not sent when a script ends.

What a script draws waits for the server's event loop. If the script has ended, and the browser asks for the next run
before the loop has sent it, Streamlit drops it: a comment in `AppSession.request_rerun` says so. On a busy machine the
answer to a press that a tick followed immediately was lost in 2 of 14 tries.
"""

import time

_SECONDS = 0.03


def wait_for_flush() -> None:
    """Wait, so that the event loop can send what was drawn. Call it last, where the result of a press can be shown.

    The live part does not need it: it is drawn again a second later.

    *Warning:* the wait can be too short on a very busy machine.
    """
    time.sleep(_SECONDS)
