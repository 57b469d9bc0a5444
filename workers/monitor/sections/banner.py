"""The banner: what is down, what comes of it and what to do, above every page. Nothing where all is well."""

from datetime import datetime, tzinfo

from workers.connections.trouble import Trouble
from workers.monitor.html.formatting import sentence
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.readings.cache import shared
from workers.reports.health import Health, health

#: For so long what is known of it is good: an outage of so many seconds may pass unsaid.
_SECONDS = 2.0

_BANNER = '<section class="sl-banner" role="status" aria-label="what is down">{troubles}</section>'
_TROUBLE = """
<div class="sl-lack sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>
<p><b>{what}.</b> {means} <span>{label} {repair}.</span></p></div>
"""


def current() -> Health:
    """Return how things are, as all open pages see it."""
    return shared("health", _SECONDS, health)


def banner(health: Health, zone: tzinfo, now: datetime) -> Html:
    """Return what is down or lacking, a line each, with times in that zone; empty where nothing is."""
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
        label="To do:",
        repair=prose(trouble.repair.rstrip(".")),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
