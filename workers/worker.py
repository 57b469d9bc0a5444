"""The worker: the process that consumes messages. `supervisor` keeps some of them alive."""

import logging
import os
import threading

from dramatiq.worker import Worker

from workers import actors, clock, database, detail, signals
from workers.broker import get_broker
from workers.registry import get_registry
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: How long before the end of the drain the process stops waiting for requests in flight, and gives items back.
_LAST_SECONDS = 1.0


def work() -> int:
    """Consume messages until asked to stop, then drain: waits end, items go back, nothing is marked failed.

    Returns:
      int: 0 after a drain.
    """
    settings = get_settings()
    signals.on_stop()
    get_registry()
    database.connect()
    broker = get_broker()
    actors.declare(broker)
    broker.emit_after("process_boot")
    worker = Worker(broker, worker_threads=settings.worker_threads, worker_timeout=200)
    worker.queue_prefetch = settings.worker_threads  # twice that, the default, lets one process hoard the lanes
    worker.start()
    while not clock.stop_requested.is_set():
        clock.sleep(3600)
    stopper = threading.Thread(target=worker.stop, kwargs={"timeout": round(settings.drain * 1000)}, daemon=True)
    stopper.start()
    stopper.join(max(0.5, settings.drain - _LAST_SECONDS))
    if stopper.is_alive():
        with database.connection():
            given = detail.abandon_turns()
        log.warning("requests were still in flight; %d items were given back", given)
        os._exit(0)
    broker.close()
    return 0
