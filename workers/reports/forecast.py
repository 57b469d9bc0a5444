"""Forecast: how long so many requests take under a budget as it is now. Arithmetic only: nothing is asked or read.

One request after the other is set at the first instant at which every rule lets it leave. Beyond so many requests the
steady rate is taken: then they leave in the same pattern again and again.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workers.limiter.state import BudgetState, WindowState

#: So many list pages, and so many details, are set one by one.
_ONE_BY_ONE = 20_000


class Rule(NamedTuple):
    """A request leaves `seconds` after the one `places` before it at the earliest.

    Parameters:
      places(int): How many.
      seconds(float): How long.
      from_answer(bool): Whether that begins with the answer of the one before, or with its leaving.
    """

    places: int
    seconds: float
    from_answer: bool = True


class Gate(NamedTuple):
    """Only the first `requests` leave within `seconds` from now: what is used already is in the way of the others."""

    requests: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """What is to be sent: list pages one after the other, then details on some strands.

    Parameters:
      pages(int), details(int): How many requests.
      page_seconds(float), detail_seconds(float): How long an answer takes.
      page_pause_seconds(float), detail_pause_seconds(float): From an answer to the next request of the same strand.
      strands(int): How many details may be under way at a time.
      apart_seconds(float): From one detail to the next, of whatever strand.
    """

    pages: int
    details: int
    page_seconds: float = 0.0
    detail_seconds: float = 0.0
    page_pause_seconds: float = 0.0
    detail_pause_seconds: float = 0.0
    strands: int = 1
    apart_seconds: float = 0.0

    @property
    def instant(self) -> "Work":
        """The same, answered at once, with no pause and as many strands as there are requests: limits alone decide."""
        return Work(self.pages, self.details, strands=max(1, self.pages + self.details))


def seconds_for(work: Work, rules: Sequence[Rule], gates: Iterable[Gate] = (), one_by_one: int = _ONE_BY_ONE) -> float:
    """Return the seconds from now to the last answer.

    Parameters:
      work(Work): What is to be sent.
      rules(Sequence[Rule]): What the budget lets leave.
      gates(Iterable[Gate]): What it has given already.
      one_by_one(int): Of each kind, so many requests are set one by one.
    """
    of_pages, of_details = [*rules, *_page_rules(work)], [*rules, *_detail_rules(work)]
    pages, skipped = _shortened(work.pages, of_pages, work.page_seconds, one_by_one)
    details, more = _shortened(work.details, of_details, work.detail_seconds, one_by_one)
    line = _Line(list(gates))
    line.send(pages, work.page_seconds, of_pages)
    if pages:
        line.gates.append(Gate(pages, line.answered[-1] + work.page_pause_seconds))  # the list is in by then
    line.send(details, work.detail_seconds, of_details)
    return skipped + more + max(line.answered, default=0.0)


def _page_rules(work: Work) -> list[Rule]:
    return [Rule(1, work.page_pause_seconds)]


def _detail_rules(work: Work) -> list[Rule]:
    return [Rule(work.strands, work.detail_pause_seconds), Rule(1, work.apart_seconds, from_answer=False)]


@dataclass
class _Line:
    """The requests in their order: when each leaves, and when it is answered."""

    gates: list[Gate]
    left: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)

    def send(self, requests: int, answer_seconds: float, rules: Sequence[Rule]) -> None:
        """Let so many more leave."""
        left, answered, gates = self.left, self.answered, sorted(self.gates)
        waits = [(rule.places, rule.seconds, answered if rule.from_answer else left) for rule in rules]
        at, passed = left[-1] if left else 0.0, 0
        for number in range(len(left), len(left) + requests):
            while passed < len(gates) and number >= gates[passed].requests:
                at = max(at, gates[passed].seconds)
                passed += 1
            for places, seconds, since in waits:
                if number >= places and since[number - places] + seconds > at:
                    at = since[number - places] + seconds
            left.append(at)
            answered.append(at + answer_seconds)


def _shortened(requests: int, rules: Iterable[Rule], answer_seconds: float, most: int) -> tuple[int, float]:
    """Leave out whole rounds of what is slowest: each is as long as the one before, once the pattern is steady.

    Returns:
      tuple[int, float]: How many requests are left, `most` if that can be; the seconds that the others take.
    """
    skipped = 0.0
    for rule in sorted(rules, key=lambda rule: _interval(rule, answer_seconds), reverse=True):
        if requests <= most:
            break
        rounds = min(-(-(requests - most) // rule.places), (requests - 1) // rule.places)
        requests -= rounds * rule.places
        skipped += rounds * rule.places * _interval(rule, answer_seconds)
    return requests, skipped


def _interval(rule: Rule, answer_seconds: float) -> float:
    """Return the seconds from one request to the next where this rule alone decides, in the long run."""
    return (rule.seconds + (answer_seconds if rule.from_answer else 0.0)) / rule.places


def steady_seconds(work: Work, rules: Sequence[Rule]) -> float:
    """Return how long such work takes in the long run, when windows are used up again and again."""
    each_page = max(_interval(rule, work.page_seconds) for rule in [*rules, *_page_rules(work)])
    each_detail = max(_interval(rule, work.detail_seconds) for rule in [*rules, *_detail_rules(work)])
    return work.pages * each_page + work.details * each_detail


# --- what a budget's state comes to -----------------------------------------------------------------------------------


def rules_of(state: BudgetState, weight: float = 1.0) -> list[Rule]:
    """Return what a budget lets leave from now on.

    Parameters:
      state(BudgetState): The budget.
      weight(float): As how many requests the API counts one.
    """
    rules = [Rule(_places(window, weight), _length(window, state)) for window in state.windows]
    return rules + (_paced(rules, state) if state.profile == "paced" else [])


def gates_of(state: BudgetState, weight: float = 1.0) -> list[Gate]:
    """Return what stands in the way of the first requests: what is used of the windows, and when it opens.

    How long ago was used what is used is not told. It is taken for as late as it can be: what a shorter window does
    not count is at least as old as that window is long. Parameters as for `rules_of`.
    """
    gates = [Gate(0, state.opens_in_seconds)] if state.opens_in_seconds else []
    windows = sorted(state.windows, key=lambda window: window.limit.window_microseconds)
    for at, window in enumerate(windows):
        for younger, shorter in zip([0.0, *(_length(one, state) for one in windows)], windows[: at + 1], strict=False):
            room = window.in_force - min(shorter.used, window.in_force)
            if shorter.used and room:  # of a full window the budget itself says when it opens
                gates.append(Gate(max(1, math.floor(room / weight)), _length(window, state) - younger))
    return gates


def _places(window: WindowState, weight: float) -> int:
    return max(1, math.floor(window.in_force / weight))


def _length(window: WindowState, state: BudgetState) -> float:
    return window.limit.window_microseconds / 1e6 + state.widened_seconds


def _paced(rules: Sequence[Rule], state: BudgetState) -> list[Rule]:
    """Return the pace beside the windows, as limiter.lua keeps it: a burst, a rate, and so many in flight.

    The rate is kept by whole bursts: the last request may leave as much earlier as a burst takes.
    """
    bursts = [window.limit.burst or rule.places for window, rule in zip(state.windows, rules, strict=True)]
    pairs = [(rule, min(burst, rule.places)) for rule, burst in zip(rules, bursts, strict=True)]
    flight = min(_in_flight(rule.places, at_once) for rule, at_once in pairs)
    if flight == 1:
        return [Rule(1, rule.seconds / (rule.places - 1 if rule.places > 1 else 0.5)) for rule in rules]
    paced = [Rule(flight, 0.0)]
    for rule, at_once in pairs:
        burst = min(max(2, rule.places // 50), at_once - flight)
        paced.append(Rule(burst, burst * rule.seconds / (rule.places - burst - flight), from_answer=False))
    return paced


def _in_flight(places: int, at_once: int) -> int:
    return 1 if places < 10 or at_once < 4 else min(places // 10, at_once // 2)
