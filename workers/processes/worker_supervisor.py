"""Supervisor: keeps SLUICE_WORKER_PROCESSES worker processes running, and replaces those that die or hang.

dramatiq's own command stops all of them when one dies.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from workers import clock
from workers.connections import redis_probe
from workers.errors import DependencyDown
from workers.messaging import recent_errors
from workers.processes import signals
from workers.processes.child import Backoff, ChildProcess
from workers.records import schema
from workers.settings import get_settings
from workers.sources.registry import get_registry
from workers.text import durations

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "workers", "worker-process")
_LOOK_SECONDS = 0.2
_BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0)
#: A process that lived this long did not die of its start.
_STEADY_SECONDS = 30.0
#: A process without heartbeat for this long hangs: it was stopped, or code holds the interpreter's lock.
_SILENT_SECONDS = 60.0
#: How long a start can take: the user's sources are imported.
_START_SECONDS = 300.0
#: How much of the time between two looks counts at most, because this process or the machine can be suspended.
_LONGEST_LOOK_SECONDS = 1.0
#: How long before the end of the drain the remaining processes are killed.
_LAST_SECONDS = 0.25


def supervise() -> int:
    """Keep `SLUICE_WORKER_PROCESSES` worker processes alive until asked to stop, then drain them.

    Returns:
      int: 0; a process that dies or hangs is replaced, with a backoff, and never ends the supervisor.
    """
    settings = get_settings()
    get_registry()  # so that a source with an error is reported once, here
    slots = [WorkerSlot(number) for number in range(1, settings.worker_processes + 1)]
    signals.on_stop(within=settings.drain, at_once=partial(_kill, slots))
    redis_probe.wait_for_redis(settings.redis_url, say=log.info)
    wait_for_migrations()
    if not clock.stop_requested.is_set():
        log.info("%d worker processes of %d threads", settings.worker_processes, settings.worker_threads)
    with recent_errors.kept("supervisor"):
        while not clock.stop_requested.is_set():
            for slot in slots:
                look_at(slot)
            clock.sleep(_LOOK_SECONDS)
        drain(slots, settings.drain - min(_LAST_SECONDS, settings.drain / 8))
    return 0


def look_at(slot: "WorkerSlot") -> None:
    """Look at one slot; an unexpected error does not affect the others."""
    try:
        slot.look(time.monotonic())
    except Exception:
        log.exception("%s could not be looked at", str(slot))


def wait_for_migrations() -> None:
    """Wait until the database has Sluice's tables, and log what it waits for."""
    said = 0.0
    while not clock.stop_requested.is_set():
        try:
            if schema.is_migrated():
                return
            why = "the database has no, or older, Sluice tables: `python -m workers migrate` makes them"
        except DependencyDown as error:
            why = str(error)
        if time.monotonic() - said > 10:
            log.info("waiting: %s", why)
            said = time.monotonic()
        clock.sleep(0.3)


class WorkerSlot:
    """Keeps one worker process running: starts it, replaces it when it dies, kills it when it hangs.

    The process sends its heartbeat by writing to its standard input, which is a pipe; this object reads the other end.

    Parameters:
      number(int): Its name in the log.
      command(Sequence[str]): What it runs.
    """

    def __init__(self, number: int, command: Sequence[str] = _COMMAND) -> None:
        self.number = number
        self.process: ChildProcess | None = None
        self._command = command
        self._pipe = -1
        self._backoff = Backoff(_BACKOFF_SECONDS, _STEADY_SECONDS)
        self._start_at = self._started_at = self._looked_at = 0.0
        self._silent_seconds = 0.0

    def look(self, now: float) -> None:
        """Start it, replace it where it died, kill it where it hangs.

        Parameters:
          now(float): Seconds of the machine's monotonic clock, which pauses while the machine is suspended.
        """
        if self.process is None:
            if now >= self._start_at:
                self._start(now)
        elif self.process.poll() is not None:
            self._replace(self.process, now)
        elif not self.process.killed_by_us and self._is_silent(now):
            log.warning("%s sent no heartbeat for %.0f s: it hangs, and is killed", str(self), _SILENT_SECONDS)
            self.process.kill()

    def __str__(self) -> str:
        return f"worker process {self.number}" + (f" (pid {self.process.pid})" if self.process else "")

    def _start(self, now: float) -> None:
        ours, theirs = -1, -1
        try:
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            os.set_blocking(theirs, False)  # a child must not wait for its supervisor
            self.process = ChildProcess(self._command, stdin=theirs)
        except (OSError, subprocess.SubprocessError) as error:  # no memory, no process ids, no file handles
            _close(ours)
            wait = self._wait_before_start(now, self._backoff.wait_seconds())
            log.warning("%s could not be started (%s); it is tried again in %.1f s", str(self), error, wait)
            return
        finally:
            _close(theirs)
        self._pipe = ours
        self._started_at = self._looked_at = now
        self._silent_seconds = _SILENT_SECONDS - _START_SECONDS

    def _replace(self, ended: ChildProcess, now: float) -> None:
        """Log how the process ended; the next one is started after the backoff."""
        lived = now - self._started_at
        wait = self._wait_before_start(now, self._backoff.wait_seconds(lived))
        how = ended.how_it_ended()
        log.warning("%s %s after %s; it is started again in %.1f s", str(self), how, durations.wait(lived), wait)
        _close(self._pipe)
        self.process = None

    def _wait_before_start(self, now: float, seconds: float) -> float:
        self._start_at = now + seconds
        return seconds

    def _is_silent(self, now: float) -> bool:
        since, self._looked_at = now - self._looked_at, now
        self._silent_seconds += min(since, _LONGEST_LOOK_SECONDS)
        with suppress(BlockingIOError):
            while os.read(self._pipe, 4096):
                self._silent_seconds = 0.0
        return self._silent_seconds > _SILENT_SECONDS


def drain(slots: Sequence[WorkerSlot], seconds: float) -> None:
    """Ask the slots to end, and kill those that have not after `seconds`, which are for all of them together."""
    ends_at = time.monotonic() + seconds
    alive = [slot.process for slot in slots if slot.process]
    for process in alive:
        process.terminate()
    for process in alive:
        process.kill_after(max(0.0, ends_at - time.monotonic()))
        if process.returncode:
            why = f": it did not end in {seconds:g} s" if process.killed_by_us else ""
            log.warning(
                "worker process (pid %d) %s%s; its items are due again when their leases end",
                *(process.pid, process.how_it_ended(), why),
            )
    log.info("workers stopped")


def _kill(slots: Sequence[WorkerSlot]) -> None:
    for slot in slots:
        if process := slot.process:  # the main thread may replace it meanwhile
            process.kill()


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)
