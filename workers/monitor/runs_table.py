"""The runs table: the recent runs, one a row. HTML, so that it can be read aloud, selected and searched."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.monitor.badge import badge
from workers.monitor.bar import bar
from workers.monitor.markup import Html, fill, join
from workers.monitor.words import counts, duration, moment, waits
from workers.stats import RunStats
from workers.tables import RunStatus

_TABLE = """
<h3 class="sl-title">Recent runs</h3>
<div class="sl-scroll"><table class="sl-table">
<thead><tr><th>Run</th><th>Status</th><th>Source</th><th>Progress</th><th>Duration</th><th>Hits, sleeps</th>
<th>Started</th><th>Note</th></tr></thead>
<tbody>{rows}</tbody></table></div>
"""

_ROW = """
<tr data-run="{id}"><td class="sl-dim">{id}</td><td>{badge}</td><td>{source}</td>
<td class="sl-wide">{progress}</td><td>{took}</td>
<td>{hits}<span class="sl-sub">{sleeps}</span></td><td>{started}</td>
<td class="sl-text"><div title="{note}">{note}</div></td></tr>
"""


def runs_table(found: Sequence[RunStats], zone: tzinfo, now: datetime) -> Html:
    """Return the table of runs, in the order given. Parameters as for `run_card`."""
    return fill(_TABLE, rows=join(_row(run, zone, now) for run in found))


def _row(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    hits, sleeps = waits(run).split(" · ")
    return fill(
        _ROW,
        id=run.id,
        badge=badge(run.label),
        source=f"{run.source} / {run.tenant}" if run.tenant else run.source,
        progress=_progress(run),
        took=_took(run),
        hits=hits if run.started_at else "",
        sleeps=sleeps if run.started_at else "",
        started=_started(run, zone, now),
        note=_note(run),
    )


def _progress(run: RunStats) -> Html:
    if run.started_at is None:
        return fill('<span class="sl-dim">not started</span>')
    percent = "" if run.percent is None else f"{run.percent} %"
    return fill(
        '<div class="sl-mini">{bar}<b>{percent}</b></div><span class="sl-sub">{counts}</span>',
        bar=bar(run),
        percent=percent,
        counts=_short(run),
    )


def _short(run: RunStats) -> str:
    """Return the counts without those that are 0."""
    return " · ".join(part for part in counts(run).split(" · ") if not part.startswith("0 ") or " of " in part)


def _took(run: RunStats) -> Html:
    if run.started_at is None:
        return fill("")
    return fill(
        '{whole}<span class="sl-sub">{active} active · {waiting} waiting</span>',
        whole=duration(run.duration_seconds),
        active=duration(run.active_seconds),
        waiting=duration(run.waiting_seconds),
    )


def _started(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    if run.started_at is None and run.scheduled_at:
        return fill('<span class="sl-sub">due</span>{at}', at=moment(run.scheduled_at, zone, now))
    return moment(run.started_at, zone, now)


def _note(run: RunStats) -> str:
    if run.status == RunStatus.SCHEDULED:
        return ""
    return "; ".join(text for text in (run.why or run.error_summary, run.slowed) if text)
