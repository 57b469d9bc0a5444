"""The supervisor keeps worker processes alive. dramatiq's own command stops the whole fleet when one of them dies."""

import logging
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from workers import clock, database, redis_address, signals
from workers.errors import DependencyDown
from workers.orphans import end_with_parent
from workers.registry import get_registry
from workers.settings import get_settings

log = logging.getLogger(__name__)

_BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0)
#: A process that lived this long did not die of its start.
_STEADY_SECONDS = 30.0


@dataclass
class Child:
    """One worker process and its history."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    deaths: int = 0
    start_at: float = 0.0


def supervise() -> int:
    """Keep `SLUICE_WORKER_PROCESSES` worker processes alive until asked to stop, then drain them.

    Returns:
      int: 0; a child that dies is replaced, with a backoff, and never ends the supervisor.
    """
    settings = get_settings()
    get_registry()  # a source that cannot work is told of once, here
    children = [Child(number) for number in range(1, settings.worker_processes + 1)]
    signals.on_stop()
    redis_address.wait_for(settings.redis_url, say=log.info)
    wait_for_migrations()
    log.info("%d worker processes of %d threads", settings.worker_processes, settings.worker_threads)
    while not clock.stop_requested.is_set():
        for child in children:
            _keep_alive(child)
        clock.sleep(0.2)
    _drain(children, settings.drain)
    return 0


def wait_for_migrations() -> None:
    """Wait until the database has our tables, saying so."""
    said = 0.0
    while not clock.stop_requested.is_set():
        try:
            if database.is_migrated():
                return
            why = "the database has no, or older, Sluice tables: `python -m workers migrate` makes them"
        except DependencyDown as error:
            why = str(error)
        if time.monotonic() - said > 10:
            log.info("waiting: %s", why)
            said = time.monotonic()
        clock.sleep(0.3)


def _keep_alive(child: Child) -> None:
    now = time.monotonic()
    if child.process and child.process.poll() is None:
        return
    if child.process:
        status, child.process = child.process.returncode, None
        child.deaths = 0 if now - child.started_at > _STEADY_SECONDS else child.deaths
        wait = _BACKOFF_SECONDS[min(child.deaths, len(_BACKOFF_SECONDS) - 1)]
        child.deaths += 1
        child.start_at = now + wait
        log.warning("worker process %d %s; a new one in %.1f s", child.number, _how_it_ended(status), wait)
    if now >= child.start_at:
        child.started_at = now
        child.process = subprocess.Popen(
            [sys.executable, "-m", "workers", "worker-process"], preexec_fn=end_with_parent()
        )


def _drain(children: list[Child], seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    alive = [child.process for child in children if child.process]
    for process in alive:
        process.send_signal(signal.SIGTERM)
    for process in alive:
        try:
            process.wait(max(0.1, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning(
                "worker process %d did not end in %.1f s and is killed; its items are due again", process.pid, seconds
            )
            process.kill()
            process.wait()
    log.info("workers stopped")


def _how_it_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
