"""Ledger: one budget's permits as Redis keeps them. Every call of limiter.lua is made here.

It tells a state that was lost, or a clock that was set forward, from one that can be trusted, and sees to it that
nothing is granted by them. The proofs are in docs/limiter.md.
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
from typing import Any, Protocol

import redis

from workers import clock
from workers.connections import redis_errors
from workers.errors import BudgetUnknown, ConfigurationError, DependencyDown, SluiceError
from workers.limiter import script_arguments
from workers.limiter.budget import Budget
from workers.limiter.lesson import Lesson

log = logging.getLogger(__name__)

#: A permit must be used this soon after its grant; a thread that slept longer (SIGSTOP, swap) gives it back.
FRESH_SECONDS = 1.0

_SCRIPT = (Path(__file__).parent / "limiter.lua").read_text()
_PARTS = ("state", "ring", "flight", "waiting", "runs", "notes")

#: The watermark is raised by so much at a time, and anew when half of it has passed.
_PROMISE_SECONDS = 10.0
#: A clock may run this much too fast, as a part of one; and a reply may be read with this error.
_DRIFT = 0.001
_READING_SECONDS = 0.001
#: More than so many ends and returns that Redis could not be told are not kept: their permits expire by themselves.
_MOST_UNDELIVERED = 10_000
#: `counts_us` of a process that has taken no permit yet.
_NEVER_US = -(10**15)
_LOST, _LATE = -2, -3
#: A longer pause is kept where it outlives Redis.
_KEPT_PAUSE_SECONDS = 60.0
#: How the script says that a number cannot be.
_CANNOT_BE = "SLUICE"
#: What travels as arguments of its own; the rest, which is rare, as JSON.
_COMMON = {"ask", "done"}


class Watermark(Protocol):
    """What outlives Redis of one budget. `workers.records.watermark.Watermark` keeps it in the database."""

    def seconds(self) -> float | None:
        """For how long from now a request may still be counted; negative: since when none; None: never used."""

    def raise_to(self, seconds: float, ttl_seconds: float | None = None) -> None:
        """Record that requests may be counted until `seconds` from now, and none for longer than `ttl_seconds`."""

    def lesson(self) -> Lesson:
        """What auto learned; Lesson() where that is unknown."""

    def keep_lesson(self, lesson: Lesson) -> None:
        """Record what auto learned."""

    def pause(self) -> tuple[float, str]:
        """For how many seconds from now the budget pauses, and why; (0.0, "") where it does not."""

    def keep_pause(self, seconds: float, why: str) -> None:
        """Record a pause that begins now; never shorten the one that is recorded."""


@dataclass(frozen=True)
class Reply:
    """What the script answered: see limiter.lua."""

    code: int
    values: tuple[Any, ...]
    hit: int
    at_us: int = 0


@dataclass(frozen=True)
class Refusal:
    """What became of a refusal.

    Attributes:
      hit: 1 where it is the first of its burst, or its request's own.
      pause_seconds: For how long the budget pauses.
      own: Whether it is its request's own: then the budget has not been paused by it.
      at_us: When that was, by the budget's clock.
    """

    hit: int
    pause_seconds: float
    own: bool
    at_us: int


@dataclass
class _Known:
    """What this process has seen of the state: the proof against one that is older, or another."""

    epoch: int = 0
    seq: int = 0
    #: The most by which Redis's clock can be ahead of ours, when that was found, and the state's epoch then.
    ahead_seconds: float = math.inf
    ahead_at: float = 0.0
    last_grant_at: float = -math.inf
    longest_ttl_us: int = 0


class Ledger:
    """The permits of one budget in Redis, as this process knows them. Thread-safe.

    Parameters:
      budget(Budget): Whose permits.
      client(redis.Redis): Where they are kept.
      prefix(str): The prefix of the keys.
      linger_seconds(float): How long after a request's timeout the API may still count it.
      watermark(Watermark | None): What outlives Redis.
    """

    def __init__(
        self, budget: Budget, client: "redis.Redis", prefix: str, linger_seconds: float, watermark: Watermark | None
    ) -> None:
        self.budget = budget
        self.client = client
        self.keys = [f"{prefix}:{{{budget.name}}}:{part}" for part in _PARTS]
        self.watermark = watermark
        self._linger_seconds = linger_seconds
        self._sha = client.register_script(_SCRIPT).sha
        self._stated = script_arguments.stated(budget)
        self._id_prefix = uuid.uuid4().hex[:10]
        self._id_numbers = itertools.count()
        self._lock = threading.Lock()
        self._known = _Known()
        self._doubted = False
        self._undelivered: dict[str, list[Any]] = {}
        self._undelivered_pause: dict[str, Any] | None = None
        self._pause: tuple[float, str] = (-math.inf, "")
        self._kept_pause_until = -math.inf
        self._promise_lock = threading.Lock()
        self._promised: tuple[float, int] = (-math.inf, 0)
        self._learned = 0

    def look(self, weight: int = 1) -> dict[str, Any] | None:
        """Return the state as limiter.lua reports it; None where there is none, or it is lost.

        It changes nothing, but that permits past their deadline are completed.

        Parameters:
          weight(int): What a request weighs that waits: when the budget opens for it.

        Raises:
          BudgetUnknown: Redis does not answer.
        """
        request = {"look": True} | ({"weight": weight} if weight > 1 else {})
        reply = self._send(request, clock.monotonic())
        return None if reply[0] == _LOST else json.loads(reply[1])

    def is_paused(self) -> bool:
        """Return whether this process knows of a pause that goes on."""
        return clock.monotonic() < self._pause[0]

    def new_ids(self, count: int) -> list[str]:
        """Return ids for permits, never used before."""
        return [f"{self._id_prefix}{os.getpid():x}-{next(self._id_numbers):x}" for _ in range(count)]

    def ttl_microseconds(self, timeout_seconds: float) -> int:
        """Return how long a permit counts that is never answered."""
        return math.ceil((FRESH_SECONDS + timeout_seconds + self._linger_seconds) * 1e6)

    def ask(self, request: dict[str, Any], ask: dict[str, Any]) -> Reply:
        """Ask for permits.

        Raises:
          BudgetUnknown: Redis, or what keeps the watermark, does not answer.
        """
        with self._lock:
            self._known.longest_ttl_us = max(self._known.longest_ttl_us, ask["ttl_us"])
        reply = self._call({**request, "ask": ask})
        if reply.code == 1 and self.watermark:
            try:
                self._raise_watermark(self.watermark, ask["ttl_us"])
            except BaseException:
                self._deliver_later({"drop": ask["ids"]})
                raise
        return reply

    def tell(self, request: dict[str, Any]) -> Reply:
        """Tell Redis something. Where its state is lost there is nothing to tell it to, and the next ask brings it.

        Raises:
          BudgetUnknown: Redis does not answer.
        """
        return self._call(request)

    def pause(self, request: dict[str, Any], order: dict[str, Any]) -> Refusal:
        """Report that a request was refused: the budget pauses, for every process, unless the refusal is its own.

        Raises:
          BudgetUnknown: Redis does not answer; the pause rides on this process's next call.
        """
        asked, reason = order["us"] / 1e6, order["reason"]
        try:
            reply = self._call({**request, "pause": order})
        except BudgetUnknown:
            if not order["alone"]:
                self._remember_pause(asked, reason)
                self._keep_pause(asked, reason)
            raise
        known = bool(reply.values)  # else the state is lost, and the pause rides on the next question
        own = bool(reply.values[2]) if known else order["alone"]
        seconds = reply.values[0] / 1e6 if known else asked
        if not own:
            self._remember_pause(seconds, reason)
            self._keep_pause(seconds, reason)
        return Refusal(reply.hit, seconds, own, reply.at_us or round(clock.now().timestamp() * 1e6))

    def _call(self, request: dict[str, Any]) -> Reply:
        request = self._with_undelivered(request)
        for _ in range(5):
            sent_at = clock.monotonic()
            reply = self._send(request, sent_at)
            if reply[0] == _LOST:
                if "ask" not in request:
                    self._deliver_later(request)
                    return Reply(_LOST, (), 0)
                try:
                    request["anew"] = self._anew()
                except BaseException:
                    self._deliver_later(request)
                    raise
                continue
            step = self._learn(request, reply, sent_at)
            if reply[0] == _LATE:  # nothing was done
                request |= {"step": step} if step else {"sure": True}
                continue
            if step is None:
                *values, hit, _ = reply[1:]
                texts = tuple(v.decode() if isinstance(v, bytes) else v for v in values)
                return Reply(reply[0], texts, int(hit), int(reply[-1].split()[3]))
            # What was granted by a clock that had been set forward is given back, and asked for again.
            request = {"step": step} | ({"ask": request["ask"]} if "ask" in request else {})
            if reply[0] == 1:
                request["drop"] = request["ask"]["ids"]
        self._deliver_later(request)
        raise BudgetUnknown("Redis does not keep what it is told: no permit without it")

    def _send(self, request: dict[str, Any], sent_at: float) -> list[Any]:
        known = self._known
        seen = b""
        if known.epoch:
            counts = (known.last_grant_at - sent_at) * 1e6 + known.longest_ttl_us
            latest = (known.ahead_seconds + (sent_at - known.ahead_at) * _DRIFT + sent_at) * 1e6
            seen = struct.pack(">4d", known.epoch, known.seq, math.ceil(max(counts, _NEVER_US)), latest)
        rare = {name: value for name, value in request.items() if name not in _COMMON}
        if (paused_seconds := self._pause[0] - sent_at) > 0:
            rare["paused"] = [math.ceil(paused_seconds * 1e6), self._pause[1]]
        moved = clock.current()
        stamp = str(round(moved.now().timestamp() * 1_000_000)) if moved.moved else ""
        arguments = [self._stated, seen, json.dumps(rare) if rare else "", *script_arguments.asked(request.get("ask"))]
        for permit, at in request.get("done", ()):
            arguments += permit, max(0, math.floor((sent_at - at) * 1e6 + 0.01))
        try:
            return self._evaluate(stamp, arguments, looks="look" in request)
        except redis.RedisError as error:
            if str(error).startswith(_CANNOT_BE):  # it would be refused each time it is delivered
                raise ConfigurationError(
                    f"budget {self.budget.name}: {str(error).removeprefix(_CANNOT_BE).strip()}"
                ) from error
            self._deliver_later(request)
            trouble = redis_errors.trouble(error)
            raise BudgetUnknown(f"{trouble.what}: no permit without it. To do: {trouble.repair}") from error

    def _evaluate(self, stamp: str, arguments: list[Any], *, looks: bool) -> list[Any]:
        """Run the script. Where Redis does not have it, Redis may have been restarted, and the script is told so.

        A look leaves it unknown, for who asks then: it may be at a replica, which cannot keep that it was noticed.
        """
        reply: Any = None
        if not self._doubted:
            with contextlib.suppress(redis.exceptions.NoScriptError):
                reply = self.client.evalsha(self._sha, len(self.keys), *self.keys, stamp, "", *arguments)
        if reply is None:
            text = _SCRIPT + "-- look" if looks else _SCRIPT
            reply = self.client.eval(text, len(self.keys), *self.keys, stamp, "1", *arguments)
        if not looks:
            self._doubted = reply[0] == _LOST  # what was found must be found again when it is made good
        return list(reply)

    def _learn(self, request: dict[str, Any], reply: list[Any], sent_at: float) -> list[int] | None:
        """Keep what a reply shows of the state; return how to set the clock right, where it was set forward."""
        received_at = clock.monotonic()
        epoch, seq, offset, now, learned = map(int, reply[-1].split())
        with self._lock:
            known = self._known
            if epoch != known.epoch:
                known.epoch, known.seq, known.ahead_seconds = epoch, seq, math.inf
            known.seq = max(known.seq, seq)
            jumped = self._jumped(known, now / 1e6, sent_at, received_at)
            if not jumped and "ask" in request and reply[0] == 1:
                known.last_grant_at = max(known.last_grant_at, received_at)
        if learned != self._learned and self.budget.profile == "auto":
            self._keep_learned(learned)
        return [epoch, offset, math.ceil(jumped * 1e6)] if jumped else None

    def _jumped(self, known: _Known, redis_now: float, sent_at: float, received_at: float) -> float:
        """Return by how many seconds Redis's clock provably went ahead of ours since this process first read it.

        It read `redis_now` somewhere between `sent_at` and `received_at`: that bounds how far it is ahead of ours from
        both sides, as in NTP. A lower bound above the least upper bound so far is a step.
        """
        most = known.ahead_seconds + (received_at - known.ahead_at) * _DRIFT
        jumped = (redis_now - received_at) - most
        if jumped > _READING_SECONDS:
            return jumped
        known.ahead_seconds, known.ahead_at = min(most, redis_now - sent_at), received_at
        return 0.0

    def _raise_watermark(self, watermark: Watermark, ttl_us: int) -> None:
        """Raise the watermark above a permit that was just granted, before it is used.

        After the grant, not before it: else the first process ever would take the promise of the second for use.
        """
        until, promised_ttl = promised = self._promised
        left = until - clock.monotonic()
        if ttl_us <= promised_ttl and left > _PROMISE_SECONDS / 2:
            return
        must = ttl_us > promised_ttl or left < FRESH_SECONDS
        if not self._promise_lock.acquire(blocking=must):
            return  # another thread is at it
        try:
            if self._promised != promised and self._promised[1] >= ttl_us:
                return
            now, ttl_us = clock.monotonic(), max(ttl_us, promised_ttl)
            watermark.raise_to(_PROMISE_SECONDS + ttl_us / 1e6, ttl_us / 1e6)
            self._promised = now + _PROMISE_SECONDS, ttl_us
        except DependencyDown as error:
            raise BudgetUnknown(str(error)) from error
        except SluiceError:
            raise
        except Exception as error:
            raise BudgetUnknown(f"the database does not keep the budget's watermark ({_named(error)})") from error
        finally:
            self._promise_lock.release()

    def _anew(self) -> dict[str, Any]:
        """What the script must know to make lost state anew: until when requests of before may be counted."""
        anew: dict[str, Any] = {"epoch": secrets.randbits(48) + 1, "ttl_us": self._known.longest_ttl_us}
        anew |= script_arguments.taught(Lesson())
        counts = self._remembered(anew)
        own = self._known.last_grant_at - clock.monotonic() + self._known.longest_ttl_us / 1e6
        if counts is None and self._known.epoch:
            counts = self._known.longest_ttl_us / 1e6
        if counts is not None:
            anew["counts_us"] = math.ceil(max(counts, own, -1e9) * 1e6)
        return anew

    def _remembered(self, anew: dict[str, Any]) -> float | None:
        if self.watermark is None:
            return None
        try:
            anew |= script_arguments.taught(self.watermark.lesson())
            paused_seconds, why = self.watermark.pause()
            if paused_seconds > 0:
                anew["paused"] = [math.ceil(paused_seconds * 1e6), why]
            return self.watermark.seconds()
        except DependencyDown as error:
            raise BudgetUnknown(str(error)) from error
        except SluiceError:
            raise
        except Exception as error:
            raise BudgetUnknown(f"the database does not tell the budget's watermark ({_named(error)})") from error

    def _keep_learned(self, learned: int) -> None:
        """Let what auto learned outlive Redis, and that it has forgotten it: the number is another after each hit."""
        before, self._learned = self._learned, learned
        if not self.watermark or not (learned % 4 or before % 4):
            return
        try:
            if state := self.look():
                self.watermark.keep_lesson(script_arguments.lesson_of(state))
        except Exception:
            self._learned = before
            log.warning("budget %s: what it learned could not be kept", self.budget.name, exc_info=True)

    def _keep_pause(self, seconds: float, reason: str) -> None:
        """Let a long pause outlive Redis."""
        until = clock.monotonic() + seconds
        if not self.watermark or seconds <= _KEPT_PAUSE_SECONDS or until < self._kept_pause_until + FRESH_SECONDS:
            return  # a burst is refused: one of its threads has kept it
        try:
            self.watermark.keep_pause(seconds, reason)
            self._kept_pause_until = until
        except Exception:  # Redis has it
            log.warning("budget %s: its pause could not be kept", self.budget.name, exc_info=True)

    def _remember_pause(self, seconds: float, reason: str) -> None:
        self._pause = max(self._pause, (clock.monotonic() + seconds, reason))

    def _with_undelivered(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            late, self._undelivered = self._undelivered, {}
            pause, self._undelivered_pause = self._undelivered_pause, None
        for kind, entries in late.items():
            request[kind] = entries + request.get(kind, [])
        if pause and pause["us"] >= request.get("pause", pause)["us"]:
            request["pause"] = pause
        return request

    def _deliver_later(self, request: dict[str, Any]) -> None:
        with self._lock:
            for kind in ("done", "drop", "bad"):
                if entries := request.get(kind):
                    self._undelivered[kind] = (self._undelivered.get(kind, []) + entries)[-_MOST_UNDELIVERED:]
            if ask := request.get("ask"):
                self._undelivered["drop"] = self._undelivered.get("drop", []) + ask["ids"]
            pauses = [pause for pause in (request.get("pause"), self._undelivered_pause) if pause]
            self._undelivered_pause = max(pauses, key=lambda pause: pause["us"], default=None)


def vouch(client: "redis.Redis") -> None:
    """Tell every budget in this Redis that it was stopped in order: what it holds is all there was.

    Parameters:
      client(redis.Redis): A Redis that has just been started, and that nobody has asked for a permit yet.
    """
    stated = struct.pack(">3d", 1, 0, 0)
    for state in client.scan_iter("*:{*}:state"):
        keys = [state.removesuffix(b"state") + part.encode() for part in _PARTS]
        client.eval(
            _SCRIPT, len(keys), *keys, "", "1", stated, "", json.dumps({"vouch": True}), *script_arguments.asked(None)
        )


def _named(error: Exception) -> str:
    return type(error).__name__
