"""Ledger: calls limiter.lua for one budget, retries safely, and detects lost state and a Redis clock set forward.

A state that was lost, or a clock that cannot be right, grants no permit. The proofs are in docs/limiter.md.
"""

import contextlib
import itertools
import json
import logging
import math
import os
import secrets
import struct
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import redis

from workers import clock
from workers.connections import redis_errors
from workers.errors import BudgetUnknown, ConfigurationError, DependencyDown, SluiceError
from workers.limiter import script_arguments
from workers.limiter.budget import Budget
from workers.limiter.lesson import Lesson
from workers.limiter.script_messages import (
    CLOCK_AHEAD,
    STATE_LOST,
    Applied,
    NewState,
    PauseRequest,
    PermitReply,
    PermitRequest,
    RawReply,
    Request,
    StateReport,
    is_granted,
    read_info,
    read_reply,
)

log = logging.getLogger(__name__)

#: A permit must be used this soon after its grant; a thread that slept longer (SIGSTOP, swap) gives it back.
FRESH_SECONDS = 1.0

_SCRIPT = (Path(__file__).parent / "limiter.lua").read_text()
_KEY_PARTS = ("state", "ring", "flight", "waiting", "runs", "notes")

#: The watermark is raised this far ahead, and again when half of that has passed.
_WATERMARK_AHEAD_SECONDS = 10.0
#: How much too fast a clock can run, as a fraction; and the error of reading a reply.
_DRIFT = 0.001
_READING_SECONDS = 0.001
#: The most undelivered completions and returned permits that are kept. The permits of older ones expire.
_MOST_UNDELIVERED = 10_000
#: `counts_us` of a process that has taken no permit yet.
_NEVER_US = -(10**15)
#: A pause longer than this is also kept outside Redis.
_KEPT_PAUSE_SECONDS = 60.0
#: An error of the script that begins so means that an argument is out of range.
_OUT_OF_RANGE = "SLUICE"
#: These parts of a request have arguments of their own; the other parts, which are rare, are sent as JSON.
_OWN_ARGUMENTS = {"ask", "done"}


class Watermark(Protocol):
    """What is kept of one budget outside Redis. `workers.records.watermark.Watermark` keeps it in the database."""

    def seconds(self) -> float | None:
        """Return for how long from now a request can still be counted; negative: since when none can; None: unused."""

    def raise_to(self, seconds: float, ttl_seconds: float | None = None) -> None:
        """Record that requests can be counted until `seconds` from now, and none for longer than `ttl_seconds`."""

    def lesson(self) -> Lesson:
        """Return what `auto` learned; Lesson() where that is unknown."""

    def keep_lesson(self, lesson: Lesson) -> None:
        """Record what `auto` learned."""

    def pause(self) -> tuple[float, str]:
        """Return for how many seconds from now the budget pauses, and why; (0.0, "") where it does not."""

    def keep_pause(self, seconds: float, why: str) -> None:
        """Record a pause that begins now; never shorten the recorded one."""


@dataclass(frozen=True)
class Refusal:
    """The effect of a reported refusal.

    Attributes:
      hit(int): 1 where a rate-limit hit was counted: the first refusal of a burst, or one that concerns one request.
      pause_seconds(float): For how long the budget pauses.
      own(bool): Whether the refusal concerns its request alone: then it has not paused the budget.
      at_us(int): When that was, by the budget's clock.
    """

    hit: int
    pause_seconds: float
    own: bool
    at_us: int


@dataclass
class _SeenState:
    """What this process has seen of the state: evidence against an older state, or another one."""

    epoch: int = 0
    seq: int = 0
    #: The most by which Redis's clock can be ahead of this process's monotonic clock, and when that was measured.
    ahead_seconds: float = math.inf
    ahead_at: float = 0.0
    last_grant_at: float = -math.inf
    longest_ttl_us: int = 0


class Ledger:
    """The permits of one budget in Redis, as this process knows them. Thread-safe.

    Parameters:
      budget(Budget): The budget.
      client(redis.Redis): Where the permits are kept.
      prefix(str): The prefix of the Redis keys.
      linger_seconds(float): How long after a request's timeout the API can still count it.
      watermark(Watermark | None): The part of the state that is kept outside Redis.
    """

    def __init__(
        self, budget: Budget, client: "redis.Redis", prefix: str, linger_seconds: float, watermark: Watermark | None
    ) -> None:
        self.budget = budget
        self.client = client
        self.keys = [f"{prefix}:{{{budget.name}}}:{part}" for part in _KEY_PARTS]
        self.watermark = watermark
        self._linger_seconds = linger_seconds
        self._sha = client.register_script(_SCRIPT).sha
        self._budget_argument = script_arguments.of_budget(budget)
        self._id_prefix = uuid.uuid4().hex[:10]
        self._id_numbers = itertools.count()
        self._lock = threading.Lock()
        self._seen = _SeenState()
        self._found_lost = False
        self._undelivered = Request()
        self._pause: tuple[float, str] = (-math.inf, "")
        self._kept_pause_until = -math.inf
        self._watermark_lock = threading.Lock()
        self._watermark_until: tuple[float, int] = (-math.inf, 0)
        self._learned = 0

    def read_state(self, weight: int = 1) -> StateReport | None:
        """Return the state as limiter.lua reports it; None where there is none, or it is lost.

        Writes nothing, except that it completes permits past their deadline.

        Parameters:
          weight(int): The weight of the request for which the next opening is computed.

        Raises:
          BudgetUnknown: Redis does not answer.
        """
        request: Request = {"look": True}
        if weight > 1:
            request["weight"] = weight
        reply = self._run_script(request, clock.monotonic())
        if reply[0] == STATE_LOST:
            return None
        report: StateReport = json.loads(reply[1])
        return report

    def is_paused(self) -> bool:
        """Return whether this process knows of a pause that still lasts."""
        return clock.monotonic() < self._pause[0]

    def new_ids(self, count: int) -> list[str]:
        """Return ids for permits, never used before."""
        return [f"{self._id_prefix}{os.getpid():x}-{next(self._id_numbers):x}" for _ in range(count)]

    def ttl_microseconds(self, timeout_seconds: float) -> int:
        """Return how long a permit counts if no response completes it."""
        return math.ceil((FRESH_SECONDS + timeout_seconds + self._linger_seconds) * 1e6)

    def request_permits(self, request: Request, ask: PermitRequest) -> PermitReply:
        """Ask for permits, and report completed requests in the same round trip.

        Parameters:
          request(Request): What there is to report.
          ask(PermitRequest): The permits.

        Raises:
          BudgetUnknown: Redis, or the store of the watermark, does not answer.
        """
        with self._lock:
            self._seen.longest_ttl_us = max(self._seen.longest_ttl_us, ask["ttl_us"])
        raw = self._call(Request(**request, ask=ask))
        assert raw  # a request for permits makes lost state anew
        if is_granted(raw) and self.watermark:
            try:
                self._raise_watermark(self.watermark, ask["ttl_us"])
            except BaseException:
                self._deliver_later({"drop": ask["ids"]})
                raise
        reply = read_reply(raw)
        assert not isinstance(reply, Applied)
        return reply

    def send(self, request: Request) -> Applied | None:
        """Report something that asks for no permit.

        Returns:
          Applied | None: None where the state is lost. Completions are then delivered by the next permit request.

        Raises:
          BudgetUnknown: Redis does not answer.
        """
        raw = self._call(request)
        if raw is None:
            return None
        reply = read_reply(raw)
        assert isinstance(reply, Applied)
        return reply

    def report_refusal(self, request: Request, refused: PauseRequest) -> Refusal:
        """Report that the API refused a request: the budget pauses in every process, unless the request is to blame.

        Raises:
          BudgetUnknown: Redis does not answer; this process's next call delivers the pause.
        """
        asked_seconds, reason = refused["us"] / 1e6, refused["reason"]
        try:
            applied = self.send(Request(**request, pause=refused))
        except BudgetUnknown:
            if not refused["alone"]:
                self._remember_pause(asked_seconds, reason)
                self._keep_pause(asked_seconds, reason)
            raise
        # Where the state is lost, the next permit request delivers the pause.
        own = applied.own if applied else refused["alone"]
        seconds = applied.paused_seconds if applied else asked_seconds
        if not own:
            self._remember_pause(seconds, reason)
            self._keep_pause(seconds, reason)
        at_us = applied.at_us if applied else 0
        return Refusal(applied.hits if applied else 0, seconds, own, at_us or round(clock.now().timestamp() * 1e6))

    def _call(self, request: Request) -> RawReply | None:
        """Run the script until its reply can be trusted; return that reply, None where the state is lost."""
        request = self._with_undelivered(request)
        for _ in range(5):
            sent_at = clock.monotonic()
            reply = self._run_script(request, sent_at)
            if reply[0] == STATE_LOST:
                if "ask" not in request:
                    self._deliver_later(request)
                    return None
                try:
                    request["anew"] = self._new_state()
                except BaseException:
                    self._deliver_later(request)
                    raise
                continue
            step = self._note_reply(request, reply, sent_at)
            if reply[0] == CLOCK_AHEAD:  # nothing was done
                if step:
                    request["step"] = step
                else:
                    request["sure"] = True
                continue
            if step is None:
                return reply
            # A clock that was set forward granted these permits: give them back, and ask again.
            again: Request = {"step": step}
            if "ask" in request:
                again["ask"] = request["ask"]
                if is_granted(reply):
                    again["drop"] = request["ask"]["ids"]
            request = again
        self._deliver_later(request)
        raise BudgetUnknown("Redis does not keep its state from one call to the next: no permit is granted")

    def _run_script(self, request: Request, sent_at: float) -> RawReply:
        rare = {name: value for name, value in request.items() if name not in _OWN_ARGUMENTS}
        if (paused_seconds := self._pause[0] - sent_at) > 0:
            rare["paused"] = [math.ceil(paused_seconds * 1e6), self._pause[1]]
        moved = clock.current()
        stamp = str(round(moved.now().timestamp() * 1_000_000)) if moved.moved else ""
        arguments: list[bytes | str | int] = [
            self._budget_argument,
            self._seen_argument(sent_at),
            json.dumps(rare) if rare else "",
            *script_arguments.of_permit_request(request.get("ask")),
        ]
        for permit, at in request.get("done", ()):
            arguments += permit, max(0, math.floor((sent_at - at) * 1e6 + 0.01))
        try:
            return self._evaluate(stamp, arguments, read_only="look" in request)
        except redis.RedisError as error:
            if str(error).startswith(_OUT_OF_RANGE):  # it would be refused at each delivery
                raise ConfigurationError(
                    f"budget {self.budget.name}: {str(error).removeprefix(_OUT_OF_RANGE).strip()}"
                ) from error
            self._deliver_later(request)
            trouble = redis_errors.trouble(error)
            raise BudgetUnknown(f"{trouble.what}: no permit without it. To do: {trouble.repair}") from error

    def _seen_argument(self, sent_at: float) -> bytes:
        seen = self._seen
        if not seen.epoch:
            return b""
        counts = (seen.last_grant_at - sent_at) * 1e6 + seen.longest_ttl_us
        latest = (seen.ahead_seconds + (sent_at - seen.ahead_at) * _DRIFT + sent_at) * 1e6
        return struct.pack(">4d", seen.epoch, seen.seq, math.ceil(max(counts, _NEVER_US)), latest)

    def _evaluate(self, stamp: str, arguments: list[bytes | str | int], *, read_only: bool) -> RawReply:
        """Run the script. Where Redis does not have it, Redis was perhaps restarted: an argument says so.

        A read must not load the script under its name: the next permit request has to see that the script was missing.
        A replica can answer the read, and cannot record that.
        """
        reply: RawReply | None = None
        count, keys = len(self.keys), self.keys
        if not self._found_lost:
            with contextlib.suppress(redis.exceptions.NoScriptError):
                reply = cast(RawReply, self.client.evalsha(self._sha, count, *keys, stamp, "", *arguments))
        if reply is None:
            text = _SCRIPT + "-- look" if read_only else _SCRIPT
            reply = cast(RawReply, self.client.eval(text, count, *keys, stamp, "1", *arguments))
        if not read_only:
            self._found_lost = reply[0] == STATE_LOST  # the call that makes it anew must find the same
        return list(reply)

    def _note_reply(self, request: Request, reply: RawReply, sent_at: float) -> list[int] | None:
        """Record what a reply shows of the state; return how to correct the clock, where it was set forward."""
        received_at = clock.monotonic()
        info = read_info(reply)
        with self._lock:
            seen = self._seen
            if info.epoch != seen.epoch:
                seen.epoch, seen.seq, seen.ahead_seconds = info.epoch, info.seq, math.inf
            seen.seq = max(seen.seq, info.seq)
            jumped = self._jumped(seen, info.now_us / 1e6, sent_at, received_at)
            if not jumped and "ask" in request and is_granted(reply):
                seen.last_grant_at = max(seen.last_grant_at, received_at)
        if info.learned != self._learned and self.budget.profile == "auto":
            self._keep_learned(info.learned)
        return [info.epoch, info.offset_us, math.ceil(jumped * 1e6)] if jumped else None

    def _jumped(self, seen: _SeenState, redis_now: float, sent_at: float, received_at: float) -> float:
        """Return by how many seconds Redis's clock was provably set forward since this process first read it.

        Redis read `redis_now` between `sent_at` and `received_at`. That bounds from both sides, as in NTP, how far its
        clock is ahead of this process's. A lower bound above the least upper bound so far is a step.
        """
        most = seen.ahead_seconds + (received_at - seen.ahead_at) * _DRIFT
        jumped = (redis_now - received_at) - most
        if jumped > _READING_SECONDS:
            return jumped
        seen.ahead_seconds, seen.ahead_at = min(most, redis_now - sent_at), received_at
        return 0.0

    def _raise_watermark(self, watermark: Watermark, ttl_us: int) -> None:
        """Raise the watermark above a permit that was just granted, before the permit is used.

        Not before the grant: the first process ever would then take the raise of the second for use of the budget.
        """
        until, raised_ttl = raised = self._watermark_until
        left = until - clock.monotonic()
        if ttl_us <= raised_ttl and left > _WATERMARK_AHEAD_SECONDS / 2:
            return
        must = ttl_us > raised_ttl or left < FRESH_SECONDS
        if not self._watermark_lock.acquire(blocking=must):
            return  # another thread raises it now
        try:
            if self._watermark_until != raised and self._watermark_until[1] >= ttl_us:
                return
            now, ttl_us = clock.monotonic(), max(ttl_us, raised_ttl)
            watermark.raise_to(_WATERMARK_AHEAD_SECONDS + ttl_us / 1e6, ttl_us / 1e6)
            self._watermark_until = now + _WATERMARK_AHEAD_SECONDS, ttl_us
        except DependencyDown as error:
            raise BudgetUnknown(str(error)) from error
        except SluiceError:
            raise
        except Exception as error:
            raise BudgetUnknown(f"the database did not save the budget's watermark ({_named(error)})") from error
        finally:
            self._watermark_lock.release()

    def _new_state(self) -> NewState:
        """Return what the script must know to make lost state anew: until when earlier requests can be counted."""
        new: NewState = {"epoch": secrets.randbits(48) + 1, "ttl_us": self._seen.longest_ttl_us}
        script_arguments.put_lesson(new, Lesson())
        counts = self._watermark_seconds(new)
        own = self._seen.last_grant_at - clock.monotonic() + self._seen.longest_ttl_us / 1e6
        if counts is None and self._seen.epoch:
            counts = self._seen.longest_ttl_us / 1e6
        if counts is not None:
            new["counts_us"] = math.ceil(max(counts, own, -1e9) * 1e6)
        return new

    def _watermark_seconds(self, new: NewState) -> float | None:
        """Return for how long requests can still be counted; add the lesson and the pause that were kept to `new`."""
        if self.watermark is None:
            return None
        try:
            script_arguments.put_lesson(new, self.watermark.lesson())
            paused_seconds, why = self.watermark.pause()
            if paused_seconds > 0:
                new["paused"] = (math.ceil(paused_seconds * 1e6), why)
            return self.watermark.seconds()
        except DependencyDown as error:
            raise BudgetUnknown(str(error)) from error
        except SluiceError:
            raise
        except Exception as error:
            raise BudgetUnknown(f"the database did not return the budget's watermark ({_named(error)})") from error

    def _keep_learned(self, learned: int) -> None:
        """Keep outside Redis what `auto` learned or forgot. The number changes with each hit, too."""
        before, self._learned = self._learned, learned
        if not self.watermark or not (learned % 4 or before % 4):
            return
        try:
            if report := self.read_state():
                self.watermark.keep_lesson(script_arguments.lesson_of(report))
        except Exception:
            self._learned = before
            log.warning("budget %s: what it learned was not saved in the database", self.budget.name, exc_info=True)

    def _keep_pause(self, seconds: float, reason: str) -> None:
        """Keep a long pause outside Redis."""
        until = clock.monotonic() + seconds
        if not self.watermark or seconds <= _KEPT_PAUSE_SECONDS or until < self._kept_pause_until + FRESH_SECONDS:
            return  # of a refused burst, one thread has saved it
        try:
            self.watermark.keep_pause(seconds, reason)
            self._kept_pause_until = until
        except Exception:  # Redis has it
            log.warning("budget %s: its pause was not saved in the database", self.budget.name, exc_info=True)

    def _remember_pause(self, seconds: float, reason: str) -> None:
        self._pause = max(self._pause, (clock.monotonic() + seconds, reason))

    def _with_undelivered(self, request: Request) -> Request:
        """Return the request, with what earlier calls could not deliver before its own parts."""
        request = request.copy()
        with self._lock:
            late, self._undelivered = self._undelivered, Request()
        if done := late.get("done"):
            request["done"] = done + request.get("done", [])
        if drop := late.get("drop"):
            request["drop"] = drop + request.get("drop", [])
        if bad := late.get("bad"):
            request["bad"] = bad + request.get("bad", [])
        pause = late.get("pause")
        if pause and pause["us"] >= request.get("pause", pause)["us"]:
            request["pause"] = pause
        return request

    def _deliver_later(self, request: Request) -> None:
        """Keep what must not get lost of a request that failed, for the next call."""
        with self._lock:
            late = self._undelivered
            if done := request.get("done"):
                late["done"] = (late.get("done", []) + done)[-_MOST_UNDELIVERED:]
            if drop := request.get("drop"):
                late["drop"] = (late.get("drop", []) + drop)[-_MOST_UNDELIVERED:]
            if bad := request.get("bad"):
                late["bad"] = (late.get("bad", []) + bad)[-_MOST_UNDELIVERED:]
            if ask := request.get("ask"):
                late["drop"] = late.get("drop", []) + ask["ids"]
            pauses = [pause for pause in (request.get("pause"), late.get("pause")) if pause]
            if pauses:
                late["pause"] = max(pauses, key=lambda pause: pause["us"])


def confirm_clean_stop(client: "redis.Redis") -> None:
    """Record in every budget of a Redis that its last stop was orderly: no state was lost.

    Parameters:
      client(redis.Redis): A Redis that has just been started. No process has asked it for a permit yet.
    """
    no_budget = struct.pack(">3d", 1, 0, 0)
    for state in client.scan_iter("*:{*}:state"):
        keys = [state.removesuffix(b"state") + part.encode() for part in _KEY_PARTS]
        no_permits = script_arguments.of_permit_request(None)
        client.eval(_SCRIPT, len(keys), *keys, "", "1", no_budget, "", json.dumps({"vouch": True}), *no_permits)


def _named(error: Exception) -> str:
    return type(error).__name__
