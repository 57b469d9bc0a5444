"""Held: for how long a run stood still by somebody's will: paused, or ended and not yet retried."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workers.records.tables import Run, RunEvent

_STOPS = ("paused", "completed", "failed")
_GOES_ON = ("started", "resumed")


@dataclass(frozen=True)
class Span:
    """A stretch of time."""

    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()


@dataclass(frozen=True)
class Held:
    """How long a run stood still.

    Attributes:
      seconds: Up to its end, or up to now.
      went_on_at: When it began, or went on, last; None where it has not begun.
      spans: When it stood still, the earliest first.
    """

    seconds: float = 0.0
    went_on_at: datetime | None = None
    spans: tuple[Span, ...] = ()


def held(runs: Iterable[Run], now: datetime) -> Mapping[int, Held]:
    """Return how long each of these runs stood still, from their timelines; a run that has not begun is left out."""
    begun = {run.id: run for run in runs if run.started_at}
    if not begun:
        return {}
    told = RunEvent.select(RunEvent.run_id, RunEvent.what, RunEvent.at).where(
        RunEvent.run_id.in_(list(begun)), RunEvent.what.in_([*_STOPS, *_GOES_ON])
    )
    timelines: defaultdict[int, list[tuple[str, datetime]]] = defaultdict(list)
    rows: Any = told.order_by(RunEvent.id).tuples()
    for run_id, what, at in rows:
        timelines[run_id].append((what, at))
    return {run_id: _of(timelines[run_id], run.ended_at or now) for run_id, run in begun.items()}


def _of(timeline: Sequence[tuple[str, datetime]], end: datetime) -> Held:
    spans: list[Span] = []
    stopped_at = went_on_at = None
    for what, at in timeline:
        if what in _GOES_ON:
            spans += [Span(stopped_at, at)] if stopped_at else []
            stopped_at, went_on_at = None, at
        else:
            stopped_at = stopped_at or at
    if stopped_at:
        spans.append(Span(stopped_at, end))
    forward = tuple(span for span in spans if span.seconds > 0)  # the timeline is kept by the clocks of several hosts
    return Held(sum((span.seconds for span in forward), 0.0), went_on_at, forward)
