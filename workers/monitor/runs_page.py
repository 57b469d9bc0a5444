"""The first page: the form, and below it the part that draws itself anew each second."""

from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import streamlit as st

from workers.monitor import run_form
from workers.monitor.chart import pace_chart, pace_data
from workers.monitor.complaint import complain
from workers.monitor.markup import Html, fill, join, prose
from workers.monitor.reading import Reading, Unreadable, read
from workers.monitor.run_card import run_card
from workers.monitor.runs_table import runs_table
from workers.monitor.words import pace
from workers.redis_words import AWAY, Trouble
from workers.stats import RunStats
from workers.tables import RunStatus

_STYLE = Path(__file__).parent / "style.css"
_TITLE = '<div class="sl-top"><h1><i class="sl-logo"></i>Sluice</h1><p class="sl-state">{state}</p></div>'
_NOTICE = """
<section class="sl-notice sl-{tone}" role="status"><i class="sl-icon sl-i-{shape}"></i>
<div><h2>{what}</h2><p>{text}</p></div></section>
"""
_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-gate"></i><h2>Nothing has been imported yet</h2>
<p>Choose a source above and press <b>Import now</b>, or type <code>python -m workers run</code>.</p>
<p class="sl-dim">You will see it here, second by second: how far it is, how fast, and what it waits for.</p></section>
"""


def show() -> None:
    """Draw the page."""
    st.set_page_config(page_title="Sluice", page_icon="🌊", layout="wide")
    st.html(_STYLE)
    title = st.empty()
    run_form.draw(_zone())
    _live(title)


@st.fragment(run_every=1)  # type: ignore[untyped-decorator]
def _live(title: "st.delta_generator.DeltaGenerator") -> None:
    """Draw what changes by itself. A tick must stay far below a second: nothing here scans a run's items."""
    try:
        reading = read()
        _draw(reading, title)
    except Unreadable as error:
        title.html(fill(_TITLE, state="cannot see the runs"))
        st.html(_notice(error.tone, "alert", error.what, error.repair))
    except Exception as error:  # whatever it is, its traceback is for the log
        complain("the page could not be drawn", error, trace=True)
        title.html(fill(_TITLE, state="cannot see the runs"))
        st.html(
            _notice(
                "bad",
                "alert",
                "This page has a fault",
                "It tries again each second; the monitor's log says what it is.",
            )
        )
    if run_form.is_outdated(_zone()):
        st.rerun()


def _draw(reading: Reading, title: "st.delta_generator.DeltaGenerator") -> None:
    title.html(fill(_TITLE, state=_state(reading)))
    zone = _zone()
    if reading.redis_trouble:
        st.html(_redis_notice(reading.redis_trouble))
    if not reading.runs:
        st.html(fill(_EMPTY))
        return
    if reading.shown:
        st.html(join(run_card(run, zone, reading.now) for run in reading.shown))
    else:
        st.html(_notice("plan", "clock", "Nothing has run yet", _next(reading.runs, zone)))
    chart = st.container(border=True, key="pace") if reading.shown else None
    st.html(runs_table(reading.runs, zone, reading.now))
    if chart:  # last, because it takes longest: the figures above and below it then change together
        _draw_chart(reading, chart)


def _draw_chart(reading: Reading, place: "st.delta_generator.DeltaGenerator") -> None:
    run = reading.shown[0]
    when = "its last two minutes" if run.ended_at else "the last two minutes"
    place.html(fill('<h3 class="sl-title">Items per second <span>run {id}, {when}</span></h3>', id=run.id, when=when))
    chart = pace_chart() | {"datasets": {"pace": pace_data(reading.points, reading.chart_end)}}
    place.vega_lite_chart(chart, width="stretch", key="pace_chart")


def _state(reading: Reading) -> Html:
    """Return the page in a line."""
    active = reading.active
    if not active:
        return fill("{what}", what="nothing is running" if reading.runs else "ready for the first import")
    speed = pace(sum(run.per_second for run in active))
    waiting = sum(run.status == RunStatus.PENDING for run in reading.runs)
    behind = f" · {waiting} waiting" if waiting else ""
    runs = "1 run active" if len(active) == 1 else f"{len(active)} runs active"
    return fill('<i class="sl-live"></i>{runs} · {speed} items/s{behind}', runs=runs, speed=speed, behind=behind)


def _next(found: tuple[RunStats, ...], zone: tzinfo) -> str:
    coming = [run for run in found if run.scheduled_at and run.status == RunStatus.SCHEDULED]
    if not coming:
        return "A run is about to start."
    run = min(coming, key=lambda run: run.scheduled_at or run.created_at)
    local = (run.scheduled_at or run.created_at).astimezone(zone)
    return f"Next: run {run.id} of {run.source}, {local:%Y-%m-%d %H:%M %Z}."


def _redis_notice(trouble: Trouble) -> Html:
    start = "`python -m workers redis` starts one" if trouble.what == AWAY else f"To do: {trouble.repair}"
    return _notice("warn", "alert", trouble.what, f"Nothing is sent to an API, and nothing is lost. {start}.")


def _notice(tone: str, shape: str, what: str, text: str) -> Html:
    return fill(_NOTICE, tone=tone, shape=shape, what=what, text=prose(text))


def _zone() -> tzinfo:
    """Return the viewer's time zone. Its name comes from the browser and may be anything."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ValueError, KeyError, OSError):
        return UTC
