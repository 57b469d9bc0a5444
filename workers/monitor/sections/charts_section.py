"""The charts of a run's page, with their legends."""

from functools import partial

import streamlit as st

from workers.connections import database
from workers.monitor.html.formatting import pace
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.readings.cache import cached
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.run_reading import RunReading
from workers.monitor.sections.run_charts import Charts, charts_of
from workers.records import runs
from workers.records.tables import ENDED
from workers.reports.history import history

#: A chart gets a point every two seconds; the charts of a run that has ended do not change.
_LIFE_SECONDS, _ENDED_SECONDS = 1.9, 60.0
_HEAD = '<div class="sl-life-head"><h3 class="sl-title">{title}</h3><p class="sl-legend">{legend}</p></div>'
_KEY = '<span><i class="sl-swatch sl-swatch-{kind}"></i>{text}</span>'
_NOT_YET = """
<section class="sl-life-empty"><h3 class="sl-title">Rate and progress</h3>
<p class="sl-dim">The charts appear when the run starts.</p></section>
"""


def draw(charts: Charts | None) -> None:
    """Draw the charts of a run; for a run that has not started, a line that says so."""
    if charts is None:
        st.html(fill(_NOT_YET))
        return
    pace_chart, progress_chart = charts.specifications()
    st.html(_pace_head(charts))
    st.vega_lite_chart(pace_chart, width="stretch", key="life_pace", alt="items and requests a second, over the run")
    st.html(_progress_head(charts))
    st.vega_lite_chart(progress_chart, width="stretch", key="life_progress", alt="items done, over the run")


def _pace_head(charts: Charts) -> Html:
    keys = [_key("items", "items/s"), _key("requests", "requests/s"), *_allowed(charts)]
    keys += [_key("waited", "waiting for the API")] if charts.has_waits else []
    keys += [_key("paused", "paused")] if charts.has_pauses else []
    keys += [_key("refused", "refused (429)")] if charts.has_hits else []
    return fill(_HEAD, title="Rate", legend=join(keys))


def _allowed(charts: Charts) -> list[Html]:
    """Return the legend of the allowed rate; a rate far above the chart has no line."""
    if charts.allowed is None:
        return []
    text = f"budget allows {pace(charts.allowed)} requests/s ({charts.title})"
    return [_key("none", f"{text}, far above") if charts.beyond else _key("allowed", text)]


def _progress_head(charts: Charts) -> Html:
    keys = [_key("items", "items done")]
    keys += [_key("allowed", "at the allowed rate")] if charts.has_ideal else []
    keys += [_key("failed", "failed")] if charts.has_failed else []
    return fill(_HEAD, title="Progress", legend=join(keys))


def _key(kind: str, text: str) -> Html:
    return fill(_KEY, kind=kind, text=text)


def read_charts(reading: RunReading) -> Charts | None:
    """Return the data of a run's charts; None where it has not started."""
    run = reading.run
    ended = run.status in ENDED
    key = ("life", run.id, str(run.status), run.ended_at)
    return cached(key, _ENDED_SECONDS if ended else _LIFE_SECONDS, partial(read_database, partial(_read, run.id)))


def _read(run_id: int) -> Charts | None:
    run = runs.get(run_id)
    return charts_of(history(run, database.now()), run.total_count if run.discovered_at else None)
