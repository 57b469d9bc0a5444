"""The table of sources: recent results of each, the sources whose last run failed first."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.monitor.html import links
from workers.monitor.html.formatting import count, moment
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.section import section
from workers.monitor.html.sparkline import sparkline
from workers.reports.source_stats import SourceStats
from workers.text.durations import duration

#: More sources than this are in a closed section below.
_SHOWN = 8

_TABLE = """
<div class="sl-scroll sl-sources" role="region" aria-label="Sources" tabindex="0"><table class="sl-table">
<thead><tr><th>Source</th><th>Last runs</th><th>Success</th><th>Average duration</th><th>Last success</th>
<th>Next run</th></tr></thead><tbody>{rows}</tbody></table></div>
"""
_ROW = """
<tr id="source-{name}"><td><a href="{href}" data-page title="the runs of {name}">{name}</a></td><td>{spark}</td>
<td>{success}</td><td>{average}</td><td>{last}</td><td>{next}</td></tr>
"""
_MORE = '<details class="sl-more" id="more-sources"><summary>{text}</summary>{table}</details>'


def source_table(sources: Sequence[SourceStats], zone: tzinfo, now: datetime) -> Html:
    """Return the sources, those that need attention first.

    Parameters:
      sources(Sequence[SourceStats]): From `source_stats`.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When they were read.
    """
    rows = [_row(source, zone, now) for source in sorted(sources, key=_urgent_first)]
    first, more = fill(_TABLE, rows=join(rows[:_SHOWN])), rows[_SHOWN:]
    folded = fill(_MORE, text=f"{count(len(more))} more sources", table=fill(_TABLE, rows=join(more))) if more else ""
    return section("Sources", "recent results", fill("{first}{folded}", first=first, folded=folded))


def _urgent_first(source: SourceStats) -> tuple[bool, str]:
    failed = bool(source.runs) and source.runs[-1].label == "failed"
    return not failed, source.source


def _row(source: SourceStats, zone: tzinfo, now: datetime) -> Html:
    return fill(
        _ROW,
        name=source.source,
        href=links.to(links.RUNS, source=source.source),
        spark=sparkline(source.runs) if source.runs else fill('<span class="sl-dim">no finished run yet</span>'),
        success=_success(source),
        average=fill("{d}", d=_dash(source.average_seconds)),
        last=moment(source.last_success_at, zone, now),
        next=moment(source.next_at, zone, now),
    )


def _success(source: SourceStats) -> Html:
    if source.success is None:
        return fill('<span class="sl-dim">–</span>')
    text = f"{source.succeeded} of {source.decided} runs"
    if source.with_failures:
        text += f", {source.with_failures} with failed items"
    tone, shape = _tone(source)
    return fill(
        '<b class="sl-rate sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>{percent} %</b> '
        '<span class="sl-dim">{text}</span>',
        tone=tone,
        shape=shape,
        percent=int(100 * source.success),
        text=text,
    )


def _tone(source: SourceStats) -> tuple[str, str]:
    if source.succeeded < source.decided:
        return ("bad", "cross") if source.runs[-1].label == "failed" else ("warn", "alert")
    return ("warn", "alert") if source.with_failures else ("good", "check")


def _dash(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)
