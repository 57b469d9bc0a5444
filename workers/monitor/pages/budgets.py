"""The page "budgets": what each API allows and what is used of it, live."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, tzinfo

from workers import clock
from workers.errors import ConfigurationError
from workers.monitor.actions import confirm, relearn_button
from workers.monitor.html.formatting import so_many
from workers.monitor.html.markup import Html, fill, join, prose
from workers.monitor.html.notice import notice
from workers.monitor.pages import frame
from workers.monitor.pages.frame import Piece
from workers.monitor.readings.cache import EACH_TICK_SECONDS, shared
from workers.monitor.sections.banner import current
from workers.monitor.sections.budget_card import budget_card, standing
from workers.reports.budgets import BudgetUse, budget_uses

#: How often they are read while Redis is away: there is little to see, and a Redis that hangs costs time.
_AWAY_SECONDS = 4.0
_EMPTY = """
<section class="sl-card sl-empty"><i class="sl-icon sl-i-gate"></i><h2>There is no budget yet</h2>
<p>A budget comes with a source: its connector says how many requests the API allows.</p></section>
"""


def show() -> None:
    """Draw the page."""
    frame.live("Budgets", _draw, relearn_button.press)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    confirm.tell()
    try:
        answers = current().processes is not None
        seconds = EACH_TICK_SECONDS if answers else _AWAY_SECONDS
        key = ("budget uses", answers)
        now, (uses, troubles) = shared(key, seconds, lambda: (clock.now(), budget_uses(redis_answers=answers)))
    except ConfigurationError as error:
        yield Piece("head", frame.head("Budgets", fill("cannot be told")))
        yield Piece("notices", notice("bad", "alert", "No budget is known", str(error)))
        return
    yield Piece("head", frame.head("Budgets", _state(uses, now)))
    yield Piece("notices", _notices(troubles))
    if not uses:
        yield Piece("empty", fill(_EMPTY))
    for use in uses:
        act = relearn_button.relearn_button(use.state) if use.state else fill("")
        yield Piece(f"budget-{use.name}", budget_card(use, zone, now, act))


def _state(uses: tuple[BudgetUse, ...], now: datetime) -> Html:
    """Return the page in a line: `3 budgets: 1 paused, 2 open`."""
    words = Counter(standing(use, now) for use in uses)
    said = next(iter(words)) if len(uses) == 1 else ", ".join(f"{number} {word}" for word, number in words.items())
    return fill("{budgets}: {said}", budgets=so_many(len(uses), "budget"), said=said) if uses else fill("none yet")


def _notices(troubles: tuple[str, ...]) -> Html:
    line = '<p class="sl-line sl-warn"><i class="sl-icon sl-i-alert"></i><span>{text}</span></p>'
    return join(fill(line, text=prose(trouble)) for trouble in troubles)
