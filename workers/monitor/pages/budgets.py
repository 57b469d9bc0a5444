"""The Budgets page: for each API the allowed and the used requests, its waits, and the runs that use it."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, tzinfo

from workers import clock
from workers.errors import ConfigurationError
from workers.monitor.actions import reset_budget
from workers.monitor.html.formatting import plural
from workers.monitor.html.markup import Html, fill, join
from workers.monitor.html.notice import line, notice
from workers.monitor.pages import live_page
from workers.monitor.pages.live_page import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, cached
from workers.monitor.sections.banner import current
from workers.monitor.sections.budget_card import budget_card, state_word
from workers.reports.budgets import BudgetUse, budget_uses

#: How often budgets are read while Redis is down: little changes, and a Redis that hangs costs time.
_AWAY_SECONDS = 4.0
_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-gate"></i><h2>No budgets yet</h2>
<p>The connector of a source defines a budget: how many requests its API allows.</p></section>
"""


def show() -> None:
    """Draw the page."""
    live_page.live("Budgets", _draw, reset_budget.press)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    try:
        answers = current().processes is not None
        seconds = EACH_TICK_SECONDS if answers else _AWAY_SECONDS
        key = ("budget uses", answers)
        now, (uses, troubles) = cached(key, seconds, lambda: (clock.now(), budget_uses(redis_answers=answers)))
    except ConfigurationError as error:
        yield Piece("head", live_page.head("Budgets", fill("not available")))
        yield Piece("notices", notice("bad", "alert", "Budgets are not available", str(error)))
        return
    yield Piece("head", live_page.head("Budgets", _state(uses, now)))
    yield Piece("notices", _notices(troubles))
    if not uses:
        yield Piece("empty", fill(_EMPTY))
    for use in uses:
        act = reset_budget.reset_button(use.state) if use.state else fill("")
        yield Piece(f"budget-{use.name}", budget_card(use, zone, now, act))


def _state(uses: tuple[BudgetUse, ...], now: datetime) -> Html:
    """Return the page in a line: `3 budgets: 1 paused, 2 open`."""
    words = Counter(state_word(use, now) for use in uses)
    states = next(iter(words)) if len(uses) == 1 else ", ".join(f"{number} {word}" for word, number in words.items())
    return fill("{budgets}: {states}", budgets=plural(len(uses), "budget"), states=states) if uses else fill("none yet")


def _notices(troubles: tuple[str, ...]) -> Html:
    return join(line("warn", "alert", trouble) for trouble in troubles)
