"""Beside: the running runs by budget, and their samples. Read once for all that is told of them at one time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from workers.records import priority, run_connector, runs
from workers.records.request_weights import detail_weight
from workers.records.tables import Run
from workers.reports import intervals, pace
from workers.reports.intervals import Mark

T = TypeVar("T")

#: What runs that have ended took of a budget is looked for so far back, of so many at most: more would cost too much.
_EARLIER, _MOST_EARLIER = timedelta(minutes=10), 5


@dataclass(frozen=True)
class Beside:
    """The running runs.

    Attributes:
      runs: All of them.
      earlier: Those that were until lately, and may have used a budget, too.
      budgets: The name of each one's budget.
      sampled: Their samples, as far back as their budgets' longest window.
      weights: As how many requests the API counts a detail request of each, where that is not one.
    """

    runs: Sequence[Run] = ()
    earlier: Sequence[Run] = ()
    budgets: Mapping[int, str] = field(default_factory=dict)
    sampled: Mapping[int, Sequence[Mark]] = field(default_factory=dict)
    weights: Mapping[int, float] = field(default_factory=dict)
    _once: dict[str, Any] = field(default_factory=dict, repr=False)

    def once_a_budget(self, run: Run, reckon: Callable[[], T]) -> T:
        """Return what was reckoned for the first run of a run's budget: it is the same for all that share it."""
        name = self.budgets.get(run.id)
        if name is None:
            return reckon()
        if name not in self._once:
            self._once[name] = reckon()
        found: T = self._once[name]
        return found

    def on_the_budget_of(self, run: Run) -> list[Run]:
        """Return the other runs that share a run's budget."""
        name = self.budgets.get(run.id)
        return [other for other in self.runs if other.id != run.id and self.budgets[other.id] == name]

    def marks_on_the_budget_of(self, run: Run, now: datetime) -> list[list[Mark]]:
        """Return the marks of a run, and of those that share its budget or did until lately, up to now.

        Their requests are counted as the budget counts them: by weight.
        """
        name = self.budgets.get(run.id)
        earlier = [other for other in self.earlier if other.id != run.id and self.budgets[other.id] == name]
        return [self._marks(one, one.ended_at or now) for one in (run, *self.on_the_budget_of(run), *earlier)]

    def weight_of(self, run: Run) -> float:
        """Return as how many requests the API counts a detail request of a run."""
        return self.weights.get(run.id, 1.0)

    def _marks(self, run: Run, end: datetime) -> list[Mark]:
        sampled = self.sampled.get(run.id, ())
        begins = [Mark(run.started_at)] if run.started_at and run.started_at >= _reach(run, end) else []
        marks, weight = [*begins, *intervals.marks(run, sampled, end)], self.weight_of(run)
        return marks if weight == 1 else [mark._replace(requests=mark.requests * weight) for mark in marks]


def look(now: datetime) -> Beside:
    """Return the running runs, as they are now."""
    running = runs.running()
    since = min((_reach(run, now) for run in running), default=now)
    earlier = [*runs.paused(_MOST_EARLIER), *runs.ended_since(max(since, now - _EARLIER), _MOST_EARLIER)]
    budgets = {run.id: priority.budget_name(run) for run in (*running, *earlier)}
    weights = {run.id: detail_weight(run) for run in (*running, *earlier)}
    return Beside(running, earlier, budgets, intervals.samples_of(budgets, since), weights)


def _reach(run: Run, now: datetime) -> datetime:
    """Return since when the samples of a run tell its pace, and how the windows of its budget were used."""
    budget = run_connector.budget_of(run)
    limits = budget.limits if budget else ()
    windows = (now - timedelta(microseconds=limit.window_microseconds) for limit in limits)
    return min([pace.reach(now), *windows])
