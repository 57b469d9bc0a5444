"""Counts the crashes of a lane: turns that end in an error of no single item. Five in a row fail the run."""

import logging
from contextlib import suppress

import redis

from workers import clock
from workers.connections import database, database_errors
from workers.connections.database_errors import Fault
from workers.engine import backoff
from workers.engine.finalize import tidy_up
from workers.errors import DependencyDown, InvalidTransition
from workers.failures import FailureClass, storable_reason
from workers.records import claims, lanes, runs
from workers.records.tables import Run, RunStatus
from workers.text.error_text import describe

log = logging.getLogger(__name__)


def count(run: Run, lane: int, turn: int, error: BaseException) -> float | None:
    """Count a turn that ended in an error, and fail the run where there were too many in a row.

    Parameters:
      turn(int): The turn the lane's next message will carry.

    Returns:
      float | None: In how many seconds the lane begins its next turn; None if it does not.

    Raises:
      BaseException: `error`, where Redis or the database is away, or the process is to stop: that is no crash.
    """
    if isinstance(error, KeyboardInterrupt) or clock.stop_requested.is_set() or _is_an_outage(error):
        raise error
    reason = storable_reason(describe(error))
    log.error("run %d: lane %d ended in an error", run.id, lane, exc_info=error)
    database.reconnect()  # a transaction that is broken, or a connection that was cut
    crashes = lanes.crashed(run.id, lane, turn, reason)
    if not crashes:
        return None
    wait = backoff.seconds_after_crashes(crashes)
    if wait is None:
        _fail(run, f"{crashes} turns in a row ended in an error ({FailureClass.BUG}): {reason}")
    return wait


def is_of_no_item(error: BaseException) -> bool:
    """Whether an error is of Redis, of the database, or of a model that does not fit its table: of no single item."""
    is_mistake = database_errors.classify(error) is Fault.MISTAKE
    return isinstance(error, redis.RedisError) or is_mistake or database.is_away(error)


def _is_an_outage(error: BaseException) -> bool:
    return isinstance(error, (redis.RedisError, DependencyDown)) or database.is_away(error)


def _fail(run: Run, reason: str) -> None:
    try:
        with database.db.atomic():
            runs.move(run.id, RunStatus.FAILED, who="sluice", door="lane", detail=reason)
            claims.reopen_all(run.id)
    except InvalidTransition:
        return  # it was paused or cancelled meanwhile
    lanes.end_all(run.id)
    log.error("run %d failed: %s", run.id, reason)
    with suppress(Exception):  # a source's `get_connector` can be the cause
        tidy_up(run)
