"""Measures idle time: how long a running run could not work, because no worker ran, or Redis or the database was away.

The process that takes a run's samples adds it to the run: after a gap between samples, and while Redis is away.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from peewee import fn

from workers.connections import outages
from workers.records import run_usage
from workers.records.samples import SLOT_SECONDS
from workers.records.tables import Run, RunEvent, RunStatus, Sample

#: A shorter gap between two samples means a busy machine.
_GAP = timedelta(seconds=10)


def silent_since(now: datetime) -> dict[int, datetime]:
    """Return the running runs that have had no sample for more than ten seconds, and since when: they did not work."""
    newest = Sample.select(fn.MAX(Sample.slot)).where(Sample.run_id == Run.id)
    running = Run.select(Run.id, Run.started_at, newest).where(Run.status == RunStatus.RUNNING)
    rows: Any = running.tuples()
    silent = {}
    for run_id, started_at, slot in rows:
        since = max(filter(None, (started_at, _end_of(slot))), default=now)
        if now - since > _GAP and now - (resumed := _resumed_at(run_id) or since) > _GAP:
            silent[run_id] = max(since, resumed)
    return silent


def add(taken: Iterable[int], silent: Mapping[int, datetime], now: datetime) -> None:
    """Add the idle time of the runs of which this process has just taken a sample.

    Parameters:
      taken(Iterable[int]): These runs. Of several processes one takes a sample, so one adds.
      silent(Mapping[int, datetime]): What `silent_since` returned before the samples.
    """
    away = SLOT_SECONDS if outages.is_redis_away() else 0.0
    for run_id in taken:
        gap = (now - silent[run_id]).total_seconds() if run_id in silent else 0.0
        if seconds := max(gap, away):
            run_usage.add_idle(run_id, seconds)


def _end_of(slot: int | None) -> datetime | None:
    return datetime.fromtimestamp((slot + 1) * SLOT_SECONDS, UTC) if slot is not None else None


def _resumed_at(run_id: int) -> datetime | None:
    """Return when a run was started, resumed or retried last: before that it was paused, or had ended."""
    events = (RunEvent.run_id == run_id) & RunEvent.what.in_(("started", "resumed"))
    at: datetime | None = RunEvent.select(RunEvent.at).where(events).order_by(RunEvent.id.desc()).limit(1).scalar()
    return at
