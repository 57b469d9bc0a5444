"""Course: how a run's counters went up, from its samples: what it did, and how long it waited, from one to the next."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

from workers.records.samples import slot_of
from workers.records.tables import Run, Sample
from workers.reports.pauses import Span

#: Nearer to the end than that, a sample is left out: what came in so short a time says nothing.
_TOO_NEAR = timedelta(seconds=1)


class Mark(NamedTuple):
    """A run's counters at a time. Between two samples they are reckoned, and need not be whole."""

    at: datetime
    succeeded: float = 0.0
    failed: float = 0.0
    skipped: float = 0.0
    requests: float = 0.0
    hits: float = 0.0
    sleeps: float = 0.0
    waiting_seconds: float = 0.0


class Stretch(NamedTuple):
    """What a run did from one mark to the next.

    Parameters:
      before(Mark), after(Mark): The marks.
      waiting_seconds(float): How long it was kept waiting by its API.
      held(bool): Whether it stood still by somebody's will.
    """

    before: Mark
    after: Mark
    waiting_seconds: float
    held: bool = False

    @property
    def seconds(self) -> float:
        return (self.after.at - self.before.at).total_seconds()

    @property
    def ended(self) -> float:
        """Items that ended; a retry, which makes failed items open again, takes none of them away."""
        before, after = self.before, self.after
        succeeded, failed = after.succeeded - before.succeeded, after.failed - before.failed
        return max(0.0, succeeded) + max(0.0, failed) + max(0.0, after.skipped - before.skipped)

    @property
    def requests(self) -> float:
        return max(0.0, self.after.requests - self.before.requests)


def samples_of(run_ids: Iterable[int], since: datetime | None = None) -> dict[int, list[Mark]]:
    """Return the samples of some runs by run, the oldest first, in one query.

    Parameters:
      since(datetime | None): Only those since then; None: all there are.
    """
    columns = (Sample.run_id, Sample.at, Sample.succeeded, Sample.failed, Sample.skipped, Sample.requests)
    query = Sample.select(*columns, Sample.hits, Sample.sleeps, Sample.waiting_seconds)
    query = query.where(Sample.run_id.in_(list(run_ids)))
    if since:
        query = query.where(Sample.slot >= slot_of(since))
    found: defaultdict[int, list[Mark]] = defaultdict(list)
    rows: Any = query.order_by(Sample.run_id, Sample.slot).tuples()
    for run_id, *values in rows:
        found[run_id].append(Mark(*values))
    return found


def marks(run: Run, sampled: Sequence[Mark], end: datetime, sleeping_seconds: float = 0.0) -> list[Mark]:
    """Return the samples up to `end`, and what the run's row says then.

    Parameters:
      sampled(Sequence[Mark]): Its samples, the oldest first.
      end(datetime): When the row was read; or when the run ended.
      sleeping_seconds(float): How long the sleep that goes on has lasted: the row has only those that are over.
    """
    return [*(mark for mark in sampled if mark.at <= end - _TOO_NEAR), _of_row(run, end, sleeping_seconds)]


def _of_row(run: Run, at: datetime, sleeping_seconds: float) -> Mark:
    return Mark(
        at,
        run.succeeded_count,
        run.failed_count,
        run.skipped_count,
        run.requests_count,
        run.rate_limit_hits_count,
        run.rate_limit_sleeps_count,
        run.total_sleep_seconds + sleeping_seconds,
    )


def stretches(marked: Sequence[Mark], held: Sequence[Span] = ()) -> list[Stretch]:
    """Return what came between the marks, the oldest first, cut where the run began to stand still and went on.

    Parameters:
      marked(Sequence[Mark]): The oldest first.
      held(Sequence[Span]): When it stood still.
    """
    cut = _cut(marked, held)
    found: list[Stretch] = []
    owed = 0.0  # a sleep is booked when it is over: it was before that, in earlier stretches, too
    for before, after in reversed(list(pairwise(cut))):
        stood_still = any(span.begin <= before.at and after.at <= span.end for span in held)
        owed += max(0.0, after.waiting_seconds - before.waiting_seconds)
        waited = 0.0 if stood_still else min(owed, (after.at - before.at).total_seconds())
        owed -= waited
        found.append(Stretch(before, after, waited, stood_still))
    return found[::-1]


def _cut(marked: Sequence[Mark], held: Sequence[Span]) -> list[Mark]:
    """Add marks where a run began to stand still and where it went on; between these two nothing is counted."""
    cut = list(marked[:1])
    for before, after in pairwise(marked):
        edges = {edge for span in held for edge in (span.begin, span.end) if before.at < edge < after.at}
        if edges:
            whole = _moving(before.at, after.at, held)
            cut += [_between(before, after, edge, _moving(before.at, edge, held) / whole) for edge in sorted(edges)]
        cut.append(after)
    return cut


def _moving(begin: datetime, end: datetime, held: Sequence[Span]) -> float:
    still = sum(max(0.0, (min(end, s.end) - max(begin, s.begin)).total_seconds()) for s in held)
    return max(1e-6, (end - begin).total_seconds() - still)


def _between(before: Mark, after: Mark, at: datetime, part: float) -> Mark:
    part = min(1.0, part)
    return Mark(at, *(a + (b - a) * part for a, b in zip(before[1:], after[1:], strict=True)))
