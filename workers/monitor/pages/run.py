"""The page of one run: progress, rate, ETA, why it waits, failed items, timeline, charts; and its buttons."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial

import streamlit as st

from workers.monitor.actions import run_buttons
from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.formatting import moment, plural, source_name
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.pages import live_page
from workers.monitor.pages.live_page import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.run_reading import MOST_RETRYING, RunReading, is_stuck, read_run
from workers.monitor.readings.time_zone import zone
from workers.monitor.sections import charts_section, failed_items
from workers.monitor.sections.run_budget import run_budget
from workers.monitor.sections.run_card import run_card
from workers.monitor.sections.timeline import by, timeline
from workers.records.tables import ENDED, Run
from workers.reports import run_stats
from workers.reports.run_stats import RunStats

#: What can be the id of a run: digits, within the range of the database.
_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_RECENT = 8
_LAST = "sluice_run"
_OUTDATED = "Nothing was changed: the run has changed since. Check its state, then press again."

_STATE = """
{badge}<span>{by} · {when} · {lanes}{fresh}{line}</span><a class="sl-back" href="{back}" data-page>All runs</a>
"""
_LOST = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-gate"></i><h2>{title}</h2><p>{text}</p>
<ul class="sl-recent">{recent}</ul><p><a href="{back}" data-page>All runs</a></p></section>
"""
_RECENT_RUN = '<li><a href="{address}" data-page>Run {id}</a> {badge} {source}</li>'


@dataclass(frozen=True)
class Drawn:
    """What the page shows except buttons, failures and charts: drawn once for all viewers of the same run."""

    head: Html
    card: Html
    aside: Html


def show() -> None:
    """Draw the page of the run that the address names: `run?id=12`."""
    live_page.live("Run", _draw, _press, _draw_below)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    reading = _reading()
    if reading is None:
        yield from _lost(_asked_id())
        return
    drawn = cached(("run drawn", reading.run.id, zone), EACH_TICK_SECONDS, partial(_compose, reading, zone))
    yield Piece("head", drawn.head)
    retriable = failed_items.retriable(reading.run, zone, reading.now)
    state = {"is_stuck": is_stuck(reading.run), "has_items": _has_items(reading)}
    yield Piece("acts", run_buttons.buttons_row(reading.stats, retriable=retriable, **state))
    yield Piece("card", drawn.card)
    yield Piece("failures", failed_items.failures_section(reading.run, zone, reading.now))
    yield Piece("aside", drawn.aside)


def _press(name: str) -> None:
    reading = _reading()
    if reading is None:
        return
    if run_buttons.press(reading.stats, name, is_stuck=is_stuck(reading.run), has_items=_has_items(reading)):
        return
    if not failed_items.press(reading.run, name, zone(), reading.now):
        st.toast(_OUTDATED, icon=":material/warning:")


def _draw_below(_: tzinfo) -> None:
    reading = _reading()
    if reading is None:
        return
    failed_items.draw_file(reading.run)
    with st.container(border=True, key="life"):
        charts_section.draw(charts_section.read_charts(reading))


def _reading() -> RunReading | None:
    asked = _asked_id()
    return read_run(int(asked)) if _ID.fullmatch(asked) else None


def _has_items(reading: RunReading) -> bool:
    return reading.run.items_removed_at is None


def _compose(reading: RunReading, zone: tzinfo) -> Drawn:
    return Drawn(
        head=live_page.head(_title(reading.run), _state(reading, zone)),
        card=_card(reading, zone),
        aside=join([_budget(reading, zone), timeline(reading.events, zone, reading.now)]),
    )


def _asked_id() -> str:
    """Return the id in the address. After the browser's Back it can be missing: then it is the last one."""
    asked = st.query_params.get("id") or st.session_state.get(_LAST, "")
    if asked and asked != st.query_params.get("id"):
        st.query_params["id"] = asked
    st.session_state[_LAST] = asked
    return asked


def _card(reading: RunReading, zone: tzinfo) -> Html:
    removed_at = reading.run.items_removed_at

    return run_card(
        reading.stats,
        zone,
        reading.now,
        in_hand=reading.claimed,
        again=_retrying(*reading.retrying),
        budget=reading.budget,
        items_removed_at=removed_at,
    )


def _retrying(number: int, reason: str) -> str:
    """Say how many items wait for a retry, and the last error of the next one."""
    if not number:
        return ""
    least = "at least " if number == MOST_RETRYING else ""
    wait = "waits" if number == 1 else "wait"
    return f"{least}{plural(number, 'item')} {wait} for a retry; last error of the next one: {reason}"


def _title(run: Run) -> str:
    return f"Run {run.id} · {source_name(run.source, run.tenant)}"


def _state(reading: RunReading, zone: tzinfo) -> Html:
    return fill(
        _STATE,
        badge=badge(reading.stats.label, "large"),
        by=_origin(reading.run),
        when=_when(reading, zone),
        lanes=plural(reading.run.lanes, "lane"),
        fresh=" · fresh: rows no longer in the list are removed at the end" if reading.run.options.get("fresh") else "",
        line=_line(reading),
        back=links.to(links.RUNS),
    )


def _origin(run: Run) -> str:
    return f"{'started' if run.started_at else 'created'} {by(run.created_by)}"


def _when(reading: RunReading, zone: tzinfo) -> Html:
    run, now = reading.run, reading.now
    if run.ended_at:
        return fill("ended {at}", at=moment(run.ended_at, zone, now))
    if run.started_at:
        return fill("since {at}", at=moment(run.started_at, zone, now))
    return fill("due {at}", at=moment(run.scheduled_at or run.created_at, zone, now))


def _line(reading: RunReading) -> Html:
    """Return the run that this one waits for, and the run that waits for this one."""
    before = _neighbour(" · behind {run}", reading.ahead)
    after = _neighbour(" · {run} waits behind it", reading.behind)
    return fill("{before}{after}", before=before, after=after)


def _neighbour(template: str, run: Run | None) -> Html:
    if run is None:
        return fill("")
    address = links.to(links.RUN, id=run.id)
    return fill(template, run=fill('<a href="{address}" data-page>run {id}</a>', address=address, id=run.id))


def _budget(reading: RunReading, zone: tzinfo) -> Html:
    if reading.run.status in ENDED or reading.run.started_at is None:
        return fill("")
    return run_budget(reading.budget, "Usage is not available now: Redis does not answer.", zone, reading.now)


# --- no such run ------------------------------------------------------------------------------------------------------


def _lost(asked: str) -> Iterator[Piece]:
    recent = cached(("recent", _RECENT), EACH_TICK_SECONDS, partial(read_database, partial(_newest, _RECENT)))
    number = _ID.fullmatch(asked)
    title = f"There is no run {int(asked)}" if number else "No run selected"
    text = "It was possibly deleted after the retention period." if number else "The address has no run number."
    about = "The newest runs:" if recent else "Nothing has been imported yet."
    yield Piece("head", live_page.head("Run", fill("not found")))
    page = fill(
        _LOST,
        title=title,
        text=f"{text} {about}",
        recent=join(_recent(run) for run in recent),
        back=links.to(links.RUNS),
    )
    yield Piece("body", page)


def _newest(limit: int) -> tuple[RunStats, ...]:
    return tuple(run_stats.recent_runs(limit))


def _recent(run: RunStats) -> Html:
    address = links.to(links.RUN, id=run.id)
    return fill(_RECENT_RUN, address=address, id=run.id, badge=badge(run.label), source=run.source)
