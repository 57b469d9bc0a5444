"""ETA: computes when a running run will end, and what decides that: a window of its budget, its pace, a retry."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from workers.limiter.state import BudgetState, WindowState
from workers.records.tables import Run
from workers.reports.forecast import Gate, Rule, Work, gates_of, rules_of, seconds_for
from workers.reports.intervals import Counters, intervals_between
from workers.reports.pace import Pace
from workers.reports.running_runs import RunningRuns
from workers.text.durations import duration

#: How many requests are simulated one by one at most; more are simulated in bundles.
_ONE_BY_ONE = 1_000
#: A limit of fewer bundles than this is treated as a steady rate: rounding would lose too much of it.
_LEAST_PLACES = 20


@dataclass(frozen=True)
class Eta:
    """When a run will end.

    Attributes:
      seconds: From now.
      why: What decides it, for people.
      window: The title of the window that decides it; empty where something else does.
    """

    seconds: float
    why: str
    window: str = ""


def steady(state: BudgetState, requests: float = math.inf) -> tuple[float, str]:
    """Return how many requests a second a budget allows in the long run, and what decides that: `2000/100 s`.

    Parameters:
      requests(float): How many will be sent: a window that they do not fill does not decide, where another one does.
    """
    rules = rules_of(state)
    titles = [window.title for window in state.windows] + ["paced"] * (len(rules) - len(state.windows))
    rates = [rule.places / rule.seconds if rule.seconds else math.inf for rule in rules]
    fills = [window.used + requests > window.in_force for window in state.windows]
    fills += [True] * (len(rules) - len(fills))
    found = list(zip(rates, titles, strict=True))
    return min([one for one, is_filled in zip(found, fills, strict=True) if is_filled] or found)


def open_items(run: Run) -> int:
    """Return how many items of a run have not ended, as far as its list was read."""
    return (run.total_count or 0) - run.succeeded_count - run.failed_count - run.skipped_count


def eta(
    run: Run,
    now: datetime,
    state: BudgetState,
    pace: Pace,
    running: RunningRuns,
    *,
    last_retry_at: datetime | None = None,
) -> Eta | None:
    """Return when a running run will end; None where its list is not complete, or no item has ended yet.

    Parameters:
      run(Run): As it was read.
      now(datetime): When that was.
      state(BudgetState): Its budget then.
      pace(Pace): How fast it is.
      running(RunningRuns): The running runs: some share its budget, and their samples show when its windows were used.
      last_retry_at(datetime | None): When the last waiting item is due.
    """
    left = open_items(run)
    if run.discovered_at is None or not pace.active_per_second:
        return None
    if left <= 0:
        return Eta(0.0, "every item has ended; the run is about to be completed")
    own = left / pace.active_per_second
    per_item = pace.requests_per_item * running.weight_of(run)  # as the budget counts
    wanted, shared = _wanted(run, left * per_item, running)
    gates = running.once_per_budget(
        run, lambda: _gates(state, list(_sent(running.series_on_the_budget_of(run, now), now)))
    )
    limited = _seconds(wanted, 0.0, state, gates)
    both = _seconds(wanted, own / wanted, state, gates) if wanted else own
    retry = max(0.0, (last_retry_at - now).total_seconds()) if last_retry_at else 0.0
    if retry > both:
        return Eta(retry, f"a retry decides: the last one is due in {duration(retry)}{shared}")
    if limited >= own:
        why, window = _of_limits(state, limited, wanted, per_item)
        return Eta(both, why + shared, window)
    lanes = f"{run.lanes} lane{'' if run.lanes == 1 else 's'}"
    return Eta(both, f"its own pace decides: {_rate(pace.active_per_second)} items/s on {lanes}{shared}")


def _wanted(run: Run, wanted: float, running: RunningRuns) -> tuple[float, str]:
    """Return how many requests are sent until this run's last one, those of other runs included; and which runs.

    They are counted by weight, as the budget counts them. Runs of higher priority go first. Runs of the same priority
    share the permits with it, by lanes, until one has ended.
    """
    others = running.on_the_budget_of(run)
    first = [other for other in others if other.priority > run.priority]
    equal = [other for other in others if other.priority == run.priority]
    count = wanted + sum(open_items(other) * running.weight_of(other) for other in first)
    count += sum(min(open_items(other) * running.weight_of(other), wanted * other.lanes / run.lanes) for other in equal)
    notes = [f"run {other.id} goes first" for other in first] + [f"shared with run {other.id}" for other in equal]
    return count, "".join(f"; {note}" for note in notes[:2]) + (f"; and {len(notes) - 2} more" if notes[2:] else "")


# --- what the limits allow --------------------------------------------------------------------------------------------


def _seconds(requests: float, apart_seconds: float, state: BudgetState, gates: Sequence[Gate]) -> float:
    """Return how long `requests` take; where they are many, bundles of them are simulated as one."""
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
    """Requests that were sent within an interval.

    Parameters:
      youngest(float), age(float): How long ago the last of them was sent, in seconds, and the middle one.
      requests(float): How many.
    """

    youngest: float
    age: float
    requests: float


def _sent(series: Iterable[Sequence[Counters]], now: datetime) -> Iterable[_Sent]:
    """Yield what the runs of these series have sent."""
    for interval in (interval for one in series for interval in intervals_between(one)):
        if interval.requests:
            youngest = (now - interval.after.at).total_seconds()
            yield _Sent(youngest, youngest + interval.seconds / 2, interval.requests)


def _gates(state: BudgetState, sent: list[_Sent]) -> list[Gate]:
    """Return what delays the first requests: what is used of each window, and when that use is over.

    The samples show when it was used. What they do not show is assumed to be as recent as possible.
    """
    if state.taken_as_full_seconds:
        return gates_of(state)
    gates, younger = [Gate(0, state.opens_in_seconds)], 0.0
    for window, rule in sorted(zip(state.windows, rules_of(state), strict=False), key=lambda pair: pair[1].seconds):
        unknown = window.used - sum(one.requests for one in sent if one.youngest < rule.seconds)
        if unknown > 0:  # a shorter window does not count it; and of a full one it is known only when it opens
            full = window.used >= window.in_force
            age = max(younger, rule.seconds - state.opens_in_seconds) if full else younger
            sent.append(_Sent(age, age, unknown))
        gates += _opening(window, rule.seconds, [one for one in sent if one.youngest < rule.seconds])
        younger = rule.seconds
    return [gate for gate in gates if gate.seconds > 0]


def _opening(window: WindowState, seconds: float, known: Sequence[_Sent]) -> Iterable[Gate]:
    """Yield how a window opens step by step, as what was used of it expires; the oldest expires first."""
    room = max(0.0, window.in_force - window.used)
    expired = max(0.0, sum(one.requests for one in known) - window.used)  # the window does not count these any more
    for one in sorted(known, key=lambda one: one.age, reverse=True):
        gone = min(expired, one.requests)
        expired -= gone
        if gone < one.requests:
            yield Gate(math.floor(room), seconds - one.age)
            room += one.requests - gone


# --- in words ---------------------------------------------------------------------------------------------------------


def _of_limits(state: BudgetState, seconds: float, requests: float, requests_per_item: float) -> tuple[str, str]:
    """Return which limit decides, for people, and the title of the window; empty where no window does.

    Where most of the time is the wait for the next opening, it says when that is.
    """
    if state.paused_for_seconds >= seconds / 2 and state.paused_for_seconds:
        return f"its API is paused for {duration(state.paused_for_seconds)}", ""
    full = [window for window in state.windows if window.used >= window.in_force]
    if full and state.opens_in_seconds >= seconds / 2:
        title = max(full, key=lambda window: window.limit.seconds).title
        return f"{title} window opens in {duration(state.opens_in_seconds)}", title
    per_second, title = steady(state, requests)
    rate = f"{_rate(per_second / requests_per_item)} items/s"
    if title == "paced":
        return f"the paced profile decides: {rate}", ""
    return f"{title} window decides: {rate}", title


def _rate(per_second: float) -> str:
    if per_second < 0.995:
        return f"{per_second:.2g}"
    return f"{per_second:,.1f}".removesuffix(".0") if per_second < 100 else f"{per_second:,.0f}"
