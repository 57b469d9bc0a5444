"""Scheduler: every 5 s starts due runs, re-sends lost messages and deletes old rows. Several can run at once."""

import logging
from collections.abc import Callable

from peewee import PeeweeException

from workers import clock
from workers.connections import database, fault_isolation, outages, redis_probe
from workers.control import runner
from workers.engine import reaper, wake_sleeping_runs
from workers.errors import SluiceError
from workers.messaging import process_heartbeat, recent_errors, scheduler_heartbeat
from workers.processes import signals
from workers.processes.worker_supervisor import wait_for_migrations
from workers.records import retention
from workers.reports.why_log import WhyLog
from workers.scheduling import timetable
from workers.settings import get_settings
from workers.text.error_text import message_of

log = logging.getLogger(__name__)

#: How long a tick deletes old rows; the next tick continues.
_TIDY_SECONDS = 1.0
_why_log = WhyLog()


def tick(late_seconds: float = 0.0) -> bool:
    """Start due runs, re-send lost messages, delete old rows. A step that fails does not stop the others.

    Parameters:
      late_seconds(float): How long after its slot a run counts as missed; at least a minute, or two ticks.

    Returns:
      bool: Whether every step succeeded, for every run and schedule.

    Raises:
      DependencyDown, peewee.PeeweeException: The database does not answer, so that no step can succeed.
    """
    steps: tuple[Callable[[], object], ...] = (
        timetable.adopt,
        lambda: timetable.keep(late_seconds),
        runner.start_due,
        reaper.reap,
        wake_sleeping_runs.wake_sleepers,
        lambda: retention.tidy(_TIDY_SECONDS),
        _why_log.check_in_time,
    )
    with database.connection():
        failures = fault_isolation.failures()
        went_well = [_try(step) for step in steps]
    return all(went_well) and fault_isolation.failures() == failures


def once() -> bool:
    """Do one tick, for a cron job; it returns and raises as `tick`."""
    redis_probe.wait_for_redis(get_settings().redis_url, say=log.info)
    scheduler_heartbeat.beat(once=True)
    with recent_errors.kept("scheduler"):
        return tick(scheduler_heartbeat.ONCE_SECONDS)


def loop() -> int:
    """Tick until asked to stop; a tick that fails is logged, and the next one is tried.

    Returns:
      int: 0.
    """
    settings = get_settings()
    signals.on_stop(within=settings.drain)  # a tick can wait 30 s for a locked file
    redis_probe.wait_for_redis(settings.redis_url, say=log.info)
    wait_for_migrations()
    log.info("scheduler ready: it starts due runs every %g s", settings.tick_seconds)
    with recent_errors.kept("scheduler"), process_heartbeat.present("scheduler"):
        while not clock.stop_requested.is_set():
            _try_to_tick()
            clock.sleep(settings.tick_seconds)
    return 0


def _try_to_tick() -> None:
    try:
        scheduler_heartbeat.beat()
        tick()
    except Exception as error:
        if not outages.report(error):
            _log_failure(error)
    else:
        outages.over()


def _try(step: Callable[[], object]) -> bool:
    if clock.stop_requested.is_set():
        return True
    try:
        step()
    except Exception as error:
        if fault_isolation.is_for_all(error):
            raise
        _log_failure(error)
        return False
    return True


def _log_failure(error: Exception) -> None:
    expected = isinstance(error, (SluiceError, PeeweeException))
    log.warning("a part of this tick failed: %s", message_of(error), exc_info=None if expected else error)
