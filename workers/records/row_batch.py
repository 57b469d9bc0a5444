"""Saves a batch of rows together or, if the database refuses the batch, row by row, so that only bad rows fail."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from workers.connections import database
from workers.text.error_text import describe

Row = TypeVar("Row")
Saved = TypeVar("Saved")


@dataclass(frozen=True)
class Refusal:
    """Why a row was not saved.

    Parameters:
      reason(str): As it is stored with the item.
    """

    reason: str

    @classmethod
    def of(cls, error: Exception) -> "Refusal":
        """Return the refusal that a database's error, or one of the user's code, stands for."""
        return cls(f"the row could not be saved: {describe(error)}")


Result = tuple[Row, Saved | Refusal]


def save_together(
    place: Any, rows: Sequence[Row], write: Callable[[Sequence[Row]], Sequence[Saved]], *, passes: int = 1
) -> list[Result[Row, Saved]]:
    """Save rows in one transaction or, if that fails, each row in one of its own.

    Parameters:
      place(peewee.Database): Where they are stored. Inside a transaction of it, savepoints are used.
      rows(Sequence): What `write` takes: the rows, or what they are made from.
      write(Callable): Writes some of the rows and returns one value for each of them, in their order.
      passes(int): How often refused rows are tried: a row can refer to one that comes later in the batch.

    Returns:
      list[tuple]: Each row with what `write` returned for it, or with its Refusal; in the order of saving.

    Raises:
      Exception: The database is away: no row is to blame.

    *Warning:* constraints that are checked at the commit are found only outside a transaction.
    """
    saved = _attempt(place, rows, write)
    if isinstance(saved, Refusal):
        return save_each(place, rows, write, passes=passes)
    return list(zip(rows, saved, strict=True))


def save_each(
    place: Any, rows: Sequence[Row], write: Callable[[Sequence[Row]], Sequence[Saved]], *, passes: int = 1
) -> list[Result[Row, Saved]]:
    """Save each row in a transaction, or a savepoint, of its own. The rest is as for `save_together`."""
    results: list[Result[Row, Saved]] = []
    for row in rows:
        saved = _attempt(place, [row], write)
        results.append((row, saved if isinstance(saved, Refusal) else saved[0]))
    refused = [row for row, result in results if isinstance(result, Refusal)]
    if passes == 1 or not refused or len(refused) == len(results):
        return results
    done = [(row, result) for row, result in results if not isinstance(result, Refusal)]
    return done + save_each(place, refused, write, passes=passes - 1)


def _attempt(
    place: Any, rows: Sequence[Row], write: Callable[[Sequence[Row]], Sequence[Saved]]
) -> Sequence[Saved] | Refusal:
    """Write rows in one transaction; return the refusal. The error is not kept: it can hold an open statement."""
    try:
        with place.atomic():
            return write(rows)
    except Exception as error:
        if database.is_away(error):
            raise
        return Refusal.of(error)
