"""The runs table of the first page: one run a row, newest first, as HTML that can be searched and read aloud."""

from collections.abc import Iterable, Sequence
from datetime import datetime, time, tzinfo
from functools import lru_cache

from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.bar import bar
from workers.monitor.html.formatting import count, counts, efficiency, measured, moment, pace, plural, sentence, spent
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.sections.timeline import ITSELF, by
from workers.records.tables import RunStatus
from workers.reports.run_stats import RunStats
from workers.text.durations import duration

_TABLE = """
<div class="sl-scroll sl-runs" role="region" aria-label="Runs" tabindex="0"><table class="sl-table">
<thead><tr><th>Run</th><th>Status</th><th>Source</th><th>Scheduled for</th><th>Progress</th><th>Items/s</th>
<th>Ends</th><th>Duration</th><th>Hits (429)</th></tr></thead><tbody>{rows}</tbody></table></div>
"""

_ROW = """
<tr id="run-{id}" data-status="{label}"><td><a href="{href}" data-page aria-label="run {id} of {source}">{id}</a></td>
<td>{badge}</td><td>{source}{tenant}</td><td>{scheduled}</td><td class="sl-wide">{progress}</td><td>{rate}</td>
<td class="sl-text">{end}</td><td>{took}</td><td>{waits}</td></tr>
"""
_SUB = '<span class="sl-sub">{text}</span>'
_DASH = '<span class="sl-dim">–</span>'


def runs_table(runs: Sequence[RunStats], zone: tzinfo, now: datetime) -> Html:
    """Return the table, in the order given; a row links to its run.

    Parameters:
      runs(Sequence[RunStats]): The runs.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When they were read.
    """
    today = datetime.combine(now.astimezone(zone).date(), time(12), zone)
    return fill(_TABLE, rows=join(_row(run, zone, today) for run in runs))


@lru_cache(maxsize=1024)
def _row(run: RunStats, zone: tzinfo, today: datetime) -> Html:
    """Return a row. It is cached: most runs have ended, so that their rows do not change."""
    return fill(
        _ROW,
        id=run.id,
        href=links.to(links.RUN, id=run.id),
        label=run.label,
        badge=badge(run.label),
        source=run.source,
        tenant=_sub(f"for {run.tenant}" if run.tenant else ""),
        scheduled=_scheduled(run, zone, today),
        progress=_progress(run),
        rate=_rate(run),
        end=_end(run, zone, today),
        took=_took(run),
        waits=_waits(run),
    )


def _scheduled(run: RunStats, zone: tzinfo, today: datetime) -> Html:
    if run.scheduled_at:
        return moment(run.scheduled_at, zone, today)
    if run.created_by == ITSELF:
        return fill('<span class="sl-dim">started automatically</span>')
    return fill('<span class="sl-dim">started manually{by}</span>', by=_sub(by(run.created_by)))


def _progress(run: RunStats) -> Html:
    if run.started_at is None:
        return fill('<span class="sl-dim">not started</span>')
    percent = "" if run.percent is None else f"{run.percent} %"
    return fill(
        '<div class="sl-mini">{bar}<b>{percent}</b></div>{counts}',
        bar=bar(run),
        percent=percent,
        counts=_sub(counts(run, zeros=False)),
    )


def _rate(run: RunStats) -> Html:
    if run.started_at is None:
        return fill(_DASH)
    if run.status == RunStatus.PAUSED:
        return fill("paused{before}", before=_sub(f"{pace(run.per_second)} before"))
    return fill("{n}{of}", n=pace(run.per_second), of=_sub(measured(run)))


def _end(run: RunStats, zone: tzinfo, today: datetime) -> Html:
    """Return when the run ended; or its ETA, and what decides it or why it waits."""
    if run.ended_at:
        return join([moment(run.ended_at, zone, today), *_subs([run.error_summary or ""], zone, today)])
    when = fill("in {d}", d=duration(run.eta_seconds)) if run.eta_seconds is not None else fill("")
    why = "" if run.label == RunStatus.SCHEDULED else run.why
    notes = join(_subs((_decides(run), why, run.slowed), zone, today))
    return join([when, notes]) if when or notes else fill(_DASH)


def _subs(texts: Iterable[str], zone: tzinfo, today: datetime) -> list[Html]:
    return [fill(_SUB, text=sentence(text, zone, today)) for text in texts if text]


def _decides(run: RunStats) -> str:
    """Return what decides when a run ends; nothing where it waits for that window, which is shown already."""
    return "" if run.eta_window and run.eta_window == run.why_window else run.eta_why


def _took(run: RunStats) -> Html:
    if run.started_at is None:
        return fill(_DASH)
    whole = max(run.duration_seconds, 0.001)
    return fill(
        '{d}<span class="sl-split"><i style="width:{active}%"></i><b style="width:{waiting}%"></b>'
        '<u style="width:{paused}%"></u></span>{parts}',
        d=duration(run.duration_seconds),
        active=round(100 * run.active_seconds / whole, 1),
        waiting=round(100 * run.waiting_seconds / whole, 1),
        paused=round(100 * (run.idle_seconds + run.held_seconds) / whole, 1),
        parts=_sub(spent(run)),
    )


def _waits(run: RunStats) -> Html:
    if run.started_at is None:
        return fill(_DASH)
    return fill(
        "{hits}{waits}{rating}",
        hits=count(run.hits),
        waits=_sub(plural(run.sleeps, "planned wait")),
        rating=_sub(efficiency(run)),
    )


def _sub(text: str) -> Html:
    return fill(_SUB, text=prose(text)) if text else fill("")
