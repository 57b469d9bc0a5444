"""Set up a whole installation in a temporary folder for the length of a block, and import in this process."""

import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import clock
from workers.clock import MovedClock
from workers.connections import database, outages
from workers.control import runner
from workers.messaging import broker
from workers.records import schema
from workers.records.tables import RunItem
from workers.reports.run_stats import RunStats, run_stats
from workers.settings import get_settings
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.testing.moved_clock import moved_clock
from workers.testing.registered_sources import SOURCES
from workers.testing.served_redis import shared_redis
from workers.text import known_secrets

_PREFIX = "SLUICE_"


@dataclass(frozen=True)
class Installation:
    """An installation while its block lasts.

    Attributes:
      folder: Its data folder, which is deleted at the end.
      redis_url: Its Redis.
      clock: The clock that the test can advance; None where the installation runs in the machine's time.
    """

    folder: Path
    redis_url: str
    clock: MovedClock | None


@contextmanager
def installation(
    sources: Sequence[ImportSource],
    *,
    models: Sequence[type[Any]] = (),
    redis_url: str = "",
    moved: bool = True,
    **settings: object,
) -> Iterator[Installation]:
    """Set up an installation with these sources: a SQLite file, a Redis, migrated tables, this thread's connection.

    Parameters:
      sources(Sequence[ImportSource]): What is registered; the tables of their models are created.
      models(Sequence[type[peewee.Model]]): Other models whose tables are to be created.
      redis_url(str): The Redis to use; by default one that is started once for the process.
      moved(bool): Whether time passes only when the code sleeps, so that limits and retries take no time.
      settings(object): Settings by name: `backoff_seconds="1,1"` is SLUICE_BACKOFF_SECONDS. Every other SLUICE_*
        variable of the environment is ignored; a `.env` in the current folder is read.

    Raises:
      ConfigurationError: A source or a setting cannot be used, or no Redis is installed.

    *Warning:* the settings are those of the whole process: one installation at a time.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}
    with tempfile.TemporaryDirectory(prefix="sluice-") as name, moved_clock() if moved else nullcontext() as time:
        url = redis_url or shared_redis()
        chosen = {
            "data_dir": name,
            "database_url": f"sqlite:///{name}/sluice.db",
            "redis_url": url,
            "broker_url": "stub://",
            "prefix": f"t{uuid.uuid4().hex[:12]}",
            "sources": "workers.testing.registered_sources:SOURCES",
        } | settings
        try:
            _set({f"{_PREFIX}{key.upper()}": str(value) for key, value in chosen.items()})
            SOURCES[:] = sources
            reset()
            _drop_limiters(sources)
            get_registry()
            schema.migrate(dict.fromkeys([*(source.model for source in sources), *models]))
            with database.connection():
                yield Installation(Path(name), url, time)
        finally:
            _set(before)
            SOURCES.clear()
            reset()
            _drop_limiters(sources)


def reset() -> None:
    """Make this process read its settings and sources, and connect, anew. The clock stays as it is."""
    database.disconnect()
    outages.reset()
    known_secrets.forget()
    for cached in (get_settings, get_registry, broker.get_broker):
        cached.cache_clear()
    clock.stop_requested.clear()


def import_all(source: str | None = None, *, tenant: str | None = None, fresh: bool = False) -> RunStats:
    """Run a source to its end in this thread, and return the run as people see it.

    Parameters:
      source(str | None): Its name; None: the only one there is.
      tenant(str | None): For whom.
      fresh(bool): Whether rows that are no longer in the list are removed at the end.

    Raises:
      UnknownSource, ConfigurationError, UsageError: As `workers.control.runner.start`.

    *Warning:* a run that fails is returned, not raised: look at `status` and `error_summary`.
    """
    run = runner.start(source, who="test", door="test", tenant=tenant, fresh=fresh, send=False)
    return run_stats(runner.run_inline(run))


def items_of(run_id: int) -> dict[str, RunItem]:
    """Return the items of a run by external id: `status`, `failure_class`, `failure_reason`, `attempts`."""
    found = RunItem.select().where(RunItem.run_id == run_id).order_by(RunItem.id)
    return {item.external_id: item for item in found}


def _set(variables: dict[str, str]) -> None:
    """Make these the only SLUICE_* variables of this process."""
    for name in [name for name in os.environ if name.startswith(_PREFIX)]:
        del os.environ[name]
    os.environ.update(variables)


def _drop_limiters(sources: Sequence[ImportSource]) -> None:
    """Let each connector make its limiter anew: it keeps the Redis, the prefix and the clock of its first use."""
    for source in sources:
        source.connector._limiter = None
