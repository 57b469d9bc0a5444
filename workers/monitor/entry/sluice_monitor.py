"""What `python -m workers monitor` lets Streamlit serve: the page, behind the wall. Streamlit looks for `st.App`."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from starlette.middleware import Middleware

from workers import log
from workers.messaging import presence, recent_errors
from workers.monitor.access.wall import Wall
from workers.monitor.html.notice import notice
from workers.monitor.serving.routes import ROUTES
from workers.monitor.serving.server import page


def _say(error: Exception) -> bool:
    """Say that there is a fault, and no more. Streamlit's own words would offer to ask others about it."""
    st.html(notice("bad", "alert", "This page has a fault", "The monitor's log says what it is."))
    return True


def _hear_streamlit() -> None:
    """Let what Streamlit logs of a fault go through our log, which takes secrets out."""
    faults = logging.getLogger("streamlit.error_util")
    faults.handlers.clear()
    faults.propagate = True


@asynccontextmanager
async def _present(_: st.App) -> AsyncIterator[None]:
    """Leave word, for as long as the page is served, that this process lives; and what it warns of."""
    with recent_errors.kept("monitor"), presence.present("monitor"):
        yield


log.set_up()
_hear_streamlit()
app = st.App(page(), routes=ROUTES, middleware=[Middleware(Wall)], on_script_error=_say, lifespan=_present)
