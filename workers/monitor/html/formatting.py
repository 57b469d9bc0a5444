"""Numbers as text: counts, rates, times in the viewer's time zone, rate-limit hits and efficiency."""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import partial

from workers.monitor.html.markup import Html, fill, prose
from workers.records.tables import ACTIVE, RunStatus
from workers.reports.run_stats import RunStats
from workers.text.durations import duration

#: An instant as the package writes it in sentences, in UTC; one without a date is the nearest.
_INSTANT = re.compile(r"\b(?:(?P<date>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d(?::\d\d)?) UTC\b")


def count(number: int | None) -> str:
    """Return 1000 as 1,000; an unknown number as a dash."""
    return "–" if number is None else f"{number:,}"


def plural(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun: 1 hit, 12 hits, 2 processes.

    Parameters:
      several(str): The plural, where it is not the noun with an s.
    """
    return f"{count(number)} {noun if number == 1 else several or f'{noun}s'}"


def pace(per_second: float) -> str:
    """Return a rate with the digits that matter: 0.42, 7.3, 128."""
    digits = 0 if per_second >= 100 or not per_second else 1 if per_second >= 1 else 2
    return f"{per_second:,.{digits}f}"


def measured(run: RunStats) -> str:
    """Return the time over which the rate of a run was measured: `last minute`, `last 3 s`, `average`."""
    if run.status not in ACTIVE:
        return "average"
    return "last minute" if run.pace_seconds >= 59.5 else f"last {max(1, math.ceil(run.pace_seconds))} s"


def counts(run: RunStats, *, zeros: bool = True) -> str:
    """Return the progress of a run: `412 of 1,000 · 3 failed · 0 skipped`.

    Parameters:
      zeros(bool): False: without the counts that are 0.
    """
    if not run.discovered and not run.ended_at:
        return done_of_all(run)
    others = [f"{count(n)} {what}" for n, what in ((run.failed, "failed"), (run.skipped, "skipped")) if n or zeros]
    return " · ".join([done_of_all(run), *others])


def done_of_all(run: RunStats) -> str:
    """Return how many items have ended: `412 of 1,000`."""
    if not run.discovered and not run.ended_at:
        return f"reading the list: {count(run.total or 0)} found so far"
    total = count(run.total or 0)
    of = total if run.discovered else f"{total} found before reading the list stopped"
    return f"{count(run.done)} of {of}"


def spent(run: RunStats) -> str:
    """Return the parts of a run's duration: `50 s active · 2 min 6 s waiting`, then idle and paused time."""
    parts = [(run.active_seconds, "active"), (run.waiting_seconds, "waiting")]
    parts += [(run.idle_seconds, "idle")] if run.idle_seconds >= 1 else []
    parts += [(run.held_seconds, "paused")] if run.held_seconds >= 1 else []
    return " · ".join(f"{duration(seconds)} {how}".replace(" ", "\u00a0") for seconds, how in parts)


def efficiency(run: RunStats) -> str:
    """Return the share of waits that came before a refusal, rounded down, and its rating."""
    share = run.efficiency
    if share is None:
        return "no waits yet"
    rating = "excellent" if share > 0.9 else "fair" if share >= 0.5 else "poor"
    return f"efficiency {int(share * 100)} % ({rating})"


def why_no_eta(run: RunStats) -> str:
    """Return why there is no estimate of when a run ends."""
    if run.status == RunStatus.PAUSED:
        return "no estimate while paused"
    if run.started_at is None:
        return "not started"
    if run.done:
        return "no estimate while stalled"
    return "estimate after the first items" if run.discovered else "estimate after the list is read"


def source_name(source: str, tenant: str | None) -> str:
    """Return the name of a source, with the tenant where there is one: `items`, `items for north`."""
    return f"{source} for {tenant}" if tenant else source


def moment(at: datetime | None, zone: tzinfo, now: datetime) -> Html:
    """Return an instant in the viewer's zone, the date left out where it is today's; UTC on hover."""
    if at is None:
        return fill('<span class="sl-dim">–</span>')
    utc = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    shown = _shown(at, zone, now)
    return fill('<time datetime="{iso}" title="{utc}">{shown}</time>', iso=at.isoformat(), utc=utc, shown=shown)


def sentence(text: str, zone: tzinfo, now: datetime) -> Html:
    """Return a sentence as `prose` does, with each instant of it, `14:03:22 UTC`, as `moment` shows it."""
    return Html(_INSTANT.sub(partial(_replaced, moment, zone, now), prose(text)))


def local(text: str, zone: tzinfo, now: datetime) -> str:
    """Return a sentence with each instant of it in the viewer's zone: where HTML cannot stand."""
    return _INSTANT.sub(partial(_replaced, _shown, zone, now), text)


def _replaced(
    shown: Callable[[datetime, tzinfo, datetime], str], zone: tzinfo, now: datetime, match: re.Match[str]
) -> str:
    try:
        day = date.fromisoformat(match["date"]) if match["date"] else now.astimezone(UTC).date()
        at = datetime.combine(day, time.fromisoformat(match["time"]), UTC)
        if not match["date"]:
            at += timedelta(days=round((now - at) / timedelta(days=1)))  # the nearest one
        return shown(at, zone, now)
    except (ValueError, OverflowError):  # an API's error message can hold anything
        return match[0]


def _shown(at: datetime, zone: tzinfo, now: datetime) -> str:
    here, today = at.astimezone(zone), now.astimezone(zone)
    if here.date() == today.date():
        return f"{here:%H:%M:%S}"
    return f"{here:%d %b{'' if here.year == today.year else ' %Y'}, %H:%M}"
