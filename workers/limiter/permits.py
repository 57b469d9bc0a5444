"""PermitClient: one thread's place in the line of a budget, and the permits it takes there."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workers import clock
from workers.errors import BudgetClosed, ConfigurationError, DependencyDown, LongWait, Refused
from workers.limiter import number_checks
from workers.limiter.ledger import FRESH_SECONDS, Ledger
from workers.limiter.response import read_answer

#: Permits that are taken together are to be used within this time, as far as one can tell; at most so many.
_AHEAD_SECONDS = 0.5
_MOST_AHEAD = 8
#: A wait may be told anew while it is slept; by so much the sleeps together may pass `max_wait_seconds`.
_SLACK_SECONDS = 0.25
#: An API is believed that asks to wait for up to 25 hours: until the quota of a day is there again, and an hour more.
BELIEVED_SECONDS = 90_000.0
#: Servers cut fractions off: that much is added to what they ask for (by `answer`), and not compared with anything.
_TRUNCATION_SECONDS = 1.0
#: How long a request waits whose refusal is its own, where the API does not say.
_OWN_SECONDS = 60.0
#: How long a lane of a stopped run stays away; when it comes back, the database says that it was stopped.
_STOPPED_SECONDS = 1.0


@dataclass(eq=False)
class Permit:
    """The right to send one request, once, within a second."""

    id: str
    granted_at: float
    weight: int = 1
    client: "PermitClient | None" = None

    @property
    def fresh(self) -> bool:
        """Whether the request may still be sent with it."""
        return clock.monotonic() - self.granted_at < FRESH_SECONDS

    def report(self, status: int, headers: Mapping[str, str]) -> None:
        """Tell the budget what the response says. Parameters and errors are those of `PermitClient.report`."""
        assert self.client
        self.client.report(self, status, headers)


@dataclass(frozen=True)
class Subject:
    """What the next requests are for, an item or a list page, and what is known of its refusals.

    Attributes:
      refused_at_us: When it was refused last, by the budget's clock (`Refused.at_us`); 0: it was not.
      alone: Whether its refusals were found to be its own: then it waits alone, and the budget learns nothing from it.
    """

    refused_at_us: int = 0
    alone: bool = False


@dataclass
class Usage:
    """What a client sent, and what its waiting came to, since it was last asked.

    Hits and sleeps are counted once for the whole fleet.
    """

    requests: int = 0
    hits: int = 0
    sleeps: int = 0
    slept_seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.requests or self.hits or self.sleeps or self.slept_seconds)


@dataclass(eq=False)
class PermitClient:
    """One thread's place in the line of a budget.

    It takes permits one after the other; the end of the last request travels with the asking for the next permit, in
    one round trip. Far from every limit it takes several at once, if it is told that more requests follow. Not
    thread-safe.

    Attributes:
      max_wait_seconds: Longest wait that is slept; beyond it `BudgetClosed` is raised.
      longest_pause_seconds: Longest pause where the API does not say how long; asked ones are believed up to 25 hours.
      expects: How many more requests it is about to make, the next one included. Permits for them may be taken ahead.
      before_sleep: Called before a sleep, so that what is finished need not wait with the thread.
      subject: What the next requests are for: a refusal of one thing again and again is not the budget's.
    """

    ledger: Ledger
    run_id: int | None
    name: str
    max_wait_seconds: float
    longest_pause_seconds: float
    usage: Usage = field(default_factory=Usage)
    expects: int = 1
    before_sleep: Callable[[], None] | None = None
    subject: Subject = Subject()
    _held: list[Permit] = field(default_factory=list)
    _refusal: tuple[float, str] = (0.0, "")
    _answered: list[tuple[str, float]] = field(default_factory=list)
    _said: list[list[Any]] = field(default_factory=list)
    _bad: list[str] = field(default_factory=list)
    _again: list[str] = field(default_factory=list)
    _taken_at: float = -math.inf
    _interval_seconds: float = math.inf

    def reserve(self, timeout_seconds: float) -> None:
        """Ask for a permit ahead of the request that will use it, without sleeping.

        Afterwards either a permit is held, or the wait for it is short: `acquire` sleeps the rest.

        Raises:
          BudgetClosed: The wait is longer than `max_wait_seconds`.
          DependencyDown: Redis does not answer.
          ConfigurationError: The timeout cannot be.
        """
        timeout_seconds = number_checks.timeout(timeout_seconds, self.ledger.budget.name)
        if self._give_back_unusable():
            return
        self._held = self._ask(timeout_seconds, 1, knock=True)

    def acquire(self, timeout_seconds: float, weight: int = 1) -> Permit:
        """Take the permit for one request that may last `timeout_seconds`; sleeps when the wait is short.

        Parameters:
          timeout_seconds(float): The total time the request may take.
          weight(int): As how many requests the API counts it.

        Raises:
          BudgetClosed: The wait is longer than `max_wait_seconds`, the process is stopping, or the run
            was stopped.
          DependencyDown: Redis does not answer.
          ConfigurationError: It weighs more than a limit, or a number cannot be.
        """
        timeout_seconds = number_checks.timeout(timeout_seconds, self.ledger.budget.name)
        weight = number_checks.weight(weight, self.ledger.budget.lowest)
        self._note_pace()
        held = self._give_back_unusable(weight)
        permit = self._held.pop() if held else self._acquire(timeout_seconds, weight)
        self.usage.requests += 1
        self.expects = max(1, self.expects - 1)
        return permit

    def answered(self, permit: Permit) -> None:
        """Say that the response of this permit's request has arrived: Redis is told by the next call, or `flush`."""
        self._answered.append((permit.id, clock.monotonic()))

    def report(self, permit: Permit, status: int, headers: Mapping[str, str]) -> None:
        """Say that the response has arrived, and what it says: a refusal pauses the budget, headers tighten it.

        Parameters:
          permit(Permit): The permit of its request.
          status(int): The HTTP status.
          headers(Mapping[str, str]): Looked up without regard to case.

        Raises:
          Refused: The API refused: 429 and its like. The whole budget pauses, for every process, unless the refusal is
            the request's own (`Subject`).
          LongWait: It asked for a longer wait than 25 hours (or `longest_pause_seconds`, where that is more).
          DependencyDown: It refused, and Redis does not answer; the pause is delivered later.
        """
        answer = read_answer(self.ledger.budget, status, headers, clock.now())
        self.answered(permit)
        self._said += [[permit.id, *statement] for statement in answer.said]
        if answer.refused or status >= 500:
            self._bad.append(permit.id)
        if answer.refused:
            raise self._refused(permit, status, answer.wait_seconds, answer.reason)

    def ask_again(self) -> None:
        """Say that the last answer was no answer yet, as a challenge of 401: what it was asked for is asked for again.

        It tells nothing of the budget: a canary goes on with the next request, and no refusal is another's for it.
        """
        self._again += [id for id, _ in self._answered[-1:]]

    def unsent(self, permit: Permit) -> None:
        """Give back a permit whose request never reached the API."""
        self.usage.requests -= 1
        self._drop([permit])

    def flush(self) -> None:
        """Tell Redis of what has been answered and give back what was not used."""
        held, self._held = self._held, []
        if held or self._answered:
            self._drop(held)

    def put_back_usage(self, usage: Usage) -> None:
        """Count again what was taken with `take_usage` and could not be written."""
        if not usage:
            return  # of another thread's, which has none
        self.usage.requests += usage.requests
        self.usage.hits += usage.hits
        self.usage.sleeps += usage.sleeps
        self.usage.slept_seconds += usage.slept_seconds

    def take_usage(self) -> Usage:
        """Return what was counted since the last call."""
        usage, self.usage = self.usage, Usage()
        return usage

    def _refused(self, permit: Permit, status: int, wait_seconds: float | None, reason: str) -> Refused:
        asked = None if wait_seconds is None else wait_seconds - _TRUNCATION_SECONDS
        believed = max(BELIEVED_SECONDS, self.longest_pause_seconds)
        too_long = asked is not None and asked > believed
        pause = self.longest_pause_seconds if too_long else wait_seconds or 0.0
        order = {
            "id": permit.id,
            "us": math.ceil(pause * 1e6),
            "asked": asked is not None,
            "longest_us": math.ceil(self.longest_pause_seconds * 1e6),
            "status": status,
            "reason": reason,
            "refused_at": self.subject.refused_at_us,
            "alone": self.subject.alone,
        }
        found = self.ledger.pause(self._to_tell(), order)
        self.usage.hits += found.hit
        said = f"{self.ledger.budget.name}: {reason}"
        if found.own:
            alone = _OWN_SECONDS if wait_seconds is None else min(wait_seconds, believed)
            return Refused(alone, said, own=True, at_us=found.at_us)
        if asked is None or not too_long:
            return Refused(found.pause_seconds, said, at_us=found.at_us)
        wait = LongWait(found.pause_seconds, said, asked)
        wait.at_us = found.at_us
        return wait

    def _acquire(self, timeout_seconds: float, weight: int) -> Permit:
        deadline = clock.monotonic() + self.max_wait_seconds
        while True:
            permits = self._ask(timeout_seconds, weight)
            if permits and permits[-1].fresh:
                self._held = permits
                return self._held.pop()
            if permits:  # the answer took longer than a permit is good for
                self._drop(permits)
                self._refusal = FRESH_SECONDS, "Redis answers too slowly"
            wait, reason = self._refusal
            if clock.monotonic() + wait > deadline + _SLACK_SECONDS:
                raise BudgetClosed(wait, reason)
            if self._sleep(wait):
                self._leave()
                raise BudgetClosed(wait, reason)

    def _ask(self, timeout_seconds: float, weight: int, *, knock: bool = False) -> list[Permit]:
        """Ask once; nothing after a refusal whose wait is short enough to sleep."""
        asked_at = clock.monotonic()
        ids = self.ledger.new_ids(self._how_many() if weight == 1 else 1)
        ask = {
            "ids": ids,
            "weight": weight,
            "ttl_us": self.ledger.ttl_microseconds(timeout_seconds),
            "waiter": self.name,
            "patience_us": round(self.max_wait_seconds * 1e6),
            "knock": knock,
            "run": "" if self.run_id is None else str(self.run_id),
        }
        reply = self.ledger.ask(self._to_tell(), ask)
        self.usage.hits += reply.hit
        if reply.code == 1:
            self.usage.slept_seconds += reply.values[0] / 1e6
            return [Permit(i, asked_at, weight, self) for i in reversed(ids[: reply.values[1]])]
        if reply.code == -1:
            raise ConfigurationError(f"A request weighs more than the limit of {reply.values[0]}")
        if reply.code == 4:
            raise BudgetClosed(_STOPPED_SECONDS, str(reply.values[0]))
        self.usage.sleeps += reply.values[2]
        wait, reason = reply.values[0] / 1e6, f"{self.ledger.budget.name}: {reply.values[1]}"
        if wait > self.max_wait_seconds:
            raise BudgetClosed(wait, reason)
        self._refusal = wait, reason
        return []

    def _note_pace(self) -> None:
        """Keep the time from one request to the next, as a moving mean."""
        now = clock.monotonic()
        since, self._taken_at = now - self._taken_at, now
        known = math.isfinite(self._interval_seconds)
        self._interval_seconds = (3 * self._interval_seconds + since) / 4 if known else since

    def _how_many(self) -> int:
        if self.expects == 1 or not math.isfinite(self._interval_seconds):
            return 1
        soon = _AHEAD_SECONDS / max(self._interval_seconds, _AHEAD_SECONDS / _MOST_AHEAD)
        return max(1, min(self.expects, int(soon)))

    def _sleep(self, seconds: float) -> bool:
        if self.before_sleep:
            self.before_sleep()
        return clock.sleep(seconds)

    def _to_tell(self) -> dict[str, Any]:
        request: dict[str, Any] = {}
        if self._answered:
            request["done"], self._answered = self._answered, []
        if self._said:
            request["said"], self._said = self._said, []
        if self._bad:
            request["bad"], self._bad = self._bad, []
        if self._again:
            request["again"], self._again = self._again, []
        return request

    def _give_back_unusable(self, weight: int = 1) -> bool:
        """Keep what is held if it may be used; return whether there is any. A heavier request must not wait for it."""
        if self._held and (weight != 1 or not self._held[-1].fresh or self.ledger.is_paused()):
            held, self._held = self._held, []
            self._drop(held)
        return bool(self._held)

    def _leave(self) -> None:
        with contextlib.suppress(DependencyDown):
            self.ledger.tell({"leave": self.name})

    def _drop(self, permits: list[Permit]) -> None:
        request = self._to_tell()
        if permits:
            request["drop"] = [permit.id for permit in permits]
        with contextlib.suppress(DependencyDown):  # then it rides on this process's next call, or expires by itself
            self.ledger.tell(request)
