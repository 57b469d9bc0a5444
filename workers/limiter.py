"""The heart: permits. A permit counts against every window from its grant until W seconds after its response arrived.

A budget grants a permit only while, for every limit (L, W): in flight + completed within the last W < L. Why no server
that keeps its own word can then answer 429 is shown in docs/limiter.md. The state and the decision are in limiter.lua.
"""

import contextlib
import json
import math
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from workers import clock
from workers.errors import ConfigurationError, DependencyDown, RateLimited

_SCRIPT = (Path(__file__).parent / "limiter.lua").read_text()

#: Windows are taken a thousandth longer than they are: clocks that are being corrected may run that fast.
_WIDENED = 1.001
#: A permit must be used this soon after its grant; a thread that slept longer (SIGSTOP, swap) gives it back.
_FRESH_SECONDS = 1.0


@dataclass(frozen=True)
class Limit:
    """At most `requests` requests in any `seconds` seconds.

    Parameters:
      requests(int): How many; at least 1.
      seconds(float): In which time; more than 0.
      granularity(float): How coarse the server's own clock is, in seconds; 1 for a server that counts in whole seconds.
    """

    requests: int
    seconds: float
    granularity: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.requests, int) or not 1 <= self.requests <= 1_000_000:
            raise ConfigurationError(
                f"Limit({self.requests}, ...): requests must be a whole number from 1 to 1,000,000"
            )
        if not 0 < self.seconds <= 31 * 86_400 or not 0 <= self.granularity <= 31 * 86_400:
            raise ConfigurationError(
                f"{self}: seconds must be more than 0 and at most 31 days, granularity not negative"
            )

    @property
    def window_microseconds(self) -> int:
        """How long a completed request goes on counting."""
        return math.ceil((self.seconds + self.granularity) * _WIDENED * 1_000_000)

    def __str__(self) -> str:
        return f"{self.requests}/{self.seconds:g} s"


@dataclass(frozen=True)
class Budget:
    """A named set of limits, shared by all who call the same API with the same credentials.

    Parameters:
      name(str): The same name everywhere is the same budget.
      limits(Sequence[Limit]): Every one of them holds; at least one.
    """

    name: str
    limits: tuple[Limit, ...]

    def __init__(self, name: str, limits: Sequence[Limit]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "limits", tuple(limits))
        if not name or any(c in name for c in "{} \n"):
            raise ConfigurationError(f"A budget's name may not be empty or hold spaces or braces: {name!r}")
        if not self.limits:
            raise ConfigurationError(
                f"The budget {name!r} has no limits: give it at least one Limit(requests, seconds)"
            )


@dataclass(eq=False)
class Permit:
    """The right to send one request, once, within a second."""

    id: str
    granted_at: float

    @property
    def fresh(self) -> bool:
        """Whether the request may still be sent with it."""
        return clock.monotonic() - self.granted_at < _FRESH_SECONDS


@dataclass
class Usage:
    """What a caller's waiting came to since it was last asked: each is counted once for the whole fleet."""

    hits: int = 0
    sleeps: int = 0
    slept_seconds: float = 0.0


@dataclass(frozen=True)
class WindowState:
    """One limit of a budget, now."""

    limit: Limit
    used: int


@dataclass(frozen=True)
class BudgetState:
    """A budget, now. Times to come are seconds from now; 0 means it is open.

    Attributes:
      slept_seconds: How long all sleeps that have ended were, together.
      sleeping_seconds: How long the sleep that goes on has lasted.
    """

    name: str
    windows: tuple[WindowState, ...]
    in_flight: int
    waiting: int
    opens_in_seconds: float
    paused_for_seconds: float
    paused_why: str
    granted: int
    hits: int
    sleeps: int
    slept_seconds: float
    sleeping_seconds: float


def redis_client(url: str) -> "redis.Redis":
    """Return a client for `url` with bounded waits and a few quick retries.

    Every operation that goes through it is safe to repeat.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=5,
        socket_connect_timeout=3,
        health_check_interval=30,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 3),
    )


class RateLimiter:
    """The permits of one budget, kept in Redis and shared by every process that names the budget.

    Parameters:
      budget(Budget): Whose permits.
      client(redis.Redis): Where they are kept. Without Redis there is no permit, ever.
      prefix(str): The prefix of the keys.
      max_wait_seconds(float): Longest wait that is slept in the thread; beyond it `RateLimited` is raised.
      linger_seconds(float): How long after a request's timeout the API may still count it: an assumption.

    Warning:
      A budget that Redis has lost (a flush, an empty restart) opens empty, while the API still counts what was sent
      before: it may then answer 429.
    """

    def __init__(
        self,
        budget: Budget,
        client: "redis.Redis",
        *,
        prefix: str = "sluice",
        max_wait_seconds: float = 2.0,
        linger_seconds: float = 10.0,
    ) -> None:
        self.budget = budget
        self.max_wait_seconds = max_wait_seconds
        self.linger_seconds = linger_seconds
        self._script = client.register_script(_SCRIPT)
        tag = f"{prefix}:{{{budget.name}}}"
        self._keys = [f"{tag}:{part}" for part in ("head", "ring", "flight", "grants", "waiting", "sleeps")]
        self._limits = [[limit.requests, limit.window_microseconds, limit.seconds] for limit in budget.limits]
        self._lock = threading.Lock()
        self._undelivered: dict[str, list[str]] = {"done": [], "drop": []}
        self._undelivered_pause: dict[str, Any] | None = None

    def caller(self, run_id: int | None = None, name: str | None = None) -> "Caller":
        """Return a place in this budget's line, for one thread.

        Parameters:
          run_id(int | None): The run to whose account hits and sleeps go.
          name(str | None): What tells this waiter from others in the line; random by default.
        """
        return Caller(self, run_id, name or uuid.uuid4().hex)

    def permit(self, timeout_seconds: float = 30.0) -> "_OnePermit":
        """Take one permit for the length of a `with` block, sleeping up to `max_wait_seconds` for it.

        Leaving the block normally says that the response has arrived; leaving it by an exception says that nobody
        knows, and the permit counts until `timeout_seconds` + `linger_seconds` have passed.

        Parameters:
          timeout_seconds(float): The total time the request in the block may take.

        Raises:
          RateLimited: The wait would be longer than `max_wait_seconds`.
          DependencyDown: Redis does not answer.
        """
        return _OnePermit(self.caller(), timeout_seconds)

    def snapshot(self) -> BudgetState:
        """Return the state of the budget.

        Raises:
          DependencyDown: Redis does not answer.
        """
        reply = self._call({"look": True})
        _, used, units, waiting, opens, paused, reason, granted, hits, sleeps, slept, sleeping = reply[:12]
        windows = tuple(WindowState(limit, int(u)) for limit, u in zip(self.budget.limits, used, strict=True))
        return BudgetState(
            name=self.budget.name,
            windows=windows,
            in_flight=int(units),
            waiting=int(waiting),
            opens_in_seconds=int(opens) / 1e6,
            paused_for_seconds=int(paused) / 1e6,
            paused_why=reason.decode() if paused else "",
            granted=int(granted),
            hits=int(hits),
            sleeps=int(sleeps),
            slept_seconds=int(slept) / 1e6,
            sleeping_seconds=int(sleeping) / 1e6,
        )

    def _call(self, request: dict[str, Any]) -> list[Any]:
        with self._lock:
            late, self._undelivered = self._undelivered, {"done": [], "drop": []}
            pause, self._undelivered_pause = self._undelivered_pause, None
        for kind, ids in late.items():
            if ids or kind in request:
                request[kind] = ids + list(request.get(kind, []))
        if pause and pause["us"] >= request.get("pause", pause)["us"]:
            request["pause"] = pause
        now = clock.current()
        stamp = str(round(now.now().timestamp() * 1_000_000)) if now.moved else ""
        try:
            reply: list[Any] = self._script(
                keys=self._keys, args=[stamp, json.dumps({"limits": self._limits, **request})]
            )
        except redis.RedisError as error:  # away, or not able: loading, read-only, out of memory
            self._deliver_later(request)
            why = str(error)[:200] if isinstance(error, redis.ResponseError) else type(error).__name__
            raise DependencyDown(f"Redis does not answer ({why}): no permit without it") from error
        return reply

    def _deliver_later(self, request: dict[str, Any]) -> None:
        with self._lock:
            for kind in ("done", "drop"):
                self._undelivered[kind] += request.get(kind, [])
            if ask := request.get("ask"):
                self._undelivered["drop"].append(ask["id"])
            self._undelivered_pause = request.get("pause", self._undelivered_pause)


@dataclass(eq=False)
class Caller:
    """One thread's place in the line of a budget.

    It takes permits one after the other; the end of the last request travels with the asking for the next permit, in
    one round trip. Not thread-safe.
    """

    limiter: RateLimiter
    run_id: int | None
    name: str
    usage: Usage = field(default_factory=Usage)
    #: Called before a sleep, so that what is finished need not wait with the thread.
    before_sleep: Callable[[], None] | None = None
    _held: Permit | None = None
    _refusal: tuple[float, str] = (0.0, "")
    _answered: list[str] = field(default_factory=list)

    def knock(self, timeout_seconds: float) -> None:
        """Ask for a permit ahead of the request that will use it, without sleeping.

        Afterwards either a permit is held, or the wait for it is short: `take` sleeps the rest.

        Raises:
          RateLimited: The wait is longer than the limiter's `max_wait_seconds`.
          DependencyDown: Redis does not answer.
        """
        if self._held is None or not self._held.fresh:
            self._give_back_held()
            self._held = self._ask(timeout_seconds, knock=True)

    def take(self, timeout_seconds: float) -> Permit:
        """Take the permit for one request that may last `timeout_seconds`; sleeps when the wait is short.

        Raises:
          RateLimited: The wait is longer than the limiter's `max_wait_seconds`, or the process is stopping.
          DependencyDown: Redis does not answer.
        """
        held, self._held = self._held, None
        if held and held.fresh:
            return held
        if held:
            self._drop(held)
        return self._acquire(timeout_seconds)

    def answered(self, permit: Permit) -> None:
        """Say that the response of this permit's request has arrived: Redis is told by the next call, or `settle`."""
        self._answered.append(permit.id)

    def unsent(self, permit: Permit) -> None:
        """Give back a permit whose request never reached the API."""
        self._drop(permit)

    def refused(self, permit: Permit, pause_seconds: float, reason: str) -> None:
        """Say that the request was refused with 429: the whole budget pauses, for every process.

        Parameters:
          permit(Permit): The permit of the refused request.
          pause_seconds(float): For how long.
          reason(str): What the API said.
        """
        order = {"id": permit.id, "us": math.ceil(pause_seconds * 1e6), "reason": reason}
        reply = self.limiter._call({"done": [*self._take_answered(), permit.id], "pause": order})
        self.usage.hits += int(reply[-1])

    def settle(self) -> None:
        """Tell Redis of what has been answered and give back what was not used."""
        held, self._held = self._held, None
        done, drop = self._take_answered(), [held.id] if held else []
        if done or drop:
            with contextlib.suppress(DependencyDown):  # then it rides on this process's next call, or expires by itself
                self.limiter._call({"done": done, "drop": drop})

    def put_back_usage(self, usage: Usage) -> None:
        """Count again what was taken with `take_usage` and could not be written."""
        self.usage.hits += usage.hits
        self.usage.sleeps += usage.sleeps
        self.usage.slept_seconds += usage.slept_seconds

    def take_usage(self) -> Usage:
        """Return what was counted since the last call."""
        usage, self.usage = self.usage, Usage()
        return usage

    def _acquire(self, timeout_seconds: float) -> Permit:
        deadline = clock.monotonic() + self.limiter.max_wait_seconds
        while True:
            permit = self._ask(timeout_seconds)
            if permit and permit.fresh:
                return permit
            if permit:  # the answer took longer than a permit is good for
                self._drop(permit)
                self._refusal = _FRESH_SECONDS, "Redis answers too slowly"
            wait, reason = self._refusal
            if clock.monotonic() + wait > deadline + 0.25:
                raise RateLimited(wait, reason)
            if self._sleep_until(clock.monotonic() + wait):
                self._leave()
                raise RateLimited(wait, reason)

    def _ask(self, timeout_seconds: float, *, knock: bool = False) -> Permit | None:
        """Ask once; None after a refusal whose wait is short enough to sleep."""
        ask = {
            "id": uuid.uuid4().hex,
            "weight": 1,
            "ttl_us": math.ceil((_FRESH_SECONDS + timeout_seconds + self.limiter.linger_seconds) * 1e6),
            "waiter": self.name,
            "patience_us": round(self.limiter.max_wait_seconds * 1e6),
            "knock": knock,
            "run": "" if self.run_id is None else str(self.run_id),
        }
        asked_at = clock.monotonic()
        reply = self.limiter._call({"done": self._take_answered(), "ask": ask})
        if reply[0] == -1:
            raise ConfigurationError(f"A request weighs more than the limit of {reply[1]}")
        self.usage.hits += int(reply[-1])  # of a pause that could not be delivered before
        if reply[0] == 1:
            self.usage.slept_seconds += int(reply[1]) / 1e6
            return Permit(id=str(ask["id"]), granted_at=asked_at)
        self.usage.sleeps += int(reply[3])
        wait, reason = int(reply[1]) / 1e6, f"{self.limiter.budget.name}: {reply[2].decode()}"
        if wait > self.limiter.max_wait_seconds:
            raise RateLimited(wait, reason)
        self._refusal = wait, reason
        return None

    def _sleep_until(self, instant: float) -> bool:
        if self.before_sleep:
            self.before_sleep()
        return clock.sleep(instant - clock.monotonic())

    def _take_answered(self) -> list[str]:
        answered, self._answered = self._answered, []
        return answered

    def _give_back_held(self) -> None:
        held, self._held = self._held, None
        if held:
            self._drop(held)

    def _leave(self) -> None:
        with contextlib.suppress(DependencyDown):
            self.limiter._call({"leave": self.name})

    def _drop(self, permit: Permit) -> None:
        with contextlib.suppress(DependencyDown):
            self.limiter._call({"done": self._take_answered(), "drop": [permit.id]})


class _OnePermit:
    def __init__(self, caller: Caller, timeout_seconds: float) -> None:
        self._caller = caller
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> Permit:
        self._permit = self._caller.take(self._timeout_seconds)
        return self._permit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._caller.answered(self._permit)
            self._caller.settle()
