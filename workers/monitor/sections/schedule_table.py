"""The table of schedules: for each source its state, cron times, next slots and last run."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo

from workers.monitor.actions import schedule_form
from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.formatting import moment, source_name
from workers.monitor.html.icon_label import icon_label
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.html.schedule_text import CATCH_UP_SHORT, elsewhere, slot, slots
from workers.scheduling.last_run import LastRun
from workers.scheduling.schedule_stats import ScheduleStats
from workers.text.durations import duration

#: The viewer's time zone, and when the schedules were read.
Here = tuple[tzinfo, datetime]

_TABLE = """
<section class="sl-section sl-section-acts"><h3 class="sl-title">Schedules</h3>{acts}
<div class="sl-scroll"><table class="sl-table sl-schedules">
<thead><tr><th scope="col">Source</th><th scope="col">State</th><th scope="col">When</th><th scope="col">Next</th>
<th scope="col">Last run</th><th scope="col"><span class="sl-unseen">Act</span></th></tr></thead>
<tbody>{rows}</tbody></table></div></section>
"""
_ROW = """
<tr id="schedule-{id}"><th scope="row"><div title="{name}">{name}</div></th><td>{state}</td>
<td class="sl-wide">{when}</td><td class="sl-wide">{next}</td><td>{last}</td><td>{act}</td></tr>
"""
_WHEN = """
<b>{words}</b><span class="sl-sub"><code>{cron}</code> {timezone}</span>
<span class="sl-sub">{whose} · missed slots: {catch_up}</span>
"""
_DECLARED = '<code>{cron}</code><span class="sl-sub">declared in code; active once a scheduler runs</span>'
_NEW = '<a class="sl-schedule-act" href="{href}" data-page>New schedule</a>'
_VIEWER = '<span class="sl-dim" title="Only operators can change schedules.">operators only</span>'


def schedule_table(
    schedules: Sequence[ScheduleStats],
    without: Mapping[str, str],
    last: Mapping[tuple[str, str | None], LastRun],
    here: Here,
    *,
    acts: bool,
) -> Html:
    """Return the table.

    Parameters:
      schedules(Sequence[ScheduleStats]): The schedules.
      without(Mapping[str, str]): Sources without a recorded schedule, each with the cron text in its code, or "".
      last(Mapping): The last run, by source and tenant.
      here(Here): The viewer's time zone, and the instant it was read.
      acts(bool): Whether the viewer can change schedules.
    """
    rows = [_row(one, last.get((one.source, one.tenant)), here, acts=acts) for one in schedules]
    rows += [_bare_row(name, cron, last.get((name, None)), here, acts=acts) for name, cron in without.items()]
    new = fill(_NEW, href=links.to(links.SCHEDULE, **{schedule_form.NEW: 1})) if acts else fill(_VIEWER)
    return fill(_TABLE, acts=new, rows=join(rows))


def _row(one: ScheduleStats, last: LastRun | None, here: Here, *, acts: bool) -> Html:
    name = f"{one.source} / {one.tenant}" if one.tenant else one.source
    return fill(
        _ROW,
        id=name,
        name=name,
        state=_state(one, here),
        when=_when(one),
        next=_next(one, here),
        last=_last(last, here),
        act=_act("Change", one.source, one.tenant) if acts else "",
    )


def _bare_row(source: str, declared: str, last: LastRun | None, here: Here, *, acts: bool) -> Html:
    return fill(
        _ROW,
        id=source,
        name=source,
        state=icon_label("plan", "clock", "declared") if declared else icon_label("calm", "stop", "no schedule"),
        when=fill(_DECLARED, cron=declared) if declared else fill('<span class="sl-dim">manual start only</span>'),
        next=fill('<span class="sl-dim">–</span>'),
        last=_last(last, here),
        act=_act("Add schedule", source, None) if acts else "",
    )


def _act(label: str, source: str, tenant: str | None) -> Html:
    name = source_name(source, tenant)
    href = schedule_form.address(source, tenant)
    template = '<a class="sl-schedule-act" href="{href}" data-page aria-label="{label}: {name}">{label}</a>'
    return fill(template, href=href, label=label, name=name)


def _state(one: ScheduleStats, here: Here) -> Html:
    zone, now = here
    if one.paused_at:
        note = fill("by {who}, since {at}", who=one.updated_by, at=moment(one.paused_at, zone, now))
        return fill('{mark}<span class="sl-sub">{note}</span>', mark=icon_label("warn", "pause", "paused"), note=note)
    if one.trouble:
        return icon_label("bad", "cross", "invalid")
    return icon_label("warn", "alert", "no scheduler") if one.unattended else icon_label("good", "check", "active")


def _when(one: ScheduleStats) -> Html:
    return fill(
        _WHEN,
        words=one.in_words or "invalid",
        cron=one.cron,
        timezone=one.timezone,
        catch_up=CATCH_UP_SHORT.get(one.catch_up, one.catch_up),
        whose=_whose(one),
    )


def _whose(one: ScheduleStats) -> str:
    if one.declared and not one.edited:
        return "declared in code"
    return f"set by {one.updated_by}" + (", differs from the code" if one.declared else "")


def _next(one: ScheduleStats, here: Here) -> Html:
    zone, now = here
    if one.trouble:
        return fill('<span class="sl-schedule-trouble">{text}</span>', text=prose(one.trouble))
    if not one.next_at:
        return fill(
            '<span class="sl-dim">{text}</span>', text="none while paused" if one.paused_at else "no further slot"
        )
    first, wait = one.next_at[0], (one.next_at[0] - now).total_seconds()
    return fill(
        '<b>{first}</b> <span class="sl-dim">{wait}</span><span class="sl-sub">{more}</span>{there}',
        first=slot(first, zone, now),
        wait=f"in {duration(wait)}" if wait > 0 else "due now",
        more=fill("then {slots}", slots=slots(one.next_at[1:], zone, now)) if one.next_at[1:] else "",
        there=elsewhere(one.next_at, one.timezone, zone, now),
    )


def _last(last: LastRun | None, here: Here) -> Html:
    zone, now = here
    if last is None:
        return fill('<span class="sl-dim">none yet</span>')
    href = links.to(links.RUN, id=last.id)
    at = (
        fill("ended {at}", at=moment(last.ended_at, zone, now))
        if last.ended_at
        else fill("since {at}", at=moment(last.started_at, zone, now))
    )
    template = '<a href="{href}" data-page aria-label="run {id}, {word}">{badge}</a><span class="sl-sub">{at}</span>'
    return fill(template, href=href, id=last.id, word=last.outcome, badge=badge(last.outcome), at=at)
