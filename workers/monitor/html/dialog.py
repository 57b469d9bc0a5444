"""The dialog: what asks a person something, above the page. One at a time.

It is drawn beside the live part of a page and never within it. Of the fragments that wait at the same moment Streamlit
runs the outermost only: a dialog that was opened within the live part would lose each press that met a tick.
"""

from collections.abc import Callable

import streamlit as st

from workers.monitor.html.flush_delay import settle

_OPENED = "sluice_dialog"


def open_dialog(title: str, draw: Callable[[], None]) -> None:
    """Open it; whatever runs is stopped, and the page is drawn anew with it.

    Parameters:
      title(str): Its title. It is Markdown: nothing from the database stands in it but numbers.
      draw(Callable[[], None]): Draws what is in it, each time something in it is pressed or changed.
    """
    st.session_state[_OPENED] = (title, draw)
    st.rerun()


def draw_opened() -> None:
    """Draw the one that was opened, if one was; to be called outside of every fragment."""
    if opened := st.session_state.pop(_OPENED, None):
        title, draw = opened
        st.dialog(title)(_draw)(draw)


def _draw(draw: Callable[[], None]) -> None:
    draw()
    settle()
