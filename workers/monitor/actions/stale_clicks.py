"""Detects clicks that were made before the connection was lost and arrive after it is back: they are not performed.

The browser asks for the live part of a page each second. Where it has not asked for some seconds, the network was away
or the tab was in the background. What was pressed then waits in the connection and arrives with the next request.
`js/liveness.js` switches the buttons off meanwhile; this check is for presses before the browser had noticed.
"""

import time
from dataclasses import dataclass

import streamlit as st

_LIVENESS = "sluice_liveness"
#: Silent for longer, a browser was away; for as long as the second after its return, earlier presses can arrive.
_AWAY_SECONDS, _RETURN_SECONDS = 8.0, 2.0


@dataclass
class Liveness:
    """When a browser asked for the live part, and when it came back after a silence; in seconds of one clock."""

    asked_at: float | None = None
    returned_at: float | None = None

    def ask(self, now: float) -> None:
        """Note that the browser asks for the live part now."""
        if self._was_away(now):
            self.returned_at = now
        self.asked_at = now

    def is_stale(self, now: float) -> bool:
        """Return whether a press that arrives now can have been made before the connection was lost."""
        just_back = self.returned_at is not None and now - self.returned_at < _RETURN_SECONDS
        return just_back or self._was_away(now)

    def _was_away(self, now: float) -> bool:
        return self.asked_at is not None and now - self.asked_at > _AWAY_SECONDS


def asked() -> None:
    """Note that this session's browser asks for the live part."""
    _of_session().ask(time.monotonic())


def is_stale() -> bool:
    """Return whether a press that has just arrived can have been made before the connection was lost."""
    return _of_session().is_stale(time.monotonic())


def _of_session() -> Liveness:
    liveness: Liveness = st.session_state.setdefault(_LIVENESS, Liveness())
    return liveness
