"""Health: checks Redis, broker, database, workers and scheduler, and lists the troubles that stop work."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import redis
from peewee import PeeweeException

from workers.connections import database, outages
from workers.connections.redis_url import is_redis
from workers.connections.trouble import Cause, Trouble
from workers.errors import ConfigurationError, DependencyDown
from workers.messaging import process_heartbeat, scheduler_heartbeat
from workers.messaging.process_heartbeat import Process
from workers.records import schema
from workers.records.tables import Run, RunStatus
from workers.reports.metrics import messages
from workers.settings import get_settings

_RECOVERS = "No data is lost; work continues automatically afterwards."
_NOTHING_SENT = f"No request is sent to an API. {_RECOVERS}"
_NO_MESSAGE = f"No message reaches a worker. {_RECOVERS}"
_NOTHING_SAVED = f"No item is claimed or committed. {_RECOVERS}"


@dataclass(frozen=True)
class Health:
    """The state of what an import depends on.

    Attributes:
      troubles: What is down or missing, the root cause first; empty where all is well.
      processes: Those that are alive, or were lately; None where Redis does not answer.
    """

    troubles: tuple[Trouble, ...]
    processes: tuple[Process, ...] | None


def health() -> Health:
    """Return what is down or missing. A few small queries; a Redis that does not answer is asked once."""
    trouble = outages.redis_trouble()
    processes = None if trouble and trouble.cause is Cause.REDIS_AWAY else _processes()
    troubles = [_of_redis(trouble)] if trouble else []
    troubles += _broker()
    troubles += _database(is_redis_down=trouble is not None)
    if processes is not None:
        troubles += _worker(processes)
        missing = scheduler_heartbeat.no_scheduler()
        troubles += [missing] if missing else []
    return Health(tuple(troubles), processes)


def _of_redis(trouble: Trouble) -> Trouble:
    is_away = trouble.cause is Cause.REDIS_AWAY
    repair = f"{trouble.repair}; `python -m workers redis` starts one" if is_away else trouble.repair
    return replace(trouble, meaning=_NOTHING_SENT, repair=repair)


def _broker() -> Iterator[Trouble]:
    """Check the broker, where it is a Redis of its own; RabbitMQ's state is in the log of the workers."""
    settings = get_settings()
    if settings.broker == settings.redis_url or not is_redis(settings.broker):
        return
    if messages() is None:
        repair = "start it, or correct SLUICE_BROKER_URL"
        yield Trouble("the broker does not answer", repair, meaning=_NO_MESSAGE, cause=Cause.BROKER_AWAY)


def _database(*, is_redis_down: bool) -> Iterator[Trouble]:
    try:
        if not schema.is_migrated():
            yield Trouble(
                "the database has no, or older, Sluice tables",
                "`python -m workers migrate` makes them",
                meaning="Workers and scheduler wait for them.",
                cause=Cause.NO_TABLES,
            )
            return
    except ConfigurationError as error:
        yield Trouble("the database cannot be used", str(error), meaning=_NOTHING_SAVED, cause=Cause.DATABASE)
        return
    except (DependencyDown, PeeweeException) as error:
        trouble = outages.database_trouble(error)
        is_full = trouble.cause is Cause.NO_CONNECTION_LEFT
        what = trouble.what if is_full else "the database does not answer"
        yield replace(trouble, what=what, said="", meaning=_NOTHING_SAVED)
        return
    if not is_redis_down and (reported := outages.reported_trouble()):
        yield replace(reported, meaning=_NOTHING_SAVED)


def _processes() -> tuple[Process, ...] | None:
    try:
        return process_heartbeat.processes()
    except (redis.RedisError, ValueError):
        return None


def _worker(processes: Sequence[Process]) -> Iterator[Trouble]:
    missing = process_heartbeat.no_worker(processes)
    if missing and (waiting := _runs_to_do()):
        one = "1 run is stalled, unless it runs inline."
        yield replace(
            missing, meaning=one if waiting == 1 else f"{waiting:,} runs are stalled, unless they run inline."
        )
    elif missing:
        yield replace(missing, meaning="Runs that are started now wait for a worker.", is_down=False)


def _runs_to_do() -> int:
    """Return how many runs a worker would work on; 0 where the database does not answer."""
    try:
        with database.connection():
            wanted = Run.status.in_((RunStatus.RUNNING, RunStatus.PENDING))
            count: int = Run.select().where(wanted).count()
            return count
    except (DependencyDown, ConfigurationError, PeeweeException):
        return 0
