"""The budget of a run, beside its charts: what is used of each window, when the next opens, until when it is paused."""

from datetime import datetime, timedelta, tzinfo

from workers.limiter.state import BudgetState
from workers.monitor.html import links
from workers.monitor.html.formatting import duration, moment, sentence, so_many
from workers.monitor.html.gauge import gauges
from workers.monitor.html.markup import Html, fill
from workers.reports.budget_text import why_closed

_ASIDE = """
<section class="sl-card sl-aside" aria-label="budget {name}">
  <h3 class="sl-title">Budget <a href="{address}" data-page>{name}</a></h3>
  {gauges}
  {paused}
  <p class="sl-dim">{traffic}</p>
</section>
"""
_NEWS = '<p class="sl-aside-news"><i class="sl-icon sl-i-pause sl-warn"></i><span>{text}</span></p>'
_NONE = """
<section class="sl-card sl-aside" aria-label="budget"><h3 class="sl-title">Budget</h3>
<p class="sl-dim">{why}</p></section>
"""


def budget_aside(state: BudgetState | None, why: str, zone: tzinfo, now: datetime) -> Html:
    """Return what is to be known of a budget.

    Parameters:
      state(BudgetState | None): The budget, where it can be told.
      why(str): Why not, where it cannot.
      zone(tzinfo): The viewer's time zone.
      now(datetime): When it was read.
    """
    if state is None:
        return fill(_NONE, why=why)
    return fill(
        _ASIDE,
        name=state.name,
        address=links.to(links.BUDGETS),
        gauges=gauges(state),
        paused=_paused(state, zone, now),
        traffic=f"{so_many(state.in_flight, 'request')} in flight · {state.profile}",
    )


def _paused(state: BudgetState, zone: tzinfo, now: datetime) -> Html:
    """Say until when no window matters; what the windows keep back stands beside each."""
    if state.paused_for_seconds:
        until = (now + timedelta(seconds=state.paused_for_seconds + 0.5)).replace(microsecond=0)
        said = "paused until {until}, for {left} more: {why}"
        left = duration(state.paused_for_seconds)
        return _line(fill(said, until=moment(until, zone, now), left=left, why=state.paused_why))
    return _line(sentence(why_closed(state, now), zone, now)) if state.canary else fill("")


def _line(text: Html) -> Html:
    return fill(_NEWS, text=text)
