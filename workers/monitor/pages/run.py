"""The page of one run: how far, how fast, until when, why it waits, what failed, who did what; and the acts on it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial

import streamlit as st

from workers.monitor.actions import confirm, run_actions
from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.formatting import moment, so_many
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.pages import frame
from workers.monitor.pages.frame import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, shared
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.run_reading import MOST_AGAIN, RunSheet, is_stuck, run_sheet
from workers.monitor.readings.time_zone import zone
from workers.monitor.sections import failures, life_section
from workers.monitor.sections.budget_aside import budget_aside
from workers.monitor.sections.run_card import run_card
from workers.monitor.sections.timeline import by, timeline
from workers.records.tables import ENDED, Run
from workers.reports import run_stats
from workers.reports.run_stats import RunStats

#: An id that can be one: digits, no more than a database counts to.
_ID = re.compile(r"[0-9]{1,18}", re.ASCII)
_RECENT = 8
_LAST = "sluice_run"

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
    """What the page shows but for its buttons, failures and charts: made once for all who look at the same run."""

    head: Html
    card: Html
    aside: Html


def show() -> None:
    """Draw the page of the run that the address names: `run?id=12`."""
    frame.live("Run", _draw, _press, _draw_below)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    confirm.tell()
    sheet = _sheet()
    if sheet is None:
        yield from _lost(_asked())
        return
    drawn = shared(("run drawn", sheet.run.id, zone), EACH_TICK_SECONDS, partial(_compose, sheet, zone))
    yield Piece("head", drawn.head)
    retriable = failures.retriable(sheet.run, zone, sheet.now)
    state = {"is_stuck": is_stuck(sheet.run), "has_items": _has_items(sheet)}
    yield Piece("acts", run_actions.acts_row(sheet.stats, retriable=retriable, **state))
    yield Piece("card", drawn.card)
    yield Piece("failures", failures.failures_section(sheet.run, zone, sheet.now))
    yield Piece("aside", drawn.aside)


def _press(name: str) -> None:
    sheet = _sheet()
    if sheet is None:
        return
    if run_actions.press(sheet.stats, name, is_stuck=is_stuck(sheet.run), has_items=_has_items(sheet)):
        return
    if not failures.press(sheet.run, name, zone(), sheet.now):
        st.toast("Nothing was done: it has just changed. Look again.", icon=":material/warning:")


def _draw_below(_: tzinfo) -> None:
    sheet = _sheet()
    if sheet is None:
        return
    failures.draw_file(sheet.run)
    with st.container(border=True, key="life"):
        life_section.draw(life_section.life_of(sheet))


def _sheet() -> RunSheet | None:
    asked = _asked()
    return run_sheet(int(asked)) if _ID.fullmatch(asked) else None


def _has_items(sheet: RunSheet) -> bool:
    return sheet.run.items_removed_at is None


def _compose(sheet: RunSheet, zone: tzinfo) -> Drawn:
    return Drawn(
        head=frame.head(_title(sheet.run), _state(sheet, zone)),
        card=_card(sheet, zone),
        aside=join([_budget(sheet, zone), timeline(sheet.events, zone, sheet.now)]),
    )


def _asked() -> str:
    """Return which run the address names. Where the browser has gone back it names none: it is the last one then."""
    asked = st.query_params.get("id") or st.session_state.get(_LAST, "")
    if asked and asked != st.query_params.get("id"):
        st.query_params["id"] = asked
    st.session_state[_LAST] = asked
    return asked


def _card(sheet: RunSheet, zone: tzinfo) -> Html:
    removed_at = sheet.run.items_removed_at

    return run_card(
        sheet.stats,
        zone,
        sheet.now,
        in_hand=sheet.in_hand,
        again=_again(*sheet.again),
        budget=sheet.budget,
        items_removed_at=removed_at,
    )


def _again(number: int, reason: str) -> str:
    """Say how many items wait for another attempt, and why one of them failed."""
    if not number:
        return ""
    least = "at least " if number == MOST_AGAIN else ""
    wait = "waits" if number == 1 else "wait"
    return f"{least}{so_many(number, 'item')} {wait} for another attempt; the next of them failed: {reason}"


def _title(run: Run) -> str:
    return f"Run {run.id} · {run.source}" + (f" for {run.tenant}" if run.tenant else "")


def _state(sheet: RunSheet, zone: tzinfo) -> Html:
    return fill(
        _STATE,
        badge=badge(sheet.stats.label, "large"),
        by=by(sheet.run.created_by),
        when=_when(sheet, zone),
        lanes=so_many(sheet.run.lanes, "lane"),
        fresh=" · fresh: rows no longer in the list are removed at its end" if sheet.run.options.get("fresh") else "",
        line=_line(sheet),
        back=links.to(links.RUNS),
    )


def _when(sheet: RunSheet, zone: tzinfo) -> Html:
    run, now = sheet.run, sheet.now
    if run.ended_at:
        return fill("ended {at}", at=moment(run.ended_at, zone, now))
    if run.started_at:
        return fill("since {at}", at=moment(run.started_at, zone, now))
    return fill("due {at}", at=moment(run.scheduled_at or run.created_at, zone, now))


def _line(sheet: RunSheet) -> Html:
    """Say which run stands before it or after it in the line of its source."""
    before = _neighbour(" · behind {run}", sheet.ahead)
    after = _neighbour(" · {run} waits behind it", sheet.behind)
    return fill("{before}{after}", before=before, after=after)


def _neighbour(said: str, run: Run | None) -> Html:
    if run is None:
        return fill("")
    address = links.to(links.RUN, id=run.id)
    return fill(said, run=fill('<a href="{address}" data-page>run {id}</a>', address=address, id=run.id))


def _budget(sheet: RunSheet, zone: tzinfo) -> Html:
    if sheet.run.status in ENDED or sheet.run.started_at is None:
        return fill("")
    return budget_aside(sheet.budget, "What is used of it cannot be told now.", zone, sheet.now)


# --- no such run ------------------------------------------------------------------------------------------------------


def _lost(asked: str) -> Iterator[Piece]:
    recent = shared(("recent", _RECENT), EACH_TICK_SECONDS, partial(reading, partial(_newest, _RECENT)))
    number = _ID.fullmatch(asked)
    title = f"There is no run {int(asked)}" if number else "Which run?"
    text = "It may have been removed for its age." if number else "The address does not name one."
    about = "These are the newest:" if recent else "Nothing has been imported yet."
    yield Piece("head", frame.head("Run", fill("not found")))
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
