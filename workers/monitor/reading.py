"""A reading: all that one tick of the page shows, read at one instant; or what keeps it from being read."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from peewee import InterfaceError, OperationalError, PeeweeException

from workers import database, outages, runs, stats
from workers.errors import ConfigurationError, DependencyDown
from workers.monitor.chart import SECONDS
from workers.monitor.complaint import complain
from workers.redis_words import Trouble
from workers.stats import RunStats
from workers.tables import ACTIVE, ENDED

_MIGRATE = (
    "The database has no, or older, Sluice tables: `python -m workers migrate` makes them. This page goes on by itself."
)
_START = "Start it, or correct SLUICE_DATABASE_URL; the monitor's log has the reason. This page goes on by itself."


class Unreadable(Exception):
    """The page cannot be filled now. Shown as a heading and a sentence; the details go to the log.

    Parameters:
      what(str): What is down.
      repair(str): What to do about it.
      tone(str): bad, or warn where nothing is broken.
    """

    def __init__(self, what: str, repair: str, tone: str = "bad") -> None:
        super().__init__(f"{what}. {repair}")
        self.what = what
        self.repair = repair
        self.tone = tone


@dataclass(frozen=True)
class Reading:
    """What there is to show.

    Attributes:
      runs: The recent runs, active ones first.
      shown: Those drawn large: the active ones, else the one that ended last; empty where none ever started.
      points: Items finished a second, of the first of `shown`.
      redis_trouble: What is the matter with Redis; None where it takes what it is told.
    """

    now: datetime
    runs: tuple[RunStats, ...]
    shown: tuple[RunStats, ...]
    points: tuple[tuple[datetime, int], ...]
    redis_trouble: Trouble | None

    @property
    def active(self) -> tuple[RunStats, ...]:
        return tuple(run for run in self.runs if run.status in ACTIVE)

    @property
    def chart_end(self) -> datetime:
        """The last second that is whole: one that has just begun would look like a drop."""
        return self.shown[0].ended_at or self.now - timedelta(seconds=1)


def read() -> Reading:
    """Return what the page shows now.

    Raises:
      Unreadable: The database is away, or has no tables yet.
    """
    try:
        with database.connection():
            return _read()
    except ConfigurationError as error:
        raise Unreadable("The database cannot be used", str(error)) from error
    except (DependencyDown, PeeweeException) as error:
        raise _why_unreadable(error) from error


def _read() -> Reading:
    now = database.now()
    found = tuple(stats.recent_runs())
    shown = _shown(found)
    points = stats.finished_per_second(runs.get(shown[0].id), SECONDS) if shown else []
    return Reading(now, found, shown, tuple(points), outages.redis_trouble())


def _shown(found: tuple[RunStats, ...], most: int = 3) -> tuple[RunStats, ...]:
    active = tuple(run for run in found if run.status in ACTIVE)
    ended = [run for run in found if run.status in ENDED and run.started_at and run.ended_at]
    last = sorted(ended, key=lambda run: run.ended_at or run.created_at)[-1:]
    return active[:most] or tuple(last)


def _why_unreadable(error: DependencyDown | PeeweeException) -> Exception:
    """Return what to raise: errors of a connection and of missing tables are the operator's, any other one is ours."""
    try:
        if not isinstance(error, DependencyDown) and not database.is_migrated():
            return Unreadable("Waiting for migrations", _MIGRATE, tone="warn")
    except (DependencyDown, PeeweeException):
        pass
    if not isinstance(error, (DependencyDown, OperationalError, InterfaceError)):
        return error
    complain("the page cannot read the database", error)
    return Unreadable("The database does not answer", _START)
