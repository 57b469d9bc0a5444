"""Turn: one turn of a lane, batches of claim, fetch, commit. What it holds is given back however it ends."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from workers import clock
from workers.connections import database, outages
from workers.connections.commit_retry import patiently
from workers.engine import control_request, lane_crash
from workers.engine.attempt import DOWN_SECONDS, attempt, crashed, ended, refused
from workers.engine.refusals import Refusals
from workers.errors import BudgetClosed, BudgetUnknown, Refused
from workers.failures import FailureClass
from workers.limiter.permits import PermitClient, Usage
from workers.messaging import broadcast
from workers.messaging.middleware import EARLY_SECONDS
from workers.records import items, lanes, run_connector, runs, saving
from workers.records.items import Claim, Outcome
from workers.records.tables import Run, RunItem, RunStatus
from workers.records.watermark import Watermark
from workers.settings import get_settings
from workers.sources import model_keys
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.sources.request_purpose import asking
from workers.text.error_text import describe

log = logging.getLogger(__name__)

#: For so long after its lease a lane keeps what it has fetched.
_OUTAGE_SECONDS = 600.0
#: For so long beyond an attempt's timeout its leases are renewed: it may wait for a permit, and for the database.
_BUSY_SECONDS = 60.0

#: Whether the last item of a source asked the API: where items need nothing, no permit is waited for.
_asks: WeakKeyDictionary[ImportSource, bool] = WeakKeyDictionary()
_turns: set["Turn"] = set()
_turns_lock = threading.Lock()


def at_work() -> list["Turn"]:
    """Return the turns of this process that are at work, for other threads."""
    with _turns_lock:
        return list(_turns)


@contextmanager
def _noted(turn: "Turn") -> Iterator[None]:
    """Keep a turn where `at_work` finds it."""
    with _turns_lock:
        _turns.add(turn)
    try:
        yield
    finally:
        with _turns_lock:
            _turns.discard(turn)


class Turn:
    """One turn of a lane: batches of claim, fetch, commit. What it holds is given back however it ends."""

    def __init__(self, run: Run, lane: int, turn: int, heard: int) -> None:
        self.run = run
        self.lane = lane
        self.turn = turn
        self.source: ImportSource = get_registry()[run.source]
        self.connector: Connector = run_connector.of(run)
        watermark = Watermark(self.connector.name)
        self.permits: PermitClient = self.connector.permit_client(run.id, f"{run.id}:{lane}", watermark)
        self.claim: Claim | None = None
        self.outcomes: list[Outcome] = []
        #: Whether nothing could be claimed, though something may be due: it is for one lane at a time.
        self.idle = True
        #: The run's, as the last commit found it.
        self.status = RunStatus.RUNNING
        #: What this process had heard when the run was looked at last.
        self._heard = heard
        self._overtaken = False
        self._done = 0
        self._flush_at = self._lease_ends_at = self._lease_seconds = 0.0
        #: Until then the leases of this lane and its items are renewed; and when the lane's is due to be.
        self._renewed_until = clock.monotonic() + _BUSY_SECONDS
        self._renew_lane_at = clock.monotonic() + get_settings().lane_lease_seconds / 2
        #: Commits are made by this thread and by the flusher's.
        self._committing = threading.RLock()
        #: None until the first attempt: a lane that came early, to sleep for the opening, has done nothing yet.
        self._ends_at: float | None = None
        self.permits.before_sleep = self._flush

    @property
    def has_worked(self) -> bool:
        """Whether anything was brought to its end in this turn."""
        return self._ends_at is not None

    def work(self) -> None:
        """Work until the turn is over, until nothing is due, or until the run is stopped.

        Raises:
          BudgetClosed, Refused: The budget is closed for long, or Redis is away.
          Exception: Something else went wrong that no single item is to blame for.
        """
        with _noted(self), saving.connected(self.source.model), asking(self.run.source):
            try:
                while not self._is_over():
                    if not self._batch():
                        return
            except (BudgetClosed, Refused, KeyboardInterrupt):
                raise
            except BaseException as error:
                if not self._blame(error):
                    raise

    def _blame(self, error: BaseException) -> bool:
        """Blame the items for an error that no attempt has caught; return whether it can only be one item's.

        Of several, each is claimed alone from now on. None is to blame for an outage, or for a table that lacks what
        the model has.
        """
        with self._committing:
            left = self.claim.items[self._done + len(self.outcomes) :] if self.claim else []
            if not self.claim or not left or lane_crash.is_of_no_item(error):
                return False
            if len(left) == 1:
                self.outcomes.append(crashed(left[0], error))
                return True
            items.suspect(self.claim, left, describe(error))
            return False

    def close(self) -> None:
        """Give back what was claimed and not attempted, commit the rest, and give back the permit that was not used.

        What was attempted and cannot be committed keeps its attempt: its lease ends, and `max_attempts` bounds it.
        """
        self.permits.flush()
        if self.claim:
            self._end_claim()
        runs.add_usage(self.run.id, self.permits.take_usage())

    @property
    def is_overdue(self) -> bool:
        """Whether something waits too long for its commit: the lane may be at a request that takes long."""
        return bool(self.outcomes) and clock.monotonic() >= self._flush_at

    def flush(self) -> None:
        """Commit what is finished, from another thread."""
        with self._committing:
            if self.claim and self.outcomes:
                self._commit(Usage())  # the lane's own thread counts its waits

    def renew(self) -> None:
        """Renew the leases of the lane and of its items, from another thread, while an answer may still come."""
        now, settings = clock.monotonic(), get_settings()
        if now >= self._renewed_until:
            return
        if now >= self._renew_lane_at:
            lanes.renew(self.run.id, self.lane, self.turn + 1, settings.lane_lease_seconds)
            self._renew_lane_at = now + settings.lane_lease_seconds / 2
        with self._committing:
            if self.claim and self._lease_ends_at - now < self._lease_seconds / 2:
                self.claim = items.renew(self.claim, self.claim.items[self._done :], self._lease_seconds)
                self._lease_ends_at = now + self._lease_seconds

    def _batch(self) -> bool:
        settings = get_settings()
        if _asks.get(self.source):
            self._knock()
        # No answer may come after it.
        self._lease_seconds = max(settings.lease_seconds, 2 * self.connector.timeout_seconds)
        self._lease_ends_at = clock.monotonic() + self._lease_seconds
        claim = items.claim(self.run.id, self._share(), self._lease_seconds)
        if not claim.items:
            return False
        self._done = 0
        self.idle = False
        self.claim = claim
        self.permits.expects = len(claim.items)
        rows = self._rows(claim.items)
        self._flush_at = clock.monotonic() + settings.flush_seconds
        for item in claim.items:
            self._heed_notices()
            if self.status is not RunStatus.RUNNING or self._is_over():
                break
            outcome = self._attempt(item, rows.get(str(item.item_id)))
            self._ends_at = self._ends_at or clock.monotonic() + settings.turn_seconds
            self.outcomes.append(outcome)
            # Refused credentials are told at once: the circuit is to open before the other lanes have asked, too.
            if clock.monotonic() > self._flush_at or outcome.failure_class is FailureClass.AUTH:
                self._commit_patiently()
        self.permits.flush()
        self._end_claim()
        return self.status is RunStatus.RUNNING

    def _knock(self) -> None:
        """See that a permit is to be had soon, before items are claimed for it."""
        try:
            self.permits.reserve(self.connector.timeout_seconds)
        except BudgetUnknown as error:
            raise BudgetClosed(DOWN_SECONDS, str(error)) from error

    def _attempt(self, item: RunItem, row: Any) -> Outcome:
        self._renewed_until = clock.monotonic() + self.connector.timeout_seconds + _BUSY_SECONDS
        alone = self.claim is not None and len(self.claim.items) == 1  # else others are asked beside it
        if alone and Refusals.of(item.metadata).are_doubted:
            self._knock()
            control_request.ask(self.run, self.source, self.connector, self.permits)
        try:
            outcome = attempt(self.connector, self.permits, item, row)
        except Refused as refusal:
            outcome = self._of_a_refusal(item, refusal)
        _asks[self.source] = outcome.asked
        return outcome

    def _of_a_refusal(self, item: RunItem, refusal: Refused) -> Outcome:
        """Return what becomes of an item that is refused by itself: at this moment a control is answered.

        Raises:
          BudgetClosed, Refused: It is not, or it cannot be found out: the item is asked for again after the others.
        """
        before = Refusals.of(item.metadata)
        everybodys = before.and_one(refusal, own=False)
        if everybodys.are_too_many:
            return refused(item, everybodys, refusal)
        try:
            if not refusal.own:
                raise refusal
            control_request.ask(self.run, self.source, self.connector, self.permits)
        except (BudgetClosed, Refused) as closed:
            self._put_behind(item, everybodys, closed.wait_seconds)
            raise
        return refused(item, before.and_one(refusal, own=True), refusal)

    def _put_behind(self, item: RunItem, refusals: Refusals, wait_seconds: float) -> None:
        """Let the items that were not refused be asked first when the budget opens."""
        metadata = (item.metadata or {}) | refusals.kept()
        wait = max(0.0, wait_seconds - EARLY_SECONDS)
        with self._committing:  # the flusher may renew the claim, and that changes its token
            claim = self.claim
            if claim:
                self._patiently(lambda: items.put_behind(claim, item, wait, metadata))

    def _end_claim(self) -> None:
        """Commit what was attempted, and give back the rest."""
        with self._committing:
            attempted = self._done + len(self.outcomes)
        self._commit_patiently()
        with self._committing:
            claim = self.claim
            if claim:
                self._patiently(lambda: items.give_back(claim, claim.items[attempted:]))
            self.claim = None

    def _heed_notices(self) -> None:
        """Ask the database anew, where a notice has come, whether the run goes on, and this turn of the lane."""
        heard = broadcast.received()
        if heard != self._heard:
            self._heard = heard
            self._commit_patiently()
            self._patiently(self._ask_whether_overtaken)

    def _ask_whether_overtaken(self) -> None:
        self._overtaken = not lanes.is_at(self.run.id, self.lane, self.turn + 1)

    def _is_over(self) -> bool:
        time_is_up = bool(self._ends_at and clock.monotonic() > self._ends_at)
        return self._overtaken or time_is_up or clock.stop_requested.is_set()

    def _share(self) -> int:
        """Return how many items to claim: this lane's part of what opens to all lanes at once, and of what is left."""
        smallest = min(limit.requests for limit in self.connector.budget.limits)
        run = self.run
        left = (run.total_count or 0) - run.succeeded_count - run.failed_count - run.skipped_count
        return max(1, min(get_settings().batch_size, smallest // run.lanes, -(-left // run.lanes)))

    def _rows(self, claimed: Sequence[RunItem]) -> dict[str, Any]:
        """Return the items' rows by their primary keys as text."""
        model = self.source.model
        wanted: list[Any] = []
        rows: dict[str, Any] = {}
        for item in claimed:
            try:
                wanted += [] if item.item_id is None else [model_keys.from_text(model, item.item_id)]
            except (ValueError, ArithmeticError) as error:  # the model has keys of another kind now
                rows[str(item.item_id)] = error
        found = saving.load(model, wanted, self.source.unique_by)
        return rows | {model_keys.text(key): row for key, row in found.items()}

    def _flush(self) -> None:
        """Commit before a sleep. It runs inside an item's attempt, which must not be blamed for the database."""
        try:
            if self.outcomes:
                self._commit(self.permits.take_usage())
        except Exception as error:
            if not outages.tell(error):
                log.warning("run %d: a commit failed; it is tried again: %s", self.run.id, describe(error))

    def _commit_patiently(self) -> None:
        try:
            self._patiently(lambda: self._commit(self.permits.take_usage()))
        except Exception as error:
            if not database.is_of_the_statement(error) or clock.stop_requested.is_set():
                raise
            self._commit_apart()

    def _commit_apart(self) -> None:
        """Commit each outcome alone. One whose own save is ended each time spends its attempt, and says why."""
        with self._committing:
            while self.claim and self.outcomes:
                outcome = self.outcomes[0]
                commit = partial(items.commit, self.run.id, self.claim, save=saving.save_fields)
                try:
                    self.status = commit([outcome], Usage())
                except Exception as error:
                    if not database.is_of_the_statement(error):
                        raise
                    for place in {database.db.obj, self.source.model._meta.database}:
                        database.reconnect(place)
                    self.status = commit([ended(outcome.item, error)], Usage())
                self._done += 1
                del self.outcomes[0]

    def _patiently(self, do: Callable[[], object]) -> None:
        """Do it again while the database is away, so that no request is repeated.

        Our lease may end meanwhile: no other lane can take our items, for that, too, needs the database.
        """
        patiently(do, {database.db.obj, self.source.model._meta.database}, self._seconds_left)

    def _seconds_left(self, error: BaseException) -> float:
        patience = 0.0 if database.is_of_the_statement(error) else _OUTAGE_SECONDS
        return self._lease_ends_at + patience - clock.monotonic()

    def _commit(self, usage: Usage) -> None:
        """Commit what has come of items so far, and hear whether the run goes on."""
        with self._committing:
            outcomes = list(self.outcomes)
            self._flush_at = clock.monotonic() + get_settings().flush_seconds
            try:
                if self.claim and outcomes:
                    self.status = items.commit(self.run.id, self.claim, outcomes, usage, saving.save_fields)
                else:
                    runs.add_usage(self.run.id, usage)
                    self.status = RunStatus(runs.get(self.run.id).status)
            except BaseException:
                self.permits.put_back_usage(usage)
                raise
            self._done += len(outcomes)
            del self.outcomes[: len(outcomes)]
