"""Idleness: for how long nothing could work on a running run: no worker ran, or Redis or the database was away.

It is booked to the run by the process that takes its samples: after a gap in them, and while Redis is away.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from peewee import fn

from workers.connections import outages
from workers.records import runs
from workers.records.samples import SLOT_SECONDS
from workers.records.tables import Run, RunEvent, RunStatus, Sample

#: A shorter gap between two samples is a busy machine's.
_GAP = timedelta(seconds=10)


def silent_since(now: datetime) -> dict[int, datetime]:
    """Return since when the running runs have had no sample, those that have had none for long: none worked on them."""
    newest = Sample.select(fn.MAX(Sample.slot)).where(Sample.run_id == Run.id)
    running = Run.select(Run.id, Run.started_at, newest).where(Run.status == RunStatus.RUNNING)
    rows: Any = running.tuples()
    found = {}
    for run_id, started_at, slot in rows:
        since = max(filter(None, (started_at, _end_of(slot))), default=now)
        if now - since > _GAP and now - (went_on := _went_on_at(run_id) or since) > _GAP:
            found[run_id] = max(since, went_on)
    return found


def book(taken: Iterable[int], silent: Mapping[int, datetime], now: datetime) -> None:
    """Book the idle time of the runs of which this process has just taken a sample.

    Parameters:
      taken(Iterable[int]): These runs: of several processes one books.
      silent(Mapping[int, datetime]): What `silent_since` said before.
    """
    away = SLOT_SECONDS if outages.is_redis_away() else 0.0
    for run_id in taken:
        gap = (now - silent[run_id]).total_seconds() if run_id in silent else 0.0
        if seconds := max(gap, away):
            runs.add_idle(run_id, seconds)


def _end_of(slot: int | None) -> datetime | None:
    return datetime.fromtimestamp((slot + 1) * SLOT_SECONDS, UTC) if slot is not None else None


def _went_on_at(run_id: int) -> datetime | None:
    """Return when a run began, was resumed or tried again last: until then a person held it."""
    told = (RunEvent.run_id == run_id) & RunEvent.what.in_(("started", "resumed"))
    at: datetime | None = RunEvent.select(RunEvent.at).where(told).order_by(RunEvent.id.desc()).limit(1).scalar()
    return at
