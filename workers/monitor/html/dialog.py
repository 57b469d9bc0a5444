"""Opens a modal dialog over the page, one at a time.

It is drawn beside the live part of a page and never in it. Of the fragments that wait at the same moment Streamlit runs
only the outermost: a dialog in the live part would lose each press that meets a tick.
"""

from collections.abc import Callable

import streamlit as st

from workers.monitor.html.flush_delay import wait_for_flush

_OPENED = "sluice_dialog"


def open_dialog(title: str, draw: Callable[[], None]) -> None:
    """Open it: the current drawing stops, and the page is drawn again with the dialog.

    Parameters:
      title(str): Its title. It is Markdown: nothing from the database stands in it but numbers.
      draw(Callable[[], None]): Draws its content, each time something in it is pressed or changed.
    """
    st.session_state[_OPENED] = (title, draw)
    st.rerun()


def draw_opened() -> None:
    """Draw the dialog that was opened, if there is one. Call it outside of every fragment."""
    if opened := st.session_state.pop(_OPENED, None):
        title, draw = opened
        st.dialog(title)(_draw)(draw)


def _draw(draw: Callable[[], None]) -> None:
    draw()
    wait_for_flush()
