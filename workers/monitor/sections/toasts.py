"""Shows a toast for each run that has ended since this browser session last checked."""

from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import streamlit as st

from workers.connections import database
from workers.monitor.html.formatting import count
from workers.monitor.html.markdown import plain
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.unreadable import Unreadable
from workers.records import runs
from workers.records.tables import Run, RunStatus

_SEEN = "sluice_ended"
#: How long after its end a run is reported: a page in the background is drawn less often.
_RECENT = timedelta(minutes=2)
_MOST = 50


def show_new() -> None:
    """Show a toast for each run that has ended since this session last checked."""
    with suppress(Unreadable):  # a page that needs the database shows that; the others do not need it
        ended = recently_ended()
        before = st.session_state.get(_SEEN, ended.keys())
        st.session_state[_SEEN] = set(ended)
        for end in sorted(ended.keys() - before):
            st.toast(_text(ended[end]), icon=_icon(ended[end]))


def recently_ended() -> dict[tuple[datetime, int], Run]:
    """Return the runs that have just ended, by when and which: a run that is retried ends twice."""
    return cached("recently ended", EACH_TICK_SECONDS, partial(read_database, _ended))


def _ended() -> dict[tuple[datetime, int], Run]:
    ended = runs.ended_since(database.now() - _RECENT, _MOST)
    return {(run.ended_at, run.id): run for run in ended}


def _text(run: Run) -> str:
    name = f"Run {run.id} of {plain(run.source)}"
    if run.status == RunStatus.FAILED:
        return f"{name} failed"
    if run.status == RunStatus.CANCELLED:
        return f"{name} was cancelled"
    if run.failed_count:
        return f"{name} completed with failures: {count(run.failed_count)} of {count(run.total_count)} items"
    return f"{name} completed: {count(run.total_count)} items"


def _icon(run: Run) -> str:
    if run.status == RunStatus.CANCELLED:
        return ":material/stop_circle:"
    if run.status == RunStatus.FAILED:
        return ":material/error:"
    return ":material/warning:" if run.failed_count else ":material/check_circle:"
