"""Worker: a process that consumes messages until asked to stop, then drains. The supervisor keeps several running."""

import logging
import os
import signal
import stat
import threading
from typing import Any

from dramatiq import Message
from dramatiq.broker import MessageProxy
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from workers import clock
from workers.connections import database
from workers.engine import actors, discovery, flusher, sampling
from workers.messaging import broadcast, process_heartbeat, recent_errors
from workers.messaging.broker import get_broker
from workers.processes import signals
from workers.settings import get_settings
from workers.sources.registry import get_registry

log = logging.getLogger(__name__)

#: How long before the end of the drain a process stops waiting for responses, and releases its items.
_LAST_SECONDS = 1.5
#: How long before the end of the drain the process ends even if it hangs: the supervisor would kill it.
_LEAST_SECONDS = 0.5
#: How long the consumer threads can take to stop; they check five times a second.
_CONSUMERS_SECONDS = 0.5
#: How often the process sends its heartbeat to the supervisor.
_BEAT_SECONDS = 5.0


def work() -> int:
    """Consume messages until asked to stop, then drain: waits end, items are released, none is marked as failed.

    Returns:
      int: 0 after a drain.
    """
    settings = get_settings()
    signals.on_stop(within=settings.drain - min(_LEAST_SECONDS, settings.drain / 4))
    sources = sorted(get_registry())
    database.connect()
    broker = get_broker()
    in_work = InWork()
    broker.add_middleware(in_work)
    actors.declare(broker)
    broker.emit_after("process_boot")
    worker = Worker(broker, worker_threads=settings.worker_threads, worker_timeout=200)
    worker.queue_prefetch = settings.worker_threads  # the default, twice that, lets one process take too many lanes
    worker.start()
    threading.Thread(target=flusher.keep_flushing, name="flusher", daemon=True).start()
    threading.Thread(target=broadcast.listen, name="listener", daemon=True).start()
    threading.Thread(target=sampling.keep_sampling, name="sampler", daemon=True).start()
    present = process_heartbeat.present("worker", threads=settings.worker_threads, busy=in_work.count, sources=sources)
    with recent_errors.kept("worker"), present:
        while not clock.stop_requested.is_set():
            beat()
            clock.sleep(_BEAT_SECONDS)
        in_time = drain(worker, settings.drain - min(_LAST_SECONDS, settings.drain / 2))
    if not in_time:
        os._exit(0)
    broker.close()
    return 0


class InWork(Middleware):
    """Counts the messages that this process is processing, including those that wait for a budget."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def count(self) -> int:
        return len(self._threads)

    def before_process_message(self, broker: Any, message: Any) -> None:
        self._threads.add(threading.get_ident())

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        self._threads.discard(threading.get_ident())

    def after_skip_message(self, broker: Any, message: Any) -> None:
        self._threads.discard(threading.get_ident())


def beat() -> None:
    """Send the heartbeat to the supervisor through standard input, which is its pipe; request a stop if it is gone."""
    try:
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            os.write(0, b".")
    except BrokenPipeError:
        if not clock.stop_requested.is_set():  # once only: a later signal would end the process at once
            log.warning("the supervisor is gone: this worker process ends")
            signal.raise_signal(signal.SIGTERM)
    except OSError:
        pass  # the pipe is full because the supervisor is stopped; or standard input is not its pipe


def drain(worker: Worker, seconds: float) -> bool:
    """Let the messages that are being processed end, and requeue the others.

    Parameters:
      seconds(float): How long to wait for responses; then the items are released.

    Returns:
      bool: Whether everything has ended. If not, threads still work in vain: end the process without them.
    """
    ends_at = clock.monotonic() + seconds
    for thread in worker.workers:
        thread.stop()
    # `Worker.stop` gives up too early where threads end one after the other: dramatiq's join_all counts time twice.
    for thread in worker.workers:
        while thread.is_alive() and (left := ends_at - clock.monotonic()) > 0:
            beat()
            thread.join(min(left, _BEAT_SECONDS))
    in_time = not any(thread.is_alive() for thread in worker.workers)
    worker.workers.clear()  # those that are left are not waited for again
    stopper = threading.Thread(target=_requeue_messages, args=(worker,), daemon=True)
    stopper.start()
    if not in_time:
        _release_items()
    stopper.join(max(_CONSUMERS_SECONDS, ends_at - clock.monotonic()))
    return in_time and not stopper.is_alive()


def _requeue_messages(worker: Worker) -> None:
    """Stop the consumers, and requeue what they fetched and no thread has begun."""
    worker.stop(timeout=round(_CONSUMERS_SECONDS * 1000))
    for consumer in worker.consumers.values():
        # dramatiq forgets messages that it fetched together with others and has not returned yet.
        fetched = getattr(consumer.consumer, "message_cache", [])
        if not fetched:
            continue
        try:
            consumer.requeue_messages([MessageProxy(Message.decode(data)) for data in fetched])
        except BrokerConnectionError as error:
            log.warning("messages were not requeued (%s); the reaper re-sends them", error)


def _release_items() -> None:
    try:
        with database.connection():
            given, pages = flusher.abandon_turns(), discovery.abandon_pages()
        log.warning("responses were still missing; %d items and %d list pages are released", given, pages)
    except Exception as error:  # the process ends in any case
        why = database.explain(error)
        log.warning("items were not released (%s); they are due again when their leases end", why)
