"""The charts of a run: its rate against the rate that its budget allows, and its progress over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import Any

import altair as alt
import pandas as pd
import pyarrow as pa

from workers.reports.history import History, Point

#: Distinguishable with colour blindness, on light and dark; each line also has its own dash or shape.
ITEMS, REQUESTS, REFUSED, WAITED, CALM = "#2f8fbf", "#b0579f", "#d55e00", "#e3a53a", "#7d8896"

_PACE_PIXELS, _PROGRESS_PIXELS = 210, 150
_PADDING = {"left": 0, "top": 6, "right": 6, "bottom": 0}
#: An allowed rate that is this many times the highest measured one is not drawn, but named in the legend.
_FAR_ABOVE = 4.0
#: The least top of the axis, so that one item a second does not fill the chart.
_LEAST_TOP = 2.0
_SHOWN = alt.Opacity("shown:Q", scale=None)
_UTC = "utcFormat(datum.at, '%d %b %H:%M:%S')"
#: Of the same width in both charts, so that their times are aligned.
_AXIS = {"title": None, "domain": False, "ticks": False, "minExtent": 40}


@dataclass(frozen=True)
class Charts:
    """The data of both charts.

    Attributes:
      pace, progress: A row for each sample; `pauses`; rule: the allowed rate. None is empty: rows that are not
        `shown` avoid the browser's warning about a scale without data.
      axis: The format of times below the charts.
      allowed: The requests a second that the budget allows; None where it is unknown. `title` names the limit.
      beyond: Whether `allowed` is too far above the measured rates to be drawn.
      has_pauses, has_hits, has_waits, has_failed, has_ideal: Whether there are any to draw.
    """

    pace: pd.DataFrame
    progress: pd.DataFrame
    pauses: pd.DataFrame
    rule: pd.DataFrame
    axis: str
    allowed: float | None
    title: str
    beyond: bool
    has_pauses: bool
    has_hits: bool
    has_waits: bool
    has_failed: bool
    has_ideal: bool

    def specifications(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return both charts, each with its data."""
        pace, progress, pauses, rule = self._packed
        return (
            pace_chart(self.axis) | {"datasets": {"pace": pace, "pauses": pauses, "rule": rule}},
            progress_chart(self.axis) | {"datasets": {"progress": progress, "pauses": pauses}},
        )

    @cached_property
    def _packed(self) -> tuple[bytes, ...]:
        """The frames as Arrow streams: Streamlit would pack them again for each session, at each tick."""
        return tuple(_pack(frame) for frame in (self.pace, self.progress, self.pauses, self.rule))


def charts_of(past: History, total: int | None) -> Charts | None:
    """Return the data of a run's charts; None where it has no samples yet.

    Parameters:
      past(History): Its samples.
      total(int | None): How many items it has; None while the list is being read.
    """
    if not past.points:
        return None
    allowed = _finite(past.theoretical_per_second)
    top = max(_LEAST_TOP, *(max(p.items_per_second, p.requests_per_second) for p in past.points))
    beyond = allowed is not None and allowed > _FAR_ABOVE * top
    drawn = 0.0 if allowed is None or beyond else allowed
    return Charts(
        pace=_pace(past),
        progress=_progress(past, total),
        pauses=_pauses(past),
        rule=pd.DataFrame({"allowed": [drawn], "shown": [min(1.0, drawn)]}),
        axis=_axis((past.end - past.begin).total_seconds()),
        allowed=allowed,
        title=past.theoretical_title,
        beyond=beyond,
        has_pauses=bool(past.pauses),
        has_hits=any(point.hits for point in past.points),
        has_waits=any(point.waiting_share > 0 for point in past.points),
        has_failed=any(point.failed for point in past.points),
        has_ideal=allowed is not None and total is not None,
    )


# --- the data ---------------------------------------------------------------------------------------------------------


def _pace(past: History) -> pd.DataFrame:
    points = past.points
    return pd.DataFrame(
        {
            "at": _times(past),
            "seconds": _floats([0.0, *(point.seconds for point in points)]),
            "items": _floats([points[0].items_per_second, *(point.items_per_second for point in points)]),
            "requests": _floats([points[0].requests_per_second, *(point.requests_per_second for point in points)]),
            "waiting": _floats([0.0, *(point.waiting_share for point in points)]),
            "hits": pd.Series([0, *(point.hits for point in points)], dtype="int32"),
            "room": _floats([_LEAST_TOP, *(0.0 for _ in points)]),
        }
    )


def _progress(past: History, total: int | None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "at": _times(past),
            "seconds": _floats([0.0, *(point.seconds for point in past.points)]),
            "done": pd.Series([0, *(point.done for point in past.points)], dtype="int32"),
            "failed": pd.Series([0, *(point.failed for point in past.points)], dtype="int32"),
            "ideal": _floats(_ideal(past, total)),
            "room": _floats([float(total or 1), *(0.0 for _ in past.points)]),
        }
    )


def _pauses(past: History) -> pd.DataFrame:
    edges = [(past.begin, past.begin), *((span.begin, span.end) for span in past.pauses)]
    begins, ends = zip(*edges, strict=True)
    return pd.DataFrame(
        {
            "begin": pd.to_datetime(begins, utc=True),
            "end": pd.to_datetime(ends, utc=True),
            "shown": [0.0] + [1.0] * len(past.pauses),
        }
    )


def _times(past: History) -> Any:
    first = past.points[0]
    return pd.to_datetime([first.at - timedelta(seconds=first.seconds), *(point.at for point in past.points)], utc=True)


def _floats(values: Sequence[float | None]) -> "pd.Series[float]":
    return pd.Series(values, dtype="float32")


def _ideal(past: History, total: int | None) -> list[float | None]:
    """Return the progress at the allowed rate, without the time of pauses."""
    allowed = _finite(past.theoretical_per_second)
    if allowed is None or total is None:
        return [0.0] + [None] * len(past.points)
    done, line = 0.0, [0.0]
    for point in past.points:
        done += 0.0 if _was_paused(point, past) else allowed * point.seconds
        line.append(min(done, float(total)))
    return list(line)


def _finite(per_second: float | None) -> float | None:
    return per_second if per_second is not None and math.isfinite(per_second) else None


def _was_paused(point: Point, past: History) -> bool:
    middle = point.at - timedelta(seconds=point.seconds / 2)
    return any(span.begin <= middle <= span.end for span in past.pauses)


def _axis(seconds: float) -> str:
    """Return the format of times: with seconds for a short run, with the day for a long one."""
    if seconds < 1200:
        return "%H:%M:%S"
    return "%H:%M" if seconds < 86_400 else "%d %b %H:%M"


def _pack(frame: pd.DataFrame) -> bytes:
    """Return a frame as an Arrow stream."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


# --- the charts -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=3)
def pace_chart(axis: str) -> dict[str, Any]:
    """Return the specification of the rate chart. It is made once, because only its data changes: no flicker.

    Parameters:
      axis(str): The format of times.
    """
    base = alt.Chart(alt.NamedData("pace")).transform_calculate(utc=_UTC, begin="datum.at - 1000 * datum.seconds")
    x = _x(axis)
    y = alt.Y("items:Q", scale=alt.Scale(zero=True, nice=4), axis=alt.Axis(tickCount=4, **_AXIS))
    waits = _spans(base, WAITED).encode(
        opacity=alt.Opacity("waiting:Q", scale=alt.Scale(domain=[0, 1], range=[0.0, 0.22]), legend=None)
    )
    items = base.mark_area(interpolate="step-before", color=ITEMS, fillOpacity=0.16, line={"color": ITEMS, "size": 2})
    requests = base.mark_line(interpolate="step-before", color=REQUESTS, strokeDash=[4, 3], size=1.5)
    rule = alt.Chart(alt.NamedData("rule")).mark_rule(color=CALM, strokeDash=[9, 4], size=1.5)
    hits = base.transform_calculate(shown="datum.hits > 0 ? 1 : 0").mark_point(
        shape="triangle-down", filled=True, size=90, color=REFUSED, yOffset=6
    )
    return _drawn(
        _PACE_PIXELS,
        *_pause_marks(),
        _room(base),
        waits,
        items.encode(x=x, y=y),
        requests.encode(x=x, y=_figure("requests")),
        rule.encode(y=_figure("allowed"), opacity=_SHOWN),
        hits.encode(x=x, y=alt.value(0), opacity=_SHOWN),
        _tips(base, ("items:Q", ".1f", "items/s"), ("requests:Q", ".1f", "requests/s"), _WAITING, _HITS),
    )


@lru_cache(maxsize=3)
def progress_chart(axis: str) -> dict[str, Any]:
    """Return the specification of the progress chart. Parameters as for `pace_chart`."""
    base = alt.Chart(alt.NamedData("progress")).transform_calculate(utc=_UTC, begin="datum.at - 1000 * datum.seconds")
    x = _x(axis)
    short = {"format": "~s", "labelExpr": "datum.value ? datum.label : '0'"}
    y = alt.Y("done:Q", scale=alt.Scale(zero=True, nice=4), axis=alt.Axis(tickCount=4, tickMinStep=1, **short, **_AXIS))
    done = base.mark_area(color=ITEMS, fillOpacity=0.16, line={"color": ITEMS, "size": 2})
    ideal = base.mark_line(color=CALM, strokeDash=[9, 4], size=1.5)
    failed = base.transform_calculate(line="datum.failed > 0 || !datum.seconds ? datum.failed : null").mark_line(
        color=REFUSED, strokeDash=[2, 2], size=2
    )
    return _drawn(
        _PROGRESS_PIXELS,
        *_pause_marks(),
        _room(base),
        done.encode(x=x, y=y),
        ideal.encode(x=x, y=_figure("ideal")),
        failed.encode(x=x, y=_figure("line")),
        _tips(base, ("done:Q", ",d", "items done"), ("failed:Q", ",d", "items failed"), _IDEAL),
    )


def _x(axis: str) -> alt.X:
    return alt.X("at:T", axis=alt.Axis(format=axis, tickCount=6, grid=False, labelFlush=True, title=None))


def _time(field: str) -> alt.X:
    return alt.X(f"{field}:T", title=None)


def _room(base: alt.Chart) -> alt.Chart:
    """Give the axis its least height, by invisible points."""
    return base.mark_point(opacity=0).encode(y=_figure("room"))


def _figure(field: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=None)


def _spans(base: alt.Chart, color: str) -> alt.Chart:
    """Draw each row as a rectangle over its time span and the full height."""
    return base.mark_rect(color=color).encode(x=_time("begin"), x2="at:T", y=alt.value(0), y2=alt.value("height"))


def _pause_marks() -> tuple[alt.Chart, alt.Chart]:
    """Draw the pauses: with a frame and a word, because a shade alone explains nothing."""
    base = alt.Chart(alt.NamedData("pauses"))
    area = base.mark_rect(color=CALM, fillOpacity=0.14, stroke=CALM, strokeDash=[3, 3], strokeOpacity=0.7)
    name = base.transform_calculate(middle="(+datum.begin + +datum.end) / 2").mark_text(
        text="paused", color=CALM, fontSize=11, baseline="top", dy=4
    )
    return (
        area.encode(x=_time("begin"), x2="end:T", y=alt.value(0), y2=alt.value("height"), opacity=_SHOWN),
        name.encode(x=_time("middle"), y=alt.value(0), opacity=_SHOWN),
    )


_WAITING = ("waiting:Q", ".0%", "waiting for the API")
_HITS = ("hits:Q", "d", "refused (429)")
_IDEAL = ("ideal:Q", ",.0f", "at the allowed rate")


def _tips(base: alt.Chart, *figures: tuple[str, str, str]) -> alt.Chart:
    """Return the tooltip of the span under the pointer."""
    values = [alt.Tooltip(field, format=form, title=title) for field, form, title in figures]
    return _spans(base, CALM).encode(opacity=alt.value(0), tooltip=[*_when(), *values])


def _when() -> list[alt.Tooltip]:
    return [alt.Tooltip("at:T", format="%d %b %H:%M:%S", title="at"), alt.Tooltip("utc:N", title="UTC")]


def _drawn(height: int, *layers: alt.Chart) -> dict[str, Any]:
    chart = alt.layer(*layers).properties(height=height, background="transparent", padding=_PADDING)
    spec: dict[str, Any] = chart.to_dict()
    return spec
