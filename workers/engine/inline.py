"""Works a run in this process without a broker: its messages go to a queue in memory, and are called in turn."""

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from workers import clock
from workers.connections import database, database_errors, outages
from workers.connections.database_errors import Fault
from workers.engine.actors import ACTORS
from workers.engine.discovery import open_lanes
from workers.engine.reaper import revive
from workers.engine.sampling import Sampler
from workers.errors import RateLimited
from workers.messaging import broadcast, broker
from workers.records import runs
from workers.records.tables import ENDED, Run
from workers.settings import get_settings
from workers.sources.registry import get_registry


def work(run_id: int, on_progress: Callable[[Run], None]) -> None:
    """Call discover, the lanes and finalize until the run has ended, or the process is asked to stop.

    Parameters:
      run_id(int): An active run. No worker is needed; workers that run share the work.
      on_progress(Callable): Called with the run after each message.

    Raises:
      UnknownSource: This process does not know the run's source: no worker would take its messages.
    """
    get_registry()[runs.get(run_id).source]
    due: list[tuple[float, int, str, tuple[Any, ...]]] = []
    tick = get_settings().tick_seconds
    order = itertools.count()
    sampler = Sampler()

    def put(name: str, args: tuple[Any, ...], delay_seconds: float) -> None:
        heapq.heappush(due, (clock.monotonic() + delay_seconds, next(order), name, args))

    with broadcast.listening(), broker.captured(put):
        put("discover", (run_id,), 0.0)
        open_lanes(run_id)  # of a run whose list is complete already
        while not clock.stop_requested.is_set():
            sampler.take_if_due()
            run = runs.get(run_id)
            on_progress(run)
            if run.status in ENDED:
                return
            wait = min(due[0][0] - clock.monotonic() if due else tick, tick)
            if clock.sleep(wait):
                return
            if not due or due[0][0] > clock.monotonic():
                revive(run)  # messages of another process went to the broker
                continue
            _, _, name, args = heapq.heappop(due)
            try:
                ACTORS[name][0](*args)
            except RateLimited as wait:
                put(name, args, wait.wait_seconds)
            except Exception as error:  # one connection was cut: a worker does not end for that either
                if database_errors.classify(error) is not Fault.CONNECTION or not outages.report(error):
                    raise
                database.reconnect()
                put(name, args, 1.0)
