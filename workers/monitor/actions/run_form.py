"""The "Run import" form: which source, how, and what will come of it, said before the button is pressed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from typing import Any

import streamlit as st
from peewee import PeeweeException

from workers.connections import database
from workers.control import runner, tenants
from workers.errors import AlreadyDone, DependencyDown, SluiceError
from workers.monitor.access import viewer
from workers.monitor.actions import stale_clicks
from workers.monitor.actions.confirm import plain
from workers.monitor.html.formatting import duration
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.readings import cache
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.log_throttle import complain
from workers.monitor.readings.unavailable import Unreadable
from workers.records import activation, idempotency_keys, scheduled_runs
from workers.records.tables import Run, RunStatus
from workers.reports import runs_list
from workers.reports.source_stats import source_stats
from workers.scheduling import schedule_stats
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry

NEW, RESCHEDULE = "NEW", "RESCHEDULE"
_SOURCE, _HOW, _TENANT, _FRESH = "form_source", "form_how", "form_tenant", "form_fresh"
_PLAN, _REFUSAL, _DOOR, _STARTED = "form_plan", "form_refusal", "form_door", "form_started"
_SLOW_SECONDS = 10.0

_TEXT = '<p class="sl-plan-text">{text}</p>'
_PROMISE = '<p class="sl-promise">{text}</p>'
_HOWS = """
<p class="sl-plan-text"><b>NEW</b> starts one more run, outside the schedule. <b>RESCHEDULE</b> runs the next scheduled
one now.</p>
"""
_LOOKS = '<p class="sl-viewer">{text}</p>'
_LINE = '<p class="sl-line sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>'
_VIEWER = "You may look; starting imports is for operators."
_REMOVES = (
    "When the import has ended, every row of the table {table} that is no longer in the list is deleted, if the list "
    "was read whole and was not empty. This cannot be undone."
)


#: Which source, how, and for which tenant.
Asked = tuple[str, str, str | None]
_TOAST = ":material/warning:"


@dataclass(frozen=True)
class Plan:
    """What pressing the button would do now.

    Parameters:
      sentence(str): For the reader.
      possible(bool): Whether the button can be pressed.
      usual(str): How long it has taken lately.
      by_itself(str): When the source runs without anybody's doing.
      key(str): Its key, from `act_keys`: pressed twice, in whichever tab, it is done once.
    """

    sentence: str
    possible: bool = True
    usual: str = ""
    by_itself: str = ""
    key: str = ""


def draw(zone: tzinfo, *, folded: bool) -> None:
    """Draw the form. It stands outside of the part that refreshes, so that nothing typed is lost.

    Parameters:
      zone(tzinfo): The viewer's time zone.
      folded(bool): Whether it opens at a button; else it stands there, for who has never run anything.
    """
    with st.container(key="run_import"):
        if not viewer.may_act():
            st.html(fill(_LOOKS, text=_VIEWER))
            return
        with _place(folded=folded), st.container(key="run_form", border=not folded):
            try:
                _draw(zone)
            except Unreadable as error:
                st.html(_line("bad", "cross", f"Nothing can be started now. {error}"))


def _place(*, folded: bool) -> Any:
    """Return where the form stands. What opens it tells when it does, so that `_press` can close it."""
    if not folded:
        return st.container()
    return st.popover("Run import", icon=":material/play_arrow:", key=_DOOR, on_change="rerun")


def withdraw() -> None:
    """Forget what the form has promised: it is about to be drawn again."""
    st.session_state.pop(_PLAN, None)


def is_outdated(zone: tzinfo) -> bool:
    """Whether the form promises what is no longer so: since it was drawn, a run has ended or been scheduled."""
    if _PLAN not in st.session_state:
        return False
    asked, plan = st.session_state[_PLAN]
    try:
        return bool(plan != _plan(asked, zone))
    except Unreadable:  # the live part says what is the matter
        return False


def make_plan(source_name: str, how: str, tenant: str | None, zone: tzinfo) -> Plan:
    """Return what starting, or pulling forward, a run would do now.

    Parameters:
      source_name(str): Of which source.
      how(str): NEW or RESCHEDULE.
      tenant(str | None): For whom.
      zone(tzinfo): The viewer's time zone, for times in the sentence.
    """
    try:
        with database.connection():
            sentence, possible = (_new if how == NEW else _reschedule)(source_name, tenant, zone)
            read = partial(reading, partial(_usual, source_name))
            usual = cache.shared(("usual", source_name), _SLOW_SECONDS, read)
            key = idempotency_keys.of_start(source_name, tenant, _act(how, source_name, tenant))
            return Plan(sentence, possible, usual, _by_itself(source_name, tenant, zone), key)
    except (SluiceError, PeeweeException, Unreadable):
        return Plan("Nothing can be started while the database is away.", possible=False)


# --- the widgets


def _draw(zone: tzinfo) -> None:
    sources = _sources()
    if sources is None:
        return
    name = st.selectbox("Source", sorted(sources), key=_SOURCE)
    how = st.segmented_control("Run import", [NEW, RESCHEDULE], default=NEW, required=True, key=_HOW, width="stretch")
    st.html(fill(_HOWS))
    tenant = _draw_tenant(sources[name])
    fresh = _draw_fresh(sources[name], how)
    asked = name, how, tenant
    plan = _plan(asked, zone)
    st.session_state[_PLAN] = asked, plan
    st.html(_said(plan))
    refused, refusal = st.session_state.get(_REFUSAL, (None, ""))
    if refused == asked:
        st.html(_line("bad", "cross", refusal))
    started = st.session_state.get(_STARTED, 0)
    st.button(
        "Import and remove" if fresh else "Import now" if how == NEW else "Run the next one now",
        type="primary",
        disabled=not plan.possible,
        on_click=_press,
        args=(asked, fresh, plan.key),
        width="stretch",
        key=f"form_go {started}" if started else "form_go",  # another each time: two hasty presses start one run
    )


def _sources() -> Mapping[str, ImportSource] | None:
    try:
        registry = get_registry()
    except SluiceError as error:
        st.html(fill(_TEXT, text=fill("<b>No source can be run.</b> {error}", error=error)))
        return None
    if not registry:
        st.html(fill(_TEXT, text=fill("<b>There are no sources yet.</b> SLUICE_SOURCES names an empty list.")))
        return None
    return registry


def _draw_tenant(source: ImportSource) -> str | None:
    """Ask for whom the run is, where the source makes a difference or there were such runs."""
    known = _tenants(source.name)
    if not known and not tenants.has_tenants(source):
        return None
    asked = st.selectbox(
        "Tenant", known, index=None, placeholder="none", accept_new_options=True, key=_TENANT, help="For whom it runs."
    )
    return (asked or "").strip() or None


def _tenants(source: str) -> list[str]:
    return cache.shared(("form tenants", source), _SLOW_SECONDS, partial(_read_tenants, source))


def _read_tenants(source: str) -> list[str]:
    try:
        with database.connection():
            return runs_list.tenants(source)
    except (SluiceError, PeeweeException):
        return []


def _draw_fresh(source: ImportSource, how: str) -> bool:
    if how != NEW or not source.allow_fresh:
        return False
    fresh = st.checkbox("Fresh: remove rows that are no longer in the list", key=_FRESH)
    if fresh:
        st.html(_line("warn", "alert", _REMOVES.format(table=source.model._meta.table_name)))
    return fresh


def _said(plan: Plan) -> Html:
    notes = [fill(_TEXT, text=prose(text)) for text in (plan.usual, plan.by_itself) if text]
    return join([fill(_PROMISE, text=prose(plan.sentence)), *notes])


def _line(tone: str, shape: str, text: str) -> Html:
    return fill(_LINE, tone=tone, shape=shape, text=prose(text))


# --- what will happen


def _plan(asked: Asked, zone: tzinfo) -> Plan:
    return cache.shared(("form", asked, zone), cache.EACH_TICK_SECONDS, partial(make_plan, *asked, zone))


def _act(how: str, source_name: str, tenant: str | None) -> str:
    """Name what is offered: of several runs that are scheduled, to pull forward each is an act of its own."""
    ahead = scheduled_runs.next_for(source_name, tenant) if how == RESCHEDULE else None
    return f"{how} {ahead.id}" if ahead else how


def _new(source_name: str, tenant: str | None, zone: tzinfo) -> tuple[str, bool]:
    active = activation.active(source_name, tenant)
    if active is None:
        return f"A new run of {_whose(source_name, tenant)} starts now, outside the schedule.", True
    return f"Run {active.id} is {active.status}: the new run waits behind it and starts when it has ended.", True


def _reschedule(source_name: str, tenant: str | None, zone: tzinfo) -> tuple[str, bool]:
    whose = _whose(source_name, tenant)
    run = scheduled_runs.next_for(source_name, tenant)
    if run is None:
        return f"No run of {whose} is scheduled, so there is none to pull forward. NEW starts one now.", False
    local = run.scheduled_at.astimezone(zone)
    active = activation.active(source_name, tenant)
    then = f"waits behind run {active.id}, which is {active.status}" if active else "starts now"
    moved = f"Next scheduled run of {whose}: run {run.id}, {local:%Y-%m-%d %H:%M %Z} → now."
    return f"{moved} It {then}; later ones keep their time.", True


def _whose(source_name: str, tenant: str | None) -> str:
    return f"{source_name} for {tenant}" if tenant else source_name


def _usual(source_name: str) -> str:
    """Say how long its runs have taken lately; empty where none has completed."""
    lately = source_stats([source_name])[source_name]
    if lately.average_seconds is None:
        return ""
    runs_of = "its last run" if lately.succeeded == 1 else f"its last {lately.succeeded} runs that completed"
    return f"It takes about {duration(lately.average_seconds)}, as {runs_of} did."


def _by_itself(source_name: str, tenant: str | None, zone: tzinfo) -> str:
    """Say when the schedule of a source comes next; empty where it has none."""
    schedule = schedule_stats.schedule_stats(source_name, tenant)
    if schedule is None:
        return ""
    if schedule.trouble:
        return f"Its schedule cannot be kept: {schedule.trouble}"
    if schedule.paused_at:
        return f"Its schedule is paused, by {schedule.updated_by}: `schedule resume {source_name}` lets it go on."
    local = [slot.astimezone(zone) for slot in schedule.next_at]
    slots = [
        f"{at:%H:%M}" if n and at.date() == local[n - 1].date() else f"{at:%a %d %H:%M}" for n, at in enumerate(local)
    ]
    said = f"By itself: {schedule.in_words} ({schedule.timezone}). Next: {', '.join(slots)} {local[0]:%Z}"
    return f"{said}. But {schedule.unattended}" if schedule.unattended else said


# --- pressing the button


def _press(asked: Asked, fresh: bool, key: str) -> None:
    """Do what the form says; Streamlit calls this before it draws the page again."""
    st.session_state.pop(_REFUSAL, None)
    if not viewer.may_act():
        st.session_state[_REFUSAL] = asked, _VIEWER
        return
    if stale_clicks.is_late():
        st.session_state[_REFUSAL] = asked, stale_clicks.LATE
        return
    try:
        with database.connection(), idempotency_keys.once(key, viewer.who()):
            run = _begin(*asked, fresh)
            receipt = _receipt(run)
    except AlreadyDone as error:
        st.toast(plain(str(error)), icon=_TOAST)
    except (DependencyDown, PeeweeException) as error:
        complain("the form could not start a run", error)
        st.session_state[_REFUSAL] = asked, "The database does not answer: nothing was started."
    except SluiceError as error:
        st.session_state[_REFUSAL] = asked, str(error)
    else:
        st.session_state[_STARTED] = st.session_state.get(_STARTED, 0) + 1
        st.session_state[_FRESH] = False
        st.session_state[_DOOR] = False  # it shuts, so that a second click starts no second run
        st.toast(receipt, icon=":material/check:")
    cache.forget()


def _begin(source_name: str, how: str, tenant: str | None, fresh: bool) -> Run:
    asked: dict[str, Any] = {"who": viewer.who(), "door": "monitor", "tenant": tenant}
    if how == RESCHEDULE:
        return runner.reschedule(source_name, **asked)
    tenants.refuse(source_name, tenant)
    return runner.start(source_name, fresh=fresh, **asked)


def _receipt(run: Run) -> str:
    if run.status == RunStatus.PENDING:
        ahead = activation.active(run.source, run.tenant)
        return f"Run {run.id} waits behind run {ahead.id}" if ahead else f"Run {run.id} is next"
    return f"Run {run.id} is {run.status}"
