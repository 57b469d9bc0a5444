"""The "Run import" form: which source, how, and what will come of it, said before the button is pressed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any

import streamlit as st
from peewee import PeeweeException

from workers import database, runner, runs, schedule_stats
from workers.contracts import ImportSource
from workers.errors import DependencyDown, SluiceError
from workers.monitor.complaint import complain
from workers.monitor.markup import fill
from workers.registry import get_registry
from workers.tables import Run, RunStatus

NEW, RESCHEDULE = "NEW", "RESCHEDULE"
_SOURCE, _HOW, _FRESH, _PLAN, _REFUSAL = "form_source", "form_how", "form_fresh", "form_plan", "form_refusal"


@dataclass(frozen=True)
class Plan:
    """What pressing the button would do now.

    Parameters:
      sentence(str): For the reader.
      possible(bool): Whether the button can be pressed.
      by_itself(str): When the source runs without anybody's doing.
    """

    sentence: str
    possible: bool = True
    by_itself: str = ""


def draw(zone: tzinfo) -> None:
    """Draw the form. It stands outside of the part that refreshes, so that nothing typed is lost."""
    with st.container(border=True, key="run_form"):
        sources = _sources()
        if sources is None:
            return
        left, middle, right = st.columns([3, 3, 2], vertical_alignment="bottom")
        below, corner = st.columns([6, 2], vertical_alignment="center")
        name = left.selectbox("Source", sorted(sources), key=_SOURCE)
        how = middle.segmented_control(
            "Run import", [NEW, RESCHEDULE], default=NEW, required=True, key=_HOW, width="stretch"
        )
        fresh = _draw_fresh(sources[name], how, below, corner)
        plan = st.session_state[_PLAN] = make_plan(name, how, zone)
        label = "Empty and import" if fresh else "Import now" if how == NEW else "Pull to now"
        right.button(
            label,
            type="primary",
            disabled=not plan.possible,
            on_click=_press,
            args=(name, how, fresh),
            icon=":material/play_arrow:",
            width="stretch",
        )
        below.html(fill('<p class="sl-plan-text">{sentence}</p>', sentence=plan.sentence))
        if plan.by_itself:
            below.html(fill('<p class="sl-plan-text">{by_itself}</p>', by_itself=plan.by_itself))
        if refusal := st.session_state.get(_REFUSAL):
            below.html(
                fill(
                    '<p class="sl-line sl-bad"><i class="sl-icon sl-i-cross"></i><span>{text}</span></p>', text=refusal
                )
            )


def is_outdated(zone: tzinfo) -> bool:
    """Whether the form promises what is no longer so: since it was drawn, a run has ended or been scheduled."""
    state = st.session_state
    return _PLAN in state and state.get(_SOURCE) and state[_PLAN] != make_plan(state[_SOURCE], state[_HOW], zone)


def make_plan(source_name: str, how: str, zone: tzinfo) -> Plan:
    """Return what starting, or pulling forward, a run of this source would do now.

    Parameters:
      source_name(str): The source.
      how(str): NEW or RESCHEDULE.
      zone(tzinfo): The viewer's time zone, for times in the sentence.
    """
    try:
        with database.connection():
            active = runs.active(source_name, None)
            plan = _plan_new(source_name, active) if how == NEW else _plan_reschedule(source_name, zone)
            return replace(plan, by_itself=_by_itself(source_name, zone))
    except (SluiceError, PeeweeException):
        return Plan("Nothing can be started while the database is away.", possible=False)


def _plan_new(source_name: str, active: Run | None) -> Plan:
    if active is None:
        return Plan(f"A new run of {source_name} starts now, outside the schedule.")
    return Plan(f"Run {active.id} is {active.status}: the new run waits behind it and starts when it has ended.")


def _plan_reschedule(source_name: str, zone: tzinfo) -> Plan:
    run = runs.next_scheduled(source_name, None)
    if run is None:
        return Plan(
            f"No run of {source_name} is scheduled, so there is none to pull forward. NEW starts one now.",
            possible=False,
        )
    local = run.scheduled_at.astimezone(zone)
    active = runs.active(source_name, run.tenant)
    then = f"waits behind run {active.id}, which is {active.status}" if active else "starts now"
    return Plan(
        f"Next scheduled run of {source_name}: run {run.id}, {local:%Y-%m-%d %H:%M %Z} → now. "
        f"It {then}; later ones keep their time."
    )


def _by_itself(source_name: str, zone: tzinfo) -> str:
    """Say when the schedule of a source comes next; empty where it has none."""
    schedule = schedule_stats.schedule_stats(source_name)
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


def _sources() -> Mapping[str, ImportSource] | None:
    try:
        registry = get_registry()
    except SluiceError as error:
        st.html(fill('<p class="sl-plan-text"><b>No source can be run.</b> {error}</p>', error=error))
        return None
    if not registry:
        st.html(
            fill('<p class="sl-plan-text"><b>There are no sources yet.</b> SLUICE_SOURCES names an empty list.</p>')
        )
        return None
    return registry


def _draw_fresh(source: ImportSource, how: str, below: Any, corner: Any) -> bool:
    if how != NEW or not source.allow_fresh:
        return False
    fresh = corner.checkbox("Fresh: empty the table first", key=_FRESH)
    if fresh:
        table = source.model._meta.table_name
        below.html(
            fill(
                '<p class="sl-line sl-warn"><i class="sl-icon sl-i-alert"></i><span>Every row of the table '
                "<b>{table}</b> is deleted before the import. This cannot be undone.</span></p>",
                table=table,
            )
        )
    return fresh


def _press(source_name: str, how: str, fresh: bool) -> None:
    """Do what the form says; Streamlit calls this before it draws the page again."""
    st.session_state.pop(_REFUSAL, None)
    try:
        with database.connection():
            run = _begin(source_name, how, fresh)
    except (DependencyDown, PeeweeException) as error:
        complain("the form could not start a run", error)
        st.session_state[_REFUSAL] = "The database does not answer: nothing was started."
    except SluiceError as error:
        st.session_state[_REFUSAL] = str(error)
    else:
        st.session_state[_FRESH] = False
        st.toast(_receipt(run))


def _begin(source_name: str, how: str, fresh: bool) -> Run:
    asked: dict[str, Any] = {"who": "monitor", "door": "monitor"}
    if how == RESCHEDULE:
        return runner.reschedule(source_name, **asked)
    return runner.start(source_name, fresh=fresh, **asked)


def _receipt(run: Run) -> str:
    if run.status == RunStatus.PENDING:
        ahead = runs.active(run.source, run.tenant)
        return f"Run {run.id} waits behind run {ahead.id}" if ahead else f"Run {run.id} is next"
    return f"Run {run.id} is {run.status}"
