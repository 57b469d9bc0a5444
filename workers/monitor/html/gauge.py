"""The gauge of one rate-limit window: used requests, and when a full window opens; in words, not by colour alone."""

from workers.limiter.state import BudgetState, WindowState
from workers.monitor.html.formatting import count
from workers.monitor.html.markup import Html, fill, join
from workers.reports.budget_text import fullest, taken_as_full
from workers.text.durations import duration, wait

#: A wait below it would be shown as 0.0 s.
_NOW_SECONDS = 0.05
_GAUGE = """
<div class="sl-gauge {looks}">
  <div class="sl-gauge-head"><b>{title}</b><span>{status}</span></div>
  <div class="sl-gauge-track" role="meter" aria-label="window {title}" aria-valuemin="0" aria-valuemax="{most}"
    aria-valuenow="{used}" aria-valuetext="{words}"><div class="sl-gauge-used" style="width:{share}%"></div>{tick}</div>
  {note}
</div>
"""


def gauges(state: BudgetState) -> Html:
    """Return a gauge for each window of a budget."""
    return fill('<div class="sl-gauges">{parts}</div>', parts=join(gauge(state, window) for window in state.windows))


def gauge(state: BudgetState, window: WindowState) -> Html:
    """Return a bar of the used part of a window; a tick marks the end of our share of it.

    Parameters:
      state(BudgetState): The budget it belongs to.
      window(WindowState): One of its windows.
    """
    full = window.used >= window.in_force
    return fill(
        _GAUGE,
        looks="sl-gauge-full" if full else "",
        title=window.title,
        status=_status(state, window, full),
        most=window.full,
        used=min(window.used, window.full),
        words=_words(state, window, full),
        share=f"{_share(window):.1f}",
        tick=_tick(window),
        note=_note(window),
    )


def _status(state: BudgetState, window: WindowState, full: bool) -> Html:
    shape = "alert" if taken_as_full(state, window) else "wait"
    icon = fill('<i class="sl-icon sl-i-{shape}"></i>', shape=shape) if full else fill("")
    return fill("{icon}{words}", icon=icon, words=_words(state, window, full))


def _words(state: BudgetState, window: WindowState, full: bool) -> str:
    """Return `1,874 of 2,000 · 126 left`, or `2,000 of 2,000 · full, opens in 12 s`."""
    used = f"{count(window.used)} of {count(window.in_force)}"
    if not full:
        return f"{used} · {count(window.in_force - window.used)} left"
    why = "taken as full" if taken_as_full(state, window) else "full"
    return f"{used} · {why}{_opens(state, window)}"


def _opens(state: BudgetState, window: WindowState) -> str:
    """Say when a full window opens, if it is the window that decides when the budget opens."""
    if window is not fullest(state) or state.paused_for_seconds or not state.opens_in_seconds:
        return ""
    seconds = state.opens_in_seconds
    if seconds < _NOW_SECONDS:
        return ", opens now"
    return f", opens in {wait(seconds) if seconds < 1 else duration(seconds)}"


def _share(window: WindowState) -> float:
    """Return the percentage to draw: 100 only where the window is full, 0 only where it is unused."""
    percent = 100 * min(window.used, window.full) / window.full
    return min(max(percent, 1.0), 99.0) if 0 < window.used < window.in_force else percent


def _tick(window: WindowState) -> Html:
    if window.in_force >= window.full:
        return fill("")
    left = f"{100 * window.in_force / window.full:.1f}"
    title = f"our share ends at {count(window.in_force)}"
    return fill('<i class="sl-gauge-tick" style="left:{left}%" title="{title}"></i>', left=left, title=title)


def _note(window: WindowState) -> Html:
    """Say in what the window differs from the one that the source's code configures."""
    parts = []
    if window.full != window.limit.requests:
        parts.append(f"configured as {count(window.limit.requests)}; the API announced another limit")
    if window.in_force < window.full:
        parts.append(f"our share is {count(window.in_force)} of {count(window.full)}")
    return fill('<p class="sl-gauge-note">{text}</p>', text="; ".join(parts)) if parts else fill("")
