"""The System page: processes, open work, Redis, the database, and the last warnings and errors."""

from collections.abc import Iterator
from datetime import tzinfo
from functools import partial

import redis

from workers import clock
from workers.messaging.recent_errors import LoggedError, recent_errors
from workers.monitor.access import current_user
from workers.monitor.html.formatting import plural
from workers.monitor.html.markup import Html, fill
from workers.monitor.pages import live_page
from workers.monitor.pages.live_page import Piece
from workers.monitor.readings.cache import cached
from workers.monitor.sections.banner import current
from workers.monitor.sections.error_table import error_table
from workers.monitor.sections.metric_cards import figure_cards
from workers.monitor.sections.process_table import process_table
from workers.reports.health import Health
from workers.reports.metrics import database_metrics, redis_metrics, work_metrics

#: How often these are read: they change slowly.
_WORK_SECONDS, _SERVERS_SECONDS, _ERRORS_SECONDS = 2.0, 10.0, 3.0
_SHOWN_ERRORS = 25


def show() -> None:
    """Draw the page."""
    live_page.live("System", _draw)


def _draw(zone: tzinfo) -> Iterator[Piece]:
    now, health = clock.now(), current()
    yield Piece("head", live_page.head("System", _state(health)))
    yield Piece("processes", process_table(health.processes, zone, now))
    answers = health.processes is not None
    yield Piece("figures", _figures(redis_answers=answers))
    errors = _last_errors(redis_answers=answers)
    yield Piece("errors", error_table(errors, zone, now, in_full=current_user.may_act()))


def _state(health: Health) -> Html:
    """Return the state of the page in a line."""
    if health.troubles:
        return fill('<i class="sl-icon sl-i-alert"></i>{problems}', problems=plural(len(health.troubles), "problem"))
    alive = [process for process in health.processes or () if process.alive]
    threads = sum(process.threads for process in alive)
    text = f"no problems: {plural(len(alive), 'process', 'processes')}, {plural(threads, 'worker thread')}"
    return fill('<i class="sl-live"></i>{text}', text=text)


def _figures(*, redis_answers: bool) -> Html:
    return figure_cards(
        cached(("work figures", redis_answers), _WORK_SECONDS, partial(work_metrics, redis_answers=redis_answers)),
        cached("redis figures", _SERVERS_SECONDS, redis_metrics) if redis_answers else None,
        cached("database figures", _SERVERS_SECONDS, database_metrics),
    )


def _last_errors(*, redis_answers: bool) -> tuple[LoggedError, ...] | None:
    if not redis_answers:
        return None
    try:
        return cached("recent errors", _ERRORS_SECONDS, lambda: recent_errors(_SHOWN_ERRORS))
    except (redis.RedisError, ValueError):
        return None
