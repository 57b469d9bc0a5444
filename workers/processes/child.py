"""Child processes: start one that ends with its parent, restart it with a backoff, stop it by a deadline.

The supervisor of worker processes, the embedded Redis and the page's server keep their children alive with it.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from workers.processes.parent_death import end_with_parent
from workers.processes.signals import name_of


class ChildProcess(subprocess.Popen[bytes]):
    """A running child. On Linux it receives SIGTERM when the thread that started it ends.

    Parameters:
      command(Sequence[str]): What it runs.
      session(bool): Whether it leads a session of its own: then no signal to this process's group reaches it, and a
        kill reaches what it has started, too.
      options: As for `subprocess.Popen`.

    Attributes:
      killed_by_us: Whether this process has killed it.
    """

    def __init__(self, command: Sequence[str], *, session: bool = False, **options: Any) -> None:
        self.killed_by_us = False
        self._leads_session = session
        super().__init__(command, start_new_session=session, preexec_fn=end_with_parent(), **options)

    def kill(self) -> None:
        """Send SIGKILL: to its session, where it leads one."""
        self.killed_by_us = True
        if self._leads_session and self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        else:
            super().kill()

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end at most so long, a requested stop or not; return whether it has ended."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout=seconds)
        return self.returncode is not None

    def stop(self, seconds: float) -> None:
        """Ask it to end by SIGTERM, and kill it where it has not ended after `seconds`."""
        self.terminate()
        self.kill_after(seconds)

    def kill_after(self, seconds: float) -> None:
        """Kill it where it has not ended after `seconds`; return when it has ended."""
        if not self.ended_within(seconds):
            self.kill()
            self.wait()

    def how_it_ended(self) -> str:
        """Return how it ended, for the log: "ended with status 2", "was killed by SIGTERM"."""
        if self.returncode >= 0:
            return f"ended with status {self.returncode}"
        outside = -self.returncode == signal.SIGKILL and not self.killed_by_us
        why = " from outside (out of memory? see the kernel's log)" if outside else ""
        return f"was killed by {name_of(-self.returncode)}{why}"


class Backoff:
    """Decides how long to wait before a child is started again: longer after each short life.

    Parameters:
      waits_seconds(Sequence[float]): The wait after the first short life, the second ...; the last one stays.
      steady_seconds(float): A child that lived longer did not die of its start: the next wait is the first one again.
    """

    def __init__(self, waits_seconds: Sequence[float], steady_seconds: float) -> None:
        self._waits_seconds = waits_seconds
        self._steady_seconds = steady_seconds
        self._deaths = 0

    def wait_seconds(self, lived_seconds: float = 0.0) -> float:
        """Return how long to wait, in seconds, after a life of `lived_seconds`; 0 if the child could not be started."""
        if lived_seconds > self._steady_seconds:
            self._deaths = 0
        wait = self._waits_seconds[min(self._deaths, len(self._waits_seconds) - 1)]
        self._deaths += 1
        return wait
