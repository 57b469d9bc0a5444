"""Stores in the database what a budget must remember if Redis loses its data: watermark, profile, long pause."""

from datetime import datetime, timedelta
from typing import Any

from peewee import EXCLUDED, Case

from workers.connections import database
from workers.errors import UsageError
from workers.limiter.lesson import Lesson
from workers.records.tables import BudgetRow


class Watermark:
    """The stored state of one budget: until when the API can count its requests, its profile, a long pause.

    Every method works in any thread, with or without an open connection.

    Parameters:
      name(str): The budget's name. Names that begin with the same 500 characters share a row.

    Raises:
      DependencyDown: By every method: no connection to the database.
      peewee.OperationalError, peewee.InterfaceError: By every method: the connection was lost, or a lock was not
        released in time; `database.is_away` is True for these. A failed `raise_to` can have taken effect.

    *Warning:* the row is as durable as the database. After a power failure SQLite can have lost its last commits, and
    so can a Postgres replica that took over. With SQLite the time is that of the asking machine, whose clock can be
    set forward.
    """

    def __init__(self, name: str) -> None:
        self.name = database.storable(name)

    def seconds(self) -> float | None:
        """Return how long from now the API can count a request of this budget that was sent so far.

        The recorded time lies ahead of the permits granted; the result is at most the longest time that one counts.

        Returns:
          float | None: Seconds; negative: how long ago the last request stopped counting. None: never used.
        """
        with database.connection():
            now = database.now()  # before the row is read, so that a delay makes the result longer
            row = self._row()
        if row is None or row.counts_until is None:
            return None
        return min((row.counts_until - now).total_seconds(), row.longest_ttl_seconds)

    def raise_to(self, seconds: float, ttl_seconds: float | None = None) -> None:
        """Record that the API can count requests until `seconds` from now. It never lowers the recorded time.

        Parameters:
          seconds(float): At least `ttl_seconds`, plus the time in which permits are granted without another call.
          ttl_seconds(float | None): How long a permit counts if no response comes; None: `seconds`.

        It is one statement, committed when this returns. On SQLite it waits up to 30 s for another writer.

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
        """Return what the profile auto has learned; Lesson() if nothing is stored."""
        with database.connection():
            now = database.now()
            row = self._row()
        if row is None:
            return Lesson()
        ago = max(0.0, (now - row.learned_at).total_seconds()) if row.learned_at else 0.0
        return Lesson(row.profile, row.profile_why, row.widened_seconds, ago, row.lesson_lasts_seconds)

    def keep_lesson(self, lesson: Lesson) -> None:
        """Replace the stored lesson; the watermark stays unchanged.

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
        """Return how many seconds from now the budget is paused, and why; (0.0, "") if it is not."""
        with database.connection():
            now = database.now()
            row = self._row()
        if row is None or row.paused_until is None or row.paused_until <= now:
            return 0.0, ""
        return (row.paused_until - now).total_seconds(), row.paused_why

    def keep_pause(self, seconds: float, why: str) -> None:
        """Record a pause that begins now. It never shortens the recorded pause.

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
        if database.db.in_transaction():  # a rollback would lose the record, and the row would stay locked
            raise UsageError(
                f"The budget {self.name!r} is used inside a transaction: send requests before or after it."
            )
        values |= {BudgetRow.updated_at: now}
        insert = BudgetRow.insert({BudgetRow.name: self.name, **values, **(initial or {})})
        insert.on_conflict(
            conflict_target=[BudgetRow.name], preserve=list(values), update=update, where=where
        ).execute()
