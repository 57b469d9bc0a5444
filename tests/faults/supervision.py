"""Supervise a fleet as systemd does: start again what ended. And strike its processes with faults."""

import heapq
import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import redis

from benchmarks.fleet import Fleet, FleetError
from tests.faults.schedule import Fault, Kind
from tests.helpers.postgres_clusters import Cluster

#: RestartSec of the outer supervisor.
RESTART_SECONDS = 0.5
#: How long a worker process whose supervisor was killed can drain after the run's end: more than SLUICE_DRAIN_SECONDS.
_LEAVE_SECONDS = 8.0


@dataclass(frozen=True)
class Death:
    """A process of the fleet that ended, after a fault or without one."""

    at: float
    name: str
    status: int
    of_a_fault: bool


class SupervisedFleet(Fleet):
    """A fleet whose processes are started again when they end. The mock API must live on: its counts are the truth.

    The fleet's methods that wait supervise it meanwhile; other code must call `check_alive` often.
    """

    def start(self) -> None:
        self.deaths: list[Death] = []
        self._start_at: dict[str, float] = {}
        self._struck: set[int] = set()
        super().start()

    def check_alive(self) -> None:
        """Start again what ended.

        Raises:
          FleetError: The mock API ended.
        """
        for name, process in list(self._started.items()):
            status = process.poll()
            if status is None:
                continue
            if name == "mock":
                raise FleetError(f"{name} ended with status {status}: {self.last_words(name)}")
            if name not in self._start_at:
                self.deaths.append(Death(time.monotonic(), name, status, process.pid in self._struck))
                self._start_at[name] = time.monotonic() + RESTART_SECONDS
            elif time.monotonic() >= self._start_at[name]:
                del self._start_at[name]
                self.start_again(name)

    def process_ids(self, name: str) -> list[int]:
        """Return the id of a process of the fleet, in a list; empty while it is down."""
        process = self._started[name]
        return [process.pid] if process.poll() is None else []

    def children(self, name: str) -> list[int]:
        """Return the ids of what a process of the fleet has started: worker processes, the Redis server."""
        return self._children(name) if self.process_ids(name) else []

    def send(self, number: signal.Signals, process_ids: Sequence[int]) -> None:
        """Send a signal to processes of this fleet; those that are gone are left out."""
        for process_id in process_ids:
            with suppress(ProcessLookupError):
                os.kill(process_id, number)
            if number in (signal.SIGKILL, signal.SIGTERM):
                self._struck.add(process_id)

    def all_processes(self) -> list[int]:
        """Return the ids of all but the mock API, orphans too; children first, before they notice a parent's death."""
        parents = [process.pid for process in self._started.values()]
        mock = self._started["mock"].pid
        return sorted(set(super()._processes_left()) - {mock}, key=parents.__contains__)

    def stop_all(self) -> str:
        """Stop every process; return which did not end in time, or were left behind: empty where none was."""
        try:
            self.stop()
        except FleetError as error:
            self.send(signal.SIGKILL, super()._processes_left())
            return str(error)
        return ""

    def _processes_left(self) -> list[int]:
        # Worker processes whose supervisor was killed drain, and no process waits for them.
        ends_at = time.monotonic() + _LEAVE_SECONDS
        while (left := super()._processes_left()) and time.monotonic() < ends_at:
            time.sleep(0.1)
        return left


Whom = Callable[[SupervisedFleet, int], list[int]]


def _a_worker_process(fleet: SupervisedFleet, which: int) -> list[int]:
    there = fleet.children("worker")
    return [there[which % len(there)]] if there else []


def _the(name: str) -> Whom:
    return lambda fleet, _: fleet.process_ids(name)


def _redis(fleet: SupervisedFleet, _: int) -> list[int]:
    return fleet.children("redis")


#: The signal of each fault, and the processes that get it. Those that end are started again.
_SIGNALS: dict[Kind, tuple[signal.Signals, Whom]] = {
    Kind.CHILD_KILLED: (signal.SIGKILL, _a_worker_process),
    Kind.SUPERVISOR_KILLED: (signal.SIGKILL, _the("worker")),
    Kind.SCHEDULER_KILLED: (signal.SIGKILL, _the("scheduler")),
    Kind.REDIS_KILLED: (signal.SIGKILL, _redis),
    Kind.REDIS_KEEPER_KILLED: (signal.SIGKILL, _the("redis")),
    Kind.ALL_KILLED: (signal.SIGKILL, lambda fleet, _: fleet.all_processes()),
    Kind.CHILD_STOPPED: (signal.SIGSTOP, _a_worker_process),
    Kind.SUPERVISOR_STOPPED: (signal.SIGSTOP, _the("worker")),
    Kind.SCHEDULER_STOPPED: (signal.SIGSTOP, _the("scheduler")),
    Kind.REDIS_STOPPED: (signal.SIGSTOP, _redis),
    Kind.REDIS_RESTARTED: (signal.SIGTERM, _redis),
    Kind.REDIS_KEEPER_RESTARTED: (signal.SIGTERM, _the("redis")),
    Kind.DRAINED: (signal.SIGTERM, _the("worker")),
}


@dataclass
class FaultInjector:
    """Does to a fleet what a schedule says, and undoes what is to pass: SIGCONT, the start of Postgres."""

    fleet: SupervisedFleet
    cluster: Cluster | None = None
    _later: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def strike(self, fault: Fault) -> bool:
        """Let a fault happen; return whether there was anybody to strike."""
        match fault.kind:
            case Kind.REDIS_FLUSHED:
                return self._flush()
            case Kind.POSTGRES_RESTARTED:
                return self._restart_postgres(signal.SIGINT, fault.seconds)
            case Kind.POSTGRES_BROKEN_OFF:
                return self._restart_postgres(signal.SIGQUIT, fault.seconds)
        number, whom = _SIGNALS[fault.kind]
        victims = whom(self.fleet, fault.which)
        self.fleet.send(number, victims)
        if number is signal.SIGSTOP and victims:
            self._in(fault.seconds, lambda: self.fleet.send(signal.SIGCONT, victims))
        return bool(victims)

    def undo_due(self) -> None:
        """Undo what is due to be undone, and start again what ended."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
        self.fleet.check_alive()

    def undo_all(self) -> None:
        """Undo what is left, at once."""
        while self._later:
            heapq.heappop(self._later)[2]()

    def _flush(self) -> bool:
        with suppress(redis.RedisError):
            self.fleet.flush_redis()
            return True
        return False

    def _restart_postgres(self, how: signal.Signals, away_seconds: float) -> bool:
        if self.cluster is None:
            raise ValueError("a restart of Postgres was scheduled for a run without one")
        self.cluster.stop(how)
        self._in(away_seconds, self.cluster.start)
        return True

    def _in(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), act))
