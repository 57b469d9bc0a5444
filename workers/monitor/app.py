"""The app: its pages, and what they share. A project's monitor_app.py shows it, and is nothing else."""

from functools import lru_cache
from pathlib import Path

import streamlit as st

from workers.monitor import access, budgets_page, links, panel, run_page, runs_page, schedule_page, system_page
from workers.monitor.settling import settle

_HERE = Path(__file__).parent


def show() -> None:
    """Draw the page that the browser asks for."""
    st.set_page_config(page_icon="🌊", layout="wide")
    st.html(_style())
    st.logo(str(_HERE / "logo.svg"), size="large")
    access.guard()
    panel.prepare()
    if sign := access.sign():
        panel.panel(sign, key="sign")
    pages = [
        st.Page(runs_page.show, title="Runs", default=True),
        st.Page(run_page.show, title="Run", url_path=links.RUN, visibility="hidden"),
        st.Page(schedule_page.show, title="Schedule", url_path=links.SCHEDULE),
        st.Page(budgets_page.show, title="Budgets", url_path=links.BUDGETS),
        st.Page(system_page.show, title="System", url_path=links.SYSTEM),
    ]
    st.navigation(pages, position="top").run()
    settle()


@lru_cache(maxsize=1)
def _style() -> str:
    files = sorted((_HERE / "css").glob("*.css"))
    return f"<style>{''.join(file.read_text(encoding='utf-8') for file in files)}</style>"
