"""The frame: what every page has in common. Its live part, drawn each second; a banner where something is down."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import tzinfo
from typing import NamedTuple

import streamlit as st

from workers import clock
from workers.monitor.actions import stale_clicks
from workers.monitor.html.dialog import draw_opened
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.notice import notice
from workers.monitor.html.panel import panel
from workers.monitor.readings.log_throttle import complain
from workers.monitor.readings.time_zone import zone
from workers.monitor.readings.unavailable import Unreadable
from workers.monitor.sections import banner, toasts

_HEAD = '<div class="sl-top"><h1>{title}</h1><p class="sl-state">{state}</p></div>'
_PIECE = '<div class="sl-piece" id="piece-{name}">{html}</div>'
#: Another each second, so that the browser hears of each tick: see js/liveness.js.
_AS_OF = '<i hidden class="sl-as-of" data-at="{second}"></i>'
_FAULT = "It tries again each second; the monitor's log says what it is."


class Piece(NamedTuple):
    """A piece of a page, by its name, which is its own on the page: what stands in it is compared with what stood."""

    name: str
    html: Html


def live(
    title: str,
    draw: Callable[[tzinfo], Iterable[Piece]],
    press: Callable[[str], None] | None = None,
    below: Callable[[tzinfo], None] | None = None,
) -> None:
    """Draw the part of a page that changes by itself, each second. One a page: all of a session share one thread.

    What is HTML of it becomes one element of Streamlit's, for each element costs each session a part of each second.
    The dialog that was opened in it is drawn beside it.

    Parameters:
      title(str): The page's, for when it cannot be drawn.
      draw(Callable[[tzinfo], Iterable[Piece]]): Yields it for a viewer in that time zone. It must stay far below a
        second: read rollups, through `shared`, and scan nothing.
      press(Callable[[str], None] | None): Does what a button in it is for; it gets the button's name, from a browser,
        so it may be anything.
      below(Callable[[tzinfo], None] | None): Draws what Streamlit has elements for, under it.
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
    said: list[Html] = []
    if drawn and below and not _tried(title, said, lambda: below(here)):
        panel(join(said), key="page_below")
    if drawn and press and pressed:
        _obey(press, pressed)


def _pieces(draw: Callable[[tzinfo], Iterable[Piece]], zone: tzinfo) -> Iterator[Html]:
    with suppress(Unreadable):  # what keeps it from being told keeps the page, too; or does not matter to it
        yield _piece(Piece("banner", banner.banner(banner.current(), zone, clock.now())))
    toasts.tell()
    yield from map(_piece, draw(zone))


def _tried(title: str, instead: list[Html], do: Callable[[], None]) -> bool:
    """Do it. Where that fails, say what is the matter instead, and return False."""
    try:
        do()
    except Unreadable as error:
        instead.append(_instead(title, notice(error.tone, "alert", error.what, error.repair)))
    except Exception as error:  # whatever it is, its traceback is for the log
        complain("the page could not be drawn", error, trace=True)
        instead.append(_instead(title, notice("bad", "alert", "This page has a fault", _FAULT)))
    else:
        return True
    return False


def _obey(press: Callable[[str], None], name: str) -> None:
    if stale_clicks.is_late():
        st.toast(stale_clicks.LATE, icon=":material/warning:")
        return
    try:
        press(name)
    except Exception as error:
        complain("a press of the page was not obeyed", error, trace=not isinstance(error, Unreadable))
        st.toast("Nothing was done: what is pressed could not be looked at. Try again.", icon=":material/warning:")


def _piece(piece: Piece) -> Html:
    return fill(_PIECE, name=piece.name, html=piece.html)


def _instead(title: str, said: Html) -> Html:
    """Return what stands in a page's place, or below the part of it that was told before that failed."""
    return _piece(Piece("instead", join([head(title, fill("cannot be shown now")), said])))


def head(title: str, state: Html) -> Html:
    """Return a page's title, and what it shows in a line."""
    return fill(_HEAD, title=title, state=state)
