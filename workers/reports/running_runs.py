"""Running runs: one snapshot of the running runs by budget, with their samples, shared by all figures of a refresh."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from workers.records import priority, run_connector, runs
from workers.records.request_weights import detail_weight
from workers.records.tables import Run
from workers.reports import intervals, pace
from workers.reports.intervals import Counters

T = TypeVar("T")

#: How far back runs that have ended are read, and how many at most: they used the budget, too.
_EARLIER, _MOST_EARLIER = timedelta(minutes=10), 5


@dataclass(frozen=True)
class RunningRuns:
    """The running runs at one time.

    Attributes:
      runs: All of them.
      earlier: Paused runs, and runs that ended in the last minutes: they can have used a budget, too.
      budget_names: The name of each one's budget, by run.
      samples: Their samples by run, as far back as their budgets' longest window.
      weights: The weight of a detail request of each run, where it is not 1.
    """

    runs: Sequence[Run] = ()
    earlier: Sequence[Run] = ()
    budget_names: Mapping[int, str] = field(default_factory=dict)
    samples: Mapping[int, Sequence[Counters]] = field(default_factory=dict)
    weights: Mapping[int, float] = field(default_factory=dict)
    _computed: dict[str, Any] = field(default_factory=dict, repr=False)

    def once_per_budget(self, run: Run, compute: Callable[[], T]) -> T:
        """Return what `compute` returns for the first run of a run's budget; the other runs on it share the result."""
        name = self.budget_names.get(run.id)
        if name is None:
            return compute()
        if name not in self._computed:
            self._computed[name] = compute()
        result: T = self._computed[name]
        return result

    def on_the_budget_of(self, run: Run) -> list[Run]:
        """Return the other running runs that share a run's budget."""
        name = self.budget_names.get(run.id)
        return [other for other in self.runs if other.id != run.id and self.budget_names[other.id] == name]

    def series_on_the_budget_of(self, run: Run, now: datetime) -> list[list[Counters]]:
        """Return the counters up to now of a run, and of each run that shares its budget or did lately.

        Their requests are counted as the budget counts them: by weight.
        """
        name = self.budget_names.get(run.id)
        earlier = [other for other in self.earlier if other.id != run.id and self.budget_names[other.id] == name]
        return [self._series(one, one.ended_at or now) for one in (run, *self.on_the_budget_of(run), *earlier)]

    def weight_of(self, run: Run) -> float:
        """Return the weight of a detail request of a run."""
        return self.weights.get(run.id, 1.0)

    def _series(self, run: Run, end: datetime) -> list[Counters]:
        samples = self.samples.get(run.id, ())
        begin = [Counters(run.started_at)] if run.started_at and run.started_at >= _samples_since(run, end) else []
        series, weight = [*begin, *intervals.series(run, samples, end)], self.weight_of(run)
        return series if weight == 1 else [one._replace(requests=one.requests * weight) for one in series]


def snapshot(now: datetime) -> RunningRuns:
    """Read the running runs, as they are now. Four queries, however many there are; weights are cached."""
    running = runs.running()
    since = min((_samples_since(run, now) for run in running), default=now)
    earlier = [*runs.paused(_MOST_EARLIER), *runs.ended_since(max(since, now - _EARLIER), _MOST_EARLIER)]
    names = {run.id: priority.budget_name(run) for run in (*running, *earlier)}
    weights = {run.id: detail_weight(run) for run in (*running, *earlier)}
    return RunningRuns(running, earlier, names, intervals.samples_of(names, since), weights)


def _samples_since(run: Run, now: datetime) -> datetime:
    """Return since when samples are needed, for a run's pace and for the use of its budget's windows."""
    budget = run_connector.budget_of(run)
    windows = [now - timedelta(microseconds=limit.window_microseconds) for limit in budget.limits] if budget else []
    return min([pace.samples_since(now), *windows])
