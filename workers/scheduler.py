"""The scheduler: a small loop that starts what is due and lets the reaper look. Any number of them may run."""

import logging

from peewee import PeeweeException

from workers import clock, database, outages, reaper, redis_address, runner, signals
from workers.errors import SluiceError
from workers.settings import get_settings
from workers.supervisor import wait_for_migrations

log = logging.getLogger(__name__)


def tick() -> None:
    """Start the runs whose time has come, and send again what was lost."""
    with database.connection():
        for run in runner.start_due():
            log.info("run %d of %s: its time has come", run.id, run.source)
        reaper.reap()


def loop() -> int:
    """Tick until asked to stop; a tick that fails is told of, and the next one is tried.

    Returns:
      int: 0.
    """
    settings = get_settings()
    signals.on_stop(within=settings.drain)  # a tick may wait half a minute for a locked file
    redis_address.wait_for(settings.redis_url, say=log.info)
    wait_for_migrations()
    while not clock.stop_requested.is_set():
        _try_to_tick()
        clock.sleep(settings.tick_seconds)
    return 0


def _try_to_tick() -> None:
    try:
        tick()
    except Exception as error:
        if outages.tell(error):
            return
        expected = isinstance(error, (SluiceError, PeeweeException))
        log.warning("this tick failed: %s", error, exc_info=None if expected else error)
    else:
        outages.over()
