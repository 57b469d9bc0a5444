"""Heartbeat of the schedulers, written to Redis with every tick, and the schedules that their code declares.

With it the doors can report that no scheduler runs, and two schedulers with different code do not undo each other's
schedules with every tick.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import redis

from workers import clock
from workers.connections.redis_client import shared_quick_client
from workers.connections.trouble import Cause, Trouble
from workers.settings import get_settings

#: When the heartbeat of a scheduler is overdue; and of one that a cron job calls with `--once`.
_LOOP_SECONDS, ONCE_SECONDS = 30.0, 900.0
#: How long Redis keeps the last heartbeat.
_REMEMBERED_SECONDS = 7 * 86_400

_MEANING = "No scheduled run starts, and lost messages are not sent again."
_REPAIR = "start `python -m workers scheduler`"


def beat(*, once: bool = False) -> None:
    """Write the heartbeat of a scheduler that begins a tick.

    Parameters:
      once(bool): Whether a cron job called it: then the next one is expected within 15 minutes.
    """
    expected = clock.now() + timedelta(seconds=ONCE_SECONDS if once else _expected_seconds())
    text = f"{clock.now().isoformat()} {expected.isoformat()}"
    _ask(lambda client: client.set(_key(), text, ex=_REMEMBERED_SECONDS))


def no_scheduler() -> Trouble | None:
    """Return that no scheduler runs, and since when; None where one does, or where Redis does not answer."""
    found = _ask(lambda client: client.get(_key()) or b"")
    if not isinstance(found, bytes):
        return None
    try:
        seen, expected = (datetime.fromisoformat(part) for part in found.decode().split())
    except ValueError:
        return _missing(None)
    if clock.now() <= expected:
        return None
    return _missing(seen)


def _missing(since: datetime | None) -> Trouble:
    return Trouble("no scheduler runs", _REPAIR, meaning=_MEANING, since=since, is_down=False, cause=Cause.NO_SCHEDULER)


def declare(source: str, declared: str) -> None:
    """Write which schedule this scheduler's code declares for a source."""
    until = clock.now() + timedelta(seconds=_expected_seconds())
    _ask(lambda client: client.set(_key(source), f"{until.isoformat()} {declared}", ex=_REMEMBERED_SECONDS))


def is_declared(source: str, declared: str) -> bool:
    """Whether the code of a running scheduler declares this schedule; True if Redis does not answer."""
    found = _ask(lambda client: client.get(_key(source)) or b"")
    if not isinstance(found, bytes):
        return True
    until, _, last = found.decode().partition(" ")
    return last == declared and clock.now() <= datetime.fromisoformat(until)


def _expected_seconds() -> float:
    return max(_LOOP_SECONDS, 3 * get_settings().tick_seconds)


def _key(source: str = "") -> str:
    return f"{get_settings().prefix}:scheduler{':' if source else ''}{source}"


def _ask(do: Callable[["redis.Redis"], object]) -> object:
    try:
        return do(shared_quick_client(get_settings().redis_url))
    except (redis.RedisError, ValueError):  # its text can hold a part of the password
        return None
