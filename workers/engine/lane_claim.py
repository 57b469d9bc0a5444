"""Holds the items that a lane has claimed: commits their outcomes, renews their leases, gives back the other items.

The lane's thread and the flusher's both commit: each does so under one lock.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from workers import clock
from workers.connections import database, outages
from workers.connections.commit_retry import retry_commit
from workers.engine import lane_crash
from workers.engine.attempt import crashed, save_timed_out
from workers.engine.rate_limit_refusals import Refusals
from workers.failures import FailureClass
from workers.limiter.permits import PermitClient, Usage
from workers.messaging.middleware import EARLY_SECONDS
from workers.records import claims, commits, loaded_rows, run_usage, runs
from workers.records.claims import Claim
from workers.records.commits import Outcome
from workers.records.tables import RunItem, RunStatus
from workers.settings import get_settings
from workers.sources import model_keys
from workers.sources.contracts import ImportSource
from workers.text.error_text import describe

log = logging.getLogger(__name__)

#: How long after its lease a lane keeps its outcomes while the database is away.
_OUTAGE_SECONDS = 600.0


class LaneClaim:
    """The items that a lane has claimed, their rows, and the outcomes that are not committed yet.

    Attributes:
      claim: The claimed items; None between two batches.
      rows: The items' rows in the user's table, by primary key as text.
      outcomes: Outcomes that wait for their commit.
      status: The run's, as of the last commit.
    """

    def __init__(self, run_id: int, source: ImportSource, permits: PermitClient) -> None:
        self.claim: Claim | None = None
        self.rows: dict[str, Any] = {}
        self.outcomes: list[Outcome] = []
        self.status = RunStatus.RUNNING
        #: Whether items were claimed in this turn, also where their rows could not be loaded.
        self.has_claimed = False
        self._run_id = run_id
        self._source = source
        self._permits = permits
        self._committed_count = 0
        self._commit_at = self._lease_ends_at = self._lease_seconds = 0.0
        self._committing = threading.RLock()

    # --- claim

    def take(self, limit: int, lease_seconds: float) -> Sequence[RunItem]:
        """Claim the next due items and load their rows; return the items."""
        self._lease_seconds = lease_seconds
        self._lease_ends_at = clock.monotonic() + lease_seconds
        claim = claims.claim(self._run_id, limit, lease_seconds)
        if claim.items:
            self._committed_count = 0
            self.has_claimed = True
            self.claim = claim
            self.rows = self._load_rows(claim.items)
            self._commit_at = clock.monotonic() + get_settings().flush_seconds
        return claim.items

    def _load_rows(self, claimed: Sequence[RunItem]) -> dict[str, Any]:
        """Return the items' rows by their primary keys as text; an error in place of a row that cannot be read."""
        model = self._source.model
        keys: list[Any] = []
        errors: dict[str, Any] = {}
        for item in claimed:
            try:
                keys += [] if item.item_id is None else [model_keys.from_text(model, item.item_id)]
            except (ValueError, ArithmeticError) as error:  # the model has keys of another kind now
                errors[str(item.item_id)] = error
        loaded = loaded_rows.load(model, keys, self._source.unique_by)
        return errors | {model_keys.text(key): row for key, row in loaded.items()}

    # --- commit

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; commit where the last commit is half a second ago (`SLUICE_FLUSH_SECONDS`).

        Refused credentials are committed at once: the circuit must open before the other lanes, too, have asked.
        """
        self.outcomes.append(outcome)
        if clock.monotonic() > self._commit_at or outcome.failure_class is FailureClass.AUTH:
            self.commit()

    def commit(self) -> None:
        """Commit the outcomes; repeat it while the database is away, so that no request is repeated."""
        try:
            self.patiently(lambda: self._commit(self._permits.take_usage()))
        except Exception as error:
            if not database.is_of_the_statement(error) or clock.stop_requested.is_set():
                raise
            self._commit_each()

    def _commit(self, usage: Usage) -> None:
        """Commit the outcomes so far, and read the run's status: anything but running ends the turn."""
        with self._committing:
            outcomes = list(self.outcomes)
            self._commit_at = clock.monotonic() + get_settings().flush_seconds
            try:
                if self.claim and outcomes:
                    self.status = commits.commit(self._run_id, self.claim, outcomes, usage, loaded_rows.save_fields)
                else:
                    run_usage.add(self._run_id, usage)
                    self.status = RunStatus(runs.get(self._run_id).status)
            except BaseException:
                self._permits.put_back_usage(usage)
                raise
            self._committed_count += len(outcomes)
            del self.outcomes[: len(outcomes)]

    def _commit_each(self) -> None:
        """Commit each outcome alone. An item whose own save times out again spends its attempt."""
        with self._committing:
            while self.claim and self.outcomes:
                outcome = self.outcomes[0]
                commit = partial(commits.commit, self._run_id, self.claim, save=loaded_rows.save_fields)
                try:
                    self.status = commit([outcome], Usage())
                except Exception as error:
                    if not database.is_of_the_statement(error):
                        raise
                    for place in {database.db.obj, self._source.model._meta.database}:
                        database.reconnect(place)
                    self.status = commit([save_timed_out(outcome.item, error)], Usage())
                self._committed_count += 1
                del self.outcomes[0]

    def patiently(self, do: Callable[[], object]) -> None:
        """Repeat a statement while the database is away, up to ten minutes after the lease.

        No other lane can claim the items meanwhile: that needs the database, too.
        """
        retry_commit(do, {database.db.obj, self._source.model._meta.database}, self._seconds_left)

    def _seconds_left(self, error: BaseException) -> float:
        patience = 0.0 if database.is_of_the_statement(error) else _OUTAGE_SECONDS
        return self._lease_ends_at + patience - clock.monotonic()

    def commit_before_sleep(self) -> None:
        """Commit before a sleep, inside an item's attempt: an error of the database must not become the item's."""
        try:
            if self.outcomes:
                self._commit(self._permits.take_usage())
        except Exception as error:
            if not outages.report(error):
                log.warning("run %d: a commit failed; it is tried again: %s", self._run_id, describe(error))

    # --- give back

    def put_behind(self, item: RunItem, refusals: Refusals, wait_seconds: float) -> None:
        """Give back a refused item, due after the others: when the budget opens, they are requested first."""
        metadata = (item.metadata or {}) | refusals.to_metadata()
        wait = max(0.0, wait_seconds - EARLY_SECONDS)
        with self._committing:  # the flusher can renew the claim, and that changes its token
            claim = self.claim
            if claim:
                self.patiently(lambda: claims.put_behind(claim, item, wait, metadata))

    def end(self) -> None:
        """Commit the outcomes, and give back the items that have none."""
        with self._committing:
            attempted = self._committed_count + len(self.outcomes)
        if self.outcomes:  # else the last commit was a moment ago, and returned the run's status
            self.commit()
        with self._committing:
            claim = self.claim
            if claim:
                self.patiently(lambda: claims.give_back(claim, claim.items[attempted:]))
            self.claim = None

    def blame(self, error: BaseException) -> bool:
        """Blame the items without an outcome for an error that no attempt has caught.

        One item gets the error as its outcome. Of several, each is claimed alone from now on. None is to blame for an
        outage, or for a table that lacks a field of the model.

        Returns:
          bool: Whether it can only be one item's.
        """
        with self._committing:
            left = self.claim.items[self._committed_count + len(self.outcomes) :] if self.claim else []
            if not self.claim or not left or lane_crash.is_of_no_item(error):
                return False
            if len(left) == 1:
                self.outcomes.append(crashed(left[0], error))
                return True
            claims.suspect(self.claim, left, describe(error))
            return False

    # --- from the flusher's thread

    @property
    def is_overdue(self) -> bool:
        """Whether outcomes wait too long for their commit: the lane's thread can be at a slow request."""
        return bool(self.outcomes) and clock.monotonic() >= self._commit_at

    def flush(self) -> None:
        """Commit the outcomes."""
        with self._committing:
            if self.claim and self.outcomes:
                self._commit(Usage())  # the lane's own thread counts its waits

    def renew(self, now: float) -> None:
        """Renew the leases of the items that are not committed, in the second half of the lease.

        Parameters:
          now(float): By `clock.monotonic`.
        """
        with self._committing:
            if self.claim and self._lease_ends_at - now < self._lease_seconds / 2:
                self.claim = claims.renew(self.claim, self.claim.items[self._committed_count :], self._lease_seconds)
                self._lease_ends_at = now + self._lease_seconds
