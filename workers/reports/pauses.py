"""Pauses: when a run was paused, or ended before its retry, read from its timeline: this is not counted as work."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workers.records.tables import Run, RunEvent

#: The events of a timeline that stop a run, and those that let it continue.
_STOPS = ("paused", "completed", "failed")
_STARTS = ("started", "resumed")


@dataclass(frozen=True)
class Span:
    """A length of time."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()


@dataclass(frozen=True)
class Pauses:
    """The pauses of one run.

    Attributes:
      seconds: Their sum, up to the run's end, or up to now.
      resumed_at: When it last started or was resumed; None where it has not started.
      spans: The pauses, the earliest first.
    """

    seconds: float = 0.0
    resumed_at: datetime | None = None
    spans: tuple[Span, ...] = ()


def pauses_of(runs: Iterable[Run], now: datetime) -> Mapping[int, Pauses]:
    """Return the pauses of each run by its id, in one query; runs that have not started are left out."""
    started = {run.id: run for run in runs if run.started_at}
    if not started:
        return {}
    events = RunEvent.select(RunEvent.run_id, RunEvent.what, RunEvent.at).where(
        RunEvent.run_id.in_(list(started)), RunEvent.what.in_([*_STOPS, *_STARTS])
    )
    timelines: defaultdict[int, list[tuple[str, datetime]]] = defaultdict(list)
    rows: Any = events.order_by(RunEvent.id).tuples()
    for run_id, what, at in rows:
        timelines[run_id].append((what, at))
    return {run_id: _of(timelines[run_id], run.ended_at or now) for run_id, run in started.items()}


def _of(timeline: Sequence[tuple[str, datetime]], end: datetime) -> Pauses:
    spans: list[Span] = []
    stopped_at = resumed_at = None
    for what, at in timeline:
        if what in _STARTS:
            spans += [Span(stopped_at, at)] if stopped_at else []
            stopped_at, resumed_at = None, at
        else:
            stopped_at = stopped_at or at
    if stopped_at:
        spans.append(Span(stopped_at, end))
    forward = tuple(span for span in spans if span.seconds > 0)  # several hosts' clocks wrote the timeline
    return Pauses(sum((span.seconds for span in forward), 0.0), resumed_at, forward)
