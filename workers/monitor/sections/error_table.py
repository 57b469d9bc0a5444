"""The table of the last warnings and errors that all processes logged."""

from collections.abc import Sequence
from datetime import datetime, tzinfo

from workers.messaging.recent_errors import LoggedError
from workers.monitor.html.formatting import count, moment
from workers.monitor.html.icon_label import icon_label
from workers.monitor.html.markup import Html, fill
from workers.monitor.html.section import section, table

#: Shown to viewers in place of the message.
_NOT_FOR_VIEWERS = "visible to operators only"
_TITLE = "Last warnings and errors"
_HEADS = ("Last", "Level", "Process", "Message", "Count")
_ROW = """
<tr><td>{at}</td><td>{level}</td><td>{process}</td><td class="sl-text sl-error-text">{text}</td><td>{count}</td></tr>
"""


def error_table(errors: Sequence[LoggedError] | None, zone: tzinfo, now: datetime, *, in_full: bool) -> Html:
    """Return the last lines.

    Parameters:
      errors(Sequence[LoggedError] | None): From `recent_errors`; None where Redis does not answer.
      zone(tzinfo): The viewer's time zone.
      now(datetime): The current time.
      in_full(bool): Whether to show the messages: they can name hosts and paths, which are for operators.
    """
    if errors is None:
        return section(_TITLE, "", icon_label("warn", "alert", "not available: Redis does not answer"))
    if not errors:
        return section(_TITLE, "", icon_label("good", "check", "none in the last seven days"))
    rows = (_error(line, zone, now, in_full=in_full) for line in errors)
    return section(_TITLE, "newest first; the log of each process has more", table(_HEADS, rows))


def _error(line: LoggedError, zone: tzinfo, now: datetime, *, in_full: bool) -> Html:
    serious = line.level in ("ERROR", "CRITICAL")
    return fill(
        _ROW,
        at=moment(line.at, zone, now),
        level=icon_label("bad" if serious else "warn", "cross" if serious else "alert", line.level.lower()),
        process=line.process,
        text=line.text if in_full else _NOT_FOR_VIEWERS,
        count=count(line.count),
    )
