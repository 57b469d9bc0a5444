"""The banner above every page: each outage with its effect and its repair; empty where there is none."""

from datetime import datetime, tzinfo

from workers.connections.trouble import Trouble
from workers.monitor.html.formatting import sentence
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.readings.cache import cached
from workers.reports.health import Health, health

#: How long a reading is reused: an outage shorter than that can stay unnoticed.
_SECONDS = 2.0

_BANNER = '<section class="sl-banner" role="status" aria-label="outages">{troubles}</section>'
_TROUBLE = """
<div class="sl-lack sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>
<p><b>{what}.</b> {means} <span>Repair: {repair}.</span></p></div>
"""


def current() -> Health:
    """Return the state of Redis, the database and the processes, read once for all open pages."""
    return cached("health", _SECONDS, health)


def banner(health: Health, zone: tzinfo, now: datetime) -> Html:
    """Return each outage in a line, with times in that zone; empty where there is none."""
    if not health.troubles:
        return fill("")
    return fill(_BANNER, troubles=join(_trouble(trouble, zone, now) for trouble in health.troubles))


def _trouble(trouble: Trouble, zone: tzinfo, now: datetime) -> Html:
    return fill(
        _TROUBLE,
        tone="bad" if trouble.is_down else "warn",
        shape="cross" if trouble.is_down else "alert",
        what=sentence(_capital(trouble.headline), zone, now),
        means=prose(trouble.meaning),
        repair=prose(trouble.repair.rstrip(".")),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
