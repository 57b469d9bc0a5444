"""Intervals: splits a run's samples into intervals: items, requests and time spent waiting for the API in each."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from workers.records.samples import slot_of
from workers.records.tables import Run, Sample
from workers.reports.pauses import Span

#: A sample nearer to the end than this is left out: an interval that short says nothing about the pace.
_TOO_NEAR = timedelta(seconds=1)


class Counters(NamedTuple):
    """A run's counters at an instant. Between two samples they are interpolated, and can be fractions."""

    at: datetime
    succeeded: float = 0.0
    failed: float = 0.0
    skipped: float = 0.0
    requests: float = 0.0
    hits: float = 0.0
    sleeps: float = 0.0
    waiting_seconds: float = 0.0


class Interval(NamedTuple):
    """What a run did between two readings of its counters.

    Parameters:
      before(Counters), after(Counters): The readings.
      waiting_seconds(float): How long its API made it wait.
      is_pause(bool): Whether it was paused, or had ended before its retry.
    """

    before: Counters
    after: Counters
    waiting_seconds: float
    is_pause: bool = False

    @property
    def seconds(self) -> float:
        return (self.after.at - self.before.at).total_seconds()

    @property
    def ended(self) -> float:
        """Items that ended; a retry, which makes failed items open again, does not make it smaller."""
        before, after = self.before, self.after
        succeeded, failed = after.succeeded - before.succeeded, after.failed - before.failed
        return max(0.0, succeeded) + max(0.0, failed) + max(0.0, after.skipped - before.skipped)

    @property
    def requests(self) -> float:
        return max(0.0, self.after.requests - self.before.requests)


def samples_of(run_ids: Iterable[int], since: datetime | None = None) -> dict[int, list[Counters]]:
    """Return the samples of some runs by run, the oldest first, in one query.

    Parameters:
      since(datetime | None): Only samples since then; None: all.
    """
    columns = (Sample.run_id, Sample.at, Sample.succeeded, Sample.failed, Sample.skipped, Sample.requests)
    query = Sample.select(*columns, Sample.hits, Sample.sleeps, Sample.waiting_seconds)
    query = query.where(Sample.run_id.in_(list(run_ids)))
    if since:
        query = query.where(Sample.slot >= slot_of(since))
    found: defaultdict[int, list[Counters]] = defaultdict(list)
    rows: Any = query.order_by(Sample.run_id, Sample.slot).tuples()
    for run_id, *values in rows:
        found[run_id].append(Counters(*values))
    return found


def series(run: Run, samples: Sequence[Counters], end: datetime, sleeping_seconds: float = 0.0) -> list[Counters]:
    """Return the samples up to `end`, and the counters of the run's row as the last element.

    Parameters:
      samples(Sequence[Counters]): The run's samples, the oldest first.
      end(datetime): When the row was read; or when the run ended.
      sleeping_seconds(float): The age of the current sleep: the row counts only those that are over.
    """
    return [*(sample for sample in samples if sample.at <= end - _TOO_NEAR), _of_row(run, end, sleeping_seconds)]


def _of_row(run: Run, at: datetime, sleeping_seconds: float) -> Counters:
    return Counters(
        at,
        run.succeeded_count,
        run.failed_count,
        run.skipped_count,
        run.requests_count,
        run.rate_limit_hits_count,
        run.rate_limit_sleeps_count,
        run.total_sleep_seconds + sleeping_seconds,
    )


def intervals_between(readings: Sequence[Counters], pauses: Sequence[Span] = ()) -> list[Interval]:
    """Return the intervals between readings, the oldest first; each begin and end of a pause splits one.

    Parameters:
      readings(Sequence[Counters]): The oldest first.
      pauses(Sequence[Span]): When the run was paused.
    """
    split = _split(readings, pauses)
    found: list[Interval] = []
    unbooked = 0.0  # a sleep is booked when it is over: part of it lies in earlier intervals
    for before, after in reversed(list(pairwise(split))):
        is_pause = any(span.begin <= before.at and after.at <= span.end for span in pauses)
        unbooked += max(0.0, after.waiting_seconds - before.waiting_seconds)
        waited = 0.0 if is_pause else min(unbooked, (after.at - before.at).total_seconds())
        unbooked -= waited
        found.append(Interval(before, after, waited, is_pause))
    return found[::-1]


def _split(readings: Sequence[Counters], pauses: Sequence[Span]) -> list[Counters]:
    """Add a reading at each begin and end of a pause; within a pause nothing is counted."""
    split = list(readings[:1])
    for before, after in pairwise(readings):
        edges = {edge for span in pauses for edge in (span.begin, span.end) if before.at < edge < after.at}
        if edges:
            whole = _working_seconds(before.at, after.at, pauses)
            shares = {edge: _working_seconds(before.at, edge, pauses) / whole for edge in edges}
            split += [_interpolated(before, after, edge, shares[edge]) for edge in sorted(edges)]
        split.append(after)
    return split


def _working_seconds(begin: datetime, end: datetime, pauses: Sequence[Span]) -> float:
    paused = sum(max(0.0, (min(end, span.end) - max(begin, span.begin)).total_seconds()) for span in pauses)
    return max(1e-6, (end - begin).total_seconds() - paused)


def _interpolated(before: Counters, after: Counters, at: datetime, share: float) -> Counters:
    share = min(1.0, share)
    return Counters(at, *(a + (b - a) * share for a, b in zip(before[1:], after[1:], strict=True)))
