"""Lane: one strand of a run's detail work. To start is to move its turn on; a message of another turn does nothing.

So a duplicate message is harmless, a lost one can be sent again, and nothing can multiply lanes.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from workers.connections import database
from workers.records.tables import Lane

Message = tuple[int, int, int]  # run_id, lane, turn

#: Its last turn ended in an error, and it waits for the next; what the error was is forgotten when that begins.
_BACKS_OFF = Lane.crash_reason.is_null(False)


def open_for(run_id: int, count: int, first: int = 0) -> list[Message]:
    """Open the run's lanes, or wake those there are: whoever slept is overtaken by a new turn.

    Parameters:
      count(int): How many lanes the run is to have.
      first(int): The lanes before this one are left as they are.

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
    """Begin this turn.

    Returns:
      bool: False where the turn has begun before, or was overtaken: the message is to be dropped.
    """
    return _move(run_id, lane, turn, turn + 1, lease_seconds)


def end_turn(run_id: int, lane: int, turn: int, next_in_seconds: float) -> bool:
    """Announce the next message of a lane whose turn has begun.

    Parameters:
      turn(int): The turn the next message will carry.
      next_in_seconds(float): When that message is to be expected.

    Returns:
      bool: False where the lane was overtaken: send nothing.
    """
    return _move(run_id, lane, turn, turn, next_in_seconds)


def rewind(run_id: int, lane: int, turn: int, next_in_seconds: float) -> bool:
    """Undo the begin of `turn`, so that the same message can be sent again.

    Returns:
      bool: False where the lane was overtaken: send nothing.
    """
    return _move(run_id, lane, turn + 1, turn, next_in_seconds)


def renew(run_id: int, lane: int, turn: int, lease_seconds: float) -> bool:
    """Let the lease of a turn begin again: its lane waits for an answer that takes long.

    Parameters:
      turn(int): The turn the next message will carry.

    Returns:
      bool: False where the lane was overtaken.
    """
    return _move(run_id, lane, turn, turn, lease_seconds)


def crashed(run_id: int, lane: int, turn: int, reason: str) -> int:
    """Count a turn that ended in an error.

    Parameters:
      turn(int): The turn the next message will carry.
      reason(str): The error, as it can be stored.

    Returns:
      int: How many turns of the lane ended so, in a row; 0 where the lane was overtaken.
    """
    values = {Lane.crashes: Lane.crashes + 1, Lane.crash_reason: reason}
    here = (Lane.run_id == run_id) & (Lane.lane == lane) & (Lane.turn == turn)
    counted = Lane.update(values).where(here).returning(Lane.crashes).tuples().execute()
    return next((count for (count,) in counted), 0)


def worked(run_id: int, lane: int) -> None:
    """Forget the crashes of a lane: it has brought something to its end."""
    Lane.update({Lane.crashes: 0, Lane.crash_reason: None}).where(
        Lane.run_id == run_id, Lane.lane == lane, Lane.crashes > 0
    ).execute()


def last_crash(run_id: int) -> Lane | None:
    """Return the lane of a run that waits for another turn after the most crashes in a row; None where none does."""
    waits = (Lane.run_id == run_id) & _BACKS_OFF & Lane.due_at.is_null(False)
    return Lane.select().where(waits).order_by(Lane.crashes.desc(), Lane.due_at).first()


def well(run_id: int) -> int:
    """Return how many lanes of a run have not ended, and did not end their last turn in an error."""
    alive = (Lane.run_id == run_id) & Lane.due_at.is_null(False)
    count: int = Lane.select().where(alive, ~_BACKS_OFF).count()
    return count


def is_at(run_id: int, lane: int, turn: int) -> bool:
    """Whether this is still the lane's turn: nobody has overtaken or ended it."""
    here = (Lane.run_id == run_id) & (Lane.lane == lane) & (Lane.turn == turn)
    return Lane.select(Lane.id).where(here).exists()


def _move(run_id: int, lane: int, turn: int, to: int, due_in_seconds: float) -> bool:
    values: dict[Any, Any] = {Lane.turn: to, Lane.due_at: database.now() + timedelta(seconds=due_in_seconds)}
    if to > turn:  # it begins
        values[Lane.crash_reason] = None
    moved = Lane.update(values).where(Lane.run_id == run_id, Lane.lane == lane, Lane.turn == turn)
    return bool(moved.execute())


def end(run_id: int, lane: int, turn: int) -> None:
    """End the lane: nothing is open."""
    Lane.update({Lane.due_at: None}).where(Lane.run_id == run_id, Lane.lane == lane, Lane.turn == turn).execute()


def end_all(run_id: int, first: int = 0) -> None:
    """End every lane of a run from the first one on, whoever sleeps or works in it, until it is opened anew."""
    ended = {Lane.turn: Lane.turn + 1, Lane.due_at: None}
    Lane.update(ended).where(Lane.run_id == run_id, Lane.lane >= first).execute()


def silent(run_id: int, for_seconds: float, next_in_seconds: float = 0.0) -> Sequence[Message]:
    """Return the messages of lanes that should have been heard of `for_seconds` ago, and expect them anew.

    Parameters:
      next_in_seconds(float): By when they are to be heard of now.

    Sending them again is safe: they carry the turn the lost message carried.
    """
    now = database.now()
    late = Lane.due_at < now - timedelta(seconds=for_seconds)
    due = now + timedelta(seconds=next_in_seconds)
    rows = Lane.update({Lane.due_at: due}).where(Lane.run_id == run_id, late).returning(Lane).execute()
    return sorted((lane.run_id, lane.lane, lane.turn) for lane in rows)


def alive(run_id: int) -> int:
    """Return how many lanes of the run have not ended."""
    count: int = Lane.select().where(Lane.run_id == run_id, Lane.due_at.is_null(False)).count()
    return count


def wake(run_id: int, after: datetime | None = None) -> list[Message]:
    """Overtake lanes of a run that have not ended; return the messages to send.

    Parameters:
      after(datetime | None): Only those that are not due before, and do not wait because their last turn ended in an
        error; None: every one, whoever sleeps or works in it.
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
    """Return the earliest due time of a run's lanes whose last turn ended well; None where there is none."""
    waits = (Lane.run_id == run_id) & Lane.due_at.is_null(False) & ~_BACKS_OFF
    lane = Lane.select().where(waits).order_by(Lane.due_at).first()
    return lane.due_at if lane else None
