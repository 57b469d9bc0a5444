"""The life of a run: its charts, and what their lines and shades mean, in words."""

from functools import partial

import streamlit as st

from workers.connections import database
from workers.monitor.html.formatting import pace
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.readings.cache import shared
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.run_reading import RunSheet
from workers.monitor.sections.life_chart import Life, life
from workers.records import runs
from workers.records.tables import ENDED
from workers.reports.history import history

#: A chart gets a point each two seconds; that of a run that has ended does not change.
_LIFE_SECONDS, _ENDED_SECONDS = 1.9, 60.0
_HEAD = '<div class="sl-life-head"><h3 class="sl-title">{title}</h3><p class="sl-legend">{legend}</p></div>'
_KEY = '<span><i class="sl-swatch sl-swatch-{kind}"></i>{text}</span>'
_NOT_YET = """
<section class="sl-life-empty"><h3 class="sl-title">Pace and progress</h3>
<p class="sl-dim">The charts begin with the run.</p></section>
"""


def draw(life: Life | None) -> None:
    """Draw the charts of a run; in place of them, of one that has not begun, a line that says so."""
    if life is None:
        st.html(fill(_NOT_YET))
        return
    pace_chart, progress_chart = life.charts()
    st.html(_pace_head(life))
    st.vega_lite_chart(pace_chart, width="stretch", key="life_pace", alt="items and requests a second, over its life")
    st.html(_progress_head(life))
    st.vega_lite_chart(progress_chart, width="stretch", key="life_progress", alt="items done, over its life")


def _pace_head(life: Life) -> Html:
    keys = [_key("items", "items/s"), _key("requests", "requests/s"), *_allowed(life)]
    keys += [_key("waited", "kept waiting by its API")] if life.has_waits else []
    keys += [_key("held", "held")] if life.has_held else []
    keys += [_key("refused", "refused (429)")] if life.has_hits else []
    return fill(_HEAD, title="Pace", legend=join(keys))


def _allowed(life: Life) -> list[Html]:
    """Name what the budget allows; where that is far above the chart it has no line there, and says so."""
    if life.allowed is None:
        return []
    said = f"its budget allows {pace(life.allowed)} requests/s ({life.title})"
    return [_key("none", f"{said}, far above") if life.beyond else _key("allowed", said)]


def _progress_head(life: Life) -> Html:
    keys = [_key("items", "items done")]
    keys += [_key("allowed", "as fast as its budget allows")] if life.has_ideal else []
    keys += [_key("failed", "failed")] if life.has_failed else []
    return fill(_HEAD, title="Progress", legend=join(keys))


def _key(kind: str, text: str) -> Html:
    return fill(_KEY, kind=kind, text=text)


def life_of(sheet: RunSheet) -> Life | None:
    """Return what the charts of a run draw; None where it has not begun."""
    run = sheet.run
    ended = run.status in ENDED
    key = ("life", run.id, str(run.status), run.ended_at)
    return shared(key, _ENDED_SECONDS if ended else _LIFE_SECONDS, partial(reading, partial(_read_life, run.id)))


def _read_life(run_id: int) -> Life | None:
    run = runs.get(run_id)
    return life(history(run, database.now()), run.total_count if run.discovered_at else None)
