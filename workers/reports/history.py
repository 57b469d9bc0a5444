"""History: the life of a run, from its samples, for charts. Times in seconds, instants UTC-aware."""

from dataclasses import dataclass
from datetime import datetime

from workers.records.tables import Run, RunStatus
from workers.reports import eta, intervals, run_stats
from workers.reports.intervals import Mark, Stretch
from workers.reports.pauses import Span, held


@dataclass(frozen=True)
class Point:
    """What a run did in a span, and where it stood at its end.

    Attributes:
      at, seconds: The end of the span, and its length.
      done, succeeded, failed, skipped: Items that have ended since the run began.
      items_per_second, requests_per_second: Within the span.
      waiting_share: The part of the span in which its API kept it waiting, 0 to 1.
      hits, sleeps: Within the span.
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
    """The life of a run.

    Attributes:
      points: The oldest first; some five hundred at most, however long the run.
      theoretical_per_second: How many requests its budget allows in the long run; None where that cannot be told.
      theoretical_title: What decides that: `2000/100 s`.
      held: When it stood still by somebody's will: paused, or between its end and a retry.
      begin, end: Its start, and its end or now.
    """

    points: tuple[Point, ...]
    theoretical_per_second: float | None
    theoretical_title: str
    held: tuple[Span, ...]
    begin: datetime
    end: datetime


def history(run: Run, now: datetime) -> History:
    """Return the life of a run up to its end, or up to now. Of one that has not begun there are no points.

    Parameters:
      run(Run): The run as it was read.
      now(datetime): When that was.
    """
    state = run_stats.budget_of(run)
    pace, title = eta.steady(state) if state else (None, "")
    if run.started_at is None:
        return History((), pace, title, (), now, now)
    end = run.ended_at or now
    sleeping = state.sleeping_seconds if state and run.status == RunStatus.RUNNING else 0.0
    sampled = intervals.samples_of([run.id])[run.id]
    marked = [Mark(run.started_at), *intervals.marks(run, sampled, end, sleeping)]
    still = held([run], now)[run.id].spans
    points = tuple(_point(stretch) for stretch in intervals.stretches(marked, still) if stretch.seconds > 0)
    return History(points, pace, title, still, run.started_at, end)


def _point(stretch: Stretch) -> Point:
    before, after, seconds = stretch.before, stretch.after, stretch.seconds
    succeeded, failed, skipped = (round(count) for count in after[1:4])
    return Point(
        at=after.at,
        seconds=seconds,
        done=succeeded + failed + skipped,
        succeeded=succeeded,
        failed=failed,
        skipped=skipped,
        items_per_second=stretch.ended / seconds,
        requests_per_second=stretch.requests / seconds,
        waiting_share=stretch.waiting_seconds / seconds,
        hits=max(0, round(after.hits) - round(before.hits)),
        sleeps=max(0, round(after.sleeps) - round(before.sleeps)),
    )
