"""The budget of a run, beside its charts: used requests of each window, when a full one opens, and a pause."""

from datetime import datetime, timedelta, tzinfo

from workers.limiter.state import BudgetState
from workers.monitor.html import links
from workers.monitor.html.formatting import moment, plural, sentence
from workers.monitor.html.gauge import gauges
from workers.monitor.html.markup import Html, fill
from workers.reports.budget_text import why_closed
from workers.text.durations import duration

_ASIDE = """
<section class="sl-card sl-aside" aria-label="budget {name}">
  <h3 class="sl-title">Budget <a href="{address}" data-page>{name}</a></h3>
  {gauges}
  {paused}
  <p class="sl-dim">{traffic}</p>
</section>
"""
_LINE = '<p class="sl-aside-line"><i class="sl-icon sl-i-pause sl-warn"></i><span>{text}</span></p>'
_NONE = """
<section class="sl-card sl-aside" aria-label="budget"><h3 class="sl-title">Budget</h3>
<p class="sl-dim">{why}</p></section>
"""


def run_budget(state: BudgetState | None, why: str, zone: tzinfo, now: datetime) -> Html:
    """Return the section.

    Parameters:
      state(BudgetState | None): The budget; None where Redis does not answer.
      why(str): The reason why it is not available.
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
        traffic=f"{plural(state.in_flight, 'request')} in flight · {state.profile}",
    )


def _paused(state: BudgetState, zone: tzinfo, now: datetime) -> Html:
    """Return the pause of the whole budget, if there is one; full windows are shown at each window."""
    if state.paused_for_seconds:
        until = (now + timedelta(seconds=state.paused_for_seconds + 0.5)).replace(microsecond=0)
        text = "paused until {until}, {left} left: {why}"
        left = duration(state.paused_for_seconds)
        return _line(fill(text, until=moment(until, zone, now), left=left, why=state.paused_why))
    return _line(sentence(why_closed(state, now), zone, now)) if state.canary else fill("")


def _line(text: Html) -> Html:
    return fill(_LINE, text=text)
