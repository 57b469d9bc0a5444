"""Watermark: until when the API may count a budget's requests, what it taught, a long pause. What outlives Redis.

Only this module writes to `sluice_budgets`.
"""

from datetime import datetime, timedelta
from typing import Any

from peewee import EXCLUDED, Case

from workers.connections import database
from workers.errors import UsageError
from workers.limiter.lesson import Lesson
from workers.records.tables import BudgetRow


class Watermark:
    """What outlives Redis of one budget: until when its requests may be counted, what it learned, a long pause.

    Every method works in any thread, whether it holds a connection or not.

    Parameters:
      name(str): The budget's. Names that begin with the same 500 characters share a row.

    Raises:
      DependencyDown: By every method: the database does not let us in.
      peewee.OperationalError, peewee.InterfaceError: By every method: it went away later, or stayed locked;
        `database.is_away` tells these from a mistake of ours. After a failed `raise_to` the row may have been moved,
        or not.

    *Warning:* the row knows what the database kept. After a power cut SQLite may have lost its last commits, and so
    may a Postgres replica that took over; and SQLite's clock is that of whoever asks, which may have been set forward.
    """

    def __init__(self, name: str) -> None:
        self.name = database.storable(name)

    def seconds(self) -> float | None:
        """Tell for how long from now a request of this budget may still be counted.

        What is recorded lies ahead of what was granted; but nothing that was granted before now counts for longer than
        the longest permit.

        Returns:
          float | None: Seconds; negative: since when none can be. None: the budget was never used.
        """
        with database.connection():
            now = database.now()  # before the row is read: what takes time errs towards waiting
            row = self._row()
        if row is None or row.counts_until is None:
            return None
        return min((row.counts_until - now).total_seconds(), row.longest_ttl_seconds)

    def raise_to(self, seconds: float, ttl_seconds: float | None = None) -> None:
        """Record that requests may be counted until `seconds` from now. Never lowers what is recorded.

        Parameters:
          seconds(float): At least `ttl_seconds`, and as much more as permits are to be granted without another raise.
          ttl_seconds(float | None): For how long a permit counts that is never answered; None: `seconds`.

        One statement, committed when this returns. On SQLite it waits up to 30 s for another writer.

        Raises:
          UsageError: This thread is in a transaction.
        """
        with database.connection():
            now = database.now()
            later = BudgetRow.counts_until.is_null() | (BudgetRow.counts_until < EXCLUDED.counts_until)
            longest, new = BudgetRow.longest_ttl_seconds, EXCLUDED.longest_ttl_seconds
            self._write(
                now,
                {BudgetRow.counts_until: now + timedelta(seconds=seconds)},
                where=later,
                initial={longest: seconds if ttl_seconds is None else ttl_seconds},
                update={longest: Case(None, [(longest < new, new)], longest)},
            )

    def lesson(self) -> Lesson:
        """Return what the profile auto learned; Lesson() where that is unknown."""
        with database.connection():
            now = database.now()
            row = self._row()
        if row is None:
            return Lesson()
        ago = max(0.0, (now - row.learned_at).total_seconds()) if row.learned_at else 0.0
        return Lesson(row.profile, row.profile_why, row.widened_seconds, ago, row.lesson_lasts_seconds)

    def keep_lesson(self, lesson: Lesson) -> None:
        """Record what was learned in place of what was before; when the budget was used is left alone.

        Raises:
          UsageError: This thread is in a transaction.
        """
        with database.connection():
            now = database.now()
            values = {
                BudgetRow.profile: database.storable(lesson.profile),
                BudgetRow.profile_why: database.storable(lesson.why),
                BudgetRow.widened_seconds: lesson.widened_seconds,
                BudgetRow.learned_at: now - timedelta(seconds=lesson.seconds_ago) if lesson.lasts_seconds else None,
                BudgetRow.lesson_lasts_seconds: lesson.lasts_seconds,
            }
            self._write(now, values)

    def pause(self) -> tuple[float, str]:
        """Return for how many seconds from now the budget pauses, and why; (0.0, "") where it does not."""
        with database.connection():
            now = database.now()
            row = self._row()
        if row is None or row.paused_until is None or row.paused_until <= now:
            return 0.0, ""
        return (row.paused_until - now).total_seconds(), row.paused_why

    def keep_pause(self, seconds: float, why: str) -> None:
        """Record a pause that begins now. Never shortens what is recorded.

        Raises:
          UsageError: This thread is in a transaction.
        """
        with database.connection():
            now = database.now()
            later = BudgetRow.paused_until.is_null() | (BudgetRow.paused_until < EXCLUDED.paused_until)
            until = now + timedelta(seconds=seconds)
            self._write(now, {BudgetRow.paused_until: until, BudgetRow.paused_why: database.storable(why)}, where=later)

    def _row(self) -> BudgetRow | None:
        return BudgetRow.get_or_none(BudgetRow.name == self.name)

    def _write(
        self, now: datetime, values: dict[Any, Any], where: Any = None, initial: Any = None, update: Any = None
    ) -> None:
        if database.db.in_transaction():  # a rollback would forget what was sent, and the row would be locked till then
            raise UsageError(
                f"The budget {self.name!r} is used inside a transaction: send requests before it, or after it."
            )
        values |= {BudgetRow.updated_at: now}
        insert = BudgetRow.insert({BudgetRow.name: self.name, **values, **(initial or {})})
        insert.on_conflict(
            conflict_target=[BudgetRow.name], preserve=list(values), update=update, where=where
        ).execute()
