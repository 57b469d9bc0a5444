"""Held: for how long a run stood still by somebody's will: paused, or ended and not yet retried."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workers.tables import Run, RunEvent

_STOPS = ("paused", "completed", "failed")
_GOES_ON = ("started", "resumed")


@dataclass(frozen=True)
class Held:
    """How long a run stood still.

    Attributes:
      seconds: Up to its end, or up to now.
      went_on_at: When it began, or went on, last; None where it has not begun.
    """

    seconds: float = 0.0
    went_on_at: datetime | None = None


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
    seconds, stopped_at, went_on_at = 0.0, None, None
    for what, at in timeline:
        if what in _GOES_ON:
            seconds += (at - stopped_at).total_seconds() if stopped_at else 0.0
            stopped_at, went_on_at = None, at
        else:
            stopped_at = stopped_at or at
    if stopped_at:
        seconds += (end - stopped_at).total_seconds()
    return Held(max(0.0, seconds), went_on_at)
