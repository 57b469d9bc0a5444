"""Drawing a page of the monitor with Streamlit's own test double, and reading what it says."""

import re
import zlib
from types import SimpleNamespace
from typing import Any
from unittest import mock

from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from tests.conftest import ROOT
from workers.monitor.html import panel
from workers.monitor.readings import cache


def draw(page: str = "", **query: str) -> AppTest:
    """Draw a page anew, as for another visitor.

    Parameters:
      page(str): Its address: "" for the first one, "run", "schedule".
      query(str): What stands behind the question mark.
    """
    cache.forget()
    test = AppTest.from_file(str(ROOT / "monitor_app.py"), default_timeout=20)
    for name, value in query.items():
        test.query_params[name] = value
    if page:
        test._page_hash = calc_hash(page)  # switch_page knows pages by their files, and ours are functions
    test.run()
    assert not test.exception, test.exception
    return test


def again(test: AppTest) -> AppTest:
    """Draw the page again, as a later tick would."""
    cache.forget()
    test.run()
    assert not test.exception, test.exception
    return test


def press(test: AppTest, name: Any, *, forged: bool = False) -> AppTest:
    """Press a button that stands in a panel: it tells its name, as a browser does. A forged one need not be there."""
    assert forged or f'data-press="{name}"' in html(test), f"no such button: {name}"
    pressed = [name]  # once: the page that opens a dialog is drawn again
    drawn = panel._panel

    def told(*, key: str, **values: Any) -> Any:
        answer = drawn(key=key, **values)
        return SimpleNamespace(press=pressed.pop()) if pressed and key == "page_panel" else answer

    with mock.patch.object(panel, "_panel", told):
        return test.run()


def labels(test: AppTest) -> list[str]:
    """Return what the buttons say, Streamlit's own last."""
    ours = re.findall(r"<button [^>]*>(?:<i [^>]*></i>)?([^<]*)</button>", html(test))
    return [*ours, *(button.label for button in test.button)]


def html(test: AppTest) -> str:
    """Return the HTML of all panels, and of what else was drawn as HTML."""
    packed = [element.proto.bytes for element in test.get("bidi_component")]
    panels = [zlib.decompress(part).decode() for part in packed if part]
    return "\n".join([*panels, *(part.proto.body for part in test.get("html") if "<style>" not in part.proto.body)])


def text(test: AppTest) -> str:
    """Return what a reader would read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html(test)))
