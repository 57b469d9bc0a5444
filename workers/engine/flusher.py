"""Runs the flusher thread: commits overdue outcomes of every turn, renews leases, gives items back at shutdown."""

import logging

from workers import clock
from workers.connections import database
from workers.engine import lane_turn
from workers.engine.lane_turn import Turn
from workers.messaging import broker
from workers.records import claims, lanes
from workers.text.error_text import describe

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 0.1


def keep_flushing() -> None:
    """Commit overdue outcomes of this process's turns, and renew their leases, until a stop is asked for.

    It blocks: start it in a thread.
    """
    while not clock.sleep(_INTERVAL_SECONDS):
        for turn in lane_turn.running_turns():
            if turn.claimed.is_overdue:
                _flush(turn)
            _renew(turn)


def abandon_turns() -> int:
    """Give back the items of turns that are still running, from another thread, because the process is about to end.

    Returns:
      int: How many items.
    """
    turns = lane_turn.running_turns()
    for turn in turns:
        _flush(turn)  # before the transaction: its thread can hold the claim's lock, and wait for the database
    given, messages = 0, []
    with database.db.atomic():
        for turn in turns:
            claim = turn.claimed.claim  # its own thread can end it meanwhile
            if claim:
                given += claims.give_back(claim, claim.items)
            if lanes.end_turn(turn.run.id, turn.lane, turn.turn + 1, 0.0):
                messages.append((turn.run.id, turn.lane, turn.turn + 1))
    for message in messages:
        broker.send("fetch_details", *message)
    return given


def _renew(turn: Turn) -> None:
    try:
        turn.renew()
    except Exception as error:
        log.debug("run %d: the leases of lane %d were not renewed: %s", turn.run.id, turn.lane, describe(error))
        database.reconnect()


def _flush(turn: Turn) -> None:
    try:
        turn.claimed.flush()
    except Exception as error:  # the lane's own thread commits again, and logs what fails
        log.debug("run %d: lane %d could not be flushed: %s", turn.run.id, turn.lane, describe(error))
        database.reconnect()
