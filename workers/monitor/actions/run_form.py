"""The "Run import" form: choose source, tenant and mode; it shows the consequences before the button is pressed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from typing import Any

import streamlit as st
from peewee import PeeweeException

from workers.connections import database
from workers.control import runner, tenants
from workers.errors import SluiceError
from workers.monitor.access import current_user
from workers.monitor.actions import act
from workers.monitor.actions.act import Outcome
from workers.monitor.html.formatting import source_name
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.html.notice import line
from workers.monitor.readings import cache
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.unreadable import Unreadable
from workers.records import activation, idempotency_keys, scheduled_runs
from workers.records.tables import Run, RunStatus
from workers.reports import runs_list
from workers.reports.source_stats import source_stats
from workers.scheduling import schedule_stats
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.durations import duration

NEW, RESCHEDULE = "NEW", "RESCHEDULE"
#: The session's keys of the fields, and of what the form keeps between two drawings.
_SOURCE, _MODE, _TENANT, _FRESH = "form_source", "form_how", "form_tenant", "form_fresh"
_PLAN, _REFUSAL, _POPOVER, _STARTED = "form_plan", "form_refusal", "form_door", "form_started"
_SLOW_SECONDS = 10.0

_TEXT = '<p class="sl-plan-text">{text}</p>'
_CONSEQUENCE = '<p class="sl-promise">{text}</p>'
_MODES = """
<p class="sl-plan-text"><b>NEW</b> starts an additional run now. <b>RESCHEDULE</b> starts the next scheduled run
now.</p>
"""
_READ_ONLY = '<p class="sl-viewer">Read-only access. Operators can start imports.</p>'
_REMOVES = (
    "When the import has ended, every row of the table {table} that is no longer in the list is deleted, provided that "
    "the whole list was read and it was not empty. This cannot be undone."
)

#: The source, the mode (NEW or RESCHEDULE), and the tenant.
Choice = tuple[str, str, str | None]


@dataclass(frozen=True)
class Plan:
    """What pressing the button would do now.

    Parameters:
      sentence(str): For the reader.
      possible(bool): Whether the button can be pressed.
      usual(str): How long recent runs took.
      schedule(str): When the source runs by its schedule.
      key(str): The idempotency key: pressed twice, in any tab, it is done once.
    """

    sentence: str
    possible: bool = True
    usual: str = ""
    schedule: str = ""
    key: str = ""


def draw(zone: tzinfo, *, folded: bool) -> None:
    """Draw the form. It stands outside of the part that refreshes, so that nothing typed is lost.

    Parameters:
      zone(tzinfo): The viewer's time zone.
      folded(bool): Whether a button opens it; else it is open, for the first import.
    """
    with st.container(key="run_import"):
        if not current_user.may_act():
            st.html(fill(_READ_ONLY))
            return
        with _place(folded=folded), st.container(key="run_form", border=not folded):
            try:
                _draw(zone)
            except Unreadable as error:
                st.html(line("bad", "cross", f"No run can be started now. {error}"))


def _place(*, folded: bool) -> Any:
    """Return where the form is drawn. A popover reports that it is open, so that `_press` can close it."""
    if not folded:
        return st.container()
    return st.popover("Run import", icon=":material/play_arrow:", key=_POPOVER, on_change="rerun")


def forget_plan() -> None:
    """Forget what the form shows: it is about to be drawn again."""
    st.session_state.pop(_PLAN, None)


def is_outdated(zone: tzinfo) -> bool:
    """Whether the plan that the form shows no longer holds: since then, a run has ended or was scheduled."""
    if _PLAN not in st.session_state:
        return False
    choice, plan = st.session_state[_PLAN]
    try:
        return bool(plan != _plan(choice, zone))
    except Unreadable:  # the live part shows why
        return False


def make_plan(source: str, mode: str, tenant: str | None, zone: tzinfo) -> Plan:
    """Return what starting a new run, or the next scheduled one, would do now.

    Parameters:
      source(str): The name of the source.
      mode(str): NEW or RESCHEDULE.
      tenant(str | None): The tenant of the run.
      zone(tzinfo): The viewer's time zone, for times in the sentence.
    """
    try:
        with database.connection():
            sentence, possible = (_new if mode == NEW else _reschedule)(source, tenant, zone)
            read = partial(read_database, partial(_usual, source))
            usual = cache.cached(("usual", source), _SLOW_SECONDS, read)
            key = idempotency_keys.of_start(source, tenant, _offer(mode, source, tenant))
            return Plan(sentence, possible, usual, _schedule(source, tenant, zone), key)
    except (SluiceError, PeeweeException, Unreadable):
        return Plan("No run can be started: the database does not answer.", possible=False)


# --- the widgets


def _draw(zone: tzinfo) -> None:
    sources = _sources()
    if sources is None:
        return
    name = st.selectbox("Source", sorted(sources), key=_SOURCE)
    mode = st.segmented_control("Run import", [NEW, RESCHEDULE], default=NEW, required=True, key=_MODE, width="stretch")
    st.html(fill(_MODES))
    tenant = _draw_tenant(sources[name])
    fresh = _draw_fresh(sources[name], mode)
    choice = name, mode, tenant
    plan = _plan(choice, zone)
    st.session_state[_PLAN] = choice, plan
    st.html(_shown(plan))
    refused, refusal = st.session_state.get(_REFUSAL, (None, ""))
    if refused == choice:
        st.html(line("bad", "cross", refusal))
    started = st.session_state.get(_STARTED, 0)
    st.button(
        "Import and remove rows" if fresh else "Import now" if mode == NEW else "Start the next run now",
        type="primary",
        disabled=not plan.possible,
        on_click=_press,
        args=(choice, fresh, plan.key),
        width="stretch",
        key=f"form_go {started}" if started else "form_go",  # a new key each time: a double click starts one run
    )


def _sources() -> Mapping[str, ImportSource] | None:
    try:
        registry = get_registry()
    except SluiceError as error:
        st.html(fill(_TEXT, text=fill("<b>The sources cannot be loaded.</b> {error}", error=error)))
        return None
    if not registry:
        st.html(fill(_TEXT, text=fill("<b>There are no sources yet.</b> The list that SLUICE_SOURCES names is empty.")))
        return None
    return registry


def _draw_tenant(source: ImportSource) -> str | None:
    """Draw the field for the tenant, where the source supports tenants or has had runs for one."""
    known = _tenants(source.name)
    if not known and not tenants.has_tenants(source):
        return None
    entered = st.selectbox(
        "Tenant",
        known,
        index=None,
        placeholder="none",
        accept_new_options=True,
        key=_TENANT,
        help="The tenant to import.",
    )
    return (entered or "").strip() or None


def _tenants(source: str) -> list[str]:
    return cache.cached(("form tenants", source), _SLOW_SECONDS, partial(_read_tenants, source))


def _read_tenants(source: str) -> list[str]:
    try:
        with database.connection():
            return runs_list.tenants(source)
    except (SluiceError, PeeweeException):
        return []


def _draw_fresh(source: ImportSource, mode: str) -> bool:
    if mode != NEW or not source.allow_fresh:
        return False
    fresh = st.checkbox("Fresh: remove rows that are no longer in the list", key=_FRESH)
    if fresh:
        st.html(line("warn", "alert", _REMOVES.format(table=source.model._meta.table_name)))
    return fresh


def _shown(plan: Plan) -> Html:
    notes = [fill(_TEXT, text=prose(text)) for text in (plan.usual, plan.schedule) if text]
    return join([fill(_CONSEQUENCE, text=prose(plan.sentence)), *notes])


# --- what pressing the button would do


def _plan(choice: Choice, zone: tzinfo) -> Plan:
    return cache.cached(("form", choice, zone), cache.EACH_TICK_SECONDS, partial(make_plan, *choice, zone))


def _offer(mode: str, source: str, tenant: str | None) -> str:
    """Return what is offered, for the idempotency key: starting each of several scheduled runs is an act of its own."""
    ahead = scheduled_runs.next_for(source, tenant) if mode == RESCHEDULE else None
    return f"{mode} {ahead.id}" if ahead else mode


def _new(source: str, tenant: str | None, zone: tzinfo) -> tuple[str, bool]:
    active = activation.active(source, tenant)
    if active is None:
        return f"A new run of {source_name(source, tenant)} starts now, outside the schedule.", True
    return f"Run {active.id} is {active.status}. The new run waits behind it and starts when it ends.", True


def _reschedule(source: str, tenant: str | None, zone: tzinfo) -> tuple[str, bool]:
    whose = source_name(source, tenant)
    run = scheduled_runs.next_for(source, tenant)
    if run is None:
        return f"No run of {whose} is scheduled. NEW starts one now.", False
    local = run.scheduled_at.astimezone(zone)
    active = activation.active(source, tenant)
    then = f"waits behind run {active.id}, which is {active.status}" if active else "starts now"
    moved = f"Next scheduled run of {whose}: run {run.id}, {local:%Y-%m-%d %H:%M %Z} → now."
    return f"{moved} It {then}; later runs keep their times.", True


def _usual(source: str) -> str:
    """Say how long recent runs took; empty where none has completed."""
    recent = source_stats([source])[source]
    if recent.average_seconds is None:
        return ""
    runs_of = (
        "last completed run" if recent.succeeded == 1 else f"average of the last {recent.succeeded} completed runs"
    )
    return f"Usual duration: about {duration(recent.average_seconds)} ({runs_of})."


def _schedule(source: str, tenant: str | None, zone: tzinfo) -> str:
    """Say when the source runs by its schedule; empty where it has none."""
    schedule = schedule_stats.schedule_stats(source, tenant)
    if schedule is None:
        return ""
    if schedule.trouble:
        return f"Its schedule has a problem: {schedule.trouble}"
    if schedule.paused_at:
        command = f"`python -m workers schedule resume {source}`"
        return f"Its schedule was paused by {schedule.updated_by}; {command} resumes it."
    local = [slot.astimezone(zone) for slot in schedule.next_at]
    slots = [
        f"{at:%H:%M}" if n and at.date() == local[n - 1].date() else f"{at:%a %d %H:%M}" for n, at in enumerate(local)
    ]
    text = f"Schedule: {schedule.in_words} ({schedule.timezone}). Next: {', '.join(slots)} {local[0]:%Z}"
    return f"{text}. But {schedule.unattended}" if schedule.unattended else text


# --- pressing the button


def _press(choice: Choice, fresh: bool, key: str) -> None:
    """Do what the form shows; Streamlit calls this before it draws the page again."""
    st.session_state.pop(_REFUSAL, None)
    result = act.perform(partial(_begin, choice, fresh), key)
    if result.is_done:
        st.session_state[_STARTED] = st.session_state.get(_STARTED, 0) + 1
        st.session_state[_FRESH] = False
        st.session_state[_POPOVER] = False  # it closes, so that a second click starts no second run
    if result.is_done or result.outcome is Outcome.REPEATED:
        act.show_later(result)
    else:
        st.session_state[_REFUSAL] = choice, result.text


def _begin(choice: Choice, fresh: bool) -> str:
    source, mode, tenant = choice
    if mode == RESCHEDULE:
        return _receipt(runner.reschedule(source, tenant=tenant, **act.origin()))
    tenants.refuse(source, tenant)
    return _receipt(runner.start(source, tenant=tenant, fresh=fresh, **act.origin()))


def _receipt(run: Run) -> str:
    if run.status == RunStatus.PENDING:
        ahead = activation.active(run.source, run.tenant)
        return f"Run {run.id} waits behind run {ahead.id}" if ahead else f"Run {run.id} is next"
    return f"Run {run.id} is {run.status}"
