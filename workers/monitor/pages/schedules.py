"""The Schedule page: the schedule of each source, the week around today, and the form that changes a schedule."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial

import streamlit as st

from workers.connections import database
from workers.errors import SluiceError
from workers.messaging import scheduler_heartbeat
from workers.monitor.access import current_user
from workers.monitor.actions import schedule_form
from workers.monitor.html.markup import Html, fill
from workers.monitor.pages import live_page
from workers.monitor.pages.live_page import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.time_zone import zone
from workers.monitor.readings.unreadable import Unreadable
from workers.monitor.sections.calendar_strip import strip
from workers.monitor.sections.schedule_table import schedule_table
from workers.scheduling.calendar import calendar_strip
from workers.scheduling.last_run import LastRun, last_runs
from workers.scheduling.schedule_stats import ScheduleStats, all_schedules
from workers.sources.registry import get_registry
from workers.text.durations import duration

#: The table shows at most this number of schedules.
MOST_LISTED = 100
#: What changes slowly is read and drawn less often than each second.
_WEEK_SECONDS, _LAST_SECONDS = 4.9, 2.9

_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-clock"></i><h2>No sources yet</h2>
<p>Set <code>SLUICE_SOURCES</code> to the list of your sources: each of them can then have a schedule.</p></section>
"""


@dataclass(frozen=True)
class Reading:
    """What is read each second.

    Attributes:
      schedules: The recorded schedules, by source and tenant, MOST_LISTED at most.
      without: Sources without a recorded schedule, each with the cron text in its code, or "".
      no_scheduler: Whether no scheduler is running.
    """

    now: datetime
    schedules: Sequence[ScheduleStats]
    without: Mapping[str, str]
    no_scheduler: bool


def show() -> None:
    """Draw the page."""
    schedule_form.draw(zone())
    live_page.live("Schedule", _draw)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    reading = cached("schedules", EACH_TICK_SECONDS, lambda: read_database(_read))
    yield Piece("head", live_page.head("Schedule", _state(reading)))
    if not reading.schedules and not reading.without:
        yield Piece("body", fill(_EMPTY))
        return
    yield Piece("week", cached(("week", str(zone)), _WEEK_SECONDS, partial(read_database, partial(_week, zone))))
    last = cached("last runs", _LAST_SECONDS, lambda: read_database(_last))
    acts = current_user.may_act()
    yield Piece("table", schedule_table(reading.schedules, reading.without, last, (zone, reading.now), acts=acts))
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
    reading = all_schedules(MOST_LISTED)
    recorded = {one.source for one in reading if one.tenant is None}
    without = {name: known[name].schedule or "" for name in sorted(known) if name not in recorded}
    return Reading(database.now(), reading, without, bool(scheduler_heartbeat.no_scheduler()))


def _state(reading: Reading) -> Html:
    """Return the state of the page in a line: the next run."""
    upcoming = [(one.next_at[0], one.source) for one in reading.schedules if one.next_at]
    if not upcoming:
        return fill("no active schedule")
    if reading.no_scheduler:
        return fill("scheduled runs do not start: no scheduler is running")
    at, source = min(upcoming)
    wait = duration(max(0.0, (at - reading.now).total_seconds()))
    return fill("next: {source} in {wait}", source=source, wait=wait)
