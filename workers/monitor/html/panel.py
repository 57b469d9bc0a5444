"""A panel: HTML on the page that changes in place, so that nobody loses what they have selected, scrolled or opened."""

import zlib
from functools import lru_cache
from pathlib import Path

from streamlit.components import v2

from workers.monitor.html.markup import Html

_JS = Path(__file__).parents[1] / "js"

_panel = v2.component("sluice.panel", js=(_JS / "panel.js").read_text(encoding="utf-8"), isolate_styles=False)
_morph = v2.component(
    "sluice.morph",
    js="".join((_JS / f"{name}.js").read_text(encoding="utf-8") for name in ("idiomorph", "liveness", "morph")),
)


def prepare() -> None:
    """Give the browser what panels need. Called once each time the page is drawn as a whole."""
    _morph(key="sluice_morph", height=1)


def panel(html: Html, key: str) -> str:
    """Draw HTML. In a fragment, call it each time with the same key: only what has changed is then touched.

    A link in it to a page of ours, `<a href="run?id=12" data-page>`, opens it without loading everything anew. A button
    in it, see `button`, has the page, or the fragment, drawn again. Elements that have an `id` are found again by it
    when others come or go before them: give rows one.

    Parameters:
      html(Html): From `markup.fill`: values in it are escaped.
      key(str): Its name, unique on the page.

    Returns:
      str: The name of the button in it that was pressed just now; empty where none was. It comes from the browser, and
        may be anything.
    """
    pressed = _panel(key=key, data=_packed(html), on_press_change=_heard).press
    return pressed if isinstance(pressed, str) else ""


@lru_cache(maxsize=32)
def _packed(html: Html) -> bytes:
    """Pack HTML, once for all who look at the same page: a tenth of it is sent each second."""
    return zlib.compress(html.encode(), level=1)


def _heard() -> None:
    """Do nothing: a component tells only what somebody asks for."""
