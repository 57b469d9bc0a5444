"""The page "budgets": what each API allows and what is used of it, live."""

from collections import Counter
from datetime import datetime, tzinfo

from workers import clock
from workers.budget_use import BudgetUse, budget_uses
from workers.errors import ConfigurationError
from workers.monitor import confirm, frame, relearn_button
from workers.monitor.banner import current
from workers.monitor.budget_card import budget_card, standing
from workers.monitor.markup import Html, fill, join, prose
from workers.monitor.panel import panel
from workers.monitor.shared import EACH_TICK_SECONDS, shared
from workers.monitor.words import so_many

#: How often they are read while Redis is away: there is little to see, and a Redis that hangs costs time.
_AWAY_SECONDS = 4.0
_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-gate"></i><h2>There is no budget yet</h2>
<p>A budget comes with a source: its connector says how many requests the API allows.</p></section>
"""


def show() -> None:
    """Draw the page."""
    frame.live("Budgets", _draw)


def _draw(zone: tzinfo) -> None:
    confirm.tell()
    try:
        answers = current().processes is not None
        seconds = EACH_TICK_SECONDS if answers else _AWAY_SECONDS
        key = ("budget uses", answers)
        now, (uses, troubles) = shared(key, seconds, lambda: (clock.now(), budget_uses(redis_answers=answers)))
    except ConfigurationError as error:
        panel(frame.head("Budgets", fill("cannot be told")), key="head")
        panel(frame.notice("bad", "alert", "No budget is known", str(error)), key="notices")
        return
    panel(frame.head("Budgets", _state(uses, now)), key="head")
    panel(_notices(troubles), key="notices")
    if not uses:
        panel(fill(_EMPTY), key="empty")
    for use in uses:
        panel(budget_card(use, zone, now), key=f"budget {use.name}")
        if use.state:
            relearn_button.draw(use.state)


def _state(uses: tuple[BudgetUse, ...], now: datetime) -> Html:
    """Return the page in a line: `3 budgets: 1 paused, 2 open`."""
    words = Counter(standing(use, now) for use in uses)
    said = next(iter(words)) if len(uses) == 1 else ", ".join(f"{number} {word}" for word, number in words.items())
    return fill("{budgets}: {said}", budgets=so_many(len(uses), "budget"), said=said) if uses else fill("none yet")


def _notices(troubles: tuple[str, ...]) -> Html:
    line = '<p class="sl-line sl-warn"><i class="sl-icon sl-i-alert"></i><span>{text}</span></p>'
    return join(fill(line, text=prose(trouble)) for trouble in troubles)
