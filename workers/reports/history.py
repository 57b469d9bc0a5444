"""History: computes the paces, waits and pauses of a whole run from its samples, for charts.

Times are in seconds, instants UTC-aware.
"""

from dataclasses import dataclass
from datetime import datetime

from workers.records.tables import Run, RunStatus
from workers.reports import eta, intervals
from workers.reports.budget_states import budget_state_of
from workers.reports.intervals import Counters, Interval
from workers.reports.pauses import Span, pauses_of


@dataclass(frozen=True)
class Point:
    """What a run did in an interval, and its counters at the end of it.

    Attributes:
      at, seconds: The end of the interval, and its length.
      done, succeeded, failed, skipped: Items that have ended since the run began.
      items_per_second, requests_per_second: Within the interval.
      waiting_share: The part of the interval in which it waited for its API, 0 to 1.
      hits, sleeps: Within the interval.
    """

    at: datetime
    seconds: float
    done: int
    succeeded: int
    failed: int
    skipped: int
    items_per_second: float
    requests_per_second: float
    waiting_share: float
    hits: int
    sleeps: int


@dataclass(frozen=True)
class History:
    """The history of a run.

    Attributes:
      points: The oldest first; about five hundred at most, however long the run.
      theoretical_per_second: How many requests its budget allows in the long run; None where that is unknown.
      theoretical_title: What decides that: `2000/100 s`.
      pauses: When it was paused, or between its end and a retry.
      begin, end: Its start, and its end or now.
    """

    points: tuple[Point, ...]
    theoretical_per_second: float | None
    theoretical_title: str
    pauses: tuple[Span, ...]
    begin: datetime
    end: datetime


def history(run: Run, now: datetime) -> History:
    """Return the history of a run up to its end, or up to now; without points where it has not started.

    Parameters:
      run(Run): The run as it was read.
      now(datetime): When that was.
    """
    state = budget_state_of(run)
    pace, title = eta.steady(state) if state else (None, "")
    if run.started_at is None:
        return History((), pace, title, (), now, now)
    end = run.ended_at or now
    sleeping = state.sleeping_seconds if state and run.status == RunStatus.RUNNING else 0.0
    samples = intervals.samples_of([run.id])[run.id]
    readings = [Counters(run.started_at), *intervals.series(run, samples, end, sleeping)]
    pauses = pauses_of([run], now)[run.id].spans
    points = tuple(_point(one) for one in intervals.intervals_between(readings, pauses) if one.seconds > 0)
    return History(points, pace, title, pauses, run.started_at, end)


def _point(interval: Interval) -> Point:
    before, after, seconds = interval.before, interval.after, interval.seconds
    succeeded, failed, skipped = (round(count) for count in after[1:4])
    return Point(
        at=after.at,
        seconds=seconds,
        done=succeeded + failed + skipped,
        succeeded=succeeded,
        failed=failed,
        skipped=skipped,
        items_per_second=interval.ended / seconds,
        requests_per_second=interval.requests / seconds,
        waiting_share=interval.waiting_seconds / seconds,
        hits=max(0, round(after.hits) - round(before.hits)),
        sleeps=max(0, round(after.sleeps) - round(before.sleeps)),
    )
