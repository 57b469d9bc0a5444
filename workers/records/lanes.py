"""Opens and ends the lanes of a run, and numbers their turns: a message with an outdated number does nothing.

So a duplicate message is harmless, a lost message can be sent again, and no message can create another lane.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from workers.connections import database
from workers.records.tables import Lane

Message = tuple[int, int, int]  # run_id, lane, turn

#: Its last turn ended in an error, and it waits for its next turn, which clears the error when it starts.
_BACKS_OFF = Lane.crash_reason.is_null(False)


def open_for(run_id: int, count: int, first: int = 0) -> list[Message]:
    """Open the run's lanes, or wake existing ones: each gets a new turn, so messages of a sleeping turn are outdated.

    Parameters:
      count(int): The number of lanes.
      first(int): Lanes before this one stay unchanged.

    Returns:
      list[tuple[int, int, int]]: The messages to send: run_id, lane, turn.
    """
    with database.db.atomic():
        rows = [{"run_id": run_id, "lane": lane} for lane in range(first, count)]
        if rows:
            Lane.insert_many(rows).on_conflict(action="NOTHING", conflict_target=[Lane.run_id, Lane.lane]).execute()
        woken = (
            Lane.update(
                {Lane.turn: Lane.turn + 1, Lane.due_at: database.now(), Lane.crashes: 0, Lane.crash_reason: None}
            )
            .where(Lane.run_id == run_id, Lane.lane >= first, Lane.lane < count)
            .returning(Lane)
            .execute()
        )
        return sorted((lane.run_id, lane.lane, lane.turn) for lane in woken)


def start_turn(run_id: int, lane: int, turn: int, lease_seconds: float) -> bool:
    """Start this turn.

    Returns:
      bool: False if the turn has started before, or is outdated: drop the message.
    """
    return _move(run_id, lane, turn, turn + 1, lease_seconds)


def end_turn(run_id: int, lane: int, turn: int, next_in_seconds: float) -> bool:
    """End a turn: record when the next message of the lane is due.

    Parameters:
      turn(int): The turn number of the next message.
      next_in_seconds(float): The time until that message is due.

    Returns:
      bool: False if the turn is outdated: send no message.
    """
    return _move(run_id, lane, turn, turn, next_in_seconds)


def rewind(run_id: int, lane: int, turn: int, next_in_seconds: float) -> bool:
    """Undo the start of `turn`, so that the same message can be sent again.

    Returns:
      bool: False if the turn is outdated: send no message.
    """
    return _move(run_id, lane, turn + 1, turn, next_in_seconds)


def renew(run_id: int, lane: int, turn: int, lease_seconds: float) -> bool:
    """Start the lease of a turn again, because its lane waits for a slow response.

    Parameters:
      turn(int): The turn number of the next message.

    Returns:
      bool: False if the turn is outdated.
    """
    return _move(run_id, lane, turn, turn, lease_seconds)


def crashed(run_id: int, lane: int, turn: int, reason: str) -> int:
    """Count a turn that ended in an error.

    Parameters:
      turn(int): The turn number of the next message.
      reason(str): The error, in a form that can be stored.

    Returns:
      int: How many turns of the lane in a row ended in an error; 0 if the turn is outdated.
    """
    values = {Lane.crashes: Lane.crashes + 1, Lane.crash_reason: reason}
    here = (Lane.run_id == run_id) & (Lane.lane == lane) & (Lane.turn == turn)
    counted = Lane.update(values).where(here).returning(Lane.crashes).tuples().execute()
    return next((count for (count,) in counted), 0)


def worked(run_id: int, lane: int) -> None:
    """Reset the crash count of a lane: it has finished an item."""
    Lane.update({Lane.crashes: 0, Lane.crash_reason: None}).where(
        Lane.run_id == run_id, Lane.lane == lane, Lane.crashes > 0
    ).execute()


def last_crash(run_id: int) -> Lane | None:
    """Return the lane with the most crashes in a row that waits for its next turn; None if no lane does."""
    waits = (Lane.run_id == run_id) & _BACKS_OFF & Lane.due_at.is_null(False)
    return Lane.select().where(waits).order_by(Lane.crashes.desc(), Lane.due_at).first()


def well(run_id: int) -> int:
    """Count the lanes of a run that have not ended and whose last turn did not end in an error."""
    alive = (Lane.run_id == run_id) & Lane.due_at.is_null(False)
    count: int = Lane.select().where(alive, ~_BACKS_OFF).count()
    return count


def is_at(run_id: int, lane: int, turn: int) -> bool:
    """Whether the lane is still at this turn."""
    here = (Lane.run_id == run_id) & (Lane.lane == lane) & (Lane.turn == turn)
    return Lane.select(Lane.id).where(here).exists()


def _move(run_id: int, lane: int, turn: int, to: int, due_in_seconds: float) -> bool:
    values: dict[Any, Any] = {Lane.turn: to, Lane.due_at: database.now() + timedelta(seconds=due_in_seconds)}
    if to > turn:  # the turn starts
        values[Lane.crash_reason] = None
    moved = Lane.update(values).where(Lane.run_id == run_id, Lane.lane == lane, Lane.turn == turn)
    return bool(moved.execute())


def end(run_id: int, lane: int, turn: int) -> None:
    """End the lane: no item is left for it."""
    Lane.update({Lane.due_at: None}).where(Lane.run_id == run_id, Lane.lane == lane, Lane.turn == turn).execute()


def end_all(run_id: int, first: int = 0) -> None:
    """End all lanes of a run from `first` on, also those that sleep or work, until they are opened again."""
    ended = {Lane.turn: Lane.turn + 1, Lane.due_at: None}
    Lane.update(ended).where(Lane.run_id == run_id, Lane.lane >= first).execute()


def silent(run_id: int, for_seconds: float, next_in_seconds: float = 0.0) -> Sequence[Message]:
    """Return the messages of lanes that are overdue, and set a new due time for them.

    Parameters:
      for_seconds(float): How long they are overdue at least.
      next_in_seconds(float): The time until they are due now.

    Sending them again is safe: they have the turn number of the lost message.
    """
    now = database.now()
    late = Lane.due_at < now - timedelta(seconds=for_seconds)
    due = now + timedelta(seconds=next_in_seconds)
    rows = Lane.update({Lane.due_at: due}).where(Lane.run_id == run_id, late).returning(Lane).execute()
    return sorted((lane.run_id, lane.lane, lane.turn) for lane in rows)


def alive(run_id: int) -> int:
    """Count the lanes of a run that have not ended."""
    count: int = Lane.select().where(Lane.run_id == run_id, Lane.due_at.is_null(False)).count()
    return count


def wake(run_id: int, after: datetime | None = None) -> list[Message]:
    """Give lanes of a run that have not ended a new turn that is due now; return the messages to send.

    Parameters:
      after(datetime | None): Only lanes that are due later than this, and whose last turn did not end in an error;
        None: all lanes, also those that sleep or work.
    """
    which = (Lane.due_at > after) & ~_BACKS_OFF if after else Lane.due_at.is_null(False)
    woken = (
        Lane.update({Lane.turn: Lane.turn + 1, Lane.due_at: database.now()})
        .where(Lane.run_id == run_id, which)
        .returning(Lane)
        .execute()
    )
    return sorted((lane.run_id, lane.lane, lane.turn) for lane in woken)


def first_due(run_id: int) -> datetime | None:
    """Return the earliest due time of a run's lanes whose last turn did not end in an error; None if there is none."""
    waits = (Lane.run_id == run_id) & Lane.due_at.is_null(False) & ~_BACKS_OFF
    lane = Lane.select().where(waits).order_by(Lane.due_at).first()
    return lane.due_at if lane else None
