"""Draws the state of one budget: as a panel on a terminal, as text in a file, as JSON for a program."""

from datetime import datetime, timedelta
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workers.limiter.state import BudgetState, WindowState
from workers.reports.budget_text import instant, slowed, taken_as_full, why_closed
from workers.text.durations import duration, wait
from workers.text.plain_text import one_line

_UNKNOWN = "not used since Redis was started or emptied"
_BAR_WIDTH = 20
_SHADES, _SIGNS = ("█", "░"), ("#", ".")


def as_dict(state: BudgetState, now: datetime) -> dict[str, Any]:
    """Return a budget as JSON values: always the same keys, seconds as numbers, instants as ISO 8601 in UTC.

    Parameters:
      state(BudgetState): The budget.
      now(datetime): When it was read, in UTC.
    """
    return {
        "name": state.name,
        "known": state.known,
        "windows": [_window_dict(state, window) for window in state.windows],
        "in_flight": state.in_flight,
        "waiting": state.waiting,
        "opens_in_seconds": round(state.opens_in_seconds, 3),
        "opens_at": _iso(now, state.opens_in_seconds),
        "why_closed": why_closed(state, now),
        "paused_for_seconds": round(state.paused_for_seconds, 3),
        "paused_until": _iso(now, state.paused_for_seconds),
        "paused_why": state.paused_why,
        "canary": state.canary,
        "profile": state.profile,
        "profile_why": state.profile_why,
        "widened_seconds": state.widened_seconds,
        "slowed": slowed(state),
        "taken_as_full_seconds": round(state.taken_as_full_seconds, 3),
        "taken_as_full_until": _iso(now, state.taken_as_full_seconds),
        "lost_why": state.lost_why,
        "granted": state.granted,
        "hits": state.hits,
        "sleeps": state.sleeps,
        "slept_seconds": round(state.slept_seconds, 3),
        "sleeping_seconds": round(state.sleeping_seconds, 3),
        "foreign": state.foreign,
        "notes": [
            {"at": (now - timedelta(seconds=note.seconds_ago)).isoformat(), "text": note.text} for note in state.notes
        ],
    }


def _window_dict(state: BudgetState, window: WindowState) -> dict[str, Any]:
    return {
        "seconds": window.limit.seconds,
        "configured": window.limit.requests,
        "limit": window.full,
        "in_force": window.in_force,
        "used": window.used,
        "taken_as_full": taken_as_full(state, window),
    }


def as_text(state: BudgetState, now: datetime) -> str:
    """Return a budget as aligned lines. Parameters as for `as_dict`."""
    rows = _rows(state, now, _SIGNS)
    width = max(len(label) for label, _ in rows)
    lines = [f"  {label:<{width}}  {text}".rstrip() for label, text in rows]
    return "\n".join([f"{state.name}: {_headline(state, now)}", *lines])


def as_panel(state: BudgetState, now: datetime) -> Panel:
    """Return a budget as a panel, for a terminal. Parameters as for `as_dict`."""
    grid = Table.grid(padding=(0, 2))
    for label, text in _rows(state, now, _SHADES):
        grid.add_row(Text(label, style="dim"), Text(text))
    tone = "red" if state.paused_for_seconds else "yellow" if why_closed(state, now) or slowed(state) else "green"
    title = Text.assemble((state.name, "bold"), ": ", (_headline(state, now), tone))
    return Panel(grid, title=title, title_align="left", border_style=tone if state.known else "dim", padding=(0, 1))


def _rows(state: BudgetState, now: datetime, signs: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the rows of a budget as labels and texts; a row with an empty label belongs to the one above."""
    used = [f"{window.used:,} of {window.in_force:,}" for window in state.windows]
    width = max(map(len, used))
    rows = [
        (window.title, f"{text:<{width}}  {_bar(window, signs)}  {_about(state, window)}")
        for window, text in zip(state.windows, used, strict=True)
    ]
    if state.known:
        rows += [
            ("in flight", f"{state.in_flight:,}"),
            ("waiting", f"{state.waiting:,}"),
            ("opens", _opens(state, now)),
        ]
    if state.paused_for_seconds:
        rows.append(("paused", f"for {_span(now, state.paused_for_seconds)}: {state.paused_why}"))
    if state.canary:
        rows.append(("canary", "one request is testing whether the API answers again"))
    rows.append(("profile", _profile(state)))
    if state.taken_as_full_seconds:
        rows.append(("taken as full", f"for {_span(now, state.taken_as_full_seconds)}: {state.lost_why}"))
    if state.known:
        rows.append(("counters", _counters(state)))
    rows += [
        ("" if place else "notes", f"{duration(note.seconds_ago):>10} ago  {note.text}")
        for place, note in enumerate(state.notes)
    ]
    return [(label, one_line(text)) for label, text in rows]


def _headline(state: BudgetState, now: datetime) -> str:
    return one_line(why_closed(state, now)) or ("open" if state.known else _UNKNOWN)


def _about(state: BudgetState, window: WindowState) -> str:
    parts = []
    if taken_as_full(state, window):
        parts.append("taken as full")
    elif window.used >= window.in_force:
        parts.append("full")
    if window.full != window.limit.requests:
        parts.append(f"configured as {window.limit}; the API's headers name this limit")
    if window.in_force < window.full:
        parts.append(f"our share of {window.full:,}")
    return "; ".join(parts)


def _profile(state: BudgetState) -> str:
    why = f": {state.profile_why}" if state.profile_why else ""
    longer = f"; windows {wait(state.widened_seconds)} longer than configured" if state.widened_seconds else ""
    return f"{state.profile}{why}{longer}"


def _counters(state: BudgetState) -> str:
    now = f" and {wait(state.sleeping_seconds)} so far in this one" if state.sleeping_seconds else ""
    return (
        f"permits {state.granted:,}, rate-limit hits (429) {state.hits:,}, planned waits {state.sleeps:,} "
        f"({wait(state.slept_seconds)}{now}), requests of others {state.foreign:,}"
    )


def _bar(window: WindowState, signs: tuple[str, str]) -> str:
    """Return a bar that is full only if the window is full, and empty only if nothing is used."""
    done = min(_BAR_WIDTH, round(_BAR_WIDTH * window.used / window.in_force))
    if 0 < window.used < window.in_force:
        done = max(1, min(_BAR_WIDTH - 1, done))
    return signs[0] * done + signs[1] * (_BAR_WIDTH - done)


def _opens(state: BudgetState, now: datetime) -> str:
    if state.opens_in_seconds:
        return f"in {wait(state.opens_in_seconds)}, at {instant(now, state.opens_in_seconds)}"
    return "when the canary request is answered" if state.canary else "now"


def _span(now: datetime, seconds: float) -> str:
    return f"{duration(seconds)}, until {instant(now, seconds)}"


def _iso(now: datetime, in_seconds: float) -> str | None:
    """Return when that is; None if it is now."""
    return (now + timedelta(seconds=in_seconds)).isoformat(timespec="milliseconds") if in_seconds else None
