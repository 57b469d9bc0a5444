"""The form that creates, changes, pauses or removes a schedule, with a preview of the consequences."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import tzinfo
from functools import lru_cache, partial
from typing import NamedTuple
from uuid import uuid4
from zoneinfo import available_timezones

import streamlit as st

from workers.cron import CatchUp
from workers.errors import SluiceError, UsageError
from workers.monitor.access import current_user
from workers.monitor.actions import act, schedule_actions
from workers.monitor.actions.act import Result
from workers.monitor.html import links
from workers.monitor.html.flush_delay import wait_for_flush
from workers.monitor.html.formatting import source_name
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.notice import line
from workers.monitor.html.panel import panel
from workers.monitor.html.schedule_text import CATCH_UP, consequences, elsewhere, slots
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.readings.database_reading import read_database
from workers.monitor.readings.unreadable import Unreadable
from workers.records.tables import Schedule
from workers.scheduling import preview, schedules
from workers.scheduling.preview import SchedulePlan
from workers.sources.registry import get_registry

#: The query parameters that say whose schedule the form is for; NEW asks for an empty form.
SOURCE, TENANT, NEW = "source", "tenant", "new"

#: The session's keys: whose values the fields hold, the preview that is shown, the idempotency key, why it was refused.
_LOADED, _SHOWN, _KEY, _REFUSAL = "schedule_loaded", "schedule_shown", "schedule_key", "schedule_reason"
_NAME, _FOR, _CRON = "schedule_source", "schedule_tenant", "schedule_cron"
_ZONE, _CATCH_UP = "schedule_timezone", "schedule_catch_up"
#: No source and no tenant has a longer name.
_LONGEST = 100
_EXAMPLE = "0 */3 * * *"
_HELP = "Minute, hour, day of month, month, weekday: `30 6 * * 1-5` is 06:30 from Monday to Friday. Or @hourly, @daily."

_TITLE = """
<div class="sl-schedule-head"><h2>{title}</h2>
<a href="{href}" data-page data-escape aria-label="Close the form">Close</a></div>
"""

_MISSED = "Slots that were missed during the pause are not made up for."
_UNTIL_RESUMED = "No more runs are scheduled until it is resumed; a run that has started continues."

#: A source and a tenant.
Whose = tuple[str, str | None]


class Offer(NamedTuple):
    """What can be done to a schedule, beside changing it.

    Parameters:
      label(str), icon(str): Of its button.
      plan(Callable): Returns what it would do.
      perform(Callable): Performs it.
      after(str): A further consequence.
      key(str): Its idempotency key.
    """

    label: str
    icon: str
    plan: Callable[[], SchedulePlan | None]
    perform: Callable[[str, str | None, str], Result]
    after: str
    key: str


@dataclass(frozen=True)
class Preview:
    """What saving would do, or why it would be refused."""

    plan: SchedulePlan | None
    refusal: str = ""


def address(source: str, tenant: str | None) -> str:
    """Return the address of the page with the form for a schedule."""
    whose = {SOURCE: source} | ({TENANT: tenant} if tenant else {})
    return links.to(links.SCHEDULE, **whose)


@st.fragment  # type: ignore[untyped-decorator]
def draw(zone: tzinfo) -> None:
    """Draw the form that the page's address asks for; nothing where it asks for none, or for one who may not act.

    It is a fragment of its own, and not the live one: a tick touches nothing that is typed.
    """
    st.session_state.pop(_SHOWN, None)
    if not is_asked() or not current_user.may_act():
        return
    with st.container(border=True, key="schedule_form"):
        try:
            _draw(zone)
        except (Unreadable, SluiceError) as error:
            panel(line("bad", "cross", fill("{error}", error=error)), key="schedule_refused")
    wait_for_flush()


def is_asked() -> bool:
    """Whether the page's address asks for the form."""
    return SOURCE in st.query_params or NEW in st.query_params


def is_outdated() -> bool:
    """Whether the preview no longer holds: a slot has passed, or another person has changed the schedule."""
    shown = st.session_state.get(_SHOWN)
    return shown is not None and shown[1] != _preview(*shown[0])


def _draw(zone: tzinfo) -> None:
    if SOURCE not in st.query_params:
        _load("", None)
        _draw_new(zone)
        return
    source, tenant = st.query_params[SOURCE][:_LONGEST], st.query_params.get(TENANT, "")[:_LONGEST] or None
    if not (source + (tenant or "")).isprintable():
        raise UsageError("The address names no source. Choose one below.")
    schedule = _find(source, tenant)
    _load(source, tenant)
    whose = source_name(source, tenant)
    title = f"Schedule of {whose}" if schedule else f"New schedule for {whose}"
    _draw_title(title)
    if source in get_registry():
        _draw_fields(source, tenant, zone)
    else:
        text = fill(
            "There is no source named {source}. Its schedule can be paused or removed, but not changed.", source=source
        )
        panel(line("warn", "alert", text), key="schedule_unknown")
    _draw_buttons(source, tenant, schedule, zone)


def _draw_new(zone: tzinfo) -> None:
    _draw_title("New schedule")
    source = st.selectbox("Source", sorted(get_registry()), key=_NAME)
    tenant = st.text_input("Tenant", key=_FOR, max_chars=100, live=True, placeholder="none") or None
    if source is None:
        panel(line("warn", "alert", "SLUICE_SOURCES lists no source."), key="schedule_unknown")
        return
    _draw_fields(source, tenant, zone)
    _draw_buttons(source, tenant, None, zone)


def _draw_title(title: str) -> None:
    panel(fill(_TITLE, title=title, href=links.to(links.SCHEDULE)), key="schedule_title")


def _draw_fields(source: str, tenant: str | None, zone: tzinfo) -> None:
    """Draw the fields and, below them, what saving would do."""
    cron = st.text_input("Cron", key=_CRON, max_chars=120, live=True, placeholder=_EXAMPLE, help=_HELP)
    timezone = st.selectbox("Time zone", zones(), key=_ZONE)
    catch_up = st.selectbox("Missed slots", list(CATCH_UP), key=_CATCH_UP, format_func=CATCH_UP.__getitem__)
    entered = (source, tenant, cron or "", timezone, catch_up)
    shown = _preview(*entered)
    st.session_state[_SHOWN] = entered, shown
    panel(_preview_html(shown, zone), key="schedule_promise")


def _draw_buttons(source: str, tenant: str | None, schedule: Schedule | None, zone: tzinfo) -> None:
    row = st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center")
    shown = st.session_state.get(_SHOWN)
    if shown:
        entered, plan = shown[0], shown[1].plan
        possible = plan is not None and not plan.same
        row.button(
            "Save",
            type="primary",
            icon=":material/check:",
            disabled=not possible,
            on_click=_save,
            args=entered,
        )
    for offer in _offers(schedule) if schedule else ():
        _draw_offer(row, (source, tenant), offer, zone)
    if refusal := st.session_state.get(_REFUSAL):
        panel(line("bad", "cross", fill("{text}", text=refusal)), key="schedule_refusal")


def _draw_offer(row: "st.delta_generator.DeltaGenerator", whose: Whose, offer: Offer, zone: tzinfo) -> None:
    """Draw a button that opens the consequences, and in it the button that performs it."""
    with row.popover(f"{offer.label}…", icon=offer.icon):
        try:
            planned = read_database(offer.plan)
            text = consequences(planned, zone) if planned else fill("")
        except SluiceError as error:
            text = fill("{error}", error=error)
        panel(
            fill('<p class="sl-plan-text">{text} {after}</p>', text=text, after=offer.after),
            key=f"schedule_{offer.label}",
        )
        st.button(
            f"{offer.label} the schedule", type="primary", on_click=_perform, args=(offer.perform, *whose, offer.key)
        )


def _offers(schedule: Schedule) -> Iterator[Offer]:
    """Yield what else can be done to a schedule that there is."""
    is_known = schedule.source in get_registry()
    key = f"schedule {schedule.id} version {schedule.version}"
    if schedule.paused_at and is_known:
        plan = partial(preview.of_resuming, schedule)
        yield Offer("Resume", ":material/play_arrow:", plan, schedule_actions.resume, _MISSED, key)
    if not schedule.paused_at:
        plan = partial(preview.of_pausing, schedule)
        yield Offer("Pause", ":material/pause:", plan, schedule_actions.pause, _UNTIL_RESUMED, key)
    if _is_removable(schedule):
        removing = partial(preview.of_removing, schedule)
        yield Offer("Remove", ":material/delete:", removing, schedule_actions.remove, _afterwards(schedule), key)


def _is_removable(schedule: Schedule) -> bool:
    """Whether it is not just what its source declares."""
    return schedule.edited or preview.source_declaring(schedule) is None


def _afterwards(schedule: Schedule) -> str:
    source = preview.source_declaring(schedule)
    if source:
        return f"The schedule declared in code applies again: {source.schedule} in {source.timezone}."
    return "After that, runs start only manually."


def _save(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str) -> None:
    _finish(schedule_actions.set_schedule(source, tenant, cron, timezone, catch_up, key=st.session_state.get(_KEY, "")))


def _perform(do: Callable[[str, str | None, str], Result], source: str, tenant: str | None, key: str) -> None:
    _finish(do(source, tenant, key))


def _finish(result: Result) -> None:
    """Close the form where the act was performed; else keep it open, with the reason."""
    st.session_state.pop(_REFUSAL, None)
    if result.is_done:
        act.show_later(result)
        _close()
    else:
        st.session_state[_REFUSAL] = result.text


def _close() -> None:
    st.query_params.clear()
    st.session_state.pop(_LOADED, None)
    st.session_state.pop(_KEY, None)


def _find(source: str, tenant: str | None) -> Schedule | None:
    return read_database(lambda: schedules.find(source, tenant))


def _load(source: str, tenant: str | None) -> None:
    """Fill the fields with the current schedule when the form is opened; a redraw keeps what the person entered."""
    if st.session_state.get(_LOADED) == (source, tenant) and _CRON in st.session_state:
        return
    st.session_state.pop(_REFUSAL, None)
    st.session_state[_KEY] = f"set schedule {uuid4().hex}"  # a new one each time that the form is opened
    cron, timezone, catch_up = _values(source, _find(source, tenant))
    st.session_state[_LOADED] = source, tenant
    st.session_state[_CRON] = cron
    st.session_state[_ZONE] = timezone if timezone in zones() else "UTC"
    st.session_state[_CATCH_UP] = catch_up if catch_up in CATCH_UP else CatchUp.LATEST.value


def _values(source: str, schedule: Schedule | None) -> tuple[str, str, str]:
    """Return the current schedule, else the one that the source declares."""
    if schedule:
        return schedule.cron, schedule.timezone, schedule.catch_up
    if source not in get_registry():
        return "", "UTC", CatchUp.LATEST
    declared = get_registry()[source]
    return declared.schedule or "", declared.timezone, declared.catch_up


@lru_cache(maxsize=1)
def zones() -> tuple[str, ...]:
    """Return the time zones that a schedule can use, UTC first."""
    return ("UTC", *sorted(available_timezones() - {"localtime", "UTC"}))


def _preview(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str) -> Preview:
    """Return what saving would do now."""
    key = ("schedule plan", source, tenant, cron, timezone, catch_up)
    plan = partial(preview.of_setting, source, tenant, cron, timezone, catch_up)
    if not cron.strip():
        return Preview(None)
    if tenant and not tenant.isprintable():
        return Preview(None, "A tenant's name has printable characters only. Enter another one.")
    try:
        return Preview(cached(key, EACH_TICK_SECONDS, lambda: read_database(plan)))
    except SluiceError as error:
        return Preview(None, str(error))
    except Unreadable as error:
        return Preview(None, error.what)


def _preview_html(shown: Preview, zone: tzinfo) -> Html:
    if shown.refusal:
        return line("bad", "cross", fill("{text}", text=shown.refusal))
    plan = shown.plan
    if plan is None:
        return line("calm", "clock", f"Enter a cron expression, for example {_EXAMPLE}.")
    when = fill("<b>{words}</b>, {zone}. ", words=plan.in_words, zone=plan.timezone)
    following = fill("Next: {slots}", slots=slots(plan.next_at, zone, plan.now)) if plan.next_at else fill("")
    there = elsewhere(plan.next_at, plan.timezone, zone, plan.now)
    does = fill("No changes.") if plan.same else consequences(plan, zone)
    return join(
        [
            line("good", "check", join([when, following, there])),
            fill('<p class="sl-plan-text"><b>Save:</b> {does}</p>', does=does),
        ]
    )
