"""Simulate fleets of callers on a real Redis in moved time, with mishaps, and an API that counts their requests.

A `Scenario` says what happens, a `Fleet` lets it happen: processes of several callers take permits and send as fast as
they get them, and obey what the API answers. The oracle sees every call of the script and judges it.
Nothing is assumed but what docs/limiter.md does: a request is counted before its response arrives, or, where none
arrives, within its timeout and the linger.
"""

import heapq
import itertools
import math
import random
import struct
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from tests.helpers.limiter_oracle import Oracle, State
from tests.helpers.limiters import SECOND, Asleep, fall_asleep, limiter_on, move_to, now_us
from tests.helpers.reference_servers import (
    COUNTERS,
    KINDS,
    SMALL_BURST,
    WHOLE_SECONDS,
    CountsRejected,
    Server,
    SlidingLog,
)
from workers import Limit, RateLimiter, clock
from workers.errors import DependencyDown, RateLimited, Refused
from workers.limiter import redis_ledger
from workers.limiter.lesson import Lesson
from workers.limiter.permits import Permit, PermitClient, Subject
from workers.limiter.state import BudgetState

#: How long after its grant a permit may be used.
FRESH_US = SECOND
ALL_KINDS = KINDS | WHOLE_SECONDS | COUNTERS | SMALL_BURST | {"log that counts refused requests": CountsRejected}


# --- the scenario -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mishap:
    """A mishap at an instant, for every process.

    `flush`: every key is gone. `lose state`, `lose ring`, `lose flight`: that one is. `roll back`: Redis is started
    again with what it had `amount_us` earlier; `fall back`: it has that without having been started. `restart`: it has
    all it had. `forget scripts`. `clock`: its clock is set forward by `amount_us`, or back. `away`: it cannot
    be reached meanwhile. `die`: every process does, and is replaced. `freeze`: one process is stopped meanwhile.
    """

    at_us: int
    what: str
    amount_us: int = 0


@dataclass(frozen=True)
class Join:
    """A process with limits of its own joins; with `alone`, all others have ended before."""

    at_us: int
    limits: tuple[Limit, ...]
    alone: bool = False


@dataclass(frozen=True)
class Scenario:
    """What happens to a fleet. Chances are out of one; what they leave is an ordinary answer."""

    limits: tuple[Limit, ...]
    processes: int = 1
    callers: int = 4
    requests: int = 60
    latency_us: int = 0
    timeout_us: int = 5 * SECOND
    linger_us: int = 3 * SECOND
    hesitates: float = 0.1
    straggles: float = 0.0
    never_answered: float = 0.0
    given_back: float = 0.0
    crashes: float = 0.0
    repeated: float = 0.0
    replies_lost: float = 0.0
    weights: int = 1
    expects: int = 1
    runs: int = 1
    share: float = 1.0
    profile: str = "burst"
    watermark: bool = False
    mishaps: tuple[Mishap, ...] = ()
    joins: tuple[Join, ...] = ()
    kind: str = ""
    api_limits: tuple[Limit, ...] = ()
    headers: str = ""
    retry_after: str = "rounded"
    foreign: str = ""
    foreign_gap_us: int = SECOND
    most_asked: int = 0
    #: Of refused requests, how many are tried again as what was refused before; and how many as refused alone.
    remembered: float = 0.0
    alone: float = 0.0
    seed: int = 0

    @property
    def ttl_us(self) -> int:
        return FRESH_US + self.timeout_us + self.linger_us

    @property
    def loses_state(self) -> bool:
        return any(mishap.what in ("flush", "lose state") for mishap in self.mishaps)

    @property
    def keeps_processes(self) -> bool:
        """Whether a process that knows the state must be left: only it can detect a loss, or a clock that was set."""
        forward = any(mishap.what == "clock" and mishap.amount_us > 0 for mishap in self.mishaps)
        unseen = any(mishap.what == "fall back" for mishap in self.mishaps)
        return forward or unseen or (self.loses_state and not self.watermark)


# --- the API ----------------------------------------------------------------------------------------------------------


class Api:
    """A server for each limit: a request is let in where all of them let it in, and only then counted."""

    def __init__(self, kind: str, limits: Sequence[Limit]) -> None:
        self.counts_rejected = kind == "log that counts refused requests"
        make = ALL_KINDS[kind]
        self.limits = limits
        self.servers: list[Server] = [make(limit.requests, round(limit.seconds * SECOND)) for limit in limits]

    def accepts(self, instant: int, weight: int) -> bool:
        fits = all(server.remaining(instant) >= weight for server in self.servers)
        if fits or self.counts_rejected:
            for server in self.servers:
                server.accepts(instant, weight)
        return fits

    def headers(self, form: str, instant: int) -> dict[str, str]:
        """What a response says of the limits: the tightest of them, or all."""
        left = [max(0, server.remaining(instant)) for server in self.servers]
        if form == "x-ratelimit":
            tightest = min(range(len(left)), key=lambda i: left[i])
            limit = self.limits[tightest].requests
            return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(left[tightest])}
        if form == "resets":
            reset = {"X-RateLimit-Reset": str(instant // 7 % 20)}  # whatever it is, it is believed
            return self.headers("x-ratelimit", instant) | reset
        if form == "draft":
            policies = ", ".join(
                f'"p{i}";q={limit.requests};w={limit.seconds:g}' for i, limit in enumerate(self.limits)
            )
            states = ", ".join(f'"p{i}";r={rest}' for i, rest in enumerate(left))
            return {"RateLimit-Policy": policies, "RateLimit": states}
        return {}

    def retry_after(self, form: str, instant: int, weight: int) -> dict[str, str]:
        """When the request would be let in, to a twentieth of the longest window."""
        longest = max(round(limit.seconds * SECOND) for limit in self.limits)
        wait = next(
            (
                w
                for w in range(0, 2 * longest, longest // 20)
                if all(s.remaining(instant + w) >= weight for s in self.servers)
            ),
            2 * longest,
        )
        if form == "exact":
            return {"Retry-After": f"{wait / SECOND:.3f}"}
        return {"Retry-After": str(wait // SECOND)} if form == "rounded" else {}


class MemoryWatermark:
    """What the database keeps of a budget, in moved time."""

    def __init__(self) -> None:
        self.until: float | None = None
        self.kept, self.kept_at = Lesson(), 0.0
        self.paused_until, self.paused_why = 0.0, ""

    def seconds(self) -> float | None:
        return None if self.until is None else self.until - clock.monotonic()

    def raise_to(self, seconds: float, ttl_seconds: float | None = None) -> None:
        self.until = max(clock.monotonic() + seconds, -math.inf if self.until is None else self.until)

    def lesson(self) -> Lesson:
        return replace(self.kept, seconds_ago=self.kept.seconds_ago + clock.monotonic() - self.kept_at)

    def keep_lesson(self, lesson: Lesson) -> None:
        self.kept, self.kept_at = lesson, clock.monotonic()

    def pause(self) -> tuple[float, str]:
        left = self.paused_until - clock.monotonic()
        return (left, self.paused_why) if left > 0 else (0.0, "")

    def keep_pause(self, seconds: float, why: str) -> None:
        until = clock.monotonic() + seconds
        if until > self.paused_until:
            self.paused_until, self.paused_why = until, why


#: Where the script's own arguments begin, in a command: after its name, the script, the number of keys and six keys.
FIRST = 9


# --- the way to Redis -------------------------------------------------------------------------------------------------


class Wire(redis.Redis):
    """A client that now and then loses a reply, and whose calls the oracle sees.

    Some lost replies are asked for again, as redis-py does after a broken connection; some are not.
    """

    fleet: "Fleet"
    #: For the controls: a process that stamps by a clock of its own, or retells an age.
    ahead_us = 0
    retold: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        if arguments[0] not in ("EVALSHA", "EVAL"):
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]
        fleet, scenario = self.fleet, self.fleet.scenario
        if now_us() < fleet.away_until:
            raise redis.ConnectionError("away")
        if self.ahead_us:
            arguments = (*arguments[:FIRST], str(int(arguments[FIRST]) + self.ahead_us), *arguments[FIRST + 1 :])
        if self.retold:
            arguments = self.retold(arguments)
        if fleet.script:
            arguments = ("EVAL", fleet.script, *arguments[2:])
        reply = self._call(arguments, options)
        if scenario.repeated and fleet.dice.random() < scenario.repeated:
            reply = self._call(arguments, options)
        if scenario.replies_lost and fleet.dice.random() < scenario.replies_lost:
            raise redis.ConnectionError("lost")
        return reply

    def _call(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        reply = super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]
        if self.fleet.oracle:
            self.fleet.oracle.listen(arguments[FIRST:], reply)
        return reply


# --- the fleet --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Process:
    """What knows nothing of other processes, and dies with what it knows."""

    limiter: RateLimiter
    limits: tuple[Limit, ...]
    alive: bool = True
    callers: int = 0
    frozen_until: int = 0


@dataclass(eq=False)
class Request:
    """One request on its way."""

    process: Process
    caller: PermitClient
    permit: Permit
    refused: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Counted:
    """What the API counted: when, as how much, and whose limits were kept (None: those of another user of the key)."""

    at_us: int
    weight: int
    limits: tuple[Limit, ...] | None


@dataclass
class Fleet:
    """Processes on one budget. Ways to be wrong about the rule are switches, for the controls."""

    client: redis.Redis
    scenario: Scenario
    believed: tuple[Limit, ...] = ()
    script: str = ""
    listens: bool = True
    completes_when_sent: bool = False
    completes_when_timed_out: bool = False
    skews_us: tuple[int, ...] = ()
    retold: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = None
    on_hire: Callable[[RateLimiter], None] | None = None

    def __post_init__(self) -> None:
        scenario = self.scenario
        self.dice = random.Random(scenario.seed)
        self.oracle = Oracle() if self.listens else None
        self.prefix = f"s{uuid.uuid4().hex[:12]}"
        self.watermark = MemoryWatermark() if scenario.watermark else None
        self.api = Api(scenario.kind, scenario.api_limits or scenario.limits) if scenario.kind else None
        self.processes: list[Process] = []
        self.process_of: dict[PermitClient, Process] = {}
        self.events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = itertools.count()
        self.snapshots: dict[Mishap, tuple[dict[str, bytes], State | None]] = {}
        self.granted = self.asked = self.away_until = 0
        self.paused_until, self.incident_at, self.incidents = 0, -1, 0
        #: What the API counted, which of our requests it refused; of the last header that arrived, when it was
        #: written and when its request was granted; and refusals that could have been foreseen.
        self.counted: list[Counted] = []
        self.refused: list[int] = []
        self.foreign_at: list[int] = []
        self.last_header = (0, 0)
        self.surprises: list[int] = []
        self.keys: list[str] = []

    def run(self) -> "Fleet":
        """Let the callers send all requests."""
        before, scenario = clock.current(), self.scenario
        self.moved = clock.MovedClock()
        clock.use(self.moved)
        try:
            for number in range(scenario.processes):
                process = self.start(self.believed or scenario.limits)
                share = range(number, scenario.callers, scenario.processes)
                for _ in share or range(1):
                    self.at(0, self.ask, self.hire(process))
            for mishap in scenario.mishaps:
                if "back" in mishap.what:
                    self.at(max(1, mishap.at_us - mishap.amount_us), self.remember, mishap)
                self.at(mishap.at_us, self.apply, mishap)
            for join in scenario.joins:
                self.at(join.at_us, self.join, join)
            if scenario.foreign:
                self.foreign_logs = [
                    SlidingLog(limit.requests - self.ours(limit), round(limit.seconds * SECOND))
                    for limit in scenario.limits
                ]
                self.at(self.dice.randrange(2 * scenario.foreign_gap_us), self.foreigners_send)
            while self.events:
                instant, _, happens, arguments = heapq.heappop(self.events)
                move_to(instant)
                happens(*arguments)
            self.snapshot = self.look()
            self.check_ring()
        finally:
            clock.use(before)
            self.client.delete(*self.keys)
        return self

    def look(self) -> BudgetState | None:
        self.away_until = 0
        with suppress(DependencyDown):  # the reply was lost
            return self.processes[-1].limiter.snapshot()
        return None

    def check_ring(self) -> None:
        """Completions are sorted, and what is in flight is a sum that can be."""
        stored, ring = self._bytes(self.keys[0]), self._bytes(self.keys[1])
        if stored and ring:
            size, n, units = (int(struct.unpack_from(">d", stored, 8 * at)[0]) for at in (3, 4, 6))
            entries = struct.unpack(f">{len(ring) // 8}Q", ring)
            in_order = [entries[(n + i) % len(entries)] for i in range(len(entries))]
            if len(entries) == size:
                assert in_order == sorted(in_order)
            assert units >= 0

    def _bytes(self, key: str) -> bytes:
        value = self.client.get(key)
        assert value is None or isinstance(value, bytes)
        return value or b""

    def at(self, instant: int, happens: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self.events, (instant, next(self.order), happens, arguments))

    def start(self, limits: tuple[Limit, ...]) -> Process:
        wire, scenario = Wire(connection_pool=self.client.connection_pool), self.scenario
        wire.fleet, wire.retold = self, self.retold
        if self.skews_us:
            wire.ahead_us = self.skews_us[len(self.processes) % len(self.skews_us)]
        limiter = limiter_on(
            wire,
            *limits,
            prefix=self.prefix,
            linger_seconds=scenario.linger_us / SECOND,
            max_wait_seconds=2.0,
            profile=scenario.profile,
            share=scenario.share,
            watermark=self.watermark,
        )
        if self.on_hire:
            self.on_hire(limiter)
        self.keys = limiter.ledger.keys
        self.processes.append(Process(limiter, limits))
        return self.processes[-1]

    def hire(self, process: Process) -> PermitClient:
        caller = process.limiter.permit_client(run_id=1 + next(self.order) % self.scenario.runs)
        caller.before_sleep = fall_asleep
        self.process_of[caller] = process
        process.callers += 1
        return caller

    def is_held_up(self, caller: PermitClient, happens: Callable[..., None], *arguments: Any) -> bool:
        """Whether nothing happens to this caller now: it died, or is frozen and does it later."""
        process = self.process_of[caller]
        if process.alive and now_us() < process.frozen_until:
            self.at(process.frozen_until, happens, *arguments)
            return True
        return not process.alive

    def ours(self, limit: Limit) -> int:
        return max(1, math.floor(limit.requests * self.scenario.share + 1e-6))

    @property
    def is_done(self) -> bool:
        # Where most requests are lost, and windows are short, callers mostly ask in vain: that is not worth the time.
        enough = self.scenario.most_asked or 6 * self.scenario.requests + 10 * self.scenario.callers + 100
        return self.granted >= self.scenario.requests or self.asked > enough

    # --- a request ----------------------------------------------------------------------------------------------------

    def ask(self, caller: PermitClient) -> None:
        if self.is_held_up(caller, self.ask, caller):
            return
        self.asked += 1
        if self.is_done:
            caller.flush()
            return
        scenario, now = self.scenario, now_us()
        at_once = [limit.burst for limit in scenario.limits if limit.burst]
        most = min(scenario.weights, *map(self.ours, scenario.limits), *at_once)
        weight = self.dice.randint(1, most) if most > 1 else 1
        caller.expects = max(caller.expects, self.dice.randint(1, scenario.expects))
        try:
            permit = caller.acquire(scenario.timeout_us / SECOND, weight)
        except Asleep:
            self.at(now + math.ceil(caller._refusal[0] * SECOND), self.ask, caller)
        except DependencyDown:
            self.at(now + SECOND // 2, self.ask, caller)
        except RateLimited as wait:
            self.at(now + math.ceil(wait.wait_seconds * SECOND), self.ask, caller)
        else:
            self.granted += 1
            # Most requests are sent at once; a few by a thread that had something else to do.
            hesitates = self.dice.random() < scenario.hesitates
            self.at(now + self.dice.randrange(FRESH_US) if hesitates else now, self.send, caller, permit)

    def send(self, caller: PermitClient, permit: Permit) -> None:
        if self.is_held_up(caller, self.send, caller, permit):
            return
        scenario, number, now = self.scenario, self.dice.random(), now_us()
        if not permit.fresh or number < scenario.given_back:
            self.granted -= 1
            caller.unsent(permit)
            self.ask(caller)
            return
        request, too_late = Request(self.process_of[caller], caller, permit), scenario.timeout_us + scenario.linger_us
        number -= scenario.given_back
        if number < scenario.crashes:
            if self.dice.random() < 0.5:
                self.at(now + self.dice.randint(0, too_late), self.count, request)
            self.crash(caller)
        elif number < scenario.crashes + scenario.never_answered:
            late = self.dice.choice([0, self.dice.randint(0, too_late), too_late])
            self.at(now + late, self.count, request)
            self.at(now + scenario.timeout_us, self.time_out, request)
        else:
            slow = self.dice.random() < scenario.straggles
            latency = self.dice.randint(0, scenario.timeout_us if slow else scenario.latency_us)
            self.at(now + self.dice.choice([0, self.dice.randint(0, latency), latency]), self.count, request)
            if self.completes_when_sent:
                caller.answered(permit)
                caller.flush()
            self.at(now + latency, self.respond, request)

    def count(self, request: Request) -> None:
        """The API counts the request, and writes its answer."""
        scenario, now, weight = self.scenario, now_us(), request.permit.weight
        self.counted.append(Counted(now, weight, request.process.limits))
        if not self.api:
            return
        request.refused = not self.api.accepts(now, weight)
        request.headers = self.api.headers(scenario.headers, now) | {"X-Written": str(now)}
        if request.refused:
            self.refused.append(now)
            request.headers |= self.api.retry_after(scenario.retry_after, now, weight)
            if not self.is_unknowable(now):
                self.surprises.append(now)

    def is_unknowable(self, now: int) -> bool:
        """Whether others came after the last header that arrived, or it left open how much they had spent.

        What had expired at the server when it wrote the header, but not at the grant before it, can be another's.
        What others had spent, and the server had forgotten by then, but was still debited here, may hide as much.
        """
        written, granted_at = self.last_header
        for limit in self.scenario.limits:
            window, ours = round(limit.seconds * SECOND), limit.window_microseconds
            if any(at + window <= written <= at + 2 * ours and at + ours <= now for at in self.foreign_at):
                return True
        if any(written <= foreign <= now for foreign in self.foreign_at):
            return True
        return any(
            granted_at - limit.window_microseconds < counted.at_us <= written - round(limit.seconds * SECOND)
            for counted in self.counted
            if counted.limits
            for limit in self.scenario.limits
        )

    def respond(self, request: Request) -> None:
        caller, now, granted_at = request.caller, now_us(), round(request.permit.granted_at * SECOND)
        scenario = self.scenario
        if self.is_held_up(caller, self.respond, request):
            return
        if request.refused:
            self.watch_pause(request)
        try:
            caller.report(request.permit, 429 if request.refused else 200, request.headers)
        except DependencyDown:
            self.at(now + SECOND // 2, self.ask, caller)
            return
        except RateLimited as wait:
            self.granted -= 1
            if isinstance(wait, Refused) and self.dice.random() < scenario.remembered:
                caller.subject = Subject(wait.at_us, alone=self.dice.random() < scenario.alone)
            self.paused_until = max(self.paused_until, now + math.ceil(wait.wait_seconds * SECOND))
            self.at(now + math.ceil(wait.wait_seconds * SECOND), self.ask, caller)
            return
        self.last_header = max(self.last_header, (int(request.headers.get("X-Written", 0)), granted_at))
        caller.subject = Subject()
        thinks = self.dice.random() < scenario.hesitates
        self.at(now + (self.dice.randrange(SECOND) if thinks else 0), self.ask, caller)

    def watch_pause(self, request: Request) -> None:
        """Count a burst of 429s: one more where the budget was not paused, and the request was sent after the last."""
        if now_us() >= self.paused_until and round(request.permit.granted_at * SECOND) > self.incident_at:
            self.incidents += 1
            self.incident_at = now_us()

    def time_out(self, request: Request) -> None:
        if self.is_held_up(request.caller, self.time_out, request):
            return
        if self.completes_when_timed_out:
            request.caller.answered(request.permit)
        self.ask(request.caller)

    # --- mishaps ----------------------------------------------------------------------------------------------------

    def crash(self, caller: PermitClient) -> None:
        """A process is replaced, its unreported ends are lost. where no other knows the state, a thread dies."""
        process = self.process_of[caller]
        if self.scenario.keeps_processes:
            process.callers -= 1
            self.at(now_us(), self.ask, self.hire(process))
        else:
            self.replace(process)

    def replace(self, process: Process) -> None:
        process.alive = False
        successor = self.start(process.limits)
        for _ in range(process.callers):
            self.at(now_us(), self.ask, self.hire(successor))

    def join(self, join: Join) -> None:
        if self.is_done:
            return
        if join.alone:
            for process in self.processes:
                process.alive = False
        joined = self.start(join.limits)
        for _ in range(2):
            self.ask(self.hire(joined))

    def foreigners_send(self) -> None:
        """Others use the same key: within their share, or as they like."""
        if self.is_done:
            return
        now, scenario = now_us(), self.scenario
        for _ in range(self.dice.randint(1, max(1, scenario.limits[0].requests // 2))):
            if scenario.foreign == "within":
                if any(log.remaining(now) < 1 for log in self.foreign_logs):
                    break
                for log in self.foreign_logs:
                    log.accepts(now)
            self.counted.append(Counted(now, 1, None))
            self.foreign_at.append(now)
            if self.api:
                self.api.accepts(now, 1)
        self.at(now + self.dice.randint(1, 2 * scenario.foreign_gap_us), self.foreigners_send)

    def remember(self, mishap: Mishap) -> None:
        dumps = {key: self.client.dump(key) for key in self.keys}
        kept = {key: dump for key, dump in dumps.items() if dump}
        self.snapshots[mishap] = kept, self.oracle.copy() if self.oracle else None

    def apply(self, mishap: Mishap) -> None:
        what, _, part = mishap.what.partition(" ")
        getattr(self, f"on_{what}")(mishap, part)
        if self.oracle and self.oracle.state is None:
            self.oracle.remains = bool(self.client.exists(*self.keys[1:3]))

    def on_flush(self, *_: object) -> None:
        self.client.delete(*self.keys)
        if self.oracle:
            self.oracle.state = None

    def on_lose(self, _: object, part: str) -> None:
        lost = self.client.delete(self.keys[0].removesuffix("state") + part)
        if self.oracle and self.oracle.state and lost:
            self.oracle.state.damaged = True
            if part == "state":
                self.oracle.state = None

    def on_fall(self, mishap: Mishap, _: object) -> None:
        kept, state = self.snapshots[mishap]
        self.client.delete(*self.keys)
        for key, dump in kept.items():
            self.client.restore(key, 0, dump)
        if self.oracle:
            self.oracle.state = state

    def on_roll(self, mishap: Mishap, _: object) -> None:
        self.on_fall(mishap, _)
        self.on_restart()

    def on_restart(self, *_: object) -> None:
        """Let the state be one that another run of Redis has written, as after a restart or a failover."""
        if stored := self._bytes(self.keys[0]):
            run_id = self.client.info("server")["run_id"].encode()
            last_save = 39 * 8  # the last of the header's numbers
            stored = stored[:last_save] + struct.pack(">d", 1.0) + stored[last_save + 8 :]
            self.client.set(self.keys[0], stored.replace(run_id, run_id[::-1]))
        if self.oracle and self.oracle.state:
            self.oracle.state.elsewhere = True
        self.client.script_flush()

    def on_forget(self, *_: object) -> None:
        self.client.script_flush()

    def on_relearn(self, *_: object) -> None:
        with suppress(DependencyDown):
            self.processes[-1].limiter.relearn("ann")

    def on_clock(self, mishap: Mishap, _: object) -> None:
        self.moved.step(mishap.amount_us / SECOND)

    def on_away(self, mishap: Mishap, _: object) -> None:
        self.away_until = now_us() + mishap.amount_us

    def on_die(self, *_: object) -> None:
        for process in [process for process in self.processes if process.alive]:
            self.replace(process)

    def on_freeze(self, mishap: Mishap, _: object) -> None:
        process = self.dice.choice([process for process in self.processes if process.alive])
        process.frozen_until = now_us() + mishap.amount_us


# --- what the API would say -------------------------------------------------------------------------------------------


def refusals(
    counted: Sequence[Counted], limits: Sequence[Limit], kinds: Sequence[str] = tuple(KINDS)
) -> dict[str, int]:
    """How many of these requests each kind of server refuses, under each limit; empty where none does."""
    found = {}
    in_order = sorted(counted, key=lambda request: request.at_us)
    for kind in kinds:
        for limit in limits:
            server = ALL_KINDS[kind](limit.requests, round(limit.seconds * SECOND))
            count = sum(not server.accepts(request.at_us, request.weight) for request in in_order)
            if count:
                found[f"{kind}, {limit}"] = count
    return found


def too_many(counted: Sequence[Counted], limits: tuple[Limit, ...]) -> int:
    """How many requests of callers with these limits find a full log, which counts the requests of all callers."""
    in_order, found = sorted(counted, key=lambda request: request.at_us), 0
    for limit in limits:
        window, units, first = round(limit.seconds * SECOND), 0, 0
        for request in in_order:
            units += request.weight
            while in_order[first].at_us <= request.at_us - window:
                units -= in_order[first].weight
                first += 1
            found += request.limits == limits and units > limit.requests
    return found


def mutated(*changes: tuple[str, str]) -> str:
    """The script with something changed, for the controls."""
    script = redis_ledger._SCRIPT
    for old, new in changes:
        assert script.count(old) == 1, f"{old!r} stands {script.count(old)} times in limiter.lua"
        script = script.replace(old, new)
    return script
