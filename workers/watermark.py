"""Watermark: until when the API may count a budget's requests, and its profile. What outlives Redis.

Only this module writes to `sluice_budgets`.
"""

from datetime import datetime, timedelta
from typing import Any

from peewee import EXCLUDED, Case

from workers import database
from workers.errors import UsageError
from workers.tables import BudgetRow


class Watermark:
    """What outlives Redis of one budget: until when its requests may be counted, and its profile.

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

    def profile(self) -> tuple[str, str, float]:
        """Return the profile, why, and by how many seconds windows are widened; ('', '', 0.0) where it is unknown."""
        with database.connection():
            row = self._row()
        return (row.profile, row.profile_why, row.widened_seconds) if row else ("", "", 0.0)

    def keep_profile(self, profile: str, why: str, widened_seconds: float) -> None:
        """Record the profile in place of the one before; when the budget was used is left alone.

        Raises:
          UsageError: This thread is in a transaction.
        """
        values = {
            BudgetRow.profile: database.storable(profile),
            BudgetRow.profile_why: database.storable(why),
            BudgetRow.widened_seconds: widened_seconds,
        }
        with database.connection():
            self._write(database.now(), values)

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
