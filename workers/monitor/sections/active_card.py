"""The card of an active run on the first page: progress, rate, ETA, duration, and why it waits."""

from datetime import datetime, tzinfo

from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.bar import bar
from workers.monitor.html.formatting import counts, measured, moment, pace, sentence, spent, why_no_eta
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.notice import line
from workers.records.tables import RunStatus
from workers.reports.run_stats import RunStats
from workers.text.durations import duration

_CARD = """
<article class="sl-card sl-now" id="now-{id}" aria-label="run {id} of {source}" data-status="{label}">
  <header>{badge}<span class="sl-dim">run {id}{tenant}</span></header>
  <div class="sl-now-title"><h2><a href="{href}" data-page title="{source}">{source}</a></h2>
    <strong class="sl-percent">{percent}</strong></div>
  {bar}<p class="sl-counts"><span>{counts}</span></p>
  <dl>{facts}</dl>{line}
</article>
"""


def active_card(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    """Return the card of an active run; a click on it opens the run.

    Parameters:
      run(RunStats): The run.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When it was read.
    """
    return fill(
        _CARD,
        id=run.id,
        href=links.to(links.RUN, id=run.id),
        label=run.label,
        badge=badge(run.label),
        source=run.source,
        tenant=f" for {run.tenant}" if run.tenant else "",
        percent="…" if run.percent is None else f"{run.percent} %",
        bar=bar(run),
        counts=counts(run),
        facts=join([_now(run), _end(run, zone, now), _time(run)]),
        line=_line(run, zone, now),
    )


def _now(run: RunStats) -> Html:
    if run.status == RunStatus.PAUSED:
        return _fact("Rate now", fill("paused"), fill("{n} items/s before", n=pace(run.per_second)))
    of = fill("over the {time}", time=measured(run))
    return _fact("Rate now", fill("{n} <small>items/s</small>", n=pace(run.per_second)), of)


def _end(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    if run.eta_seconds is None:
        return _fact("Ends in", fill("–"), fill("{why}", why=why_no_eta(run)))
    at = fill(" <small>at {at}</small>", at=moment(run.eta_at, zone, now)) if run.eta_at else fill("")
    left = fill("{left}{at}", left=duration(run.eta_seconds), at=at)
    return _fact("Ends in", left, fill("{why}", why=run.eta_why))


def _time(run: RunStats) -> Html:
    return _fact("Duration", fill("{d}", d=duration(run.duration_seconds)), fill("{parts}", parts=spent(run)))


def _fact(name: str, value: Html, note: Html) -> Html:
    return fill(
        '<div><dt>{name}</dt><dd>{value}</dd><dd class="sl-note">{note}</dd></div>', name=name, value=value, note=note
    )


def _line(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    """Say why it waits, else what makes it slow, else that it runs normally: always a line, for a constant height."""
    shape, tone, text = "play", "busy", "running normally"
    if run.why:
        shape, tone, text = ("pause", "warn", run.why) if run.status == RunStatus.PAUSED else ("wait", "wait", run.why)
    elif run.slowed:
        shape, tone, text = "alert", "warn", f"running, but slower than its limits: {run.slowed}"
    return line(tone, shape, sentence(text, zone, now))
