"""ETA: when a running run will end, and what decides that: a window of its budget, its own pace, a retry."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from workers.limiter.state import BudgetState, WindowState
from workers.records import items
from workers.records.tables import Run
from workers.reports.forecast import Gate, Rule, Work, gates_of, rules_of, seconds_for
from workers.reports.intervals import Mark, stretches
from workers.reports.pace import Pace
from workers.reports.running_runs import Beside
from workers.text.durations import duration

#: So many requests, or bundles of them, are set one by one.
_ONE_BY_ONE = 1_000
#: A limit of fewer bundles than that is taken for a steady rate: rounding would cost too much of it.
_LEAST_PLACES = 20


@dataclass(frozen=True)
class Eta:
    """When a run will end.

    Attributes:
      seconds: From now.
      why: What decides it.
    """

    seconds: float
    why: str


def steady(state: BudgetState, requests: float = math.inf) -> tuple[float, str]:
    """Return how many requests a second a budget allows in the long run, and what decides that: `2000/100 s`.

    Parameters:
      requests(float): Of so many: windows that these do not fill decide nothing, where there is one that they do.
    """
    rules = rules_of(state)
    titles = [window.title for window in state.windows] + ["paced"] * (len(rules) - len(state.windows))
    rates = [rule.places / rule.seconds if rule.seconds else math.inf for rule in rules]
    fills = [window.used + requests > window.in_force for window in state.windows]
    fills += [True] * (len(rules) - len(fills))
    found = list(zip(rates, titles, strict=True))
    return min([one for one, is_filled in zip(found, fills, strict=True) if is_filled] or found)


def eta(run: Run, now: datetime, state: BudgetState, pace: Pace, others: Beside) -> Eta | None:
    """Return when a running run will end; None where its list is not known yet, or nothing has come of it.

    Parameters:
      run(Run): As it was read.
      now(datetime): When that was.
      state(BudgetState): Its budget then.
      pace(Pace): How fast it is.
      others(Beside): The running runs: some may share its budget, and their samples tell when its windows were used.
    """
    left = _left(run)
    if run.discovered_at is None or not pace.active_per_second:
        return None
    if left <= 0:
        return Eta(0.0, "every item has ended; about to be closed")
    own = left / pace.active_per_second
    per_item = pace.requests_per_item * others.weight_of(run)  # as the budget counts
    wanted, shared = _wanted(run, left * per_item, others)
    gates = others.once_a_budget(run, lambda: _gates(state, list(_sent(others.marks_on_the_budget_of(run, now), now))))
    limited = _seconds(wanted, 0.0, state, gates)
    both = _seconds(wanted, own / wanted, state, gates) if wanted else own
    retry = _last_retry(run, now)
    if retry > both:
        return Eta(retry, f"a retry decides: the last one is due in {duration(retry)}{shared}")
    if limited >= own:
        return Eta(both, _of_limits(state, limited, wanted, per_item) + shared)
    lanes = f"{run.lanes} lane{'' if run.lanes == 1 else 's'}"
    return Eta(both, f"its own pace decides: {_rate(pace.active_per_second)} items/s on {lanes}{shared}")


def _left(run: Run) -> int:
    return (run.total_count or 0) - run.succeeded_count - run.failed_count - run.skipped_count


def _wanted(run: Run, wanted: float, others: Beside) -> tuple[float, str]:
    """Return how many requests leave until this run's last one has, those of other runs included; and which runs.

    They are counted as the budget counts them, by weight. Those of higher priority go first. The others of its own
    share the permits with it, by lanes, until one has ended.
    """
    beside = others.on_the_budget_of(run)
    first = [other for other in beside if other.priority > run.priority]
    equal = [other for other in beside if other.priority == run.priority]
    count = wanted + sum(_left(other) * others.weight_of(other) for other in first)
    count += sum(min(_left(other) * others.weight_of(other), wanted * other.lanes / run.lanes) for other in equal)
    said = [f"run {other.id} goes first" for other in first] + [f"shared with run {other.id}" for other in equal]
    return count, "".join(f"; {text}" for text in said[:2]) + (f"; and {len(said) - 2} more" if said[2:] else "")


def _last_retry(run: Run, now: datetime) -> float:
    """Return in how many seconds the last item is due that waits for another attempt; 0 where none does."""
    due = items.last_due(run.id)
    return max(0.0, (due - now).total_seconds()) if due else 0.0


# --- what the limits allow --------------------------------------------------------------------------------------------


def _seconds(requests: float, apart_seconds: float, state: BudgetState, gates: Sequence[Gate]) -> float:
    """Return how long so many requests take; bundles of them are sent as one where there are many."""
    reach = min(requests, max((gate.requests for gate in gates), default=0))
    each = max(1, math.ceil(reach / _ONE_BY_ONE))
    bundled = [Gate(gate.requests // each, gate.seconds) for gate in gates]
    one_by_one = max(_ONE_BY_ONE, *(gate.requests + 1 for gate in bundled)) if bundled else _ONE_BY_ONE
    work = Work(0, math.ceil(requests / each), apart_seconds=apart_seconds * each)
    return seconds_for(work, [_bundled(rule, each) for rule in rules_of(state)], bundled, one_by_one)


def _bundled(rule: Rule, each: int) -> Rule:
    if each == 1:
        return rule
    if rule.places < _LEAST_PLACES * each:
        return Rule(1, rule.seconds * each / rule.places, rule.from_answer)
    return Rule(rule.places // each, rule.seconds, rule.from_answer)


class _Sent(NamedTuple):
    """Requests that were sent between two marks.

    Parameters:
      youngest(float), age(float): How long ago the last of them was sent, in seconds, and the middle one.
      requests(float): How many.
    """

    youngest: float
    age: float
    requests: float


def _sent(marked: Iterable[Sequence[Mark]], now: datetime) -> Iterable[_Sent]:
    """Yield what was sent of the marks' runs."""
    for stretch in (stretch for one in marked for stretch in stretches(one)):
        if stretch.requests:
            youngest = (now - stretch.after.at).total_seconds()
            yield _Sent(youngest, youngest + stretch.seconds / 2, stretch.requests)


def _gates(state: BudgetState, sent: list[_Sent]) -> list[Gate]:
    """Return what stands in the way of the first requests: what is used of each window, and when that is over.

    How long ago it was used is told by the samples. Of what they do not know, it is taken for as late as can be.
    """
    if state.taken_as_full_seconds:
        return gates_of(state)
    gates, younger = [Gate(0, state.opens_in_seconds)], 0.0
    for window, rule in sorted(zip(state.windows, rules_of(state), strict=False), key=lambda pair: pair[1].seconds):
        unknown = window.used - sum(one.requests for one in sent if one.youngest < rule.seconds)
        if unknown > 0:  # of which a shorter window knows nothing; and a full one, only when it opens
            full = window.used >= window.in_force
            age = max(younger, rule.seconds - state.opens_in_seconds) if full else younger
            sent.append(_Sent(age, age, unknown))
        gates += _opening(window, rule.seconds, [one for one in sent if one.youngest < rule.seconds])
        younger = rule.seconds
    return [gate for gate in gates if gate.seconds > 0]


def _opening(window: WindowState, seconds: float, known: Sequence[_Sent]) -> Iterable[Gate]:
    """Yield how a window opens step by step, as what was used of it grows old; the oldest is over first."""
    room = max(0.0, window.in_force - window.used)
    over = max(0.0, sum(one.requests for one in known) - window.used)  # which the window does not count any more
    for one in sorted(known, key=lambda one: one.age, reverse=True):
        gone = min(over, one.requests)
        over -= gone
        if gone < one.requests:
            yield Gate(math.floor(room), seconds - one.age)
            room += one.requests - gone


# --- in words ---------------------------------------------------------------------------------------------------------


def _of_limits(state: BudgetState, seconds: float, requests: float, requests_per_item: float) -> str:
    """Say which limit decides; where most of the time is waiting for the next opening, when that is."""
    if state.paused_for_seconds >= seconds / 2 and state.paused_for_seconds:
        return f"its API is paused for {duration(state.paused_for_seconds)}"
    full = [window for window in state.windows if window.used >= window.in_force]
    if full and state.opens_in_seconds >= seconds / 2:
        title = max(full, key=lambda window: window.limit.seconds).title
        return f"{title} window opens in {duration(state.opens_in_seconds)}"
    per_second, title = steady(state, requests)
    decides = "the paced profile decides" if title == "paced" else f"{title} window decides"
    return f"{decides}: {_rate(per_second / requests_per_item)} items/s"


def _rate(per_second: float) -> str:
    if per_second < 0.995:
        return f"{per_second:.2g}"
    return f"{per_second:,.1f}".removesuffix(".0") if per_second < 100 else f"{per_second:,.0f}"
