"""The page "system": which processes live, what they stand on, how much there is to do, and what went wrong lately."""

from collections.abc import Iterator
from datetime import tzinfo
from functools import partial

import redis

from workers import clock
from workers.messaging.recent_errors import LoggedError, recent_errors
from workers.monitor.access import viewer
from workers.monitor.html.formatting import so_many
from workers.monitor.html.markup import Html, fill
from workers.monitor.pages import frame
from workers.monitor.pages.frame import Piece
from workers.monitor.readings.cache import shared
from workers.monitor.sections.banner import current
from workers.monitor.sections.error_table import error_table
from workers.monitor.sections.metric_cards import figure_cards
from workers.monitor.sections.process_table import process_table
from workers.reports.health import Health
from workers.reports.metrics import database_metrics, redis_metrics, work_metrics

#: How often these are read, in seconds: they move slowly.
_WORK_SECONDS, _SERVERS_SECONDS, _ERRORS_SECONDS = 2.0, 10.0, 3.0
_SHOWN_ERRORS = 25


def show() -> None:
    """Draw the page."""
    frame.live("System", _draw)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    now, health = clock.now(), current()
    yield Piece("head", frame.head("System", _state(health)))
    yield Piece("processes", process_table(health.processes, zone, now))
    answers = health.processes is not None
    yield Piece("figures", _figures(redis_answers=answers))
    last = _last_errors(redis_answers=answers)
    yield Piece("errors", error_table(last, zone, now, in_full=viewer.may_act()))


def _state(health: Health) -> Html:
    """Return the page in a line."""
    if health.troubles:
        things = "1 thing is" if len(health.troubles) == 1 else f"{len(health.troubles)} things are"
        return fill('<i class="sl-icon sl-i-alert"></i>{things} down or lacking', things=things)
    alive = [process for process in health.processes or () if process.alive]
    threads = sum(process.threads for process in alive)
    said = f"all is well: {so_many(len(alive), 'process', 'processes')}, {so_many(threads, 'worker thread')}"
    return fill('<i class="sl-live"></i>{said}', said=said)


def _figures(*, redis_answers: bool) -> Html:
    return figure_cards(
        shared(("work figures", redis_answers), _WORK_SECONDS, partial(work_metrics, redis_answers=redis_answers)),
        shared("redis figures", _SERVERS_SECONDS, redis_metrics) if redis_answers else None,
        shared("database figures", _SERVERS_SECONDS, database_metrics),
    )


def _last_errors(*, redis_answers: bool) -> tuple[LoggedError, ...] | None:
    if not redis_answers:
        return None
    try:
        return shared("recent errors", _ERRORS_SECONDS, lambda: recent_errors(_SHOWN_ERRORS))
    except (redis.RedisError, ValueError):
        return None
