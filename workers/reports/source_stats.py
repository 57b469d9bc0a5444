"""Source stats: computes the success rate and average duration of each source, over its last runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import fn

from workers.connections import database
from workers.records.tables import LABEL, Run, RunStatus
from workers.reports.labels import SUCCEEDED, WITH_FAILURES
from workers.reports.pauses import Pauses, pauses_of

#: How many of its last runs a source is judged by.
LAST = 20
#: How many of the runs that ended last are read, of all sources.
_LATELY = 100


@dataclass(frozen=True)
class PastRun:
    """A run that has ended.

    Attributes:
      label: completed, completed with failures, failed or cancelled.
      total: Its items; None where its list was never read.
      seconds: How long it took, without its pauses.
    """

    id: int
    label: str
    total: int | None
    failed: int
    ended_at: datetime
    seconds: float


@dataclass(frozen=True)
class SourceStats:
    """How well a source does.

    Attributes:
      runs: Its last runs that began and ended, the oldest first.
      last_success_at: When one last completed, also before those; None where none ever did.
      next_at: When the next one is scheduled; None where none is.
    """

    source: str
    runs: tuple[PastRun, ...] = ()
    last_success_at: datetime | None = None
    next_at: datetime | None = None

    @property
    def succeeded(self) -> int:
        """How many of `runs` completed, with failed items or without."""
        return sum(run.label in SUCCEEDED for run in self.runs)

    @property
    def with_failures(self) -> int:
        """How many of those had failed items."""
        return sum(run.label == WITH_FAILURES for run in self.runs)

    @property
    def decided(self) -> int:
        """How many of `runs` completed or failed: a cancelled run says nothing about its source."""
        return sum(run.label != RunStatus.CANCELLED for run in self.runs)

    @property
    def success(self) -> float | None:
        """The part of those that completed, 0 to 1; None where none has ended yet."""
        return self.succeeded / self.decided if self.decided else None

    @property
    def average_seconds(self) -> float | None:
        """How long a run takes that completes; None where none did."""
        took = [run.seconds for run in self.runs if run.label in SUCCEEDED]
        return sum(took) / len(took) if took else None


def source_stats(names: Iterable[str]) -> dict[str, SourceStats]:
    """Return how these sources do, by name. It takes some indexed queries a source: too many for every second.

    Parameters:
      names(Iterable[str]): Sources, registered or not.
    """
    wanted = list(names)
    lately = _ended_lately()
    last = {name: _last(name, lately) for name in wanted}
    pauses = pauses_of([run for runs in last.values() for run in runs], database.now())
    scheduled = _scheduled()
    return {name: _of(name, last[name], pauses, scheduled.get(name)) for name in wanted}


def _of(name: str, last: Sequence[Any], pauses: Mapping[int, Pauses], next_at: datetime | None) -> SourceStats:
    runs = tuple(_past(run, pauses.get(run.id, Pauses())) for run in reversed(last))
    return SourceStats(name, runs, _last_success(name, runs), next_at)


def _last(name: str, lately: Sequence[Any]) -> list[Any]:
    """Return the source's runs that ended last, the latest first, with their labels.

    Parameters:
      lately(Sequence[Any]): The result of `_ended_lately`: an old run that was retried is not among the newest.
    """
    newest = _ended().where(Run.source == name).order_by(Run.id.desc()).limit(LAST)
    found = {run.id: run for run in (*newest, *(run for run in lately if run.source == name))}
    return sorted(found.values(), key=lambda run: (run.ended_at, run.id), reverse=True)[:LAST]


def _ended_lately() -> list[Any]:
    """Return the runs that ended last, of all sources."""
    has_items = Run.items_removed_at.is_null()  # a retried run has items; with this condition, an index has the order
    return list(_ended().where(has_items).order_by(Run.ended_at.desc(), Run.id.desc()).limit(_LATELY))


def _ended() -> Any:
    columns = (Run.id, Run.source, Run.status, Run.total_count, Run.failed_count, Run.started_at, Run.ended_at)
    ended = Run.ended_at.is_null(False) & Run.started_at.is_null(False)
    return Run.select(*columns, LABEL.alias("label")).where(ended)


def _past(run: Any, pauses: Pauses) -> PastRun:
    seconds = (run.ended_at - run.started_at).total_seconds() - pauses.seconds
    return PastRun(run.id, run.label, run.total_count, run.failed_count, run.ended_at, max(0.0, seconds))


def _last_success(name: str, runs: Sequence[PastRun]) -> datetime | None:
    """Return when the source last completed a run: one of its last, or one before them."""
    found = [run.ended_at for run in runs if run.label in SUCCEEDED]
    if found or len(runs) < LAST:
        return max(found, default=None)
    newest = [_newest(name, label) for label in SUCCEEDED]
    return max((at for at in newest if at), default=None)


def _newest(name: str, label: str) -> datetime | None:
    query = Run.select(Run.ended_at).where(Run.source == name, label == LABEL)
    at: datetime | None = query.order_by(Run.id.desc()).limit(1).scalar()
    return at


def _scheduled() -> dict[str, datetime]:
    """Return when each source's next run is scheduled."""
    query = Run.select(Run.source, fn.MIN(Run.scheduled_at)).where(Run.status == RunStatus.SCHEDULED)
    rows: Any = query.group_by(Run.source).tuples()
    return dict(rows)
