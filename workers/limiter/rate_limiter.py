"""Rate limiter: grants permits to send requests, so that no limit of the API is exceeded by any process.

A permit counts against every window from its grant until W seconds after the response arrived. A budget grants a permit
only while, for every limit (L, W): in flight + completed within the last W < L. docs/limiter.md proves that a server
that enforces its published limits then cannot answer 429. The decision and the state are in limiter.lua.
"""

import uuid
from contextlib import AbstractContextManager
from types import TracebackType

import redis

from workers.deprecation import warn_renamed
from workers.limiter import number_checks
from workers.limiter.budget import Budget, our_part
from workers.limiter.lesson import Lesson
from workers.limiter.permits import Permit, PermitClient
from workers.limiter.redis_ledger import Ledger, Watermark
from workers.limiter.script_messages import StateReport
from workers.limiter.state import BudgetState, Note, WindowState

#: The longest wait, or pause.
_LONGEST_SECONDS = 31 * 86_400.0


class RateLimiter:
    """The permits of one budget, kept in Redis and shared by every process that uses the budget's name.

    Parameters:
      budget(Budget): The budget.
      client(redis.Redis): Where the permits are kept. Without Redis no permit is granted.
      prefix(str): The prefix of the Redis keys.
      max_wait_seconds(float): The longest wait that is slept in the thread; a longer one raises `RateLimited`.
      linger_seconds(float): How long after a request's timeout the API can still count it. An assumption.
      longest_pause_seconds(float): The longest pause where the API does not say how long. A wait that the API asks for
        is accepted up to 25 hours; above that `LongWait` is raised.
      watermark(Watermark | None): The part of the budget's state that is kept outside Redis.

    Raises:
      ConfigurationError: A number of seconds is out of range.

    *Warning:* without a watermark, a budget whose state Redis lost opens empty if no process is left that used it. The
    API can still count earlier requests, and answer 429.
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
        """Return a client that takes permits of this budget, for one thread.

        Parameters:
          run_id(int | None): The run to which rate-limit hits and planned waits are counted.
          name(str | None): Identifies the client among those that wait for a permit; random by default.
        """
        name = name or uuid.uuid4().hex
        return PermitClient(self.ledger, run_id, name, self.max_wait_seconds, self.longest_pause_seconds)

    def caller(self, run_id: int | None = None, name: str | None = None) -> PermitClient:
        """Return `permit_client(run_id, name)`: the old name of this method, deprecated."""
        warn_renamed("RateLimiter.caller", "RateLimiter.permit_client")
        return self.permit_client(run_id, name)

    def permit(self, timeout_seconds: float = 30.0, weight: int = 1) -> AbstractContextManager[Permit]:
        """Take one permit for a `with` block; waits for it up to `max_wait_seconds`.

        Where the block ends normally, the response has arrived. Where it ends with an exception, the API can still
        count the request: the permit counts until `timeout_seconds` + `linger_seconds` have passed. In the block, call
        `permit.report(response.status_code, response.headers)` to pass on what the response says.

        Parameters:
          timeout_seconds(float): The total time that the request in the block can take.
          weight(int): As how many requests the API counts it.

        Raises:
          RateLimited: The wait would be longer than `max_wait_seconds`.
          DependencyDown: Redis does not answer.
          ConfigurationError: The timeout or the weight is out of range.
        """
        return _OnePermit(self.permit_client(), timeout_seconds, weight)

    def snapshot(self, weight: int = 1) -> BudgetState:
        """Return the state of the budget. Writes nothing, except that it completes permits past their deadline.

        Parameters:
          weight(int): The weight of the request for which `opens_in_seconds` is computed.

        Raises:
          DependencyDown: Redis does not answer.
        """
        report = self.ledger.read_state(weight)
        if report is not None:
            return _state(self.budget, report, weight)
        windows = tuple(
            WindowState(limit, limit.requests, our_part(limit.requests, self.budget.share), 0)
            for limit in self.budget.limits
        )
        return BudgetState(self.budget.name, windows, profile=_starting_profile(self.budget), known=False)

    def relearn(self, who: str) -> bool:
        """Forget what the API's responses taught: the paced profile, longer windows, limits named by headers.

        The budget is then as configured, until responses teach it again. Requests that count against its windows still
        count, and a pause lasts. A note records who did it.

        Parameters:
          who(str): The person.

        Returns:
          bool: False where Redis has no state of the budget; then only what is kept outside Redis was forgotten.

        Raises:
          DependencyDown: Redis does not answer.
        """
        reply = self.ledger.send({"relearn": f"{who}: as configured again, what the API taught is forgotten"})
        if self.ledger.watermark:
            self.ledger.watermark.keep_lesson(Lesson())
        return reply is not None


def _starting_profile(budget: Budget) -> str:
    return "paced" if budget.profile == "paced" else "burst"


def _state(budget: Budget, report: StateReport, weight: int) -> BudgetState:
    full = report["lost"] > 0  # then more requests may be on record than any limit
    windows = tuple(
        WindowState(limit, int(most), int(ours), int(min(used, ours) if full else used))
        for limit, (most, ours, used) in zip(budget.limits, report["windows"], strict=True)
    )
    notes = tuple(Note(ago / 1e6, text) for ago, text in report["notes"] or [])
    why = "configured so" if budget.profile == "paced" else report["paced_why"]
    return BudgetState(
        name=budget.name,
        windows=windows,
        in_flight=int(report["in_flight"]),
        waiting=int(report["waiting"]),
        opens_in_seconds=report["opens"] / 1e6,
        paused_for_seconds=report["paused"] / 1e6,
        paused_why=report["reason"] if report["paused"] else "",
        canary=report["canary"],
        profile="paced" if report["paced"] else "burst",
        profile_why=why if report["paced"] else "",
        widened_seconds=report["widened"] / 1e6,
        relaxes_in_seconds=report["relaxes"] / 1e6,
        taken_as_full_seconds=report["lost"] / 1e6,
        lost_why=report["lost_why"] if report["lost"] else "",
        granted=int(report["granted"]),
        hits=int(report["hits"]),
        sleeps=int(report["sleeps"]),
        foreign=int(report["foreign"]),
        slept_seconds=report["slept"] / 1e6,
        sleeping_seconds=report["sleeping"] / 1e6,
        weight=weight,
        notes=notes,
    )


class _OnePermit:
    """The context manager of `RateLimiter.permit`."""

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
        self._client.flush()  # also where the response was reported, and the block then failed
