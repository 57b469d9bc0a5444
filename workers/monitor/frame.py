"""The frame: what every page has in common. Its live part, drawn each second; a banner where something is down."""

from collections.abc import Callable
from contextlib import suppress
from datetime import tzinfo

import streamlit as st

from workers import clock
from workers.monitor import banner, news
from workers.monitor.complaint import complain
from workers.monitor.dialog import draw_opened
from workers.monitor.markup import Html, fill, join, prose
from workers.monitor.panel import panel
from workers.monitor.unreadable import Unreadable
from workers.monitor.viewer import zone

_HEAD = '<div class="sl-top"><h1>{title}</h1><p class="sl-state">{state}</p></div>'
_NOTICE = """
<section class="sl-notice sl-{tone}" role="status"><i class="sl-icon sl-i-{shape}"></i>
<div><h2>{what}</h2><p>{text}</p></div></section>
"""
_FAULT = "It tries again each second; the monitor's log says what it is."


def live(title: str, draw: Callable[[tzinfo], None]) -> None:
    """Draw the part of a page that changes by itself, each second. One a page: all of a session share one thread.

    The dialog that was opened in it is drawn beside it.

    Parameters:
      title(str): The page's, for when it cannot be drawn.
      draw(Callable[[tzinfo], None]): Draws it for a viewer in that time zone; `panel` and widgets as it likes. It must
        stay far below a second: read rollups, through `shared`, and scan nothing.
    """
    draw_opened()
    _live(title, draw)


@st.fragment(run_every=1)  # type: ignore[untyped-decorator]
def _live(title: str, draw: Callable[[tzinfo], None]) -> None:
    here = zone()
    try:
        with suppress(Unreadable):  # what keeps it from being told keeps the page, too; or does not matter to it
            panel(banner.banner(banner.current(), here, clock.now()), key="banner")
        news.tell()
        draw(here)
    except Unreadable as error:
        _draw_instead(title, notice(error.tone, "alert", error.what, error.repair))
    except Exception as error:  # whatever it is, its traceback is for the log
        complain("the page could not be drawn", error, trace=True)
        _draw_instead(title, notice("bad", "alert", "This page has a fault", _FAULT))


def _draw_instead(title: str, said: Html) -> None:
    """Draw what stands in a page's place, or below the part of it that was drawn before that failed."""
    panel(join([head(title, fill("cannot be shown now")), said]), key="instead")


def head(title: str, state: Html) -> Html:
    """Return a page's title, and what it shows in a line."""
    return fill(_HEAD, title=title, state=state)


def notice(tone: str, shape: str, what: str, text: str) -> Html:
    """Return a notice: what is the matter, and what to do.

    Parameters:
      tone(str): good, warn, bad, plan or calm.
      shape(str): The icon beside it: a tone is never told by its colour alone.
    """
    return fill(_NOTICE, tone=tone, shape=shape, what=what, text=prose(text))
