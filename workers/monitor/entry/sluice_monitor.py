"""The script that `python -m workers monitor` lets Streamlit serve: the page with its access checks, as an `st.App`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from starlette.middleware import Middleware

from workers import log
from workers.messaging import process_heartbeat, recent_errors
from workers.monitor.access.middleware import AccessMiddleware
from workers.monitor.html.notice import notice
from workers.monitor.serving.routes import ROUTES
from workers.monitor.serving.server import page


def _show_fault(error: Exception) -> bool:
    """Show that there is an error, without details: Streamlit's own message would link to search engines."""
    st.html(notice("bad", "alert", "Error on this page", "Details are in the monitor's log."))
    return True


def _redirect_streamlit_log() -> None:
    """Send Streamlit's log of errors through our log, which masks secrets."""
    faults = logging.getLogger("streamlit.error_util")
    faults.handlers.clear()
    faults.propagate = True


@asynccontextmanager
async def _lifespan(_: st.App) -> AsyncIterator[None]:
    """Send heartbeats and record warnings of this process while the page is served."""
    with recent_errors.kept("monitor"), process_heartbeat.present("monitor"):
        yield


log.set_up()
_redirect_streamlit_log()
app = st.App(
    page(), routes=ROUTES, middleware=[Middleware(AccessMiddleware)], on_script_error=_show_fault, lifespan=_lifespan
)
