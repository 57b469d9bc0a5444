"""Works one turn of a lane: batches of reserve, claim, fetch, commit, for about a second; `Turn.work` begins."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from workers import clock
from workers.engine import backoff, control_request
from workers.engine.attempt import attempt, refused
from workers.engine.lane_claim import LaneClaim
from workers.engine.rate_limit_refusals import Refusals
from workers.errors import BudgetClosed, BudgetUnknown, Refused
from workers.limiter.permits import PermitClient
from workers.messaging import broadcast
from workers.records import lanes, model_database, run_connector, run_usage
from workers.records.commits import Outcome
from workers.records.tables import Run, RunItem, RunStatus
from workers.records.watermark import Watermark
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.sources.request_purpose import asking

#: How long beyond an attempt's timeout leases are renewed: it can wait for a permit, and for the database.
_BUSY_SECONDS = 60.0

#: Whether the last item of a source sent a request: where items need none, no permit is reserved.
_sends_requests: WeakKeyDictionary[ImportSource, bool] = WeakKeyDictionary()
_turns: set["Turn"] = set()
_turns_lock = threading.Lock()


def running_turns() -> list["Turn"]:
    """Return the turns that this process works on, for other threads."""
    with _turns_lock:
        return list(_turns)


@contextmanager
def _registered(turn: "Turn") -> Iterator[None]:
    """List a turn in `running_turns` within the block."""
    with _turns_lock:
        _turns.add(turn)
    try:
        yield
    finally:
        with _turns_lock:
            _turns.discard(turn)


class Turn:
    """One turn of a lane. Whatever ends it, `close` commits the outcomes and gives back the other items.

    Parameters:
      run(Run): Its row, read after the turn had begun.
      lane(int), turn(int): From the lane's message.
      notices_seen(int): `broadcast.received()` from before the row was read.
    """

    def __init__(self, run: Run, lane: int, turn: int, notices_seen: int) -> None:
        self.run = run
        self.lane = lane
        self.turn = turn
        self.source: ImportSource = get_registry()[run.source]
        self.connector: Connector = run_connector.of(run)
        watermark = Watermark(self.connector.name)
        self.permits: PermitClient = self.connector.permit_client(run.id, f"{run.id}:{lane}", watermark)
        self.claimed = LaneClaim(run.id, self.source, self.permits)
        self._notices_seen = notices_seen
        self._overtaken = False
        #: Until then the leases of this lane and its items are renewed; and when the lane's is renewed next.
        self._renewed_until = clock.monotonic() + _BUSY_SECONDS
        self._renew_lane_at = clock.monotonic() + get_settings().lane_lease_seconds / 2
        #: None until the first attempt: a lane whose message came before its budget opens sleeps first.
        self._ends_at: float | None = None
        self.permits.before_sleep = self.claimed.commit_before_sleep

    @property
    def status(self) -> RunStatus:
        """The run's status, as of the last commit."""
        return self.claimed.status

    @property
    def idle(self) -> bool:
        """Whether nothing could be claimed, though an item can be due: a suspect item goes to one lane at a time."""
        return not self.claimed.has_claimed

    @property
    def has_worked(self) -> bool:
        """Whether an item was attempted in this turn."""
        return self._ends_at is not None

    def work(self) -> None:
        """Work batches until the turn is over, until nothing is due, or until the run is stopped.

        Raises:
          BudgetClosed, Refused: The budget is closed for long, or Redis is away.
          Exception: An error that no single item is to blame for.
        """
        with _registered(self), model_database.connected(self.source.model), asking(self.run.source):
            try:
                while not self._is_over():
                    if not self._work_batch():
                        return
            except (BudgetClosed, Refused, KeyboardInterrupt):
                raise
            except BaseException as error:
                if not self.claimed.blame(error):
                    raise

    def _is_over(self) -> bool:
        time_is_up = bool(self._ends_at and clock.monotonic() > self._ends_at)
        return self._overtaken or time_is_up or clock.stop_requested.is_set()

    def _work_batch(self) -> bool:
        """Reserve a permit, claim items, attempt each, commit; return whether another batch can follow."""
        settings = get_settings()
        if _sends_requests.get(self.source):
            self._reserve()
        lease_seconds = max(settings.lease_seconds, 2 * self.connector.timeout_seconds)  # no answer comes after it
        claimed = self.claimed.take(self._batch_size(), lease_seconds)
        if not claimed:
            return False
        self.permits.expects = len(claimed)
        for item in claimed:
            self._check_notices()
            if self.status is not RunStatus.RUNNING or self._is_over():
                break
            outcome = self._attempt(item, is_alone=len(claimed) == 1)
            self._ends_at = self._ends_at or clock.monotonic() + settings.turn_seconds
            self.claimed.add(outcome)
        self.permits.flush()
        self.claimed.end()
        return self.status is RunStatus.RUNNING

    def _reserve(self) -> None:
        """Reserve a permit, before items are claimed for it.

        Raises:
          BudgetClosed: There is none for longer than a lane sleeps, or Redis is away.
        """
        try:
            self.permits.reserve(self.connector.timeout_seconds)
        except BudgetUnknown as error:
            raise backoff.closed_by_outage(error) from error

    def _batch_size(self) -> int:
        """Return how many items to claim: this lane's part of the smallest limit, and of the items left."""
        smallest = min(limit.requests for limit in self.connector.budget.limits)
        run = self.run
        left = (run.total_count or 0) - run.succeeded_count - run.failed_count - run.skipped_count
        return max(1, min(get_settings().batch_size, smallest // run.lanes, -(-left // run.lanes)))

    def _check_notices(self) -> None:
        """After a notice, read from the database whether the run is still running, and this the lane's turn."""
        received = broadcast.received()
        if received != self._notices_seen:
            self._notices_seen = received
            self.claimed.commit()
            self.claimed.patiently(self._check_overtaken)

    def _check_overtaken(self) -> None:
        self._overtaken = not lanes.is_at(self.run.id, self.lane, self.turn + 1)

    def _attempt(self, item: RunItem, *, is_alone: bool) -> Outcome:
        """Attempt one item, and decide whose refusal it is if the API refuses it.

        Parameters:
          is_alone(bool): Whether no other item is in the batch, whose response would show whose refusal it is.
        """
        self._renewed_until = clock.monotonic() + self.connector.timeout_seconds + _BUSY_SECONDS
        if is_alone and Refusals.of(item.metadata).need_control:
            self._reserve()
            control_request.send(self.run, self.source, self.connector, self.permits)
        try:
            outcome = attempt(self.connector, self.permits, item, self.claimed.rows.get(str(item.item_id)))
        except Refused as refusal:
            outcome = self._after_refusal(item, refusal)
        _sends_requests[self.source] = outcome.asked
        return outcome

    def _after_refusal(self, item: RunItem, refusal: Refused) -> Outcome:
        """Return the outcome of an item whose refusal is its own: a control request is answered now.

        Raises:
          BudgetClosed, Refused: It is the budget's, or that is not known: the item is attempted after the others.
        """
        before = Refusals.of(item.metadata)
        as_budgets = before.with_refusal(refusal, own=False)
        if as_budgets.are_too_many:
            return refused(item, as_budgets, refusal)
        try:
            if not refusal.own:
                raise refusal
            control_request.send(self.run, self.source, self.connector, self.permits)
        except (BudgetClosed, Refused) as closed:
            self.claimed.put_behind(item, as_budgets, closed.wait_seconds)
            raise
        return refused(item, before.with_refusal(refusal, own=True), refusal)

    def close(self) -> None:
        """Commit the outcomes, and give back the other items and the permit that was not used.

        An item whose outcome cannot be committed keeps its attempt: its lease ends, and `max_attempts` bounds it.
        """
        self.permits.flush()
        if self.claimed.claim:
            self.claimed.end()
        run_usage.add(self.run.id, self.permits.take_usage())

    def renew(self) -> None:
        """Renew the leases of the lane and of its items, from the flusher's thread, while an answer can still come."""
        now, settings = clock.monotonic(), get_settings()
        if now >= self._renewed_until:
            return
        if now >= self._renew_lane_at:
            lanes.renew(self.run.id, self.lane, self.turn + 1, settings.lane_lease_seconds)
            self._renew_lane_at = now + settings.lane_lease_seconds / 2
        self.claimed.renew(now)
