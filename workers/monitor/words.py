"""Figures as people say them: counts, paces, durations, moments, and whether the waiting went well."""

from datetime import UTC, datetime, tzinfo

from workers.monitor.markup import Html, fill
from workers.progress import duration
from workers.stats import RunStats

__all__ = ["count", "counts", "duration", "efficiency", "moment", "pace", "waits"]


def count(number: int | None) -> str:
    """Return 1000 as 1,000; a number that is not known as a dash."""
    return "–" if number is None else f"{number:,}"


def pace(per_second: float) -> str:
    """Return a pace with the digits that matter: 0.42, 7.3, 128."""
    digits = 0 if per_second >= 100 or not per_second else 1 if per_second >= 1 else 2
    return f"{per_second:,.{digits}f}"


def counts(run: RunStats) -> str:
    """Return how far a run has come: `412 of 1,000 · 3 failed · 0 skipped`."""
    if not run.discovered and not run.ended_at:
        return f"reading the list: {count(run.total or 0)} found so far"
    whole = f"{count(run.total or 0)}" if run.discovered else f"{count(run.total or 0)} found before the list broke off"
    return f"{count(run.done)} of {whole} · {count(run.failed)} failed · {count(run.skipped)} skipped"


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
    local = at.astimezone(zone)
    today = now.astimezone(zone)
    shown = (
        f"{local:%H:%M:%S}"
        if local.date() == today.date()
        else f"{local:%d %b{'' if local.year == today.year else ' %Y'}, %H:%M}"
    )
    utc = f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    return fill('<time datetime="{iso}" title="{utc}">{shown}</time>', iso=at.isoformat(), utc=utc, shown=shown)
