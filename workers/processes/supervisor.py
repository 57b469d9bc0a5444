"""The supervisor keeps worker processes alive. dramatiq's own command stops the whole fleet when one of them dies."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from workers import clock
from workers.connections import redis_url
from workers.errors import DependencyDown
from workers.messaging import recent_errors
from workers.processes import signals
from workers.processes.parent_death import end_with_parent
from workers.records import schema
from workers.settings import get_settings
from workers.sources.registry import get_registry

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "workers", "worker-process")
_LOOK_SECONDS = 0.2
_BACKOFF_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0)
#: A process that lived this long did not die of its start.
_STEADY_SECONDS = 30.0
#: Not heard of for so long, a process hangs: it was stopped, or something holds the interpreter's lock for good.
_SILENT_SECONDS = 60.0
#: The user's sources may take their time to be imported.
_START_SECONDS = 300.0
#: Silence between two looks counts for this much at most: we may have been stopped ourselves, or the machine suspended.
_LONGEST_LOOK_SECONDS = 1.0
#: How long before the end of the drain what is left is killed.
_LAST_SECONDS = 0.25


def supervise() -> int:
    """Keep `SLUICE_WORKER_PROCESSES` worker processes alive until asked to stop, then drain them.

    Returns:
      int: 0; a child that dies or hangs is replaced, with a backoff, and never ends the supervisor.
    """
    settings = get_settings()
    get_registry()  # a source that cannot work is told of once, here
    children = [Child(number) for number in range(1, settings.worker_processes + 1)]
    signals.on_stop(within=settings.drain, at_once=partial(_kill, children))
    redis_url.wait_for(settings.redis_url, say=log.info)
    wait_for_migrations()
    if not clock.stop_requested.is_set():
        log.info("%d worker processes of %d threads", settings.worker_processes, settings.worker_threads)
    with recent_errors.kept("supervisor"):
        while not clock.stop_requested.is_set():
            for child in children:
                look_at(child)
            clock.sleep(_LOOK_SECONDS)
        drain(children, settings.drain - min(_LAST_SECONDS, settings.drain / 8))
    return 0


def look_at(child: "Child") -> None:
    """Look at one child; an unexpected error keeps none of the others from being looked at."""
    try:
        child.look(time.monotonic())
    except Exception:
        log.exception("%s could not be looked at", str(child))


def wait_for_migrations() -> None:
    """Wait until the database has our tables, saying so."""
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


class Child:
    """One worker process, whoever it is at the moment, and its history.

    It says that it runs by writing to its standard input, a pipe, of which this is the other end.

    Parameters:
      number(int): Its name in the log.
      command(Sequence[str]): What it runs.
    """

    def __init__(self, number: int, command: Sequence[str] = _COMMAND) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._pipe = -1
        self._deaths = 0
        self._start_at = self._started_at = self._looked_at = 0.0
        self._silent_seconds = 0.0
        self._killed = False

    def look(self, now: float) -> None:
        """Start it, replace it where it died, kill it where it hangs.

        Parameters:
          now(float): Seconds of the machine's monotonic clock, which stands still while the machine is suspended.
        """
        if self.process is None:
            if now >= self._start_at:
                self._start(now)
        elif self.process.poll() is not None:
            self._bury(self.process.returncode, now)
        elif not self._killed and self._is_silent(now):
            log.warning("%s was not heard of for %.0f s: it hangs, and is killed", str(self), _SILENT_SECONDS)
            self._killed = True
            self.process.kill()

    def __str__(self) -> str:
        return f"worker process {self.number}" + (f" (pid {self.process.pid})" if self.process else "")

    def _start(self, now: float) -> None:
        ours, theirs = -1, -1
        try:
            ours, theirs = os.pipe()
            os.set_blocking(ours, False)
            os.set_blocking(theirs, False)  # a child must not wait for us
            self.process = subprocess.Popen(self._command, stdin=theirs, preexec_fn=end_with_parent())
        except (OSError, subprocess.SubprocessError) as error:  # no memory, no process ids, no file handles
            _close(ours)
            log.warning("%s could not be started (%s); again in %.1f s", str(self), error, self._back_off(now))
            return
        finally:
            _close(theirs)
        self._pipe, self._killed = ours, False
        self._started_at = self._looked_at = now
        self._silent_seconds = _SILENT_SECONDS - _START_SECONDS

    def _bury(self, status: int, now: float) -> None:
        lived = now - self._started_at
        if lived > _STEADY_SECONDS:
            self._deaths = 0
        how, wait = _how_it_ended(status, by_us=self._killed), self._back_off(now)
        log.warning("%s %s after %.1f s; a new one in %.1f s", str(self), how, lived, wait)
        _close(self._pipe)
        self.process = None

    def _back_off(self, now: float) -> float:
        wait = _BACKOFF_SECONDS[min(self._deaths, len(_BACKOFF_SECONDS) - 1)]
        self._deaths += 1
        self._start_at = now + wait
        return wait

    def _is_silent(self, now: float) -> bool:
        since, self._looked_at = now - self._looked_at, now
        self._silent_seconds += min(since, _LONGEST_LOOK_SECONDS)
        with suppress(BlockingIOError):
            while os.read(self._pipe, 4096):
                self._silent_seconds = 0.0
        return self._silent_seconds > _SILENT_SECONDS


def drain(children: Sequence[Child], seconds: float) -> None:
    """Ask the children to end, and kill those that have not after `seconds`."""
    ends_at = time.monotonic() + seconds
    alive = [child.process for child in children if child.process]
    for process in alive:
        process.send_signal(signal.SIGTERM)
    for process in alive:
        by_us = False
        try:
            process.wait(max(0.0, ends_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            by_us = True
            process.kill()
            process.wait()
        if process.returncode:
            how = _how_it_ended(process.returncode, by_us=by_us)
            why = f": it did not end in {seconds:g} s" if by_us else ""
            told = "what it held is due again when its lease ends"
            log.warning("worker process (pid %d) %s%s; %s", process.pid, how, why, told)
    log.info("workers stopped")


def _kill(children: Sequence[Child]) -> None:
    for child in children:
        if process := child.process:  # the main thread may bury it meanwhile
            process.kill()


def _how_it_ended(status: int, *, by_us: bool) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signals.name_of(-status)
    if -status == signal.SIGKILL and not by_us:
        name += ", not by us (out of memory? the kernel's log tells)"
    return f"was killed by {name}"


def _close(handle: int) -> None:
    if handle >= 0:
        os.close(handle)
