"""Trouble: describes a fault as a value (what, meaning, repair, since); pages and commands word it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Cause(StrEnum):
    """What programs compare of a trouble, so that no program reads its sentences."""

    #: The Redis of the budgets does not answer.
    REDIS_AWAY = "redis_away"
    #: It answers, and refuses the request.
    REDIS_REFUSES = "redis_refuses"
    #: Postgres refuses another connection: all are in use.
    NO_CONNECTION_LEFT = "no_connection_left"
    #: The database cannot be used for another reason.
    DATABASE = "database"
    #: Its tables are missing, or those of an older version.
    NO_TABLES = "no_tables"
    #: The broker, a Redis of its own, does not answer.
    BROKER_AWAY = "broker_away"
    #: No worker process runs.
    NO_WORKER = "no_worker"
    #: No scheduler process runs.
    NO_SCHEDULER = "no_scheduler"


@dataclass(frozen=True)
class Trouble:
    """A fault: of Redis, of the database, or of a process that does not run.

    Attributes:
      what: A clause without a full stop: `Redis is out of memory`.
      repair: What a person can do about it, a clause; commands stand between backticks.
      said: The error's own words, or its class name; empty where there was no error.
      meaning: What it means for the work: a sentence. Empty where the place that shows it knows better.
      since: When it began, or when the missing process was last seen; None where that is unknown.
      is_down: Whether work is stopped by it now. False: work would stop, or will.
      cause: For programs.
    """

    what: str
    repair: str
    said: str = ""
    meaning: str = ""
    since: datetime | None = None
    is_down: bool = True
    cause: Cause | None = None

    @property
    def headline(self) -> str:
        """What, and since when: `no worker runs (since 2027-01-31 14:03:22 UTC)`."""
        return f"{self.what} (since {self.since:%Y-%m-%d %H:%M:%S} UTC)" if self.since else self.what

    @property
    def sentence(self) -> str:
        """All of it in one line, for logs and command lines: `headline. Meaning. To do: repair`."""
        return f"{self.headline}. {self.meaning + ' ' if self.meaning else ''}To do: {self.repair}"
