"""Pace: how fast a running run is: over the last minute, and while nothing keeps it waiting."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.records.tables import Run, RunItem
from workers.reports import intervals
from workers.reports.intervals import Mark
from workers.reports.pauses import Held

#: How far back the pace is measured that people see, and the one by which the end is told.
_SECONDS, _ACTIVE_SECONDS = 60, 300
#: Less than so long says nothing; nor do fewer items, in less than so many seconds at work.
_LEAST_SECONDS, _LEAST_ITEMS, _LEAST_ACTIVE_SECONDS = 1.0, 20, 10.0


@dataclass(frozen=True)
class Pace:
    """How fast a run is.

    Attributes:
      per_second: Items completed each second, over the last minute.
      active_per_second: Items ended each second of those that it was not kept waiting, in the last minutes; None where
        none has ended, infinite where all of them ended in no time.
      requests_per_item: How many requests an item took, repeated ones included.
      seconds: Over how long `per_second` was measured: less than a minute of a run that has just begun, or gone on.
    """

    per_second: float = 0.0
    active_per_second: float | None = None
    requests_per_item: float = 1.0
    seconds: float = 0.0


def reach(now: datetime) -> datetime:
    """Return since when samples are needed to tell a pace."""
    return now - timedelta(seconds=_ACTIVE_SECONDS)


def pace_of(run: Run, now: datetime, sampled: Sequence[Mark], still: Held, sleeping_seconds: float = 0.0) -> Pace:
    """Return how fast a running run is, since its list was known, or it was resumed or tried again.

    Parameters:
      run(Run): As it was read.
      now(datetime): When that was.
      sampled(Sequence[Mark]): Its samples since `reach`, or more.
      still(Held): What `held` says of it.
      sleeping_seconds(float): How long the sleep that goes on has lasted.
    """
    if run.discovered_at is None:
        return Pace(seconds=_measured(now, run.started_at or now))
    began = max(run.discovered_at, still.went_on_at or run.discovered_at)
    marked = intervals.marks(run, [mark for mark in sampled if mark.at > began], now, sleeping_seconds)
    known = Mark(run.discovered_at)
    if began == run.discovered_at:
        known = _when_known(began, marked)
        marked = [known, *marked]
    active = _lately_active(marked, now) or _always_active(marked[-1], known, run, now, still)
    return Pace(_per_second(run, now, marked, began), active, _requests_per_item(marked), _measured(now, began))


def _when_known(began: datetime, marked: Sequence[Mark]) -> Mark:
    """Return the counters as they were when the list was known.

    No detail had been asked for then, so nothing had succeeded. What the list itself refused or skipped, and how long
    it had waited, the first sample tells; where there is none, it is not known which of it was the list's.
    """
    first = marked[0]
    waiting_seconds = first.waiting_seconds if len(marked) > 1 else 0.0
    return first._replace(at=began, succeeded=0.0, waiting_seconds=waiting_seconds)


def _measured(now: datetime, began: datetime) -> float:
    return max(0.0, min(float(_SECONDS), (now - began).total_seconds()))


def _per_second(run: Run, now: datetime, marked: Sequence[Mark], began: datetime) -> float:
    begin = max(began, now - timedelta(seconds=_SECONDS))
    whole = (now - begin).total_seconds()
    if whole < _LEAST_SECONDS:
        return 0.0
    first = next(mark for mark in marked if mark.at >= begin)
    seconds = (now - first.at).total_seconds()
    if seconds < 0.8 * whole:  # no sample is old enough, and the items are counted
        return _completed_since(run, begin) / whole
    return max(0.0, run.succeeded_count - first.succeeded) / seconds


def _completed_since(run: Run, begin: datetime) -> int:
    count: int = RunItem.select().where(RunItem.run_id == run.id, RunItem.completed_at >= begin).count()
    return count


def _lately_active(marked: Sequence[Mark], now: datetime) -> float | None:
    """Return the active pace of the last minutes; None where that is too short, or too few items."""
    lately = intervals.stretches([mark for mark in marked if mark.at >= reach(now)])
    ended = sum(stretch.ended for stretch in lately)
    seconds = sum(stretch.seconds - stretch.waiting_seconds for stretch in lately)
    if ended < _LEAST_ITEMS and (not ended or seconds < _LEAST_ACTIVE_SECONDS):
        return None
    return ended / seconds if seconds > 0 else math.inf


def _always_active(last: Mark, known: Mark, run: Run, now: datetime, still: Held) -> float | None:
    """Return the active pace since the list was known; None where nothing has ended."""
    ended = intervals.Stretch(known, last, 0.0).ended
    stood_still = sum(span.seconds for span in still.spans if span.begin >= run.discovered_at)
    waited = last.waiting_seconds - known.waiting_seconds
    seconds = (now - run.discovered_at).total_seconds() - stood_still - waited
    if not ended:
        return None
    return ended / seconds if seconds > 0 else math.inf


def _requests_per_item(marked: Sequence[Mark]) -> float:
    """Return how many requests an item took lately; 1 where nothing can be told."""
    lately = intervals.stretches(marked[1:])  # before the first sample list pages were asked for, too
    ended = sum(stretch.ended for stretch in lately)
    requests = sum(stretch.requests for stretch in lately)  # 0 where workers of an older version do not count them
    return requests / ended if requests and ended >= _LEAST_ITEMS else 1.0
