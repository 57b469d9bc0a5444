"""The chart: items finished in each of the last 120 seconds of a run."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import altair as alt
import pandas as pd

SECONDS = 120
_HEIGHT_PIXELS = 170
_PADDING = {"left": 0, "top": 4, "right": 4, "bottom": 0}
_COLOR = "#2f8fbf"
#: The axis never shrinks below this, so that one item a second does not look like a flood.
_LEAST_TOP = 5


@lru_cache(maxsize=1)
def pace_chart() -> dict[str, Any]:
    """Return the chart, as a specification: made once, for only its data moves. That is quick, and does not flicker."""
    base = alt.Chart(alt.NamedData("pace"))
    x = alt.X("second:T", axis=alt.Axis(title=None, format="%H:%M:%S", tickCount=6, grid=False, labelFlush=True))
    y = alt.Y(
        "items:Q",
        scale=alt.Scale(zero=True, nice=4),
        axis=alt.Axis(title=None, tickCount=4, tickMinStep=1, domain=False),
    )
    tips = [alt.Tooltip("second:T", format="%H:%M:%S", title="at"), alt.Tooltip("items:Q", title="items")]
    bars = base.mark_rect(color=_COLOR).encode(x=x, x2="until:T", y=y, y2=alt.Y2("floor:Q"), tooltip=tips)
    room = base.mark_point(opacity=0).encode(x=x, y="room:Q")
    chart = alt.layer(room, bars).properties(height=_HEIGHT_PIXELS, background="transparent", padding=_PADDING)
    spec: dict[str, Any] = chart.to_dict()
    return spec


def pace_data(points: Sequence[tuple[datetime, int]], end: datetime) -> pd.DataFrame:
    """Return one row for each second, also for those before the run: the axes then stand still.

    Parameters:
      points(Sequence[tuple[datetime, int]]): From `stats.finished_per_second`.
      end(datetime): The right edge: the last whole second shown.
    """
    counted = dict(points)
    last = end.replace(microsecond=0)
    seconds = [last - timedelta(seconds=SECONDS - 1 - n) for n in range(SECONDS)]
    items = [counted.get(second, 0) for second in seconds]
    return pd.DataFrame(
        {
            "second": seconds,
            "until": [second + timedelta(milliseconds=850) for second in seconds],
            "items": items,
            "floor": [0] * SECONDS,
            "room": [max(_LEAST_TOP, *items)] + [0] * (SECONDS - 1),
        }
    )
