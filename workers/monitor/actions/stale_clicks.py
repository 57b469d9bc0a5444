"""Liveness: whether a press came in time. One that was made before the connection was away comes after it, too late.

The browser asks for the live part of a page each second. Where it has not for some seconds, the network was away, or
the tab was in the background; what was pressed then waits in the connection, and comes together with the next request.
`js/liveness.js` keeps presses from being made meanwhile; this is for those that were made before it had noticed.
"""

import time

import streamlit as st

_ASKED_AT, _RETURNED_AT = "sluice_asked_at", "sluice_returned_at"
#: Silent for longer, a browser was away; for so long after its return what it had pressed before may come.
_AWAY_SECONDS, _RETURN_SECONDS = 8.0, 2.0

LATE = "Nothing was done: the connection was away when that was pressed. Look, and press again."


def asked() -> None:
    """Note that the browser has asked for the live part."""
    now = time.monotonic()
    if now - st.session_state.get(_ASKED_AT, now) > _AWAY_SECONDS:
        st.session_state[_RETURNED_AT] = now
    st.session_state[_ASKED_AT] = now


def is_late() -> bool:
    """Whether what was pressed may have been pressed before the connection was away."""
    now = time.monotonic()
    returned_at = st.session_state.get(_RETURNED_AT)
    just_back = returned_at is not None and now - returned_at < _RETURN_SECONDS
    return just_back or now - st.session_state.get(_ASKED_AT, now) > _AWAY_SECONDS
