"""The flusher: a thread that commits what waits too long in any turn, renews leases, and gives turns up at the end."""

import logging

from workers import clock
from workers.connections import database
from workers.engine import lane_turn
from workers.engine.lane_turn import Turn
from workers.messaging import broker
from workers.records import items, lanes
from workers.text.error_text import describe

log = logging.getLogger(__name__)

#: How often it looks.
_SECONDS = 0.1


def keep_flushing() -> None:
    """Commit what waits too long in any turn of this process, and renew leases, until a stop is asked for.

    It is a thread's work.
    """
    while not clock.sleep(_SECONDS):
        for one in lane_turn.at_work():
            if one.is_overdue:
                _flush(one)
            _renew(one)


def abandon_turns() -> int:
    """Give back the items of turns that are still at work, from another thread: the process is about to end.

    Returns:
      int: How many items.
    """
    turns = lane_turn.at_work()
    for one in turns:
        _flush(one)  # before the transaction: its thread may hold the turn's lock, and wait for the database
    given, messages = 0, []
    with database.db.atomic():
        for one in turns:
            claim = one.claim  # its own thread may end it meanwhile
            if claim:
                given += items.give_back(claim, claim.items)
            if lanes.end_turn(one.run.id, one.lane, one.turn + 1, 0.0):
                messages.append((one.run.id, one.lane, one.turn + 1))
    for message in messages:
        broker.send("fetch_details", *message)
    return given


def _renew(one: Turn) -> None:
    try:
        one.renew()
    except Exception as error:
        log.debug("run %d: the leases of lane %d were not renewed: %s", one.run.id, one.lane, describe(error))
        database.reconnect()


def _flush(one: Turn) -> None:
    try:
        one.flush()
    except Exception as error:  # the lane tries it again, and says what becomes of it
        log.debug("run %d: lane %d could not be flushed: %s", one.run.id, one.lane, describe(error))
        database.reconnect()
