"""Permit client: takes permits of a budget for one thread, waits for them, and reports what the responses say."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from workers import clock
from workers.deprecation import warn_renamed
from workers.errors import BudgetClosed, ConfigurationError, DependencyDown, LongWait, Refused
from workers.limiter import number_checks
from workers.limiter.redis_ledger import FRESH_SECONDS, Ledger
from workers.limiter.response import read_response
from workers.limiter.script_messages import (
    Granted,
    PauseRequest,
    PermitRequest,
    Request,
    RunStopped,
    Statement,
    TooHeavy,
)

#: Permits that are taken ahead should be used within this time, by the recent pace; and their largest number.
_AHEAD_SECONDS = 0.5
_MOST_AHEAD = 8
#: A wait can be extended while it is slept. By this much the sleeps together can exceed `max_wait_seconds`.
_SLACK_SECONDS = 0.25
#: A wait that the API asks for is accepted up to 25 hours: a day's quota, and an hour more.
BELIEVED_SECONDS = 90_000.0
#: `response` adds this to what the API asks for, because servers cut fractions off. No limit is compared with it.
_TRUNCATION_SECONDS = 1.0
#: How long a request waits whose refusal concerns it alone, where the API does not say.
_OWN_SECONDS = 60.0
#: How long a lane of a stopped run waits; then it reads from the database that the run was stopped.
_STOPPED_SECONDS = 1.0


@dataclass(eq=False)
class Permit:
    """The right to send one request, once, within a second.

    Attributes:
      id(str): Its id in Redis.
      granted_at(float): When it was requested, in seconds of the monotonic clock.
      weight(int): As how many requests the API counts its request.
      client(PermitClient | None): The client that took it.
    """

    id: str
    granted_at: float
    weight: int = 1
    client: "PermitClient | None" = None

    @property
    def fresh(self) -> bool:
        """Whether the request can still be sent with it."""
        return clock.monotonic() - self.granted_at < FRESH_SECONDS

    def report(self, status: int, headers: Mapping[str, str]) -> None:
        """Report what the response says. Parameters and errors are those of `PermitClient.report`."""
        assert self.client
        self.client.report(self, status, headers)

    def heard(self, status: int, headers: Mapping[str, str]) -> None:
        """Call `report(status, headers)`: the old name of this method, deprecated."""
        warn_renamed("Permit.heard", "Permit.report")
        self.report(status, headers)


@dataclass(frozen=True)
class Subject:
    """The item or list page that the next requests are for, and its earlier refusals.

    Attributes:
      refused_at_us(int): When it was refused last, by the budget's clock (`Refused.at_us`); 0: it was not.
      alone(bool): Whether its refusals were found to concern it alone: then it alone waits, and the budget learns
        nothing from its refusals.
    """

    refused_at_us: int = 0
    alone: bool = False


@dataclass
class Usage:
    """Requests, rate-limit hits and planned waits of a client, since they were last taken.

    Hits and planned waits are counted once for all processes.
    """

    requests: int = 0
    hits: int = 0
    sleeps: int = 0
    slept_seconds: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.requests or self.hits or self.sleeps or self.slept_seconds)


@dataclass(eq=False)
class PermitClient:
    """Takes permits of a budget, one after the other, for one thread. Not thread-safe.

    The completion of the last request is sent with the request for the next permit, in one round trip. Far from every
    limit the client takes several permits at once, if `expects` says that more requests follow.

    Attributes:
      ledger(Ledger): The budget's permits.
      run_id(int | None): The run to which hits and planned waits are counted.
      name(str): Identifies the client among those that wait.
      max_wait_seconds(float): The longest wait that is slept; a longer one raises `BudgetClosed`.
      longest_pause_seconds(float): The longest pause where the API does not say how long. A wait that it asks for is
        accepted up to 25 hours.
      usage(Usage): What was counted and not yet taken.
      expects(int): How many more requests follow, the next one included. Permits for them can be taken ahead.
      before_sleep(Callable | None): Called before a sleep, so that finished work need not wait for the thread.
      subject(Subject): What the next requests are for. Repeated refusals of one item do not pause the budget.
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
    _unused: list[Permit] = field(default_factory=list)
    _refusal: tuple[float, str] = (0.0, "")
    _answered: list[tuple[str, float]] = field(default_factory=list)
    _statements: list[tuple[str, *Statement]] = field(default_factory=list)
    _bad: list[str] = field(default_factory=list)
    _again: list[str] = field(default_factory=list)
    _taken_at: float = -math.inf
    _interval_seconds: float = math.inf

    def reserve(self, timeout_seconds: float) -> None:
        """Ask for a permit ahead of the request that will use it, without sleeping.

        Afterwards the client either has a permit, or the wait for it is short: `acquire` sleeps the rest.

        Parameters:
          timeout_seconds(float): The total time that the request can take.

        Raises:
          BudgetClosed: The wait is longer than `max_wait_seconds`.
          DependencyDown: Redis does not answer.
          ConfigurationError: The timeout is out of range.
        """
        timeout_seconds = number_checks.timeout(timeout_seconds, self.ledger.budget.name)
        if self._give_back_unusable():
            return
        self._unused = self._ask(timeout_seconds, 1, reserve=True)

    def acquire(self, timeout_seconds: float, weight: int = 1) -> Permit:
        """Take the permit for one request; sleeps when the wait is short.

        Parameters:
          timeout_seconds(float): The total time that the request can take.
          weight(int): As how many requests the API counts it.

        Raises:
          BudgetClosed: The wait is longer than `max_wait_seconds`, the process is stopping, or the run was stopped.
          DependencyDown: Redis does not answer.
          ConfigurationError: It weighs more than a limit, or a number is out of range.
        """
        timeout_seconds = number_checks.timeout(timeout_seconds, self.ledger.budget.name)
        weight = number_checks.weight(weight, self.ledger.budget.lowest)
        self._note_pace()
        has_one = self._give_back_unusable(weight)
        permit = self._unused.pop() if has_one else self._acquire(timeout_seconds, weight)
        self.usage.requests += 1
        self.expects = max(1, self.expects - 1)
        return permit

    def answered(self, permit: Permit) -> None:
        """Record that the response has arrived. The next call, or `flush`, reports it to Redis."""
        self._answered.append((permit.id, clock.monotonic()))

    def report(self, permit: Permit, status: int, headers: Mapping[str, str]) -> None:
        """Report a response: it completes the permit, a refusal pauses the budget, headers tighten its limits.

        Parameters:
          permit(Permit): The permit of its request.
          status(int): The HTTP status.
          headers(Mapping[str, str]): Looked up without regard to case.

        Raises:
          Refused: The API refused: 429 or a status like it. The budget pauses in every process, unless the refusal
            concerns the request alone (`Subject`).
          LongWait: It asked for a longer wait than 25 hours (or `longest_pause_seconds`, where that is more).
          DependencyDown: It refused, and Redis does not answer; the pause is delivered later.
        """
        response = read_response(self.ledger.budget, status, headers, clock.now())
        self.answered(permit)
        self._statements += [(permit.id, *statement) for statement in response.statements]
        if response.refused or status >= 500:
            self._bad.append(permit.id)
        if response.refused:
            raise self._refused(permit, status, response.wait_seconds, response.reason)

    def ask_again(self) -> None:
        """Record that the last response was not the answer, as a 401 with a challenge: the request is sent again.

        This response changes nothing for the budget: a canary continues with the next request, and it is no proof that
        other requests are answered.
        """
        self._again += [id for id, _ in self._answered[-1:]]

    def unsent(self, permit: Permit) -> None:
        """Give back a permit whose request never reached the API."""
        self.usage.requests -= 1
        self._drop([permit])

    def flush(self) -> None:
        """Report completed requests to Redis now, and give back unused permits."""
        unused, self._unused = self._unused, []
        if unused or self._answered:
            self._drop(unused)

    def put_back_usage(self, usage: Usage) -> None:
        """Count again what `take_usage` returned and the database did not save."""
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
        refused: PauseRequest = {
            "id": permit.id,
            "us": math.ceil(pause * 1e6),
            "asked": asked is not None,
            "longest_us": math.ceil(self.longest_pause_seconds * 1e6),
            "status": status,
            "reason": reason,
            "refused_at": self.subject.refused_at_us,
            "alone": self.subject.alone,
        }
        effect = self.ledger.report_refusal(self._unreported(), refused)
        self.usage.hits += effect.hit
        why = f"{self.ledger.budget.name}: {reason}"
        if effect.own:
            alone = _OWN_SECONDS if wait_seconds is None else min(wait_seconds, believed)
            return Refused(alone, why, own=True, at_us=effect.at_us)
        if asked is None or not too_long:
            return Refused(effect.pause_seconds, why, at_us=effect.at_us)
        wait = LongWait(effect.pause_seconds, why, asked)
        wait.at_us = effect.at_us
        return wait

    def _acquire(self, timeout_seconds: float, weight: int) -> Permit:
        deadline = clock.monotonic() + self.max_wait_seconds
        while True:
            permits = self._ask(timeout_seconds, weight)
            if permits and permits[-1].fresh:
                self._unused = permits
                return self._unused.pop()
            if permits:  # the reply took longer than a permit is valid
                self._drop(permits)
                self._refusal = FRESH_SECONDS, "Redis answers too slowly"
            wait, reason = self._refusal
            if clock.monotonic() + wait > deadline + _SLACK_SECONDS:
                raise BudgetClosed(wait, reason)
            if self._sleep(wait):
                self._leave()
                raise BudgetClosed(wait, reason)

    def _ask(self, timeout_seconds: float, weight: int, *, reserve: bool = False) -> list[Permit]:
        """Ask once; return no permit after a refusal whose wait is short enough to sleep."""
        asked_at = clock.monotonic()
        ids = self.ledger.new_ids(self._how_many() if weight == 1 else 1)
        ask: PermitRequest = {
            "ids": ids,
            "weight": weight,
            "ttl_us": self.ledger.ttl_microseconds(timeout_seconds),
            "waiter": self.name,
            "patience_us": round(self.max_wait_seconds * 1e6),
            "knock": reserve,
            "run": "" if self.run_id is None else str(self.run_id),
        }
        reply = self.ledger.request_permits(self._unreported(), ask)
        self.usage.hits += reply.hits
        if isinstance(reply, Granted):
            self.usage.slept_seconds += reply.waited_seconds
            return [Permit(i, asked_at, weight, self) for i in reversed(ids[: reply.count])]
        if isinstance(reply, TooHeavy):
            raise ConfigurationError(f"A request weighs more than the limit of {reply.most}")
        if isinstance(reply, RunStopped):
            raise BudgetClosed(_STOPPED_SECONDS, reply.reason)
        self.usage.sleeps += reply.sleeps
        wait, reason = reply.wait_seconds, f"{self.ledger.budget.name}: {reply.reason}"
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

    def _unreported(self) -> Request:
        """Return what Redis does not know yet of the requests so far; it is then the ledger's to deliver."""
        request = Request()
        if self._answered:
            request["done"], self._answered = self._answered, []
        if self._statements:
            request["said"], self._statements = self._statements, []
        if self._bad:
            request["bad"], self._bad = self._bad, []
        if self._again:
            request["again"], self._again = self._again, []
        return request

    def _give_back_unusable(self, weight: int = 1) -> bool:
        """Keep unused permits that can be used; return whether there is one. A heavier request gives them back."""
        if self._unused and (weight != 1 or not self._unused[-1].fresh or self.ledger.is_paused()):
            unused, self._unused = self._unused, []
            self._drop(unused)
        return bool(self._unused)

    def _leave(self) -> None:
        with contextlib.suppress(DependencyDown):
            self.ledger.send({"leave": self.name})

    def _drop(self, permits: list[Permit]) -> None:
        request = self._unreported()
        if permits:
            request["drop"] = [permit.id for permit in permits]
        with contextlib.suppress(DependencyDown):  # this process's next call delivers it, or the permits expire
            self.ledger.send(request)
