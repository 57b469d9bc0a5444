"""The scheduler: a small loop that keeps the schedules and lets the reaper look. Any number of them may run."""

import logging
from collections.abc import Callable

from peewee import PeeweeException

from workers import clock
from workers.connections import database, fault_isolation, outages, redis_url
from workers.control import runner
from workers.engine import reaper, wake_sleeping_runs
from workers.errors import SluiceError
from workers.messaging import presence, recent_errors, scheduler_heartbeat
from workers.processes import signals
from workers.processes.supervisor import wait_for_migrations
from workers.records import retention
from workers.reports.why_log import WhyLog
from workers.scheduling import timetable
from workers.settings import get_settings
from workers.text.error_text import message_of

log = logging.getLogger(__name__)

#: How long a tick may remove what is too old: the next one goes on.
_TIDY_SECONDS = 1.0
_why_log = WhyLog()


def tick(late_seconds: float = 0.0) -> bool:
    """Start what is due, send again what was lost, remove what is too old. A step that fails keeps none of the others.

    Parameters:
      late_seconds(float): From how long after its slot on a run counts as missed: at least a minute, or two ticks.

    Returns:
      bool: Whether every step did its work, for every run and schedule.

    Raises:
      DependencyDown, peewee.PeeweeException: The database is away: no step can do its work.
    """
    steps: tuple[Callable[[], object], ...] = (
        timetable.adopt,
        lambda: timetable.keep(late_seconds),
        runner.start_due,
        reaper.reap,
        wake_sleeping_runs.wake_sleepers,
        lambda: retention.tidy(_TIDY_SECONDS),
        _why_log.look_in_time,
    )
    with database.connection():
        failures = fault_isolation.failures()
        went_well = [_try(step) for step in steps]
    return all(went_well) and fault_isolation.failures() == failures


def once() -> bool:
    """Tick one time: for cron. What it returns and raises is `tick`'s."""
    redis_url.wait_for(get_settings().redis_url, say=log.info)
    scheduler_heartbeat.beat(once=True)
    with recent_errors.kept("scheduler"):
        return tick(scheduler_heartbeat.ONCE_SECONDS)


def loop() -> int:
    """Tick until asked to stop; a tick that fails is told of, and the next one is tried.

    Returns:
      int: 0.
    """
    settings = get_settings()
    signals.on_stop(within=settings.drain)  # a tick may wait half a minute for a locked file
    redis_url.wait_for(settings.redis_url, say=log.info)
    wait_for_migrations()
    log.info("schedules are kept, and runs started, every %g s", settings.tick_seconds)
    with recent_errors.kept("scheduler"), presence.present("scheduler"):
        while not clock.stop_requested.is_set():
            _try_to_tick()
            clock.sleep(settings.tick_seconds)
    return 0


def _try_to_tick() -> None:
    try:
        scheduler_heartbeat.beat()
        tick()
    except Exception as error:
        if not outages.tell(error):
            _complain(error)
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
        _complain(error)
        return False
    return True


def _complain(error: Exception) -> None:
    expected = isinstance(error, (SluiceError, PeeweeException))
    log.warning("a part of this tick failed: %s", message_of(error), exc_info=None if expected else error)
