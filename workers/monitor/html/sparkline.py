"""The last runs of a source as small bars: the more items of a run failed, the higher its bar."""

from collections.abc import Sequence
from datetime import UTC

from workers.monitor.html.formatting import count
from workers.monitor.html.markup import Html, fill, join
from workers.reports.labels import WITH_FAILURES
from workers.reports.source_stats import LAST, PastRun

_WIDTH, _STEP, _HEIGHT = 6, 8, 26
#: The height of the bar where no item, some items, or the whole run failed.
_LOW, _SOME, _HIGH = 6, 11, 20

_SVG = '<svg class="sl-spark" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{bars}</svg>'
_BAR = """
<g class="sl-spark-{kind}"><title>{title}</title>
<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="1.5"/>{sign}</g>
"""
#: A sign above the bar, readable without colours: a dot, a cross.
_DOT = '<circle cx="{middle}" cy="{y}" r="1.6"/>'
_CROSS = '<path d="M{left} {top}l4 4m0-4l-4 4"/>'
_KINDS = {"completed": "good", WITH_FAILURES: "warn", "failed": "bad"}


def sparkline(runs: Sequence[PastRun]) -> Html:
    """Return the bars of these runs, the oldest first; the newest is at the right edge."""
    first = LAST - len(runs)
    bars = join(_bar(run, (first + place) * _STEP) for place, run in enumerate(runs))
    return fill(_SVG, width=LAST * _STEP - 2, height=_HEIGHT, label=_summary(runs), bars=bars)


def _bar(run: PastRun, x: int) -> Html:
    height = _bar_height(run)
    top = _HEIGHT - height
    return fill(
        _BAR,
        kind=_KINDS.get(run.label, "calm"),
        title=_title(run),
        x=x,
        y=top,
        width=_WIDTH,
        height=height,
        sign=_sign(run, x, top),
    )


def _bar_height(run: PastRun) -> float:
    if run.label == "failed":
        return _HIGH
    if run.label != WITH_FAILURES:
        return _LOW
    return round(_SOME + (_HIGH - _SOME) * min(1.0, run.failed / max(run.total or 0, 1)), 1)


def _sign(run: PastRun, x: int, top: float) -> Html:
    if run.label == "failed":
        return fill(_CROSS, left=x + 1, top=top - 5)
    if run.label == WITH_FAILURES:
        return fill(_DOT, middle=x + _WIDTH / 2, y=top - 3)
    return fill("")


def _title(run: PastRun) -> str:
    of = f", {count(run.failed)} of {count(run.total)} items failed" if run.failed else ""
    return f"run {run.id}: {run.label}{of}; ended {run.ended_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _summary(runs: Sequence[PastRun]) -> str:
    labels = [run.label for run in runs]
    parts = [f"{labels.count(label)} {label}" for label in dict.fromkeys(labels)]
    return f"the last {len(runs)} runs: {', '.join(parts)}" if runs else "no finished run yet"
