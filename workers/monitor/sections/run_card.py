"""The main card of a run's page: progress, item counts, rate, ETA, duration, rate-limit hits, and why it waits."""

from datetime import datetime, tzinfo

from workers.limiter.state import BudgetState
from workers.monitor.html.bar import bar
from workers.monitor.html.formatting import (
    count,
    done_of_all,
    efficiency,
    measured,
    moment,
    pace,
    plural,
    sentence,
    why_no_eta,
)
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.html.notice import line
from workers.records.tables import ACTIVE, ENDED, RunStatus
from workers.reports import eta
from workers.reports.run_stats import RunStats
from workers.text.durations import duration

_CARD = """
<section class="sl-card sl-run-card" aria-label="run {id}" data-run="{id}" data-status="{status}">
  <div class="sl-progress"><strong class="sl-percent">{percent}</strong>{bar}
    <div class="sl-counts"><span>{counts}</span><span>{left}</span></div></div>
  {tally}
  {line}{slowed}{again}{rows}{removed}
  <dl class="sl-tiles sl-run-tiles">{tiles}</dl>
</section>
"""
_TALLY = '<div><dt><i class="sl-icon sl-i-{shape} sl-{tone}"></i>{name}</dt><dd>{number}</dd></div>'
_ASIDE = '<p class="sl-slowed"><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>'
_TILE = '<div><dt>{name}</dt><dd>{value}</dd><dd class="sl-note">{note}</dd></div>'
_SPLIT = """
<span class="sl-split"><i style="width:{active}%"></i><b style="width:{waiting}%"></b>
<u style="width:{paused}%"></u></span>
<span class="sl-whole"><span class="sl-key sl-key-active"></span>active {a}</span><span class="sl-unseen"> · </span>
<span class="sl-whole"><span class="sl-key sl-key-waiting"></span>waiting {w}</span>
"""
_NOT_AT_WORK = """
<span class="sl-unseen"> · </span><span class="sl-whole"><span class="sl-key sl-key-paused"></span>{what} {h}</span>
"""
_DASH = '<span class="sl-dim">–</span>'
_SHAPES = {"bad": "cross", "warn": "alert", "wait": "wait", "good": "check", "calm": "stop"}


def run_card(
    run: RunStats,
    zone: tzinfo,
    now: datetime,
    *,
    in_hand: int = 0,
    again: str = "",
    budget: BudgetState | None = None,
    items_removed_at: datetime | None = None,
) -> Html:
    """Return the card.

    Parameters:
      run(RunStats): The run.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When the run was read.
      in_hand(int): How many of its items are being processed.
      again(str): How many items wait for a retry, and why; empty where none does.
      budget(BudgetState | None): The budget it uses; None where Redis does not answer, or the run has ended.
      items_removed_at(datetime | None): When its items were removed after the retention period.
    """
    return fill(
        _CARD,
        id=run.id,
        status=run.label,
        percent=_percent(run),
        bar=bar(run),
        counts=_counts(run),
        left=_left(run),
        tally=_tally(run, in_hand),
        line=_line(run, zone, now),
        slowed=_aside("alert", sentence(run.slowed, zone, now)) if run.slowed else "",
        again=_aside("clock", prose(again)) if again else "",
        rows=_rows(run),
        removed=_removed(items_removed_at, zone, now),
        tiles=join([_pace_tile(run, budget), _end_tile(run, zone, now), _time_tile(run), _waits_tile(run)]),
    )


# --- how far ----------------------------------------------------------------------------------------------------------


def _percent(run: RunStats) -> str:
    if run.percent is None:
        return "…" if run.status in ACTIVE else "–"
    return f"{run.percent} %"


def _counts(run: RunStats) -> str:
    if run.started_at is None:
        return "" if run.ended_at else "not started"
    return done_of_all(run)


def _left(run: RunStats) -> str:
    if run.status in ENDED:
        return ""
    return f"about {duration(run.eta_seconds)} left" if run.eta_seconds is not None else ""


def _tally(run: RunStats, in_hand: int) -> Html:
    """Return the items by state. Open items are computed from the counters: no row is read."""
    if run.started_at is None:
        return fill("")
    open_items = max(0, (run.total or 0) - run.done)
    processing = min(in_hand, open_items)
    parts = [
        ("succeeded", "check", "good", run.succeeded),
        ("failed", "cross", "bad", run.failed),
        ("skipped", "stop", "calm", run.skipped),
        ("processing", "play", "busy", processing),
        ("pending", "clock", "calm", open_items - processing),
    ]
    cells = [
        fill(_TALLY, name=name, shape=shape, tone=tone, number=count(number)) for name, shape, tone, number in parts
    ]
    return fill('<dl class="sl-tally">{cells}</dl>', cells=join(cells))


# --- the reason -------------------------------------------------------------------------------------------------------


def _line(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    """Say why nothing happens, or that it runs normally: always one line, so that the page does not jump."""
    tone, text = _reason(run)
    shape = "pause" if run.status == RunStatus.PAUSED else _SHAPES.get(tone, "play")
    return line(tone, shape, sentence(text, zone, now))


def _reason(run: RunStats) -> tuple[str, str]:
    if run.status == RunStatus.FAILED:
        return "bad", run.error_summary or "failed without a recorded reason: see the log of the workers"
    if run.status == RunStatus.CANCELLED:
        why = f": {run.error_summary}" if run.error_summary else ""
        return "calm", f"cancelled{why}; its items are unchanged" if run.started_at else f"not started{why}"
    if run.status == RunStatus.COMPLETED:
        return _completed(run)
    if run.why:
        return "wait", run.why
    if not run.discovered:
        return "busy", "reading the list; the details start when it is complete"
    return "busy", "running, but slower than its limits" if run.slowed else "running normally"


def _completed(run: RunStats) -> tuple[str, str]:
    if run.failed:
        return "warn", f"{count(run.failed)} of {count(run.total)} items failed; the others were imported"
    return "good", f"all items imported; {count(run.skipped)} skipped" if run.skipped else "all items imported"


def _aside(shape: str, text: Html) -> Html:
    """Return a line below the reason, for what changes less often."""
    return fill(_ASIDE, shape=shape, text=text)


def _rows(run: RunStats) -> Html:
    """Say how many rows of the model the list created, updated or left unchanged."""
    parts = [("created", run.rows_created), ("updated", run.rows_updated), ("unchanged", run.rows_unchanged)]
    text = ", ".join(f"{count(number)} {what}" for what, number in parts if number)
    return _aside("check", prose(f"rows of the list: {text}")) if text else fill("")


def _removed(at: datetime | None, zone: tzinfo, now: datetime) -> Html:
    if at is None:
        return fill("")
    text = "items removed after the retention period, {at}; the counts remain, a retry is not possible"
    return _aside("clock", fill(text, at=moment(at, zone, now)))


# --- the figures ------------------------------------------------------------------------------------------------------


def _pace_tile(run: RunStats, budget: BudgetState | None) -> Html:
    if run.started_at is None:
        return _tile("Rate", fill(_DASH), "")
    if run.status == RunStatus.PAUSED:
        return _tile("Rate", fill("paused"), f"{pace(run.per_second)} items/s before{_allowed(budget)}")
    of = "on average" if run.ended_at else f"over the {measured(run)}"
    return _tile("Rate", fill("{n} <small>items/s</small>", n=pace(run.per_second)), f"{of}{_allowed(budget)}")


def _allowed(budget: BudgetState | None) -> str:
    if budget is None:
        return ""
    per_second, title = eta.steady(budget)
    return f"; its budget allows {pace(per_second)} requests/s ({title})"


def _end_tile(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    if run.ended_at:
        return _tile("Ended", moment(run.ended_at, zone, now), _began(run, zone, now))
    if run.eta_seconds is None:
        return _tile("End", fill(_DASH), why_no_eta(run))
    at = moment(run.eta_at, zone, now) if run.eta_at else fill("more than ten years away")
    return _tile("End", at, run.eta_why)


def _began(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    return fill("started {at}", at=moment(run.started_at, zone, now)) if run.started_at else fill("")


def _time_tile(run: RunStats) -> Html:
    whole = max(run.duration_seconds, 0.001)
    split = fill(
        _SPLIT,
        active=f"{100 * run.active_seconds / whole:.1f}",
        waiting=f"{100 * run.waiting_seconds / whole:.1f}",
        paused=f"{100 * (run.idle_seconds + run.held_seconds) / whole:.1f}",
        a=duration(run.active_seconds),
        w=duration(run.waiting_seconds),
    )
    pauses = [("idle", run.idle_seconds), ("paused", run.held_seconds)]
    parts = [fill(_NOT_AT_WORK, what=what, h=duration(seconds)) for what, seconds in pauses if seconds >= 1]
    note = fill("{split}{pauses}", split=split, pauses=join(parts))
    return _tile("Duration", fill("{d}", d=duration(run.duration_seconds)), note)


def _waits_tile(run: RunStats) -> Html:
    uncounted = not run.requests and run.done  # an older version did not count requests
    requests = "" if uncounted else f" · {plural(run.requests, 'request')}"
    note = f"{plural(run.sleeps, 'planned wait')}; {efficiency(run)}{requests}"
    return _tile("Rate-limit hits (429)", fill("{hits}", hits=count(run.hits)), note)


def _tile(name: str, value: Html, note: str | Html) -> Html:
    return fill(_TILE, name=name, value=value, note=note)
