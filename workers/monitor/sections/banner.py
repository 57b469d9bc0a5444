"""The banner: what is down, what comes of it and what to do, above every page. Nothing where all is well."""

from datetime import datetime, tzinfo

from workers.monitor.html.formatting import sentence
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.readings.cache import shared
from workers.reports.health import Health, Lack, health

#: For so long what is known of it is good: an outage of so many seconds may pass unsaid.
_SECONDS = 2.0

_BANNER = '<section class="sl-banner" role="status" aria-label="what is down">{lacks}</section>'
_LACK = """
<div class="sl-lack sl-{tone}"><i class="sl-icon sl-i-{shape}"></i>
<p><b>{what}.</b> {means} <span>{label} {repair}.</span></p></div>
"""


def current() -> Health:
    """Return how things are, as all open pages see it."""
    return shared("health", _SECONDS, health)


def banner(health: Health, zone: tzinfo, now: datetime) -> Html:
    """Return what is down or lacking, a line each, with times in that zone; empty where nothing is."""
    if not health.lacks:
        return fill("")
    return fill(_BANNER, lacks=join(_lack(lack, zone, now) for lack in health.lacks))


def _lack(lack: Lack, zone: tzinfo, now: datetime) -> Html:
    return fill(
        _LACK,
        tone="bad" if lack.is_down else "warn",
        shape="cross" if lack.is_down else "alert",
        what=sentence(_capital(lack.what), zone, now),
        means=prose(lack.means),
        label="To do:",
        repair=prose(lack.repair.rstrip(".")),
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
