"""The runs table: one run a row, the newest first. HTML, so that it can be read aloud, selected and searched."""

from collections.abc import Iterable, Sequence
from datetime import datetime, time, tzinfo
from functools import lru_cache

from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.bar import bar
from workers.monitor.html.formatting import counts, duration, efficiency, measured, moment, pace, sentence, spent, waits
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.sections.timeline import by
from workers.records.tables import RunStatus
from workers.reports.run_stats import RunStats

_TABLE = """
<div class="sl-scroll sl-runs" role="region" aria-label="Runs" tabindex="0"><table class="sl-table">
<thead><tr><th>Run</th><th>Status</th><th>Source</th><th>Scheduled for</th><th>Progress</th><th>Items/s</th>
<th>Ends</th><th>Duration</th><th>Waits</th></tr></thead><tbody>{rows}</tbody></table></div>
"""

_ROW = """
<tr id="run-{id}"><td><a href="{href}" data-page aria-label="run {id} of {source}">{id}</a></td>
<td>{badge}</td><td>{source}{tenant}</td><td>{scheduled}</td><td class="sl-wide">{progress}</td><td>{rate}</td>
<td class="sl-text">{end}</td><td>{took}</td><td>{waits}</td></tr>
"""
_SUB = '<span class="sl-sub">{text}</span>'
_DASH = '<span class="sl-dim">–</span>'


def runs_table(found: Sequence[RunStats], zone: tzinfo, now: datetime) -> Html:
    """Return the table of runs, in the order given; a row opens its run.

    Parameters:
      found(Sequence[RunStats]): The runs.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When they were read.
    """
    today = datetime.combine(now.astimezone(zone).date(), time(12), zone)
    return fill(_TABLE, rows=join(_row(run, zone, today) for run in found))


@lru_cache(maxsize=1024)
def _row(run: RunStats, zone: tzinfo, today: datetime) -> Html:
    """Return a row. It is kept: most runs have ended, and look the same each second and to everybody."""
    return fill(
        _ROW,
        id=run.id,
        href=links.to(links.RUN, id=run.id),
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
    return fill('<span class="sl-dim">at once</span>{by}', by=_sub(by(run.created_by)))


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
        return fill("stands still{before}", before=_sub(f"{pace(run.per_second)} before"))
    return fill("{n}{of}", n=pace(run.per_second), of=_sub(measured(run)))


def _end(run: RunStats, zone: tzinfo, today: datetime) -> Html:
    """Return when it ended, or will, and why then, or why not yet."""
    if run.ended_at:
        return join([moment(run.ended_at, zone, today), *_told([run.error_summary or ""], zone, today)])
    when = fill("in {d}", d=duration(run.eta_seconds)) if run.eta_seconds is not None else fill("")
    why = "" if run.label == RunStatus.SCHEDULED else run.why
    said = join(_told((_decides(run), why, run.slowed), zone, today))
    return join([when, said]) if when or said else fill(_DASH)


def _told(texts: Iterable[str], zone: tzinfo, today: datetime) -> list[Html]:
    return [fill(_SUB, text=sentence(text, zone, today)) for text in texts if text]


def _decides(run: RunStats) -> str:
    """Return what decides when a run ends; nothing where it waits for that very window, and says so."""
    return "" if run.eta_window and run.eta_window == run.why_window else run.eta_why


def _took(run: RunStats) -> Html:
    if run.started_at is None:
        return fill(_DASH)
    whole = max(run.duration_seconds, 0.001)
    return fill(
        '{d}<span class="sl-split"><i style="width:{active}%"></i><b style="width:{waiting}%"></b>'
        '<u style="width:{held}%"></u></span>{parts}',
        d=duration(run.duration_seconds),
        active=round(100 * run.active_seconds / whole, 1),
        waiting=round(100 * run.waiting_seconds / whole, 1),
        held=round(100 * (run.idle_seconds + run.held_seconds) / whole, 1),
        parts=_sub(spent(run)),
    )


def _waits(run: RunStats) -> Html:
    if run.started_at is None:
        return fill(_DASH)
    return fill("{hits}{how}", hits=waits(run), how=_sub(efficiency(run)))


def _sub(text: str) -> Html:
    return fill(_SUB, text=prose(text)) if text else fill("")
