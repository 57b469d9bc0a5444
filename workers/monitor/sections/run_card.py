"""The run card: one run, large: where it stands, how fast it is, when it will end, what it waits for."""

from datetime import datetime, tzinfo

from workers.limiter.state import BudgetState
from workers.monitor.html.bar import bar
from workers.monitor.html.formatting import (
    count,
    done_of_all,
    duration,
    efficiency,
    measured,
    moment,
    pace,
    sentence,
    so_many,
    waits,
)
from workers.monitor.html.markup import Html, fill, join, prose
from workers.records.tables import ACTIVE, ENDED, RunStatus
from workers.reports import eta
from workers.reports.run_stats import RunStats

_CARD = """
<section class="sl-card sl-run-card" aria-label="run {id}" data-run="{id}">
  <div class="sl-progress"><strong class="sl-percent">{percent}</strong>{bar}
    <div class="sl-counts"><span>{counts}</span><span>{left}</span></div></div>
  {tally}
  {line}{slowed}{again}{rows}{removed}
  <dl class="sl-tiles sl-run-tiles">{tiles}</dl>
</section>
"""
_TALLY = '<div><dt><i class="sl-icon sl-i-{shape} sl-{tone}"></i>{name}</dt><dd>{number}</dd></div>'
_LINE = '<p class="sl-line sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>'
_ASIDE = '<p class="sl-slowed"><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>'
_TILE = '<div><dt>{name}</dt><dd>{value}</dd><dd class="sl-note">{note}</dd></div>'
_SPLIT = """
<span class="sl-split"><i style="width:{active}%"></i><b style="width:{waiting}%"></b>
<u style="width:{held}%"></u></span>
<span class="sl-whole"><span class="sl-key sl-key-active"></span>active {a}</span><span class="sl-unseen"> · </span>
<span class="sl-whole"><span class="sl-key sl-key-waiting"></span>waiting {w}</span>
"""
_HELD = (
    '<span class="sl-unseen"> · </span><span class="sl-whole"><span class="sl-key sl-key-held"></span>{what} {h}</span>'
)
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
    """Return a run, large.

    Parameters:
      run(RunStats): The run.
      zone(tzinfo): The viewer's time zone.
      now(datetime): The instant the run was read.
      in_hand(int): How many of its items a lane has in hand.
      again(str): Says that items wait for another attempt; empty where none does.
      budget(BudgetState | None): The budget it uses; None where that cannot be told, or is of no interest any more.
      items_removed_at(datetime | None): When its items were removed for their age.
    """
    return fill(
        _CARD,
        id=run.id,
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
        return "" if run.ended_at else "not begun"
    return done_of_all(run)  # the others stand below


def _left(run: RunStats) -> str:
    if run.status in ENDED:
        return ""
    return f"about {duration(run.eta_seconds)} left" if run.eta_seconds is not None else ""


def _tally(run: RunStats, in_hand: int) -> Html:
    """Return how many items stand where. Those that are open are what is left of the counters: nothing is scanned."""
    if run.started_at is None:
        return fill("")
    still = max(0, (run.total or 0) - run.done)
    processing = min(in_hand, still)
    parts = [
        ("succeeded", "check", "good", run.succeeded),
        ("failed", "cross", "bad", run.failed),
        ("skipped", "stop", "calm", run.skipped),
        ("processing", "play", "busy", processing),
        ("pending", "clock", "calm", still - processing),
    ]
    cells = [
        fill(_TALLY, name=name, shape=shape, tone=tone, number=count(number)) for name, shape, tone, number in parts
    ]
    return fill('<dl class="sl-tally">{cells}</dl>', cells=join(cells))


# --- the news ---------------------------------------------------------------------------------------------------------


def _line(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    """Say why nothing happens, or that all is well: always one line, so that the page does not jump."""
    tone, text = _news(run)
    shape = "pause" if run.status == RunStatus.PAUSED else _SHAPES.get(tone, "play")
    return fill(_LINE, tone=tone, shape=shape, text=sentence(text, zone, now))


def _news(run: RunStats) -> tuple[str, str]:
    if run.status == RunStatus.FAILED:
        return "bad", run.error_summary or "it failed without a reason; the log of the workers may have one"
    if run.status == RunStatus.CANCELLED:
        said = f": {run.error_summary}" if run.error_summary else ""
        return "calm", f"called off{said}; its items stay as they were" if run.started_at else f"never begun{said}"
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


def _aside(shape: str, text: Html) -> Html:
    """Say what stays true while the news above changes."""
    return fill(_ASIDE, shape=shape, text=text)


def _rows(run: RunStats) -> Html:
    """Say what the list did to the rows of the model."""
    parts = [("created", run.rows_created), ("updated", run.rows_updated), ("unchanged", run.rows_unchanged)]
    said = ", ".join(f"{count(number)} {what}" for what, number in parts if number)
    return _aside("check", prose(f"rows of the list: {said}")) if said else fill("")


def _removed(at: datetime | None, zone: tzinfo, now: datetime) -> Html:
    if at is None:
        return fill("")
    said = "its items were removed for their age, {at}; the counts stay, and nothing can be retried"
    return _aside("clock", fill(said, at=moment(at, zone, now)))


# --- the figures ------------------------------------------------------------------------------------------------------


def _pace_tile(run: RunStats, budget: BudgetState | None) -> Html:
    if run.started_at is None:
        return _tile("Pace", fill(_DASH), "")
    if run.status == RunStatus.PAUSED:
        return _tile("Pace", fill("stands still"), f"{pace(run.per_second)} items/s before{_allowed(budget)}")
    of = "on average" if run.ended_at else f"over the {measured(run)}"
    return _tile("Pace", fill("{n} <small>items/s</small>", n=pace(run.per_second)), f"{of}{_allowed(budget)}")


def _allowed(budget: BudgetState | None) -> str:
    if budget is None:
        return ""
    per_second, title = eta.steady(budget)
    return f"; its budget allows {pace(per_second)} requests/s ({title})"


def _end_tile(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    if run.ended_at:
        return _tile("Ended", moment(run.ended_at, zone, now), _began(run, zone, now))
    if run.eta_seconds is None:
        return _tile("End", fill(_DASH), _why_no_end(run))
    at = moment(run.eta_at, zone, now) if run.eta_at else fill("not in ten years")
    return _tile("End", at, run.eta_why)


def _began(run: RunStats, zone: tzinfo, now: datetime) -> Html:
    return fill("begun {at}", at=moment(run.started_at, zone, now)) if run.started_at else fill("")


def _why_no_end(run: RunStats) -> str:
    if run.status == RunStatus.PAUSED:
        return "told when it goes on"
    if run.started_at is None:
        return "it has not begun"
    if run.done:
        return "told when it goes on"
    return "told when the first items are in" if run.discovered else "told when the list is known"


def _time_tile(run: RunStats) -> Html:
    whole = max(run.duration_seconds, 0.001)
    split = fill(
        _SPLIT,
        active=f"{100 * run.active_seconds / whole:.1f}",
        waiting=f"{100 * run.waiting_seconds / whole:.1f}",
        held=f"{100 * (run.idle_seconds + run.held_seconds) / whole:.1f}",
        a=duration(run.active_seconds),
        w=duration(run.waiting_seconds),
    )
    still = [("idle", run.idle_seconds), ("held", run.held_seconds)]
    parts = [fill(_HELD, what=what, h=duration(seconds)) for what, seconds in still if seconds >= 1]
    note = fill("{split}{still}", split=split, still=join(parts))
    return _tile("Duration", fill("{d}", d=duration(run.duration_seconds)), note)


def _waits_tile(run: RunStats) -> Html:
    uncounted = not run.requests and run.done  # by an older version
    note = efficiency(run) if uncounted else f"{efficiency(run)} · {so_many(run.requests, 'request')}"
    return _tile("Rate limit", fill("{w}", w=waits(run)), note)


def _tile(name: str, value: Html, note: str | Html) -> Html:
    return fill(_TILE, name=name, value=value, note=note)
