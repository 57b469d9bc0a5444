"""Drawing a page of the monitor with Streamlit's own test double, and reading what it says."""

import json
import re

from conftest import ROOT
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from workers.monitor import shared


def draw(page: str = "", **query: str) -> AppTest:
    """Draw a page anew, as for another visitor.

    Parameters:
      page(str): Its address: "" for the first one, "run", "schedule".
      query(str): What stands behind the question mark.
    """
    shared.forget()
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
    shared.forget()
    test.run()
    assert not test.exception, test.exception
    return test


def html(test: AppTest) -> str:
    """Return the HTML of all panels, and of what else was drawn as HTML."""
    panels = [json.loads(element.proto.json) for element in test.get("bidi_component") if element.proto.json]
    return "\n".join([*panels, *(part.proto.body for part in test.get("html") if "<style>" not in part.proto.body)])


def text(test: AppTest) -> str:
    """Return what a reader would read."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html(test)))
