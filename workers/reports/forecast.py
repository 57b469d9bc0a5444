"""Forecast: computes how long a number of requests takes under a budget as it is now; it reads nothing.

Each request is simulated: it is sent at the first instant that every rule allows. Above a number of requests the steady
rate is used instead, because the pattern repeats.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workers.limiter.state import BudgetState, WindowState

#: How many list pages, and how many details, are simulated one by one.
_ONE_BY_ONE = 20_000


class Rule(NamedTuple):
    """A request is sent at least `seconds` after the one `places` before it.

    Parameters:
      places(int): How many.
      seconds(float): How long.
      from_answer(bool): Whether that time begins when the earlier request is answered, or when it is sent.
    """

    places: int
    seconds: float
    from_answer: bool = True


class Gate(NamedTuple):
    """Only the first `requests` are sent within `seconds` from now: earlier use leaves no room for the others."""

    requests: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """The requests to send: list pages one after the other, then details on a number of strands.

    Parameters:
      pages(int), details(int): How many requests.
      page_seconds(float), detail_seconds(float): How long an answer takes.
      page_pause_seconds(float), detail_pause_seconds(float): From an answer to the next request of the same strand.
      strands(int): How many details can be in flight at a time.
      apart_seconds(float): From one detail to the next, on any strand.
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
        """The same work with immediate answers, no pauses and a strand for each request: only the limits decide."""
        return Work(self.pages, self.details, strands=max(1, self.pages + self.details))


def seconds_for(work: Work, rules: Sequence[Rule], gates: Iterable[Gate] = (), one_by_one: int = _ONE_BY_ONE) -> float:
    """Return the seconds from now to the last answer.

    Parameters:
      work(Work): The requests.
      rules(Sequence[Rule]): What the budget allows.
      gates(Iterable[Gate]): What delays the first requests: permits that were given before.
      one_by_one(int): How many requests of each kind are simulated one by one.
    """
    of_pages, of_details = [*rules, *_page_rules(work)], [*rules, *_detail_rules(work)]
    pages, skipped = _shortened(work.pages, of_pages, work.page_seconds, one_by_one)
    details, more = _shortened(work.details, of_details, work.detail_seconds, one_by_one)
    schedule = _Schedule(list(gates))
    schedule.send(pages, work.page_seconds, of_pages)
    if pages:
        schedule.gates.append(Gate(pages, schedule.answered[-1] + work.page_pause_seconds))  # the list is in by then
    schedule.send(details, work.detail_seconds, of_details)
    return skipped + more + max(schedule.answered, default=0.0)


def _page_rules(work: Work) -> list[Rule]:
    return [Rule(1, work.page_pause_seconds)]


def _detail_rules(work: Work) -> list[Rule]:
    return [Rule(work.strands, work.detail_pause_seconds), Rule(1, work.apart_seconds, from_answer=False)]


@dataclass
class _Schedule:
    """The requests in their order: when each is sent, and when it is answered."""

    gates: list[Gate]
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)

    def send(self, requests: int, answer_seconds: float, rules: Sequence[Rule]) -> None:
        """Schedule `requests` more."""
        sent, answered, gates = self.sent, self.answered, sorted(self.gates)
        waits = [(rule.places, rule.seconds, answered if rule.from_answer else sent) for rule in rules]
        at, passed = sent[-1] if sent else 0.0, 0
        for number in range(len(sent), len(sent) + requests):
            while passed < len(gates) and number >= gates[passed].requests:
                at = max(at, gates[passed].seconds)
                passed += 1
            for places, seconds, since in waits:
                if number >= places and since[number - places] + seconds > at:
                    at = since[number - places] + seconds
            sent.append(at)
            answered.append(at + answer_seconds)


def _shortened(requests: int, rules: Iterable[Rule], answer_seconds: float, most: int) -> tuple[int, float]:
    """Leave out whole rounds of the slowest rule: once the pattern is steady, each round takes the same time.

    Returns:
      tuple[int, float]: How many requests are left, `most` if possible; the seconds that the others take.
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
    """Return how long this work takes in the long run, when the windows are used up repeatedly."""
    each_page = max(_interval(rule, work.page_seconds) for rule in [*rules, *_page_rules(work)])
    each_detail = max(_interval(rule, work.detail_seconds) for rule in [*rules, *_detail_rules(work)])
    return work.pages * each_page + work.details * each_detail


# --- rules and gates of a budget's state ------------------------------------------------------------------------------


def rules_of(state: BudgetState, weight: float = 1.0) -> list[Rule]:
    """Return the rules by which a budget lets requests be sent from now on.

    Parameters:
      state(BudgetState): The budget.
      weight(float): The weight of one request.
    """
    rules = [Rule(_places(window, weight), _length(window, state)) for window in state.windows]
    return rules + (_paced(rules, state) if state.profile == "paced" else [])


def gates_of(state: BudgetState, weight: float = 1.0) -> list[Gate]:
    """Return what delays the first requests: what is used of the windows, and when they open.

    The state does not contain when a window was used. The latest possible time is assumed: use that a shorter window
    does not count is at least as old as that window is long. Parameters as for `rules_of`.
    """
    gates = [Gate(0, state.opens_in_seconds)] if state.opens_in_seconds else []
    windows = sorted(state.windows, key=lambda window: window.limit.window_microseconds)
    for at, window in enumerate(windows):
        for younger, shorter in zip([0.0, *(_length(one, state) for one in windows)], windows[: at + 1], strict=False):
            room = window.in_force - min(shorter.used, window.in_force)
            if shorter.used and room:  # when a full window opens, the budget's state says
                gates.append(Gate(max(1, math.floor(room / weight)), _length(window, state) - younger))
    return gates


def _places(window: WindowState, weight: float) -> int:
    return max(1, math.floor(window.in_force / weight))


def _length(window: WindowState, state: BudgetState) -> float:
    return window.limit.window_microseconds / 1e6 + state.widened_seconds


def _paced(rules: Sequence[Rule], state: BudgetState) -> list[Rule]:
    """Return the rules of the paced profile, as limiter.lua applies them: a burst, a rate, requests in flight.

    The rate is kept by whole bursts: the last request can be sent earlier by the length of a burst.
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
