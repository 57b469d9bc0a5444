"""The run card: one run, large: where it stands, how fast it is, what it waits for."""

from datetime import datetime, tzinfo

from workers.monitor.badge import badge
from workers.monitor.bar import bar
from workers.monitor.markup import Html, fill, join, prose
from workers.monitor.words import count, counts, duration, efficiency, moment, pace, waits
from workers.stats import RunStats
from workers.tables import RunStatus

_CARD = """
<section class="sl-card" aria-label="run {id}" data-run="{id}">
  <header class="sl-head">{badge}<h2>{source}</h2>
    <span class="sl-dim">run {id}{tenant} · by {who} · {started}</span></header>
  <div class="sl-progress"><strong class="sl-percent">{percent}</strong>{bar}
    <div class="sl-counts"><span>{counts}</span><span>{left}</span></div></div>
  {line}{slowed}
  <dl class="sl-tiles">{tiles}</dl>
</section>
"""


def run_card(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    """Return a run, large.

    Parameters:
      run(RunStats): The run.
      zone(tzinfo): The viewer's time zone.
      now(datetime): The instant the run was read.
    """
    return fill(
        _CARD,
        id=run.id,
        badge=badge(run.label, "large"),
        source=run.source,
        tenant=f" for {run.tenant}" if run.tenant else "",
        who=run.created_by,
        started=_started(run, zone, now),
        percent=_percent(run),
        bar=bar(run),
        counts=counts(run),
        left=_left(run),
        line=_line(run),
        slowed=_slowed(run),
        tiles=join([_pace_tile(run), _time_tile(run), _waits_tile(run)]),
    )


def _started(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    if run.ended_at:
        return fill("ended {at}", at=moment(run.ended_at, zone, now))
    return fill("since {at}", at=moment(run.started_at, zone, now)) if run.started_at else fill("not started")


def _percent(run: RunStats) -> str:
    if run.percent is None:
        return "–" if run.ended_at else "…"
    return f"{run.percent} %"


def _left(run: RunStats) -> str:
    if run.status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
        return f"took {duration(run.duration_seconds)}"
    return f"about {duration(run.eta_seconds)} left" if run.eta_seconds is not None else ""


def _line(run: RunStats) -> Html:
    """Say why nothing happens, or that all is well: always one line, so that the page does not jump."""
    tone, text = _news(run)
    shape = {"bad": "cross", "warn": "alert", "wait": "wait", "good": "check"}.get(tone, "play")
    return fill(
        '<p class="sl-line sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>',
        tone=tone,
        shape=shape,
        text=prose(text),
    )


def _slowed(run: RunStats) -> Html:
    """Say what makes the budget slower than configured: that stays true while the news above changes."""
    if not run.slowed:
        return fill("")
    shape = fill('<i class="sl-icon sl-i-alert"></i>')
    return fill('<p class="sl-slowed">{shape}<span>{text}</span></p>', shape=shape, text=prose(run.slowed))


def _news(run: RunStats) -> tuple[str, str]:
    if run.status == RunStatus.FAILED:
        return "bad", run.error_summary or "it failed without a reason; the log of the workers may have one"
    if run.status == RunStatus.CANCELLED:
        return "calm", "called off; its items stay as they were"
    if run.status == RunStatus.COMPLETED:
        return _outcome(run)
    if run.why:
        return "wait", run.why
    if not run.discovered:
        return "busy", "the details begin when the whole list is known"
    return "busy", "at work, but slower than its limits" if run.slowed else "nothing is in its way"


def _outcome(run: RunStats) -> tuple[str, str]:
    if run.failed:
        return "warn", f"{count(run.failed)} of {count(run.total)} items failed; the others are in"
    return "good", f"every item is in; {count(run.skipped)} were skipped" if run.skipped else "every item is in"


def _pace_tile(run: RunStats) -> Html:
    of = "average" if run.ended_at else "last minute"
    return _tile("Pace", fill("{n} <small>items/s</small>", n=pace(run.per_second)), fill("{of}", of=of))


def _time_tile(run: RunStats) -> Html:
    whole = max(run.duration_seconds, 0.001)
    split = fill(
        '<span class="sl-split"><i style="width:{active}%"></i><b style="width:{waiting}%"></b></span>'
        '<span class="sl-key sl-key-active"></span>active {a} · <span class="sl-key sl-key-waiting"></span>waiting {w}',
        active=100 * run.active_seconds / whole,
        waiting=100 * run.waiting_seconds / whole,
        a=duration(run.active_seconds),
        w=duration(run.waiting_seconds),
    )
    held = fill(" · held {h}", h=duration(run.held_seconds)) if run.held_seconds >= 1 else fill("")
    return _tile(
        "Duration", fill("{d}", d=duration(run.duration_seconds)), fill("{split}{held}", split=split, held=held)
    )


def _waits_tile(run: RunStats) -> Html:
    return _tile("Rate limit", fill("{w}", w=waits(run)), fill("{e}", e=efficiency(run)))


def _tile(name: str, value: Html, note: Html) -> Html:
    return fill(
        '<div><dt>{name}</dt><dd>{value}</dd><dd class="sl-note">{note}</dd></div>', name=name, value=value, note=note
    )
