"""The first page: active runs, recent results of each source, the filtered table of runs, and the "Run import" form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import partial

import streamlit as st

from workers.connections import database
from workers.errors import SluiceError
from workers.monitor.actions import run_form
from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.formatting import count, moment, pace
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.pages import live_page
from workers.monitor.pages.live_page import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.time_zone import zone
from workers.monitor.sections import runs_filter, toasts
from workers.monitor.sections.active_card import active_card
from workers.monitor.sections.runs_table import runs_table
from workers.monitor.sections.source_table import source_table
from workers.records.tables import RunStatus
from workers.reports import run_stats, runs_list
from workers.reports.run_stats import RunStats
from workers.reports.runs_list import Wanted
from workers.reports.source_stats import PastRun, SourceStats, source_stats
from workers.sources.registry import get_registry

#: How many active runs have a card, and for how many the statistics are read.
_LARGE, _MOST_ACTIVE = 3, 20
#: How long the slowly changing part, and the number of all runs, are reused.
_SLOW_SECONDS, _COUNT_SECONDS = 10.0, 3.0
_WAS_EMPTY = "runs_empty"

_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-gate"></i><h2>Nothing has been imported yet</h2>
<p>Choose a source below and press <b>Import now</b>, or type <code>python -m workers run</code>.</p>
<p class="sl-dim">Its progress, rate and waits appear here, updated every second.</p></section>
"""
_MORE = '<p class="sl-more-active"><a href="{href}" data-page>and {more} more</a></p>'
_IDLE = """
<section class="sl-card sl-idle"><p><i class="sl-icon sl-i-clock"></i><b>No active runs</b></p>
{last}{next}</section>
"""
_LAST = '<p>Last: {badge} <a href="{href}" data-page>run {id}</a> of {source}, {at}</p>'
_NEXT = "<p>Next: {source}, {at}</p>"
_PAGE = '<a class="sl-chip" rel="{rel}" href="{href}" data-page>{text}</a>'


@dataclass(frozen=True)
class Reading:
    """What is read each second.

    Attributes:
      active: Runs that are running or paused, at most _MOST_ACTIVE.
      active_count, pending_count: The number of active runs, and of pending ones.
      runs: One page of the table, newest first.
      more: Whether there are older ones.
      empty: Whether no run has ever started, with any filter.
    """

    now: datetime
    active: tuple[RunStats, ...]
    active_count: int
    pending_count: int
    runs: tuple[RunStats, ...]
    more: bool
    empty: bool


@dataclass(frozen=True)
class Background:
    """What changes slowly, read less often.

    Attributes:
      names: The sources that are registered or have runs.
      tenants: The tenants that have runs.
    """

    now: datetime
    names: tuple[str, ...]
    tenants: tuple[str, ...]
    sources: tuple[SourceStats, ...]


@dataclass(frozen=True)
class Drawn:
    """What the page shows: drawn once for all viewers with the same filters and time zone.

    Attributes:
      top: The title, and the active runs.
      sources: The recent results of each source.
      table: The table of runs.
      empty: As in `Reading`.
    """

    top: Html
    sources: Html
    table: Html
    empty: bool


def show() -> None:
    """Draw the page."""
    run_form.forget_plan()
    empty = st.session_state[_WAS_EMPTY] = _is_empty()
    if not empty:
        run_form.draw(zone(), folded=True)
    live_page.live("Runs", _draw)
    if empty:
        run_form.draw(zone(), folded=False)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    wanted = runs_filter.wanted(st.query_params)
    drawn = cached(("runs drawn", wanted, zone), EACH_TICK_SECONDS, partial(_compose, wanted, zone))
    yield Piece("top", drawn.top)
    if not drawn.empty:
        yield Piece("sources", drawn.sources)
        yield Piece("table", join([runs_filter.unknown_filters(st.query_params), drawn.table]))
    if drawn.empty != st.session_state.get(_WAS_EMPTY) or run_form.is_outdated(zone):
        st.rerun()


def _compose(wanted: Wanted, zone: tzinfo) -> Drawn:
    reading, background = _found(wanted), _background()
    head = live_page.head("Runs", _state(reading))
    if reading.empty:
        return Drawn(join([head, fill(_EMPTY)]), fill(""), fill(""), empty=True)
    return Drawn(
        top=join([head, _active(reading, background, zone)]),
        sources=cached(("sources drawn", background.now, zone), _SLOW_SECONDS, partial(_sources, background, zone)),
        table=_list(reading, background, wanted, zone),
        empty=False,
    )


def _sources(background: Background, zone: tzinfo) -> Html:
    return source_table(background.sources, zone, background.now)


# --- reading


def _found(wanted: Wanted) -> Reading:
    return cached(("runs", wanted), EACH_TICK_SECONDS, partial(read_database, partial(_read, wanted)))


def _background() -> Background:
    key = ("runs background", max(toasts.recently_ended(), default=None))  # the end of a run is visible immediately
    return cached(key, _SLOW_SECONDS, partial(read_database, _read_background))


def _is_empty() -> bool:
    try:
        return _found(runs_filter.wanted(st.query_params)).empty
    except Exception:  # the live part shows the error
        return False


def _read(wanted: Wanted) -> Reading:
    now = database.now()
    active = runs_list.active(_MOST_ACTIVE)
    page = runs_list.newest(wanted, now, runs_list.PAGE + 1)
    once = {run.id: run for run in [*active, *page]}  # in one call: they share readings
    figures = {run.id: run for run in run_stats.all_stats(list(once.values()))}
    return Reading(
        now=now,
        active=tuple(figures[run.id] for run in active),
        active_count=runs_list.count_active() if len(active) == _MOST_ACTIVE else len(active),
        pending_count=runs_list.count(Wanted(label="pending"), now),
        runs=tuple(figures[run.id] for run in page[: runs_list.PAGE]),
        more=len(page) > runs_list.PAGE,
        empty=not any(run.started_at for run in [*active, *page]) and not runs_list.has_any_begun(),
    )


def _read_background() -> Background:
    names = sorted({*_registered(), *runs_list.sources()})
    return Background(database.now(), tuple(names), tuple(runs_list.tenants()), tuple(source_stats(names).values()))


def _registered() -> Sequence[str]:
    try:
        return list(get_registry())
    except SluiceError:  # the form shows the error
        return []


# --- active runs


def _state(reading: Reading) -> Html:
    """Return the state of the page in a line."""
    if not reading.active:
        return fill("ready for the first import" if reading.empty else "no active runs")
    running = [run for run in reading.active if run.status == RunStatus.RUNNING]
    word = "active" if running else "paused"
    parts = [f"1 run {word}" if reading.active_count == 1 else f"{count(reading.active_count)} runs {word}"]
    if running and reading.active_count == len(reading.active):
        parts.append(f"{pace(sum(run.per_second for run in running))} items/s")
    if reading.pending_count:
        parts.append(f"{count(reading.pending_count)} pending")
    return fill('<i class="sl-live"></i>{parts}', parts=" · ".join(parts))


def _active(reading: Reading, background: Background, zone: tzinfo) -> Html:
    if not reading.active:
        return _idle(background, zone)
    cards = join(active_card(run, zone, reading.now) for run in reading.active[:_LARGE])
    more = reading.active_count - _LARGE
    href = runs_filter.address(Wanted())
    rest = fill(_MORE, href=href, more=count(more)) if more > 0 else fill("")
    return fill('<section class="sl-nows" aria-label="Active runs">{cards}</section>{rest}', cards=cards, rest=rest)


def _idle(background: Background, zone: tzinfo) -> Html:
    """Return the card for a time without active runs: the last run and the next one."""
    ended = [(run.ended_at, run, source.source) for source in background.sources for run in source.runs]
    scheduled = [(source.next_at, source.source) for source in background.sources if source.next_at]
    last = max(ended, default=None, key=lambda reading: reading[0])
    due = min(scheduled, default=None)
    return fill(
        _IDLE,
        last=_last(last[1], last[2], background, zone) if last else fill(""),
        next=fill(_NEXT, source=due[1], at=moment(due[0], zone, background.now)) if due else fill(""),
    )


def _last(run: PastRun, source: str, background: Background, zone: tzinfo) -> Html:
    href, at = links.to(links.RUN, id=run.id), moment(run.ended_at, zone, background.now)
    return fill(_LAST, badge=badge(run.label), href=href, id=run.id, source=source, at=at)


# --- the list


def _list(reading: Reading, background: Background, wanted: Wanted, zone: tzinfo) -> Html:
    bar = runs_filter.bar(wanted, _count(replace(wanted, before=0)), background.names, background.tenants)
    if not reading.runs:
        return join([bar, runs_filter.no_match(wanted)])
    older = replace(wanted, before=reading.runs[-1].id) if reading.more else None
    return join([bar, runs_table(reading.runs, zone, reading.now), _paging(wanted, older)])


def _count(wanted: Wanted) -> int:
    read = partial(read_database, lambda: runs_list.count(wanted, database.now()))
    return cached(("count", wanted), _COUNT_SECONDS, read)


def _paging(wanted: Wanted, older: Wanted | None) -> Html:
    parts = []
    if wanted.before:
        parts.append(fill(_PAGE, rel="first", href=runs_filter.address(replace(wanted, before=0)), text="Newest"))
    if older:
        parts.append(fill(_PAGE, rel="next", href=runs_filter.address(older), text="Older"))
    return fill('<nav class="sl-paging" aria-label="Pages">{parts}</nav>', parts=join(parts)) if parts else fill("")
