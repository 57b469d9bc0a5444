"""Pace: computes a running run's items a second over the last minute, and while its API did not make it wait."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from workers.records.tables import Run
from workers.reports import intervals
from workers.reports.intervals import Counters
from workers.reports.pauses import Pauses

#: Over how long the pace that people see is measured, and the active pace, from which the end is computed.
_SECONDS, _ACTIVE_SECONDS = 60, 300
#: The least that is measured: seconds; items, unless that many seconds of work were measured.
_LEAST_SECONDS, _LEAST_ITEMS, _LEAST_ACTIVE_SECONDS = 1.0, 20, 10.0
#: The part of the measured time that samples must cover; else items are counted by their time of completion.
_COVERED = 0.8


@dataclass(frozen=True)
class Pace:
    """How fast a run is.

    Attributes:
      per_second: Items completed each second, over the last minute.
      active_per_second: Items ended each second in which the API did not make the run wait, in the last minutes. None
        where no item has ended; infinite where all of them ended in no time.
      requests_per_item: How many requests an item took, repeated ones included.
      seconds: Over how long `per_second` was measured: less than a minute for a run that has just started or resumed.
    """

    per_second: float = 0.0
    active_per_second: float | None = None
    requests_per_item: float = 1.0
    seconds: float = 0.0


def samples_since(now: datetime) -> datetime:
    """Return since when samples are needed for a pace."""
    return now - timedelta(seconds=_ACTIVE_SECONDS)


def count_since(run: Run, now: datetime, samples: Sequence[Counters], pauses: Pauses) -> datetime | None:
    """Return since when completed items must be counted for `pace_of`; None where the samples are enough.

    Parameters: as for `pace_of`.
    """
    if run.discovered_at is None:
        return None
    begin = _measured_from(run, now, pauses)
    whole = (now - begin).total_seconds()
    if whole < _LEAST_SECONDS:
        return None
    first = _first_since(begin, _readings(run, now, samples, pauses, 0.0))
    return begin if (now - first.at).total_seconds() < _COVERED * whole else None


def pace_of(
    run: Run,
    now: datetime,
    samples: Sequence[Counters],
    pauses: Pauses,
    *,
    sleeping_seconds: float = 0.0,
    completed: int | None = None,
) -> Pace:
    """Return how fast a running run is, since its list was read completely, or it was resumed or retried.

    Parameters:
      run(Run): As it was read.
      now(datetime): When that was.
      samples(Sequence[Counters]): Its samples since `samples_since`, or more.
      pauses(Pauses): Its pauses.
      sleeping_seconds(float): The age of its budget's current sleep.
      completed(int | None): The items completed since `count_since`; None where that is None.
    """
    if run.discovered_at is None:
        return Pace(seconds=_measured_seconds(now, run.started_at or now))
    began = _began(run, pauses)
    readings = _readings(run, now, samples, pauses, sleeping_seconds)
    listed = readings[0] if began == run.discovered_at else Counters(run.discovered_at)
    active = _lately_active(readings, now) or _always_active(readings[-1], listed, run, now, pauses)
    per_second = _per_second(run, now, readings, _measured_from(run, now, pauses), completed)
    return Pace(per_second, active, _requests_per_item(readings), _measured_seconds(now, began))


def _began(run: Run, pauses: Pauses) -> datetime:
    began: datetime = max(run.discovered_at, pauses.resumed_at or run.discovered_at)
    return began


def _measured_from(run: Run, now: datetime, pauses: Pauses) -> datetime:
    return max(_began(run, pauses), now - timedelta(seconds=_SECONDS))


def _measured_seconds(now: datetime, began: datetime) -> float:
    return max(0.0, min(float(_SECONDS), (now - began).total_seconds()))


def _readings(
    run: Run, now: datetime, samples: Sequence[Counters], pauses: Pauses, sleeping_seconds: float
) -> list[Counters]:
    """Return the counters since a run began its details, the row's as the last; never empty."""
    began = _began(run, pauses)
    series = intervals.series(run, [sample for sample in samples if sample.at > began], now, sleeping_seconds)
    return [_when_listed(began, series), *series] if began == run.discovered_at else series


def _when_listed(began: datetime, series: Sequence[Counters]) -> Counters:
    """Return the counters as they were when the list was complete.

    No detail had been requested then, so nothing had succeeded. The first sample shows what the list itself refused or
    skipped, and how long it had waited. Without a sample it is unknown which of this was the list's.
    """
    first = series[0]
    waiting_seconds = first.waiting_seconds if len(series) > 1 else 0.0
    return first._replace(at=began, succeeded=0.0, waiting_seconds=waiting_seconds)


def _first_since(begin: datetime, readings: Sequence[Counters]) -> Counters:
    return next(reading for reading in readings if reading.at >= begin)


def _per_second(run: Run, now: datetime, readings: Sequence[Counters], begin: datetime, completed: int | None) -> float:
    whole = (now - begin).total_seconds()
    if whole < _LEAST_SECONDS:
        return 0.0
    if completed is not None:
        return completed / whole
    first = _first_since(begin, readings)
    seconds = (now - first.at).total_seconds()
    return max(0.0, run.succeeded_count - first.succeeded) / seconds if seconds > 0 else 0.0


def _lately_active(readings: Sequence[Counters], now: datetime) -> float | None:
    """Return the active pace of the last minutes; None where that is too short, or too few items."""
    lately = intervals.intervals_between([reading for reading in readings if reading.at >= samples_since(now)])
    ended = sum(interval.ended for interval in lately)
    seconds = sum(interval.seconds - interval.waiting_seconds for interval in lately)
    if ended < _LEAST_ITEMS and (not ended or seconds < _LEAST_ACTIVE_SECONDS):
        return None
    return ended / seconds if seconds > 0 else math.inf


def _always_active(last: Counters, listed: Counters, run: Run, now: datetime, pauses: Pauses) -> float | None:
    """Return the active pace since the list was complete; None where nothing has ended."""
    ended = intervals.Interval(listed, last, 0.0).ended
    paused = sum(span.seconds for span in pauses.spans if span.begin >= run.discovered_at)
    waited = last.waiting_seconds - listed.waiting_seconds
    seconds = (now - run.discovered_at).total_seconds() - paused - waited
    if not ended:
        return None
    return ended / seconds if seconds > 0 else math.inf


def _requests_per_item(readings: Sequence[Counters]) -> float:
    """Return how many requests an item took lately; 1 where that is unknown."""
    lately = intervals.intervals_between(readings[1:])  # before the first sample, list pages were requested, too
    ended = sum(interval.ended for interval in lately)
    requests = sum(interval.requests for interval in lately)  # 0 where workers of an older version do not count them
    return requests / ended if requests and ended >= _LEAST_ITEMS else 1.0
