"""The heart: permits. A permit counts against every window from its grant until W seconds after its response arrived.

A budget grants a permit only while, for every limit (L, W): in flight + completed within the last W < L. Why no server
that keeps its own word can then answer 429 is shown in docs/limiter.md. The state and the decision are in limiter.lua.
"""

import uuid
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import redis

from workers.limiter import number_checks
from workers.limiter.budget import Budget, our_part
from workers.limiter.ledger import Ledger, Watermark
from workers.limiter.lesson import Lesson
from workers.limiter.permits import Permit, PermitClient
from workers.limiter.state import BudgetState, Note, WindowState

#: limiter.lua's reply to what only tells.
_TOLD = 2
#: The longest wait, or pause.
_LONGEST_SECONDS = 31 * 86_400.0


class RateLimiter:
    """The permits of one budget, kept in Redis and shared by every process that names the budget.

    Parameters:
      budget(Budget): Whose permits.
      client(redis.Redis): Where they are kept. Without Redis there is no permit, ever.
      prefix(str): The prefix of the keys.
      max_wait_seconds(float): Longest wait that is slept in the thread; beyond it `RateLimited` is raised.
      linger_seconds(float): How long after a request's timeout the API may still count it: an assumption.
      longest_pause_seconds(float): Longest pause where the API does not say how long. What it asks for is believed up
        to 25 hours; above that `LongWait` is raised.
      watermark(Watermark | None): What outlives Redis.

    Raises:
      ConfigurationError: A number of seconds cannot be.

    Warning:
      Without a watermark a budget that Redis has lost opens empty if nobody is left who used it: the API may still
      count what was sent before, and answer 429.
    """

    def __init__(
        self,
        budget: Budget,
        client: "redis.Redis",
        *,
        prefix: str = "sluice",
        max_wait_seconds: float = 2.0,
        linger_seconds: float = 10.0,
        longest_pause_seconds: float = 3600.0,
        watermark: Watermark | None = None,
    ) -> None:
        self.budget = budget
        self.max_wait_seconds = number_checks.seconds(max_wait_seconds, "max_wait_seconds", _LONGEST_SECONDS)
        self.longest_pause_seconds = number_checks.seconds(
            longest_pause_seconds, "longest_pause_seconds", _LONGEST_SECONDS
        )
        linger_seconds = number_checks.seconds(linger_seconds, "linger_seconds", number_checks.LONGEST_TIMEOUT_SECONDS)
        self.ledger = Ledger(budget, client, prefix, linger_seconds, watermark)

    def permit_client(self, run_id: int | None = None, name: str | None = None) -> PermitClient:
        """Return a place in this budget's line, for one thread.

        Parameters:
          run_id(int | None): The run to whose account hits and sleeps go.
          name(str | None): What tells this waiter from others in the line; random by default.
        """
        name = name or uuid.uuid4().hex
        return PermitClient(self.ledger, run_id, name, self.max_wait_seconds, self.longest_pause_seconds)

    def permit(self, timeout_seconds: float = 30.0, weight: int = 1) -> AbstractContextManager[Permit]:
        """Take one permit for the length of a `with` block, sleeping up to `max_wait_seconds` for it.

        Leaving the block normally says that the response has arrived; leaving it by an exception says that nobody
        knows, and the permit counts until `timeout_seconds` + `linger_seconds` have passed. In the block
        `permit.report(response.status_code, response.headers)` tells the budget what the response says.

        Parameters:
          timeout_seconds(float): The total time the request in the block may take.
          weight(int): As how many requests the API counts it.

        Raises:
          RateLimited: The wait would be longer than `max_wait_seconds`.
          DependencyDown: Redis does not answer.
          ConfigurationError: The timeout, or the weight, cannot be.
        """
        return _OnePermit(self.permit_client(), timeout_seconds, weight)

    def snapshot(self, weight: int = 1) -> BudgetState:
        """Return the state of the budget. Nothing is changed by it, but that permits past their deadline are completed.

        Parameters:
          weight(int): The weight of the request that waits: `opens_in_seconds` is the time for it.

        Raises:
          DependencyDown: Redis does not answer.
        """
        seen = self.ledger.look(weight)
        if seen is not None:
            return _state(self.budget, seen, weight)
        windows = tuple(
            WindowState(limit, limit.requests, our_part(limit.requests, self.budget.share), 0)
            for limit in self.budget.limits
        )
        return BudgetState(self.budget.name, windows, profile=_starting_profile(self.budget), known=False)

    def stop(self, run_id: int) -> float:
        """Let the lanes of a run hear, with their next permit, that it was stopped. The database is what decides.

        Returns:
          float: How many seconds the sleep has lasted that this cuts short; no lane will tell of it.

        Raises:
          DependencyDown: Redis does not answer; the lanes hear it at their next commit.
        """
        reply = self.ledger.tell({"stop": [str(run_id), 1]})
        return reply.values[1] / 1e6 if reply.code == _TOLD else 0.0

    def go_on(self, run_id: int) -> None:
        """Take `stop` back.

        Raises:
          DependencyDown: Redis does not answer; a stop is forgotten after a minute.
        """
        self.ledger.tell({"stop": [str(run_id), 0]})

    def ended(self, run_id: int) -> None:
        """Say that a run has ended: nothing of a window is kept for it any longer.

        Raises:
          DependencyDown: Redis does not answer; what is kept is given to others after 1.5 s.
        """
        self.ledger.tell({"ended": str(run_id)})

    def relearn(self, who: str) -> bool:
        """Forget what the API's answers taught: the profile paced, longer windows, limits that it named.

        The budget is then as it is configured, until the API teaches it again. What counts against its windows goes on
        counting, and a pause goes on. A note says who did it.

        Parameters:
          who(str): The person.

        Returns:
          bool: False where Redis knows nothing of the budget; then what outlives Redis has been forgotten.

        Raises:
          DependencyDown: Redis does not answer.
        """
        reply = self.ledger.tell({"relearn": f"{who}: as configured again, what the API taught is forgotten"})
        if self.ledger.watermark:
            self.ledger.watermark.keep_lesson(Lesson())
        return reply.code == _TOLD


def _starting_profile(budget: Budget) -> str:
    return "paced" if budget.profile == "paced" else "burst"


def _state(budget: Budget, seen: dict[str, Any], weight: int) -> BudgetState:
    full = seen["lost"] > 0  # then more may be on record than any limit
    windows = tuple(
        WindowState(limit, int(whole), int(ours), int(min(used, ours) if full else used))
        for limit, (whole, ours, used) in zip(budget.limits, seen["windows"], strict=True)
    )
    notes = tuple(Note(ago / 1e6, text) for ago, text in seen["notes"] or [])
    why = "configured so" if budget.profile == "paced" else seen["paced_why"]
    return BudgetState(
        name=budget.name,
        windows=windows,
        in_flight=int(seen["in_flight"]),
        waiting=int(seen["waiting"]),
        opens_in_seconds=seen["opens"] / 1e6,
        paused_for_seconds=seen["paused"] / 1e6,
        paused_why=seen["reason"] if seen["paused"] else "",
        canary=seen["canary"],
        profile="paced" if seen["paced"] else "burst",
        profile_why=why if seen["paced"] else "",
        widened_seconds=seen["widened"] / 1e6,
        relaxes_in_seconds=seen["relaxes"] / 1e6,
        taken_as_full_seconds=seen["lost"] / 1e6,
        lost_why=seen["lost_why"] if seen["lost"] else "",
        granted=int(seen["granted"]),
        hits=int(seen["hits"]),
        sleeps=int(seen["sleeps"]),
        foreign=int(seen["foreign"]),
        slept_seconds=seen["slept"] / 1e6,
        sleeping_seconds=seen["sleeping"] / 1e6,
        weight=weight,
        notes=notes,
    )


class _OnePermit:
    def __init__(self, client: PermitClient, timeout_seconds: float, weight: int) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._weight = weight

    def __enter__(self) -> Permit:
        self._permit = self._client.acquire(self._timeout_seconds, self._weight)
        return self._permit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._client.answered(self._permit)
        self._client.flush()  # also where the response was heard, and the block then failed
