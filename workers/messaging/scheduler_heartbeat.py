"""Heartbeat: the schedulers leave word in Redis that they run, and what their code declares.

So the doors can say when none runs, and two that run other code do not undo each other's schedules with every tick.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import redis

from workers import clock
from workers.connections.redis_client import shared_quick_client
from workers.settings import get_settings

#: A scheduler in a loop is missed after that; one that somebody's cron calls with `--once`, after the other.
_LOOP_SECONDS, ONCE_SECONDS = 30.0, 900.0
#: For so long it is remembered when the last one ran.
_REMEMBERED_SECONDS = 7 * 86_400

_START_IT = "nothing starts by itself, and what is lost stays lost, until `python -m workers scheduler` runs"


def beat(*, once: bool = False) -> None:
    """Leave word that a scheduler has just ticked.

    Parameters:
      once(bool): Whether somebody's cron calls it: then it may stay away for some minutes.
    """
    expected = clock.now() + timedelta(seconds=ONCE_SECONDS if once else _patience())
    text = f"{clock.now().isoformat()} {expected.isoformat()}"
    _ask(lambda client: client.set(_key(), text, ex=_REMEMBERED_SECONDS))


def no_scheduler() -> str:
    """Say that no scheduler runs, and the fix; empty where one does, or where Redis cannot tell."""
    found = _ask(lambda client: client.get(_key()) or b"")
    if not isinstance(found, bytes):
        return ""
    try:
        seen, expected = (datetime.fromisoformat(part) for part in found.decode().split())
    except ValueError:
        return f"no scheduler has run here lately: {_START_IT}"
    if clock.now() <= expected:
        return ""
    return f"no scheduler has run since {seen:%Y-%m-%d %H:%M:%S} UTC: {_START_IT}"


def declare(source: str, declared: str) -> None:
    """Leave word what this scheduler's code declares as the schedule of a source."""
    until = clock.now() + timedelta(seconds=_patience())
    _ask(lambda client: client.set(_key(source), f"{until.isoformat()} {declared}", ex=_REMEMBERED_SECONDS))


def is_declared(source: str, declared: str) -> bool:
    """Whether a scheduler's code has declared this lately; where Redis cannot tell, it is taken for so."""
    found = _ask(lambda client: client.get(_key(source)) or b"")
    if not isinstance(found, bytes):
        return True
    until, _, said = found.decode().partition(" ")
    return said == declared and clock.now() <= datetime.fromisoformat(until)


def _patience() -> float:
    return max(_LOOP_SECONDS, 3 * get_settings().tick_seconds)


def _key(source: str = "") -> str:
    return f"{get_settings().prefix}:scheduler{':' if source else ''}{source}"


def _ask(do: Callable[["redis.Redis"], object]) -> object:
    try:
        return do(shared_quick_client(get_settings().redis_url))
    except (redis.RedisError, ValueError):  # its text may hold a piece of the password
        return None
