"""Figures as people say them: counts, paces, durations, moments, and whether the waiting went well."""

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import partial

from workers.monitor.html.markup import Html, fill, prose
from workers.records.tables import ACTIVE
from workers.reports.run_stats import RunStats
from workers.text.durations import duration

__all__ = [
    "count",
    "counts",
    "done_of_all",
    "duration",
    "efficiency",
    "local",
    "measured",
    "moment",
    "pace",
    "sentence",
    "so_many",
    "spent",
    "waits",
]

#: An instant as the package writes it where nobody knows who will read it; without its date it is the nearest.
_INSTANT = re.compile(r"\b(?:(?P<date>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d(?::\d\d)?) UTC\b")


def count(number: int | None) -> str:
    """Return 1000 as 1,000; a number that is not known as a dash."""
    return "–" if number is None else f"{number:,}"


def so_many(number: int, noun: str, several: str = "") -> str:
    """Return a count and what is counted: 1 hit, 12 hits, 2 processes.

    Parameters:
      several(str): What more than one are called, where that is not the noun with an s.
    """
    return f"{count(number)} {noun if number == 1 else several or f'{noun}s'}"


def pace(per_second: float) -> str:
    """Return a pace with the digits that matter: 0.42, 7.3, 128."""
    digits = 0 if per_second >= 100 or not per_second else 1 if per_second >= 1 else 2
    return f"{per_second:,.{digits}f}"


def measured(run: RunStats) -> str:
    """Return over what time the pace of a run was measured: `last minute`, `last 3 s`, `average`."""
    if run.status not in ACTIVE:
        return "average"
    return "last minute" if run.pace_seconds >= 59.5 else f"last {max(1, math.ceil(run.pace_seconds))} s"


def counts(run: RunStats, *, zeros: bool = True) -> str:
    """Return how far a run has come: `412 of 1,000 · 3 failed · 0 skipped`.

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
    whole = f"{count(run.total or 0)}" if run.discovered else f"{count(run.total or 0)} found before the list broke off"
    return f"{count(run.done)} of {whole}"


def spent(run: RunStats) -> str:
    """Return what the time of a run went to: `50 s active · 2 min 6 s waiting`, and idle or held where it was."""
    parts = [(run.active_seconds, "active"), (run.waiting_seconds, "waiting")]
    parts += [(run.idle_seconds, "idle")] if run.idle_seconds >= 1 else []
    parts += [(run.held_seconds, "held")] if run.held_seconds >= 1 else []
    return " · ".join(f"{duration(seconds)} {how}".replace(" ", "\u00a0") for seconds, how in parts)


def waits(run: RunStats) -> str:
    """Return the refusals a run met and the waits that avoided one: `0 hits · 9 sleeps`."""
    hits = "1 hit" if run.hits == 1 else f"{count(run.hits)} hits"
    return f"{hits} · {'1 sleep' if run.sleeps == 1 else f'{count(run.sleeps)} sleeps'}"


def efficiency(run: RunStats) -> str:
    """Return which share of the waits came before a refusal, in a word and a figure rounded down."""
    share = run.efficiency
    if share is None:
        return "no waits yet"
    word = "excellent" if share > 0.9 else "fair" if share >= 0.5 else "poor"
    return f"{word}, {int(share * 100)} % of waits in time"


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
    """Return a sentence with each instant of it in the viewer's zone: for where there is no room for HTML."""
    return _INSTANT.sub(partial(_replaced, _shown, zone, now), text)


def _replaced(
    say: Callable[[datetime, tzinfo, datetime], str], zone: tzinfo, now: datetime, found: re.Match[str]
) -> str:
    try:
        day = date.fromisoformat(found["date"]) if found["date"] else now.astimezone(UTC).date()
        at = datetime.combine(day, time.fromisoformat(found["time"]), UTC)
        if not found["date"]:
            at += timedelta(days=round((now - at) / timedelta(days=1)))  # it is never far away
        return say(at, zone, now)
    except (ValueError, OverflowError):  # others write sentences, too: their errors are shown in ours
        return found[0]


def _shown(at: datetime, zone: tzinfo, now: datetime) -> str:
    here, today = at.astimezone(zone), now.astimezone(zone)
    if here.date() == today.date():
        return f"{here:%H:%M:%S}"
    return f"{here:%d %b{'' if here.year == today.year else ' %Y'}, %H:%M}"
