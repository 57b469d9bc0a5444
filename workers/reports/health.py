"""Health: what is down, or lacking, that keeps the work from going on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import redis
from peewee import PeeweeException

from workers.connections import database, outages
from workers.connections.redis_errors import AWAY, Trouble
from workers.errors import ConfigurationError, DependencyDown
from workers.messaging import presence, scheduler_heartbeat
from workers.messaging.presence import Process
from workers.records import schema
from workers.records.tables import Run, RunStatus
from workers.reports.metrics import is_redis, messages
from workers.settings import get_settings

_GOES_ON = "nothing is lost, and all goes on by itself when that is over."
_MIGRATE = "`python -m workers migrate` makes them"


@dataclass(frozen=True)
class Lack:
    """Something that is down, or that nobody runs.

    Attributes:
      what: A clause: `no worker runs`.
      means: What comes of it; a sentence.
      repair: What to do about it; commands stand between backticks.
      is_down: Whether the work stands still for it now; else it would, or will.
    """

    what: str
    means: str
    repair: str
    is_down: bool = True


@dataclass(frozen=True)
class Health:
    """What is known at a glance.

    Attributes:
      lacks: What is down, the root of it first; empty where all is well.
      processes: Those that live, and those that were missed lately; None where Redis cannot tell.
    """

    lacks: tuple[Lack, ...]
    processes: tuple[Process, ...] | None


def health() -> Health:
    """Return what is down or lacking. A handful of small questions; nothing is asked of a Redis that is away."""
    trouble = outages.redis_trouble()
    found = _processes() if trouble is None or trouble.what != AWAY else None
    lacks = [_of_redis(trouble)] if trouble else []
    lacks += _broker()
    lacks += _database(trouble)
    if found is not None:
        lacks += _worker(found)
        lacks += _scheduler()
    return Health(tuple(lacks), found)


# --- what is down


def _of_redis(trouble: Trouble) -> Lack:
    repair = f"{trouble.repair}; `python -m workers redis` starts one" if trouble.what == AWAY else trouble.repair
    return Lack(trouble.what, f"Nothing is sent to an API, {_GOES_ON}", repair)


def _broker() -> Iterator[Lack]:
    """Look at the broker, where it is a Redis of its own; RabbitMQ's health is told by the log of the workers."""
    settings = get_settings()
    if settings.broker == settings.redis_url or not is_redis(settings.broker):
        return
    if messages() is None:
        means = f"No message reaches a worker, {_GOES_ON}"
        yield Lack("the broker does not answer", means, "start it, or correct SLUICE_BROKER_URL")


def _database(trouble: Trouble | None) -> Iterator[Lack]:
    stands = f"Nothing is claimed or committed, {_GOES_ON}"
    try:
        if not schema.is_migrated():
            yield Lack("the database has no, or older, Sluice tables", "Workers and scheduler wait for them.", _MIGRATE)
            return
    except ConfigurationError as error:
        yield Lack("the database cannot be used", stands, str(error))
        return
    except (DependencyDown, PeeweeException) as error:
        met = outages.database_trouble(error)
        yield Lack(met.what if met.what == outages.FULL else "the database does not answer", stands, met.repair)
        return
    if not trouble and (told := outages.reported()):
        what, _, repair = told.rpartition(" UTC): ")
        yield Lack(f"{what} UTC)" if what else told, stands, repair.partition(";")[0])


def _processes() -> tuple[Process, ...] | None:
    try:
        return presence.processes()
    except (redis.RedisError, ValueError):
        return None


def _worker(found: Sequence[Process]) -> Iterator[Lack]:
    what = presence.no_worker(found)
    if not what:
        return
    waiting = _runs_to_do()
    start = "start `python -m workers worker`"
    if waiting:
        stands = "1 run stands still" if waiting == 1 else f"{waiting:,} runs stand still"
        yield Lack(what, f"{stands}, unless worked off inline.", start)
    else:
        yield Lack(what, "What is started now waits for one.", start, is_down=False)


def _runs_to_do() -> int:
    """Return how many runs a worker would work at; 0 where the database cannot tell."""
    try:
        with database.connection():
            wanted = Run.status.in_((RunStatus.RUNNING, RunStatus.PENDING))
            count: int = Run.select().where(wanted).count()
            return count
    except (DependencyDown, ConfigurationError, PeeweeException):
        return 0


def _scheduler() -> Iterator[Lack]:
    what, _, means = scheduler_heartbeat.no_scheduler().partition(": ")
    if what:
        comes = means.partition(", until")[0]
        yield Lack(what, f"{comes[:1].upper()}{comes[1:]}.", "start `python -m workers scheduler`", is_down=False)
