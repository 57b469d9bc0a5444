"""Draws the page that the browser asks for. A project's own monitor_app.py calls `app.show()`."""

from functools import lru_cache
from pathlib import Path

import streamlit as st

from workers.monitor.access import current_user
from workers.monitor.html import links, panel
from workers.monitor.html.flush_delay import wait_for_flush
from workers.monitor.pages import budgets, run, runs, schedules, system

_HERE = Path(__file__).parent


def show() -> None:
    """Draw the page that the browser asks for."""
    st.set_page_config(page_icon="🌊", layout="wide")
    st.html(_style())
    st.logo(str(_HERE / "logo.svg"), size="large")
    current_user.require_access()
    panel.prepare()
    if sign := current_user.log_out_form():
        panel.panel(sign, key="sign")
    pages = [
        st.Page(runs.show, title="Runs", default=True),
        st.Page(run.show, title="Run", url_path=links.RUN, visibility="hidden"),
        st.Page(schedules.show, title="Schedule", url_path=links.SCHEDULE),
        st.Page(budgets.show, title="Budgets", url_path=links.BUDGETS),
        st.Page(system.show, title="System", url_path=links.SYSTEM),
    ]
    st.navigation(pages, position="top").run()
    wait_for_flush()


@lru_cache(maxsize=1)
def _style() -> str:
    files = sorted((_HERE / "css").glob("*.css"))
    return f"<style>{''.join(file.read_text(encoding='utf-8') for file in files)}</style>"
