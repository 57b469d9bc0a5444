"""The page of schedules: when each source runs by itself, the week around today, and the form that changes it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial

import streamlit as st

from workers.connections import database
from workers.errors import SluiceError
from workers.messaging import scheduler_heartbeat
from workers.monitor.access import viewer
from workers.monitor.actions import schedule_form
from workers.monitor.html.formatting import duration
from workers.monitor.html.markup import Html, fill
from workers.monitor.pages import frame
from workers.monitor.pages.frame import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, shared
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.time_zone import zone
from workers.monitor.readings.unavailable import Unreadable
from workers.monitor.sections.calendar_strip import strip
from workers.monitor.sections.schedule_table import schedule_table
from workers.scheduling.calendar import calendar_strip
from workers.scheduling.last_run import LastRun, last_runs
from workers.scheduling.schedule_stats import ScheduleStats, all_schedules
from workers.sources.registry import get_registry

#: So many schedules are listed.
MOST_LISTED = 100
#: What moves slowly is read, and drawn, less often than each second.
_WEEK_SECONDS, _LAST_SECONDS = 4.9, 2.9

_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-clock"></i><h2>There are no sources yet</h2>
<p>Name the list of your sources in <code>SLUICE_SOURCES</code>: each of them can then run by itself.</p></section>
"""


@dataclass(frozen=True)
class Reading:
    """What there is to show.

    Attributes:
      schedules: The first so many, by source and tenant.
      without: Sources that have none recorded, each with the one that its code declares, or nothing.
      no_scheduler: Whether none runs that could start them.
    """

    now: datetime
    schedules: Sequence[ScheduleStats]
    without: Mapping[str, str]
    no_scheduler: bool


def show() -> None:
    """Draw the page."""
    schedule_form.draw(zone())
    frame.live("Schedule", _draw)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    found = shared("schedules", EACH_TICK_SECONDS, lambda: reading(_read))
    yield Piece("head", frame.head("Schedule", _state(found)))
    if not found.schedules and not found.without:
        yield Piece("body", fill(_EMPTY))
        return
    yield Piece("week", shared(("week", str(zone)), _WEEK_SECONDS, partial(reading, partial(_week, zone))))
    last = shared("last runs", _LAST_SECONDS, lambda: reading(_last))
    acts = viewer.may_act()
    yield Piece("table", schedule_table(found.schedules, found.without, last, (zone, found.now), acts=acts))
    if schedule_form.is_outdated():
        st.rerun()


def _week(zone: tzinfo) -> Html:
    return strip(calendar_strip(zone, database.now()), zone)


def _last() -> Mapping[tuple[str, str | None], LastRun]:
    return last_runs(database.now())


def _read() -> Reading:
    try:
        known = get_registry()
    except SluiceError as error:
        raise Unreadable("The sources cannot be loaded", str(error)) from error
    found = all_schedules(MOST_LISTED)
    recorded = {one.source for one in found if one.tenant is None}
    without = {name: known[name].schedule or "" for name in sorted(known) if name not in recorded}
    return Reading(database.now(), found, without, bool(scheduler_heartbeat.no_scheduler()))


def _state(found: Reading) -> Html:
    """Return the page in a line: what comes next."""
    coming = [(one.next_at[0], one.source) for one in found.schedules if one.next_at]
    if not coming:
        return fill("nothing runs by itself")
    if found.no_scheduler:
        return fill("nothing starts by itself now")
    at, source = min(coming)
    wait = duration(max(0.0, (at - found.now).total_seconds()))
    return fill("{source} is next, in {wait}", source=source, wait=wait)
