"""The form in which a schedule is made, changed, paused and removed; what comes of each is said before its button."""

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
from workers.monitor.access import viewer
from workers.monitor.actions import schedule_actions
from workers.monitor.html import links
from workers.monitor.html.flush_delay import settle
from workers.monitor.html.markup import Html, fill
from workers.monitor.html.panel import panel
from workers.monitor.html.schedule_text import CATCH_UP, consequences, elsewhere, slots
from workers.monitor.readings.cache import EACH_TICK_SECONDS, shared
from workers.monitor.readings.database_reading import reading
from workers.monitor.readings.unavailable import Unreadable
from workers.records.tables import Schedule
from workers.scheduling import preview, schedules
from workers.scheduling.preview import SchedulePlan
from workers.sources.registry import get_registry

#: The query parameters that say whose schedule the form is for; NEW asks for an empty form.
SOURCE, TENANT, NEW = "source", "tenant", "new"

_LOADED, _TOLD, _KEY = "schedule_loaded", "schedule_told", "schedule_key"
_NAME, _FOR, _CRON = "schedule_source", "schedule_tenant", "schedule_cron"
_ZONE, _CATCH_UP = "schedule_timezone", "schedule_catch_up"
#: No source and no tenant has a longer name.
_LONGEST = 100
_EXAMPLE = "0 */3 * * *"
_HELP = "Minute, hour, day of month, month, weekday: `30 6 * * 1-5` is 06:30 from Monday to Friday. Or @hourly, @daily."

_LINE = '<p class="sl-line sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{text}</span></p>'
_TITLE = """
<div class="sl-schedule-head"><h2>{title}</h2>
<a href="{href}" data-page data-escape aria-label="Close the form">Close</a></div>
"""


_NOT_MADE_UP = "Slots that passed meanwhile will not be made up for."
_UNTIL_RESUMED = "No more will be made until it is resumed; a run that has begun goes on."

Whose = tuple[str, str | None]


class Offer(NamedTuple):
    """What can be done to a schedule, beside changing it.

    Parameters:
      label(str), icon(str): Of its button.
      plan(Callable): Returns what it would do.
      act(Callable): Does it, and returns whether it was done.
      after(str): What else there is to say before.
      key(str): Its key: it is done once.
    """

    label: str
    icon: str
    plan: Callable[[], SchedulePlan | None]
    act: Callable[[str, str | None, str], bool]
    after: str
    key: str


@dataclass(frozen=True)
class Told:
    """What the form says of what it would do: refused, or planned."""

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
    st.session_state.pop(_TOLD, None)
    if done := st.session_state.pop(schedule_actions.DONE, None):
        st.toast(done, icon=":material/event_available:")
    if not is_asked() or not viewer.may_act():
        return
    with st.container(border=True, key="schedule_form"):
        try:
            _draw(zone)
        except (Unreadable, SluiceError) as error:
            panel(fill(_LINE, tone="bad", shape="cross", text=error), key="schedule_refused")
    settle()


def is_asked() -> bool:
    """Whether the page's address asks for the form."""
    return SOURCE in st.query_params or NEW in st.query_params


def is_outdated() -> bool:
    """Whether the form promises what is no longer so: a slot has passed, or somebody else has changed the schedule."""
    told = st.session_state.get(_TOLD)
    return told is not None and told[1] != _tell(*told[0])


def _draw(zone: tzinfo) -> None:
    if SOURCE not in st.query_params:
        _load("", None)
        _draw_new(zone)
        return
    source, tenant = st.query_params[SOURCE][:_LONGEST], st.query_params.get(TENANT, "")[:_LONGEST] or None
    if not (source + (tenant or "")).isprintable():
        raise UsageError("This address names no source: choose one below.")
    found = _find(source, tenant)
    _load(source, tenant)
    title = f"The schedule of {_name(source, tenant)}" if found else f"A schedule for {_name(source, tenant)}"
    _draw_title(title)
    if source in get_registry():
        _draw_fields(source, tenant, zone)
    else:
        text = f"There is no source named {source} here: its schedule can be paused or removed, and not changed."
        panel(fill(_LINE, tone="warn", shape="alert", text=text), key="schedule_unknown")
    _draw_buttons(source, tenant, found, zone)


def _draw_new(zone: tzinfo) -> None:
    _draw_title("A new schedule")
    source = st.selectbox("Source", sorted(get_registry()), key=_NAME)
    tenant = st.text_input("Tenant", key=_FOR, max_chars=100, live=True, placeholder="none") or None
    if source is None:
        panel(fill(_LINE, tone="warn", shape="alert", text="SLUICE_SOURCES lists no source."), key="schedule_unknown")
        return
    _draw_fields(source, tenant, zone)
    _draw_buttons(source, tenant, None, zone)


def _draw_title(title: str) -> None:
    panel(fill(_TITLE, title=title, href=links.to(links.SCHEDULE)), key="schedule_title")


def _draw_fields(source: str, tenant: str | None, zone: tzinfo) -> None:
    """Draw what can be typed and, below it, what it means and would do."""
    cron = st.text_input("Cron", key=_CRON, max_chars=120, live=True, placeholder=_EXAMPLE, help=_HELP)
    timezone = st.selectbox("Time zone", zones(), key=_ZONE)
    catch_up = st.selectbox(
        "Where slots were missed, it", list(CATCH_UP), key=_CATCH_UP, format_func=CATCH_UP.__getitem__
    )
    asked = (source, tenant, cron or "", timezone, catch_up)
    told = _tell(*asked)
    st.session_state[_TOLD] = asked, told
    panel(_promise(told, zone), key="schedule_promise")


def _draw_buttons(source: str, tenant: str | None, found: Schedule | None, zone: tzinfo) -> None:
    row = st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center")
    told = st.session_state.get(_TOLD)
    if told:
        possible = told[1].plan is not None and not told[1].plan.same
        row.button(
            "Save",
            type="primary",
            icon=":material/check:",
            disabled=not possible,
            on_click=_save,
            args=told[0],
        )
    for offer in _offers(found) if found else ():
        _draw_offer(row, (source, tenant), offer, zone)
    if refusal := st.session_state.get(schedule_actions.REFUSAL):
        panel(fill(_LINE, tone="bad", shape="cross", text=refusal), key="schedule_refusal")


def _draw_offer(row: "st.delta_generator.DeltaGenerator", whose: Whose, offer: Offer, zone: tzinfo) -> None:
    """Draw a button that opens what would come of it, and the button that does it."""
    with row.popover(f"{offer.label}…", icon=offer.icon):
        try:
            planned = reading(offer.plan)
            text = consequences(planned, zone) if planned else fill("")
        except SluiceError as error:
            text = fill("{error}", error=error)
        panel(
            fill('<p class="sl-plan-text">{text} {after}</p>', text=text, after=offer.after),
            key=f"schedule_{offer.label}",
        )
        st.button(f"{offer.label} the schedule", type="primary", on_click=_do, args=(offer.act, *whose, offer.key))


def _offers(found: Schedule) -> Iterator[Offer]:
    """Yield what else can be done to a schedule that there is."""
    is_known = found.source in get_registry()
    key = f"schedule {found.id} version {found.version}"
    if found.paused_at and is_known:
        plan = partial(preview.of_resuming, found)
        yield Offer("Resume", ":material/play_arrow:", plan, schedule_actions.resume, _NOT_MADE_UP, key)
    if not found.paused_at:
        plan = partial(preview.of_pausing, found)
        yield Offer("Pause", ":material/pause:", plan, schedule_actions.pause, _UNTIL_RESUMED, key)
    if _is_removable(found):
        removing = partial(preview.of_removing, found)
        yield Offer("Remove", ":material/delete:", removing, schedule_actions.remove, _afterwards(found), key)


def _is_removable(found: Schedule) -> bool:
    """Whether it is not just what its source declares."""
    return found.edited or preview.source_declaring(found) is None


def _afterwards(found: Schedule) -> str:
    source = preview.source_declaring(found)
    if source:
        return f"What its source declares will hold again: {source.schedule} in {source.timezone}."
    return "It will then run only when somebody asks."


def _save(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str) -> None:
    if schedule_actions.change(source, tenant, cron, timezone, catch_up, key=st.session_state.get(_KEY, "")):
        _close()


def _do(act: Callable[[str, str | None, str], bool], source: str, tenant: str | None, key: str) -> None:
    if act(source, tenant, key):
        _close()


def _close() -> None:
    st.query_params.clear()
    st.session_state.pop(_LOADED, None)
    st.session_state.pop(_KEY, None)


def _find(source: str, tenant: str | None) -> Schedule | None:
    return reading(lambda: schedules.find(source, tenant))


def _load(source: str, tenant: str | None) -> None:
    """Fill the fields with what holds, when the form is opened; from then on they are the person's."""
    if st.session_state.get(_LOADED) == (source, tenant) and _CRON in st.session_state:
        return
    st.session_state.pop(schedule_actions.REFUSAL, None)
    st.session_state[_KEY] = f"set schedule {uuid4().hex}"  # each time that the form is opened, another
    cron, timezone, catch_up = _values(source, _find(source, tenant))
    st.session_state[_LOADED] = source, tenant
    st.session_state[_CRON] = cron
    st.session_state[_ZONE] = timezone if timezone in zones() else "UTC"
    st.session_state[_CATCH_UP] = catch_up if catch_up in CATCH_UP else CatchUp.LATEST.value


def _values(source: str, found: Schedule | None) -> tuple[str, str, str]:
    """Return what holds, else what the source declares."""
    if found:
        return found.cron, found.timezone, found.catch_up
    if source not in get_registry():
        return "", "UTC", CatchUp.LATEST
    declared = get_registry()[source]
    return declared.schedule or "", declared.timezone, declared.catch_up


@lru_cache(maxsize=1)
def zones() -> tuple[str, ...]:
    """Return the time zones a schedule may hang on, UTC first."""
    return ("UTC", *sorted(available_timezones() - {"localtime", "UTC"}))


def _tell(source: str, tenant: str | None, cron: str, timezone: str, catch_up: str) -> Told:
    """Return what saving would do now."""
    key = ("schedule plan", source, tenant, cron, timezone, catch_up)
    plan = partial(preview.of_setting, source, tenant, cron, timezone, catch_up)
    if not cron.strip():
        return Told(None)
    if tenant and not tenant.isprintable():
        return Told(None, "A tenant is a name of printable characters: write another one.")
    try:
        return Told(shared(key, EACH_TICK_SECONDS, lambda: reading(plan)))
    except SluiceError as error:
        return Told(None, str(error))
    except Unreadable as error:
        return Told(None, error.what)


def _promise(told: Told, zone: tzinfo) -> Html:
    if told.refusal:
        return fill(_LINE, tone="bad", shape="cross", text=told.refusal)
    plan = told.plan
    if plan is None:
        return fill(_LINE, tone="calm", shape="clock", text=f"Write when it is to run, like {_EXAMPLE}.")
    read = fill("<b>{words}</b>, {zone}. ", words=plan.in_words, zone=plan.timezone)
    coming = fill("Next: {slots}", slots=slots(plan.next_at, zone, plan.now)) if plan.next_at else fill("")
    there = elsewhere(plan.next_at, plan.timezone, zone, plan.now)
    does = fill("Nothing would change.") if plan.same else consequences(plan, zone)
    return fill(
        "{said}{does}",
        said=fill(
            _LINE, tone="good", shape="check", text=fill("{read}{coming}{there}", read=read, coming=coming, there=there)
        ),
        does=fill('<p class="sl-plan-text"><b>Save:</b> {does}</p>', does=does),
    )


def _name(source: str, tenant: str | None) -> str:
    return f"{source} for {tenant}" if tenant else source
