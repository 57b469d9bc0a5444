"""The timeline of a run: its events with time, person and origin (cli, monitor, script), newest first."""

import re
from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.monitor.html.formatting import count, moment, sentence
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.readings.run_reading import MOST_EVENTS
from workers.records.tables import RunEvent

#: This number is shown; the others are in a closed section.
_FIRST = 8
#: The name that automatic events have; and the origins of people, one of whom can have that name, too.
ITSELF, _DOORS = "sluice", ("cli", "monitor")

_TIMELINE = """
<section class="sl-card sl-timeline" aria-label="timeline"><h3 class="sl-title">Timeline</h3>
<ol>{first}</ol>{rest}</section>
"""
_REST = '<details id="timeline-rest"><summary>Show {title}</summary><ol>{lines}</ol></details>'
_LINE = """
<li id="event-{id}"><i class="sl-icon sl-i-{shape}"></i><div><b>{what}</b> <span class="sl-dim">{by}</span>
<span class="sl-timeline-detail" title="{full}">{detail}</span></div>{at}</li>
"""
#: Left out of a detail: the fingerprint of a group of failures means nothing to a person.
_FINGERPRINT = re.compile(r" with fingerprint [0-9a-f]+")
#: Event -> icon; any other event has a clock.
_SHAPES = {
    "started": "play",
    "resumed": "play",
    "retry": "play",
    "pending": "queue",
    "paused": "pause",
    "completed": "check",
    "failed": "cross",
    "cancelled": "stop",
    "skipped": "stop",
    "forced": "alert",
    "list changed": "alert",
}


def timeline(events: Sequence[RunEvent], zone: tzinfo, now: datetime) -> Html:
    """Return the timeline; all but the newest few are in a closed section.

    Parameters:
      events(Sequence[RunEvent]): The newest first, `MOST_EVENTS` of them at most.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When they were read.
    """
    if not events:
        return fill("")
    lines = [_line(event, zone, now) for event in events]
    return fill(_TIMELINE, first=join(lines[:_FIRST]), rest=_rest(lines[_FIRST:], complete=len(lines) < MOST_EVENTS))


def by(who: str, door: str = "") -> str:
    """Return who did something, with the origin where it differs from the name."""
    if who == ITSELF and door not in _DOORS:
        return "automatically"
    return f"by {who} ({door})" if door and door != who else f"by {who}"


def _readable(detail: str) -> str:
    """Return a detail for reading; the full text is shown on hover."""
    return _FINGERPRINT.sub(", one group of failures", detail).replace(" -> ", " → ")


def _rest(lines: Sequence[Html], *, complete: bool) -> Html:
    if not lines:
        return fill("")
    title = (
        f"all, {count(len(lines))} more" if complete else f"{count(len(lines))} earlier ones; older ones are left out"
    )
    return fill(_REST, title=title, lines=join(lines))


def _line(event: RunEvent, zone: tzinfo, now: datetime) -> Html:
    return fill(
        _LINE,
        id=event.id,
        shape=_SHAPES.get(event.what, "clock"),
        what=event.what,
        by=by(event.who, event.door),
        detail=sentence(_readable(event.detail or ""), zone, now),
        full=event.detail or "",
        at=moment(event.at, zone, now),
    )
