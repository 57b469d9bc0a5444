"""News: a toast for each run that has ended since the page last looked."""

from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import streamlit as st

from workers.connections import database
from workers.monitor.actions.confirm import plain
from workers.monitor.html.formatting import count
from workers.monitor.readings.cache import EACH_TICK_SECONDS, shared
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.unavailable import Unreadable
from workers.records import runs
from workers.records.tables import Run, RunStatus

_SEEN = "sluice_ended"
#: A page in the background is drawn less often: so long an end is news.
_NEWS = timedelta(minutes=2)
_MOST = 50


def tell() -> None:
    """Show a toast for each run that has ended since this session last looked."""
    with suppress(Unreadable):  # a page that needs the database says so; the others do without
        ended = lately()
        before = st.session_state.get(_SEEN, ended.keys())
        st.session_state[_SEEN] = set(ended)
        for end in sorted(ended.keys() - before):
            st.toast(_said(ended[end]), icon=_icon(ended[end]))


def lately() -> dict[tuple[datetime, int], Run]:
    """Return the runs that have just ended, by when and which: a run that is tried again may end twice."""
    return shared("ended lately", EACH_TICK_SECONDS, partial(reading, _ended))


def _ended() -> dict[tuple[datetime, int], Run]:
    found = runs.ended_since(database.now() - _NEWS, _MOST)
    return {(run.ended_at, run.id): run for run in found}


def _said(run: Run) -> str:
    name = f"Run {run.id} of {plain(run.source)}"
    if run.status == RunStatus.FAILED:
        return f"{name} failed"
    if run.status == RunStatus.CANCELLED:
        return f"{name} was called off"
    if run.failed_count:
        return f"{name} is done: {count(run.failed_count)} of {count(run.total_count)} items failed"
    return f"{name} is done: {count(run.total_count)} items"


def _icon(run: Run) -> str:
    if run.status == RunStatus.CANCELLED:
        return ":material/stop_circle:"
    if run.status == RunStatus.FAILED:
        return ":material/error:"
    return ":material/warning:" if run.failed_count else ":material/check_circle:"
