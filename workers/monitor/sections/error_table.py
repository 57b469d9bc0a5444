"""The table of the last warnings and errors of all processes."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.messaging.recent_errors import LoggedError
from workers.monitor.html.formatting import count, moment
from workers.monitor.html.icon_label import mark
from workers.monitor.html.markup import Html, fill
from workers.monitor.html.section import section, table

#: What who only looks on reads in its place.
_NOT_FOR_VIEWERS = "for operators: log in as one to read it"
_TITLE = "Last warnings and errors"
_HEADS = ("Last", "Level", "Process", "What it said", "Times")
_ROW = """
<tr><td>{at}</td><td>{level}</td><td>{process}</td><td class="sl-text sl-error-text">{text}</td><td>{count}</td></tr>
"""


def error_table(found: Sequence[LoggedError] | None, zone: tzinfo, now: datetime, *, in_full: bool) -> Html:
    """Return the last lines.

    Parameters:
      found(Sequence[LoggedError] | None): From `recent_errors`; None where Redis cannot tell.
      zone(tzinfo): The viewer's time zone.
      now(datetime): The time of day there is now.
      in_full(bool): Whether to show what they said: it may name hosts and paths, which are not everybody's to know.
    """
    if found is None:
        return section(_TITLE, "", mark("warn", "alert", "they are kept in Redis, which does not answer"))
    if not found:
        return section(_TITLE, "", mark("good", "check", "none in the last seven days"))
    rows = (_error(line, zone, now, in_full=in_full) for line in found)
    return section(_TITLE, "the newest first; the log of each process has more", table(_HEADS, rows))


def _error(line: LoggedError, zone: tzinfo, now: datetime, *, in_full: bool) -> Html:
    serious = line.level in ("ERROR", "CRITICAL")
    return fill(
        _ROW,
        at=moment(line.at, zone, now),
        level=mark("bad" if serious else "warn", "cross" if serious else "alert", line.level.lower()),
        process=line.process,
        text=line.text if in_full else _NOT_FOR_VIEWERS,
        count=count(line.count),
    )
