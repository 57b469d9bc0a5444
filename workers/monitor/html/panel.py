"""HTML that is updated in place: selected text, scroll positions and opened sections of the viewer stay as they are."""

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
    """Send the browser the code that panels share. Call it once for each full drawing of the page."""
    _morph(key="sluice_morph", height=1)


def panel(html: Html, key: str) -> str:
    """Draw HTML. In a fragment, call it each time with the same key: the browser then changes only what differs.

    A link to another page, `<a href="run?id=12" data-page>`, opens it without a full load. A button, see `button`,
    draws the page, or the fragment, again. Elements with an `id` keep their state when others appear or disappear
    before them: give rows an `id`.

    Parameters:
      html(Html): From `markup.fill`: values in it are escaped.
      key(str): Its name, unique on the page.

    Returns:
      str: The name of the button that was pressed just now; empty where none was. The browser sends it, so it can be
        any text.
    """
    pressed = _panel(key=key, data=_packed(html), on_press_change=_ignored).press
    return pressed if isinstance(pressed, str) else ""


@lru_cache(maxsize=32)
def _packed(html: Html) -> bytes:
    """Compress HTML, once for all viewers of the same page: a tenth of it is sent each second."""
    return zlib.compress(html.encode(), level=1)


def _ignored() -> None:
    """Do nothing: a component sends only the events that have a callback."""
