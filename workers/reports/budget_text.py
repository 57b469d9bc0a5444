"""Budget text: words why a budget is closed, and why it is slower than configured, for all pages and commands."""

from datetime import datetime, timedelta
from enum import StrEnum

from workers.limiter.state import BudgetState, WindowState
from workers.text.durations import duration, wait

#: A budget that opens sooner than this is shown as open.
_SOON_SECONDS = 0.5


class Closing(StrEnum):
    """Why no request may be sent now: the codes of `reasons.Reason` for a closed budget."""

    API_PAUSE = "api_pause"
    CANARY = "canary"
    WINDOW_FULL = "window_full"
    WINDOW_TAKEN_AS_FULL = "window_taken_as_full"
    PACED = "paced"
    NO_PERMIT = "no_permit"


def closing(state: BudgetState) -> Closing | None:
    """Return why no request may be sent now; None where the budget is open, or is about to be."""
    if state.paused_for_seconds:
        return Closing.API_PAUSE
    if state.canary:
        return Closing.CANARY
    if state.opens_in_seconds < _SOON_SECONDS:
        return None
    window = fullest(state)
    if window is None:
        return Closing.PACED if state.profile == "paced" else Closing.NO_PERMIT
    return Closing.WINDOW_TAKEN_AS_FULL if taken_as_full(state, window) else Closing.WINDOW_FULL


def why_closed(state: BudgetState, now: datetime) -> str:
    """Return in words why no request may be sent now, and until when; empty where the budget is open, or about to be.

    Parameters:
      state(BudgetState): The budget.
      now(datetime): When it was read.
    """
    code, window = closing(state), fullest(state)
    opens = f"opens in {duration(state.opens_in_seconds)}"
    if code is None:
        return ""
    if code is Closing.API_PAUSE:
        until = instant(now, state.paused_for_seconds)
        return f"{state.paused_why}: paused for {duration(state.paused_for_seconds)}, until {until}"
    if window and code is Closing.WINDOW_TAKEN_AS_FULL:
        return f"window {window.title} taken as full: {state.lost_why}; {opens}"
    if window and code is Closing.WINDOW_FULL:
        if window.used < window.in_force:
            room = window.in_force - window.used
            return f"window {window.title} has {room:,} left, its next request counts {state.weight:,}; {opens}"
        return f"window {window.title} full; {opens}"
    paced = f"paced, its next request in {wait(state.opens_in_seconds)}"
    canary = "after a pause, one request is out to see whether the API answers again"
    return {Closing.PACED: paced, Closing.CANARY: canary}.get(code, opens)


def slowed(state: BudgetState) -> str:
    """Return what makes a budget slower than its configured limits, and why; empty where nothing does."""
    parts = []
    if state.profile == "paced":
        parts.append(f"paced: {state.profile_why}")
    if state.widened_seconds:
        parts.append(f"windows {state.widened_seconds:g} s longer")
    parts += [
        f"window {window.limit} is {window.full:,} now, says the API"
        for window in state.windows
        if window.full < window.limit.requests
    ]
    return "; ".join(parts)


def fullest(state: BudgetState) -> WindowState | None:
    """Return the longest window without room for a request; None where all have room."""
    full = (window for window in state.windows if window.used + state.weight > window.in_force)
    return max(full, key=lambda window: window.limit.seconds, default=None)


def taken_as_full(state: BudgetState, window: WindowState) -> bool:
    """Return whether a window is taken as full, because its state was lost."""
    longest = max(other.limit.window_microseconds for other in state.windows)
    return state.taken_as_full_seconds > (longest - window.limit.window_microseconds) / 1e6


def instant(now: datetime, in_seconds: float) -> str:
    """Return an instant as text: `14:03:22 UTC`, with its date where it is not today."""
    at = now + timedelta(seconds=in_seconds)
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"
