"""What every page shares: a live part that is drawn each second, the banner, toasts, and error handling."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import tzinfo
from typing import NamedTuple

import streamlit as st

from workers import clock
from workers.monitor.actions import act, stale_clicks
from workers.monitor.html.dialog import draw_opened
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.notice import notice
from workers.monitor.html.panel import panel
from workers.monitor.readings.log_throttle import log_throttled
from workers.monitor.readings.time_zone import zone
from workers.monitor.readings.unreadable import Unreadable
from workers.monitor.sections import banner, toasts

_HEAD = '<div class="sl-top"><h1>{title}</h1><p class="sl-state">{state}</p></div>'
_PIECE = '<div class="sl-piece" id="piece-{name}">{html}</div>'
#: Changes each second, so that the browser notices each tick: see js/liveness.js.
_AS_OF = '<i hidden class="sl-as-of" data-at="{second}"></i>'
_FAULT = "The page retries every second. Details are in the monitor's log."


class Piece(NamedTuple):
    """A part of a page with a name that is unique on the page: the browser compares it with its last content."""

    name: str
    html: Html


def live(
    title: str,
    draw: Callable[[tzinfo], Iterable[Piece]],
    press: Callable[[str], None] | None = None,
    below: Callable[[tzinfo], None] | None = None,
) -> None:
    """Draw the live part of a page, which is drawn again each second. One a page: all of a session share one thread.

    Its HTML is one element of Streamlit, because each element costs each session time in each second. A dialog is drawn
    beside it.

    Parameters:
      title(str): The title of the page, for when it cannot be drawn.
      draw(Callable[[tzinfo], Iterable[Piece]]): Yields the pieces for a viewer in that time zone. It has to take far
        less than a second: read counters, through `cached`, and scan no table.
      press(Callable[[str], None] | None): Handles the press of a button; it gets the name of the button from the
        browser, which can be any text.
      below(Callable[[tzinfo], None] | None): Draws Streamlit elements below the HTML.
    """
    draw_opened()
    _live(title, draw, press, below)


@st.fragment(run_every=1)  # type: ignore[untyped-decorator]
def _live(
    title: str,
    draw: Callable[[tzinfo], Iterable[Piece]],
    press: Callable[[str], None] | None,
    below: Callable[[tzinfo], None] | None,
) -> None:
    here = zone()
    stale_clicks.asked()
    pieces: list[Html] = []
    drawn = _tried(title, pieces, lambda: pieces.extend(_pieces(draw, here)))
    pieces.append(fill(_AS_OF, second=int(clock.now().timestamp())))
    pressed = panel(join(pieces), key="page_panel")
    errors: list[Html] = []
    if drawn and below and not _tried(title, errors, lambda: below(here)):
        panel(join(errors), key="page_below")
    if drawn and press and pressed:
        _handle(press, pressed)


def _pieces(draw: Callable[[tzinfo], Iterable[Piece]], zone: tzinfo) -> Iterator[Html]:
    with suppress(Unreadable):  # the page shows the same cause, or does not need it
        yield _piece(Piece("banner", banner.banner(banner.current(), zone, clock.now())))
    toasts.show_new()
    act.show_last()
    yield from map(_piece, draw(zone))


def _tried(title: str, instead: list[Html], do: Callable[[], None]) -> bool:
    """Do it. Where that fails, append the error in its place, and return False."""
    try:
        do()
    except Unreadable as error:
        instead.append(_instead(title, notice(error.tone, "alert", error.what, error.repair)))
    except Exception as error:  # the traceback goes to the log only
        log_throttled("the page could not be drawn", error, trace=True)
        instead.append(_instead(title, notice("bad", "alert", "Error on this page", _FAULT)))
    else:
        return True
    return False


def _handle(press: Callable[[str], None], name: str) -> None:
    if stale_clicks.is_stale():
        st.toast(act.STALE, icon=":material/warning:")
        return
    try:
        press(name)
    except Exception as error:
        log_throttled("a press of a button failed", error, trace=not isinstance(error, Unreadable))
        st.toast("Nothing was changed: the current state could not be read. Try again.", icon=":material/warning:")


def _piece(piece: Piece) -> Html:
    return fill(_PIECE, name=piece.name, html=piece.html)


def _instead(title: str, error: Html) -> Html:
    """Return what is shown in place of a page, or below the part that was drawn before the error."""
    return _piece(Piece("instead", join([head(title, fill("not available")), error])))


def head(title: str, state: Html) -> Html:
    """Return the title of a page, and its state in a line."""
    return fill(_HEAD, title=title, state=state)
