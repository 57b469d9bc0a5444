"""The calendar strip: past and scheduled runs of the week around today, a line for each source; and exceptions."""

from collections.abc import Iterator, Sequence
from datetime import date, tzinfo

from workers.monitor.html import links
from workers.monitor.html.badge import BADGES
from workers.monitor.html.formatting import local, sentence
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.schedule_text import day_and_time
from workers.reports import labels
from workers.scheduling.calendar import BLOCK_HOURS, Part, Row, Strip

#: The icon and tone of each outcome: those of the badges, and one that no run has.
_MARKS = BADGES | {labels.OVERTAKEN_LABEL: ("skip", "calm")}
#: The list has at most this number of lines, the newest; the first page shows all runs.
_LISTED = 60
#: The largest number that fits in a mark; a larger one is only in its title.
_ROOM = 99
_NOTABLE = ("failed", labels.WITH_FAILURES, labels.OVERTAKEN_LABEL, labels.SKIPPED, "cancelled", labels.OVERDUE)

_STRIP = """
<section class="sl-section"><h3 class="sl-title">This week <span>{about}</span></h3>
<div class="sl-scroll"><table class="sl-strip"><thead><tr><th scope="col">Source</th>{days}</tr></thead>
<tbody>{rows}</tbody></table></div><p class="sl-strip-legend">{legend}</p>{listed}</section>
"""
_DAY = '<th scope="col" class="sl-strip-day{near}{today}"><b>{name}</b> {date}</th>'
_ROW = '<tr id="strip-{n}"><th scope="row"><div title="{name}">{name}</div></th>{cells}</tr>'
_CELL = '<td class="sl-strip-day{near}{today}"><div class="sl-strip-blocks">{line}{marks}</div></td>'
_NOW = '<i class="sl-strip-now" style="left:{percent}%" title="now, {at}"></i>'
_MARK = """
<{tag} class="sl-strip-run sl-{tone}{scheduled}{many}" style="grid-column:{column}"
 title="{text}" aria-label="{text}"{more}>
<i class="sl-icon sl-i-{shape}"></i>{count}</{tag}>
"""
_KEY = '<span class="sl-mark sl-{tone}"><i class="sl-icon sl-i-{shape}"></i><span>{word}</span></span>'
_LIST = """
<details class="sl-strip-list"><summary>{title}</summary><div class="sl-scroll"><table class="sl-table">
<thead><tr><th scope="col">When</th><th scope="col">Source</th><th scope="col">What</th><th scope="col">Why</th></tr>
</thead><tbody>{rows}</tbody></table></div></details>
"""
_LINE = """
<tr><td>{when}</td><td>{name}</td><td>{mark}</td><td class="sl-text"><div title="{full}">{reason}</div></td></tr>
"""


def strip(shown: Strip, zone: tzinfo) -> Html:
    """Return the strip. Each block of three hours has one mark: the most important outcome, with the number of runs.

    Parameters:
      shown(Strip): The week, in the viewer's time zone.
      zone(tzinfo): The viewer's time zone.
    """
    about = f"{shown.now.astimezone(zone):%Z}, in blocks of {BLOCK_HOURS} hours"
    if shown.left_out:
        about = f"{about}; {shown.left_out:,} more are not shown"
    return fill(
        _STRIP,
        about=about,
        days=join(_day(day, shown.today) for day in shown.days),
        rows=join(_row(n, row, shown, zone) for n, row in enumerate(shown.rows)),
        legend=_legend(shown),
        listed=_listed(shown, zone),
    )


def _day(day: date, today: date) -> Html:
    name = "Today" if day == today else f"{day:%a}"
    return fill(_DAY, name=name, date=f"{day:%d %b}", **_near(day, today))


def _near(day: date, today: date) -> dict[str, str]:
    """Return the CSS classes of a day: a narrow screen shows only the days around today."""
    near = " sl-strip-near" if abs((day - today).days) <= 1 else ""
    return {"near": near, "today": " sl-strip-today" if day == today else ""}


def _row(n: int, row: Row, shown: Strip, zone: tzinfo) -> Html:
    name = _name(row)
    cells = join(_cell(day, row, shown, zone) for day in shown.days)
    return fill(_ROW, n=n, name=name, cells=cells)


def _cell(day: date, row: Row, shown: Strip, zone: tzinfo) -> Html:
    blocks = [(number, parts) for (block_day, number), parts in sorted(row.blocks.items()) if block_day == day]
    marks = join(_mark(number, parts, row, shown, zone) for number, parts in blocks)
    line = _now(shown, zone) if day == shown.today else fill("")
    return fill(_CELL, line=line, marks=marks, **_near(day, shown.today))


def _now(shown: Strip, zone: tzinfo) -> Html:
    local = shown.now.astimezone(zone)
    percent = round(100 * (local.hour + local.minute / 60) / 24, 1)
    return fill(_NOW, percent=percent, at=f"{local:%H:%M}")


def _mark(number: int, parts: Sequence[Part], row: Row, shown: Strip, zone: tzinfo) -> Html:
    runs = parts[0].runs
    shape, tone = _MARKS[parts[0].outcome]
    run_id = next((part.run_id for part in parts if part.run_id), None)
    href = fill(' href="{href}" data-page', href=links.to(links.RUN, id=run_id)) if run_id else None
    return fill(
        _MARK,
        tag="a" if href else "span",
        more=href or fill(' role="img" tabindex="0"'),
        tone=tone,
        shape=shape,
        scheduled="" if run_id else " sl-strip-scheduled",
        many=" sl-strip-many" if runs > _ROOM else "",
        column=number + 1,
        text=f"{_name(row)}: {'; '.join(_text(part, shown, zone) for part in parts)}",
        count=fill("<b>{runs}</b>", runs=runs) if 1 < runs <= _ROOM else fill(""),
    )


def _text(part: Part, shown: Strip, zone: tzinfo) -> str:
    """Return time, outcome, run and reason of the runs of a part."""
    which = f"run {part.run_id}" if part.run_id else ""
    what = part.outcome
    if part.runs > 1:
        which = f"newest: {which}" if which else ""
        what = f"{part.runs:,} {what}"
    return ", ".join(
        text for text in (_when(part, shown, zone), what, which, local(part.reason, zone, shown.now)) if text
    )


def _when(part: Part, shown: Strip, zone: tzinfo) -> str:
    today = shown.now.astimezone(zone)
    first, last = part.first.astimezone(zone), part.last.astimezone(zone)
    shown_first = day_and_time(first, today)
    return shown_first if f"{first:%H:%M}" == f"{last:%H:%M}" else f"{shown_first} to {last:%H:%M}"


def _legend(shown: Strip) -> Html:
    """Return the marks that the strip shows, with their words."""
    present = {part.outcome for row in shown.rows for parts in row.blocks.values() for part in parts}
    if not present:
        return fill("No runs in this period, and none scheduled.")
    keys = [(word, *_MARKS[word]) for word in _MARKS if word in present]
    return join(fill(_KEY, word=word, shape=shape, tone=tone) for word, shape, tone in keys)


def _listed(shown: Strip, zone: tzinfo) -> Html:
    """Return the runs that did not go as planned, newest first."""
    exceptions = sorted(_notable(shown), key=lambda one: one[1].last, reverse=True)
    if not exceptions:
        return fill("")
    more = f", newest {_LISTED} of {len(exceptions):,}" if len(exceptions) > _LISTED else ""
    rows = join(_line(row, part, shown, zone) for row, part in exceptions[:_LISTED])
    return fill(_LIST, title=f"What did not go as planned{more}", rows=rows)


def _notable(shown: Strip) -> Iterator[tuple[Row, Part]]:
    for row in shown.rows:
        for parts in row.blocks.values():
            yield from ((row, part) for part in parts if part.outcome in _NOTABLE)


def _line(row: Row, part: Part, shown: Strip, zone: tzinfo) -> Html:
    shape, tone = _MARKS[part.outcome]
    word = f"{part.runs:,} {part.outcome}" if part.runs > 1 else part.outcome
    mark = fill(_KEY, shape=shape, tone=tone, word=word)
    if part.run_id:
        href = links.to(links.RUN, id=part.run_id)
        mark = fill('<a href="{href}" data-page>{mark}</a>', href=href, mark=mark)
    return fill(
        _LINE,
        when=_when(part, shown, zone),
        name=_name(row),
        mark=mark,
        full=local(part.reason, zone, shown.now),
        reason=sentence(part.reason, zone, shown.now),
    )


def _name(row: Row) -> str:
    return f"{row.source} / {row.tenant}" if row.tenant else row.source
