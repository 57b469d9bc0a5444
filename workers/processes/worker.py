"""The worker: the process that consumes messages. `supervisor` keeps some of them alive."""

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
from workers.messaging import broadcast, presence, recent_errors
from workers.messaging.broker import get_broker
from workers.processes import signals
from workers.settings import get_settings
from workers.sources.registry import get_registry

log = logging.getLogger(__name__)

#: How long before the end of the drain the process stops waiting for requests in flight, and gives items back.
_LAST_SECONDS = 1.5
#: How long before its end the process ends even if that hangs: the supervisor would kill it soon.
_LEAST_SECONDS = 0.5
#: How long the threads that talk to the broker may take to stop; they look five times a second.
_CONSUMERS_SECONDS = 0.5
#: How often the supervisor hears of us.
_BEAT_SECONDS = 5.0


def work() -> int:
    """Consume messages until asked to stop, then drain: waits end, items go back, nothing is marked failed.

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
    worker.queue_prefetch = settings.worker_threads  # twice that, the default, lets one process hoard the lanes
    worker.start()
    threading.Thread(target=flusher.keep_flushing, name="flusher", daemon=True).start()
    threading.Thread(target=broadcast.listen, name="listener", daemon=True).start()
    threading.Thread(target=sampling.keep_sampling, name="sampler", daemon=True).start()
    present = presence.present("worker", threads=settings.worker_threads, busy=in_work.count, sources=sources)
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
    """Counts the messages that this process has in work, be it that they wait for a budget."""

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
    """Tell the supervisor that we run, where our standard input is the pipe it gave us; without it, we end too."""
    try:
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            os.write(0, b".")
    except BrokenPipeError:
        if not clock.stop_requested.is_set():  # said once: later, it would be an order to end at once
            log.warning("the supervisor is gone: this worker process ends")
            signal.raise_signal(signal.SIGTERM)
    except OSError:
        pass  # it does not look, for it is stopped; or our standard input is none of its making


def drain(worker: Worker, seconds: float) -> bool:
    """Let the messages in work end, and put those back that are not.

    Parameters:
      seconds(float): How long requests in flight are waited for; then their items are given back.

    Returns:
      bool: Whether everything has ended. If not, threads are still at work for nothing: leave without them.
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
    stopper = threading.Thread(target=_put_messages_back, args=(worker,), daemon=True)
    stopper.start()
    if not in_time:
        _give_items_back()
    stopper.join(max(_CONSUMERS_SECONDS, ends_at - clock.monotonic()))
    return in_time and not stopper.is_alive()


def _put_messages_back(worker: Worker) -> None:
    """Stop the consumers, and put back what they fetched and nobody has begun."""
    worker.stop(timeout=round(_CONSUMERS_SECONDS * 1000))
    for consumer in worker.consumers.values():
        # dramatiq forgets those that it fetched together with others and had not come to.
        fetched = getattr(consumer.consumer, "message_cache", [])
        if not fetched:
            continue
        try:
            consumer.requeue_messages([MessageProxy(Message.decode(data)) for data in fetched])
        except BrokerConnectionError as error:
            log.warning("messages were not put back (%s); the reaper will send them", error)


def _give_items_back() -> None:
    try:
        with database.connection():
            given, pages = flusher.abandon_turns(), discovery.abandon_pages()
        log.warning("requests were still in flight; %d items and %d list pages were given back", given, pages)
    except Exception as error:  # whatever it is, we leave
        why = database.explain(error)
        log.warning("items were not given back (%s); they are due again when their lease ends", why)
