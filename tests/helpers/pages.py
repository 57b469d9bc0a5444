"""Draw a page of the monitor with Streamlit's own test double, press its buttons and read its text."""

import json
import re
import zlib
from typing import Any

from streamlit.components.v2.bidi_component.main import _make_trigger_id
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from tests.helpers.machine import ROOT
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
    """Send what a browser sends when a button in the page's panel is pressed. A forged one need not be there."""
    assert forged or f'data-press="{name}"' in html(test), f"no such button: {name}"
    (page_panel,) = {
        element.proto.id for element in test.get("bidi_component") if element.proto.id.endswith("-page_panel")
    }
    states = test._tree.get_widget_states()
    pressed = json.dumps([{"event": "press", "value": name}])
    states.widgets.append(WidgetState(id=_make_trigger_id(page_panel, "events"), json_trigger_value=pressed))
    return test._run(states)


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
