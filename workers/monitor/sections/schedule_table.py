"""The table of schedules: a source a row: when it comes, by whose will, what came of it last."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo

from workers.monitor.actions import schedule_form
from workers.monitor.html import links
from workers.monitor.html.badge import badge
from workers.monitor.html.formatting import duration, moment
from workers.monitor.html.icon_label import mark
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.html.schedule_text import CATCH_UP, elsewhere, slot, slots
from workers.scheduling.last_run import LastRun
from workers.scheduling.schedule_stats import ScheduleStats

#: The viewer's time zone, and when it was read.
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
<span class="sl-sub">{whose} · {catch_up}</span>
"""
_DECLARED = '<code>{cron}</code><span class="sl-sub">declared in code; holds once a scheduler runs</span>'
_NEW = '<a class="sl-schedule-act" href="{href}" data-page>New schedule</a>'
_VIEWER = '<span class="sl-dim" title="An operator may change schedules.">for operators</span>'


def schedule_table(
    found: Sequence[ScheduleStats],
    without: Mapping[str, str],
    last: Mapping[tuple[str, str | None], LastRun],
    here: Here,
    *,
    acts: bool,
) -> Html:
    """Return the table.

    Parameters:
      found(Sequence[ScheduleStats]): The schedules.
      without(Mapping[str, str]): Sources that have none recorded, each with what its code declares, or nothing.
      last(Mapping): What began last, by source and tenant.
      here(Here): The viewer's time zone, and the instant it was read.
      acts(bool): Whether the one who looks may change them.
    """
    rows = [_row(one, last.get((one.source, one.tenant)), here, acts=acts) for one in found]
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
        state=mark("plan", "clock", "declared") if declared else mark("calm", "stop", "no schedule"),
        when=fill(_DECLARED, cron=declared) if declared else fill('<span class="sl-dim">when somebody asks</span>'),
        next=fill('<span class="sl-dim">–</span>'),
        last=_last(last, here),
        act=_act("Set one", source, None) if acts else "",
    )


def _act(label: str, source: str, tenant: str | None) -> Html:
    name = f"{source} for {tenant}" if tenant else source
    href = schedule_form.address(source, tenant)
    template = (
        '<a class="sl-schedule-act" href="{href}" data-page aria-label="{label}: the schedule of {name}">{label}</a>'
    )
    return fill(template, href=href, label=label, name=name)


def _state(one: ScheduleStats, here: Here) -> Html:
    zone, now = here
    if one.paused_at:
        said = fill("by {who}, since {at}", who=one.updated_by, at=moment(one.paused_at, zone, now))
        return fill('{mark}<span class="sl-sub">{said}</span>', mark=mark("warn", "pause", "paused"), said=said)
    if one.trouble:
        return mark("bad", "cross", "cannot be kept")
    return mark("warn", "alert", "no scheduler") if one.unattended else mark("good", "check", "on")


def _when(one: ScheduleStats) -> Html:
    return fill(
        _WHEN,
        words=one.in_words or "cannot be read",
        cron=one.cron,
        timezone=one.timezone,
        catch_up=CATCH_UP.get(one.catch_up, one.catch_up),
        whose=_whose(one),
    )


def _whose(one: ScheduleStats) -> str:
    if one.declared and not one.edited:
        return "declared in code"
    return f"set by {one.updated_by}" + (", not as declared in code" if one.declared else "")


def _next(one: ScheduleStats, here: Here) -> Html:
    zone, now = here
    if one.trouble:
        return fill('<span class="sl-schedule-trouble">{text}</span>', text=prose(one.trouble))
    if not one.next_at:
        return fill(
            '<span class="sl-dim">{text}</span>', text="none while it is paused" if one.paused_at else "never again"
        )
    first, wait = one.next_at[0], (one.next_at[0] - now).total_seconds()
    return fill(
        '<b>{first}</b> <span class="sl-dim">{said}</span><span class="sl-sub">{more}</span>{there}',
        first=slot(first, zone, now),
        said=f"in {duration(wait)}" if wait > 0 else "is due",
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
