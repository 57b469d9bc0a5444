"""Predict what limiter.lua must decide, in plain Python that keeps every completion in lists, and compare.

It listens to the calls of every process and says, of each, what the script has to answer. The script keeps the last
max(L) completions in a ring and looks one up; the oracle keeps all of them, and every permit, in lists.

The same by choice: a permit is in flight until Redis gets the report of its response, and completed when it arrived,
but no earlier than any before it; one whose deadline has passed completed then. The order of the waiters changes the
wait of a refused caller, never whether it is refused: so only the least wait is stated here.
"""

import copy
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SECOND = 1_000_000
#: A lower remainder than ours is explained by others for so long.
_EXPLAINED_US = 10 * SECOND
#: What the script may say instead of a permit, where another run asked lately: it keeps the last ones for it.
_KEPT, _KEPT_US = "the last of the window is kept for run", 1_500_000
#: So much later than it can be, and a caller must first measure the clock.
LATE_US = SECOND
#: What auto learns paces windows up to that length, until none was refused for so long, twice as long after a relapse.
SHORT_SECONDS, RELAX_US, LONGEST_RELAX_US, RELAPSE_US = 100, 600 * SECOND, 604_800 * SECOND, 86_400 * SECOND
MINUTE_US = 60 * SECOND
#: A canary: none is needed, the next permit is one, or (a name) this permit is.
FREE, WANTED = "", "wanted"
PROFILES = ("burst", "paced", "auto")


class Disagreement(AssertionError):
    """The script answered something else than the rule does."""


@dataclass
class Window:
    """A limit as one caller has to keep it, now."""

    limit: int
    full: int
    us: int
    seconds: float
    burst: int
    heaviest: int = 1
    configured: int = 0
    others: int = 0
    others_until: int = 0
    paced: bool = False

    @property
    def name(self) -> str:
        return f"{self.seconds:g}"

    @property
    def at_once(self) -> int:
        return (self.burst or self.limit) // self.heaviest

    @property
    def requests(self) -> int:
        """How many there may be, if each is as heavy as the heaviest."""
        return max(1, self.limit // self.heaviest)

    def may_be_in_flight(self) -> int:
        """How many may be in flight, where a steady rate is kept."""
        return 1 if self.requests < 10 or self.at_once < 4 else min(self.requests // 10, self.at_once // 2)

    def pace(self, flight: float) -> tuple[float, int]:
        """The interval between two requests, and how many may come at once, given those in flight."""
        if flight > 1:
            burst = min(max(2, self.requests // 50), self.at_once - int(flight))
            return self.us / (self.requests - burst - flight), burst
        return self.us / (self.requests - 1 if self.requests > 1 else 0.5), 1


def request_of(arguments: Sequence[Any]) -> dict[str, Any]:
    """What one call of the script says, as limiter.lua describes it, by name."""
    stamp, _, stated, seen, rare, numbers, waiter, run, count, *rest = arguments
    share, profile, trust, *limits = struct.unpack(f">{len(stated) // 8}d", stated)
    request = json.loads(rare) if rare else {}
    request |= {"clock": int(stamp), "share": share, "profile": PROFILES[int(profile)], "trust": bool(trust)}
    request["limits"] = [
        (int(requests), int(us), seconds, int(burst))
        for requests, us, seconds, burst in zip(*[iter(limits)] * 4, strict=True)
    ]
    if seen:
        *known, latest = struct.unpack(">4d", seen)
        request["seen"] = [*map(int, known), latest]
    if numbers:
        weight, ttl_us, patience_us, _ = map(int, struct.unpack(">4d", numbers))
        request["ask"] = {"ids": rest[: int(count)], "weight": weight, "ttl_us": ttl_us, "patience_us": patience_us}
        request["ask"] |= {"waiter": waiter, "run": run}
    done = rest[int(count) :]
    request["done"] = list(zip(done[::2], map(int, done[1::2]), strict=True))
    return request


@dataclass
class Flying:
    """A permit in flight."""

    deadline: int
    granted_at: int
    weight: int


@dataclass
class State:
    """What Redis knows of a budget."""

    epoch: int
    covers: int  # what is not known was counted by then, and may be as much as one likes; 0: nothing is unknown
    made_at: int
    size: int  # the largest limit ever: as many completions are sure to be remembered
    latest: int
    forgotten_at: int  # as many completions as one likes, then; 0: none
    completed: list[int] = field(default_factory=list)  # one instant for each unit of weight
    flight: dict[str, Flying] = field(default_factory=dict)
    longest_ttl: int = 0
    seq: int = 0
    last: int = 0
    offset: int = 0
    paused_until: int = 0
    incident_at: int = 0
    in_a_row: int = 0
    canary: str = FREE
    hit_id: str = ""
    paced: bool = False
    paced_at: int = 0
    heaviest: int = 1
    tats: dict[str, int] = field(default_factory=dict)
    widened_us: int = 0
    #: Of what auto learned: when, for how long without a refusal it holds; once forgotten, when, and how much it was.
    learned_at: int = 0
    #: The same, where that one refusal took it from burst to paced.
    taught_once_at: int = 0
    lasts_us: int = RELAX_US
    forgotten_lesson: tuple[int, int] | None = None
    #: What others spent of a window, and until when that counts.
    others: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: The least limit that answers named for a window while others named more, and when they disagreed last.
    named: dict[str, tuple[int, int]] = field(default_factory=dict)
    adopted_at: int = 0
    served: list[int] = field(default_factory=list)  # when permits were granted that were answered, and not refused
    own_id: str = ""
    adopted: dict[str, int] = field(default_factory=dict)
    foreign: int = 0
    foreign_at: int = 0
    granted: int = 0
    hits: int = 0
    asked_at: dict[str, int] = field(default_factory=dict)
    damaged: bool = False  # a part of it is gone
    elsewhere: bool = False  # Redis was started again since

    @property
    def units(self) -> int:
        return sum(permit.weight for permit in self.flight.values())

    @property
    def level(self) -> int:
        return int(self.paced) + (self.widened_us > 0)


@dataclass(frozen=True)
class Verdict:
    """What the script has to answer: its code, permits or reason, and the shortest wait that it can return."""

    code: int
    permits: int = 0
    reason: str = ""
    wait_us: int = 0
    hit: int = 0


class Oracle:
    """One budget, as it should be. `state` may be taken away, damaged, or set back by a test."""

    def __init__(self) -> None:
        self.state: State | None = None
        #: Whether the state is gone, but not all that belongs to it.
        self.remains = False
        self.is_kept = False
        self.calls = 0

    # --- what a call does -----------------------------------------------------------------------------------------

    def listen(self, arguments: Sequence[Any], reply: list[Any]) -> None:
        """Hear one call of the script and its reply; raise where they do not agree."""
        self.calls += 1
        request = request_of(arguments)
        before = self.copy() if "look" in request else None
        said = [part.decode() if isinstance(part, bytes) else part for part in reply]
        self.is_kept = said[0] == 0 and said[2].startswith(_KEPT)
        verdict = self.judge(request)
        state = self.state
        if "look" in request and said[0] == 3 and state:
            # Nothing is changed by it, but that it may have looked for permits whose deadline has passed.
            looked_for = int(said[-1].split()[1]) == state.seq + 1 and not self.gave_up
            state.seq += looked_for
            if not self.gave_up and not looked_for:
                self.state = before
        elif "look" in request:
            self.state = before
        if said[0] != verdict.code:
            raise Disagreement(f"{said} where the rule says {verdict}, in {state}")
        if said[0] == -2 or state is None:
            return
        info = list(map(int, said[-1].split()))
        if info[:4] != [state.epoch, state.seq, state.offset, self.now]:
            raise Disagreement(f"{said} where the rule says {state.seq, state.offset, self.now}")
        if said[0] == 3:
            self._compare(state, json.loads(said[1]))
            return
        if said[-2] != verdict.hit:
            raise Disagreement(f"{said}: a hit is counted wrongly, {verdict}")
        if said[0] == 1 and said[2] != verdict.permits:
            raise Disagreement(f"{said} where the rule says {verdict}, in {state}")
        if said[0] == 0 and not (str(said[2]).startswith(verdict.reason) and int(said[1]) >= verdict.wait_us):
            raise Disagreement(f"{said} where the rule says {verdict}, in {state}")

    def judge(self, request: dict[str, Any]) -> Verdict:
        """Do what the call asks for; return what is to be answered."""
        self.request = request
        if trouble := self._see_trouble(request):
            return trouble
        state = self.state
        assert state is not None
        self._see_windows()
        if "ask" in request or request.get("done") or self.stepped:
            state.last = self.now
        if "look" not in request:
            self._grow(max([limit[0] for limit in request["limits"]] + [window.full for window in self.windows]))
        self.gave_up = self._expire()
        order = request.get("pause")
        granted_of = self._take_ends(request, order)
        explained = state.foreign_at > 0 and self.now - state.foreign_at < _EXPLAINED_US
        for permit_id, *statement in request.get("said", ()):
            if permit_id in granted_of:
                explained = self._hear(granted_of[permit_id], statement) or explained
        if "relearn" in request:
            state.paced, state.paced_at, state.widened_us, state.adopted, state.tats = False, 0, 0, {}, {}
            state.learned_at, state.lasts_us, state.forgotten_lesson, state.named = 0, RELAX_US, None, {}
        hit = 0
        if order and self._is_own(order):
            hit = self._count_own(order)
        elif order:
            hit = self._pause(order, granted_of.get(order["id"]), explained)
        verdict = self._ask(request["ask"]) if "ask" in request else Verdict(3 if "look" in request else 2)
        if "look" not in request or self.gave_up:
            state.seq += 1
        return Verdict(verdict.code, verdict.permits, verdict.reason, verdict.wait_us, hit)

    def _take_ends(self, request: dict[str, Any], order: dict[str, Any] | None) -> dict[str, int]:
        """Complete what was answered and take back what was not sent; return when the answered were granted."""
        state = self.state
        assert state is not None
        granted_of = {}
        bad = {*request.get("bad", ()), *request.get("again", ()), *([order["id"]] if order else [])}
        for permit_id, age in request.get("done", ()):
            if permit := state.flight.pop(permit_id, None):
                self._complete(max(self.now - age, permit.granted_at), permit)
                granted_of[permit_id] = permit.granted_at
                if permit_id not in bad:
                    state.served.append(permit.granted_at)
                if state.canary == permit_id:
                    state.canary = WANTED if permit_id in request.get("again", ()) else FREE
                    if order and order["id"] == permit_id:
                        order["was_canary"] = True
                    if permit_id not in bad:
                        state.in_a_row = 0
        for permit_id in request.get("drop", ()):
            if state.flight.pop(permit_id, None) and state.canary == permit_id:
                state.canary = WANTED
        return granted_of

    def _see_trouble(self, request: dict[str, Any]) -> Verdict | None:
        """Detect lost state, which is made anew where the call may, and a clock that must be measured first."""
        state = self.state
        self.gave_up = False
        offset = state.offset if state else 0
        stepped = self._tell_time(request["clock"])
        self.stepped: bool = stepped
        before = self.copy() if state and state.level else None
        if state:
            self._relax()
        if self._is_lost():
            if "anew" not in request:
                if before:
                    self.state = state = before
                if state:
                    state.offset = offset
                return Verdict(-2)
            stepped = False
            self._make()
        state, seen = self.state, request.get("seen")
        assert state is not None
        may_be_late = not (stepped or "sure" in request or "look" in request)
        if may_be_late and seen and seen[0] == state.epoch and self.now > seen[3] + LATE_US:
            if before:
                state = self.state = before
            state.offset = offset
            return Verdict(-3)
        if "paused" in request and "pause" not in request and seen and seen[0] != state.epoch:
            until = self.now + request["paused"][0]
            if until > state.paused_until:
                state.paused_until, state.canary = until, WANTED
        return None

    def _tell_time(self, clock: int) -> bool:
        state, step = self.state, self.request.get("step")
        self.now = clock + (state.offset if state else 0)
        stored = state.offset if state else 0
        if state and self.now < state.last:
            state.offset += state.last - self.now
            self.now = state.last
        if state and step and step[:2] == [state.epoch, stored]:
            state.offset -= step[2]
            self.now -= step[2]
            return True
        return False

    # --- lost state -----------------------------------------------------------------------------------------------

    def _is_lost(self) -> bool:
        state, seen = self.state, self.request.get("seen")
        if state is None or state.damaged or state.elsewhere:
            return True
        if seen and seen[0] == state.epoch:
            return bool(seen[1] > state.seq)
        return seen is not None and len(seen) > 0 and self.now + seen[2] > state.covers

    def _make(self) -> None:
        """Full until W after the last instant at which a request that is unknown now can be counted."""
        anew, old, request = self.request["anew"], self.state, self.request
        ttl = max(anew["ttl_us"], old.longest_ttl if old else 0)
        covers = self.now + ttl if old or self.remains else 0
        if "counts_us" in anew:
            covers = self.now + anew["counts_us"]
        if old and not old.covers:
            covers = max(covers, old.made_at + ttl)
        if old:
            covers = max(covers, old.latest, old.last + old.longest_ttl if old.flight else 0)
        covers, self.remains = max(covers, 0), False
        largest = max(limit[0] for limit in request["limits"])
        new = State(anew["epoch"], covers, self.now, largest, latest=covers, forgotten_at=covers, longest_ttl=ttl)
        new.seq, new.last = request.get("seen", [0, 0])[1], self.now
        self.state = new
        if old:
            kept = "offset paused_until incident_at in_a_row paced widened_us foreign foreign_at adopted granted hits"
            kept += " hit_id heaviest learned_at taught_once_at lasts_us forgotten_lesson others named served own_id"
            for name in kept.split():
                setattr(new, name, getattr(old, name))
            new.seq, new.size = max(old.seq, new.seq), max(old.size, largest)
            new.canary = WANTED if old.canary else FREE
        if anew["profile"] == "paced" and (not new.paced or new.widened_us < anew["widened_us"]):
            new.paced, new.widened_us = True, anew["widened_us"]
        learned_at, latest = self.now - anew["learned_us"], max(new.learned_at, (new.forgotten_lesson or (0,))[0])
        if anew["relax_us"] and learned_at > latest:
            new.learned_at, new.lasts_us, new.forgotten_lesson = learned_at, anew["relax_us"], None
            if anew["profile"] != "paced":
                new.learned_at, new.forgotten_lesson = 0, (learned_at, 1)
        elif anew["profile"] == "paced" and not latest:
            new.learned_at = self.now
        if "paused" in anew and self.now + anew["paused"][0] > new.paused_until:
            new.paused_until, new.canary = self.now + anew["paused"][0], WANTED
        self._see_windows()
        new.size = max([new.size] + [window.full for window in self.windows])
        if old and old.paced_at:
            self._begin_pace()
        self._relax()

    # --- the rule -------------------------------------------------------------------------------------------------

    def _see_windows(self) -> None:
        state, self.windows = self.state, []
        assert state is not None
        for requests, us, seconds, burst in self.request["limits"]:
            full = state.adopted.get(f"{seconds:g}", requests)
            if not self.request["trust"]:
                full = min(full, requests)
            ours = max(1, math.floor(full * self.request["share"] + 1e-6))
            window = Window(ours, full, us + state.widened_us, seconds, burst, state.heaviest, requests)
            window.paced = self.request["profile"] == "paced" or seconds <= SHORT_SECONDS
            spent, until = state.others.get(window.name, (0, 0))
            if until > self.now:
                window.others, window.others_until = spent, until
            self.windows.append(window)

    def used(self, window: Window, state: State | None = None, since: int | None = None) -> float:
        """Units in flight and completed within the window, or since another instant."""
        state, since = state or self.state, self.now - window.us if since is None else since
        assert state is not None
        forgotten = math.inf if state.forgotten_at > since else 0
        # Completions are sorted; what is old need not be looked at.
        recent = 0
        for instant in reversed(state.completed):
            if instant <= since:
                break
            recent += 1
        return state.units + recent + forgotten

    def _is_open(self, weight: int) -> bool:
        return all(self.used(window) + window.others + weight <= window.limit for window in self.windows)

    def opens_in_us(self, weight: int) -> int:
        """How long until it is open as far as completions decide; a window, where it depends on those in flight."""
        waits = [0]
        for window in self.windows:
            wait = self._opens_of(window, weight, window.others)
            left = window.others_until - self.now
            if window.others and wait > left:
                wait = max(left, self._opens_of(window, weight, 0))
            waits.append(wait)
        return max(waits)

    def _opens_of(self, window: Window, weight: int, others: int) -> int:
        state = self.state
        assert state is not None
        may_be_recent = window.limit - others - state.units - weight
        if may_be_recent < 0:
            return max(0, state.latest - self.now) + window.us  # it completes no earlier than the last
        if len(state.completed) > may_be_recent:
            return state.completed[-may_be_recent - 1] + window.us - self.now
        return state.forgotten_at + window.us - self.now if state.forgotten_at else 0

    def _append(self, instant: int, weight: int) -> None:
        state = self.state
        assert state is not None
        state.latest = max(state.latest, instant)
        state.completed += [state.latest] * weight

    def _grow(self, size: int) -> None:
        """Windows longer than any before may need what has been forgotten: it counts as young as the oldest known."""
        state = self.state
        assert state is not None
        if size <= state.size:
            return
        unknown = len(state.completed) - state.size
        if unknown > 0:
            oldest = state.completed[unknown]
            state.completed[:unknown] = [oldest] * unknown
            if state.forgotten_at:
                state.forgotten_at = oldest
        state.size = size

    def _complete(self, instant: int, permit: Flying) -> None:
        state = self.state
        assert state is not None
        self._append(instant, permit.weight)
        if not state.paced_at:
            return
        if permit.granted_at < state.paced_at:
            self._charge(instant, permit.weight)
        if self._flight() == 1:  # the interval runs from the end of the request
            for window in self._paced_windows():
                next_at = math.floor(instant + window.pace(1)[0]) + 1
                state.tats[window.name] = max(state.tats.get(window.name, 0), next_at)

    def _expire(self) -> bool:
        state = self.state
        assert state is not None
        late = [(permit.deadline, name) for name, permit in state.flight.items() if permit.deadline <= self.now]
        for deadline, name in sorted(late):
            self._complete(deadline, state.flight.pop(name))
            if state.canary == name:
                state.canary = WANTED
        return bool(late)

    # --- the pace: a steady rate, beside the rule ------------------------------------------------------------------

    def _is_paced(self) -> bool:
        assert self.state is not None
        profile = self.request["profile"]
        return bool(profile == "paced" or (profile == "auto" and self.state.paced))

    def _flight(self) -> float:
        return min([window.may_be_in_flight() for window in self.windows if window.paced], default=math.inf)

    def _paced_windows(self) -> list[Window]:
        return [window for window in self.windows if window.paced]

    def _charge(self, instant: int, weight: int) -> None:
        assert self.state is not None
        flight = self._flight()
        for window in self._paced_windows():
            tat = max(self.state.tats.get(window.name, 0), instant)
            self.state.tats[window.name] = math.floor(tat + weight * window.pace(flight)[0]) + 1

    def _begin_pace(self) -> None:
        state = self.state
        assert state is not None
        state.tats, state.paced_at = {}, self.now
        known = state.completed[-state.size :]
        if state.forgotten_at:
            known = [state.forgotten_at] * (state.size - len(known)) + known
        for instant in known:
            self._charge(instant, 1)
        if state.units:
            self._charge(self.now, state.units)
        for window in self._paced_windows():  # no server looks back for more than two of them
            longest = max(self.now, state.latest) + 2 * window.us
            state.tats[window.name] = min(state.tats.get(window.name, 0), longest)

    def _pace_allows(self) -> bool:
        state = self.state
        assert state is not None
        flight = self._flight()
        if len(state.flight) >= flight:
            return False
        return self._pace_opens() <= self.now

    def _pace_opens(self, us: int | None = None) -> float:
        state, opens = self.state, [0.0]
        assert state is not None
        for window in [window for window in self._paced_windows() if us in (None, window.us)]:
            interval, burst = window.pace(self._flight())
            # Each charge was rounded up by a microsecond at most.
            opens.append(state.tats.get(window.name, 0) - (burst - 1) * interval - burst)
        return max(opens)

    # --- the answer -----------------------------------------------------------------------------------------------

    def _ask(self, ask: dict[str, Any]) -> Verdict:
        state, ids, weight = self.state, ask["ids"], ask["weight"]
        assert state is not None
        if any(
            weight > ((self._is_paced() and window.paced and window.burst) or window.limit) for window in self.windows
        ):
            return Verdict(-1)
        if weight > state.heaviest:
            state.heaviest = weight
            for window in self.windows:
                window.heaviest = weight
            if state.paced_at:
                self._begin_pace()
        state.asked_at[ask["run"]] = self.now
        if any(name in state.flight for name in ids):
            return Verdict(1, sum(name in state.flight for name in ids))
        paced = self._is_paced()
        if refusal := self._why_nobody() or self._why_not(weight, ask["run"], paced):
            return refusal
        count = len(ids) if len(ids) > 1 and not paced and not state.canary and self._is_far(len(ids) * weight) else 1
        for name in ids[:count]:
            state.flight[name] = Flying(self.now + ask["ttl_us"], self.now, weight)
        state.longest_ttl = max(state.longest_ttl, ask["ttl_us"])
        state.granted += count
        if state.canary == WANTED:
            state.canary = ids[0]
        if state.paced_at:
            self._charge(self.now, count)
        return Verdict(1, count)

    def _why_nobody(self) -> Verdict | None:
        state = self.state
        assert state is not None
        if self.now < state.paused_until:
            return Verdict(0, reason="paused: ", wait_us=state.paused_until - self.now)
        if state.canary not in (FREE, WANTED):
            return Verdict(0, reason="one request is out", wait_us=20_000)
        return None

    def _why_not(self, weight: int, run: str, paced: bool) -> Verdict | None:
        state = self.state
        assert state is not None
        if paced and not (state.paced_at and all(window.name in state.tats for window in self._paced_windows())):
            self._begin_pace()
        if not self._is_open(weight):
            return Verdict(0, reason="window", wait_us=max(1000, self.opens_in_us(weight)))
        if paced and not self._pace_allows():
            return Verdict(0, reason="paced", wait_us=1)
        if self.is_kept and any(self.now - at < _KEPT_US for other, at in state.asked_at.items() if other != run):
            return Verdict(0, reason=_KEPT, wait_us=100_000)
        return None

    def _is_far(self, units: int) -> bool:
        """Whether a quarter of each window stays free with `count` more."""
        return all(self.used(w) + w.others + units + math.ceil(w.limit / 4) <= w.limit for w in self.windows)

    # --- what the API says ----------------------------------------------------------------------------------------

    def _hear(self, granted_at: int, said: Sequence[Any]) -> bool:
        index, limit, remaining, named, _, reset_us = said
        state, explains = self.state, False
        assert state is not None
        meant = self.windows[index - 1 : index] if named and index else [w for w in self.windows if w.full == limit]
        if len(meant) != 1 or (named and not index):
            return False  # it is ambiguous
        window = meant[0]
        if named and limit >= 1:
            explains = self._hear_limit(window, limit, granted_at)
        if remaining >= 0 and limit == window.full:
            explains = self._debit(window, limit - remaining, granted_at, reset_us) or explains
        return explains

    def _debit(self, window: Window, spent: int, granted_at: int, reset_us: int) -> bool:
        """What is spent beyond what ours can be, and what is left to others, is spent by others: until the reset."""
        state, ours = self.state, self.used(window, since=granted_at - window.us)
        assert state is not None
        foreign = max(0.0, min(spent - ours - (window.full - window.limit), window.full))
        if foreign <= window.others:
            return False
        state.foreign, state.foreign_at = state.foreign + int(foreign) - window.others, self.now
        until = min(window.us, reset_us + SECOND) if reset_us >= 0 else window.us
        window.others, window.others_until = int(foreign), self.now + until
        state.others[window.name] = window.others, window.others_until
        return True

    def _hear_limit(self, window: Window, limit: int, granted_at: int) -> bool:
        """A lower limit holds at once, one of which other answers name more, since, does not. None exceeds ours."""
        state = self.state
        assert state is not None
        low, at = state.named.get(window.name, (0, 0))
        if low and self.now - at >= max(MINUTE_US, 2 * window.us):
            low = 0
        if low and limit > low and self.now - at > SECOND:
            state.named[window.name] = low, self.now
        if limit < window.full:
            if not (low and limit >= low):
                self._adopt(window, limit)
                state.adopted_at = self.now
            return True
        allowed = limit if self.request["trust"] else min(limit, window.configured)
        if allowed > window.full and granted_at >= state.adopted_at:
            if window.full < window.configured:
                state.named[window.name] = min(window.full, low or window.full), self.now
            self._adopt(window, allowed)
        return False

    def _adopt(self, window: Window, limit: int) -> None:
        state = self.state
        assert state is not None
        state.adopted[window.name] = limit
        if not self.request["trust"] and limit >= window.configured:
            del state.adopted[window.name]
        window.full, window.limit = limit, max(1, math.floor(limit * self.request["share"] + 1e-6))
        self._grow(limit)

    def _is_own(self, order: dict[str, Any]) -> bool:
        """Whether a request was refused alone: others were granted since it was before, and answered."""
        assert self.state is not None
        before = order["refused_at"]
        return bool(order["alone"] or (before and any(granted > before for granted in self.state.served)))

    def _count_own(self, order: dict[str, Any]) -> int:
        state = self.state
        assert state is not None
        if state.paced and order["refused_at"] and state.learned_at == state.taught_once_at == order["refused_at"]:
            state.paced, state.learned_at, state.lasts_us = False, 0, RELAX_US
            if self.request["profile"] != "paced":
                state.paced_at, state.tats = 0, {}
        state.hits += state.own_id != order["id"]
        state.own_id = order["id"]
        if order.get("was_canary"):
            state.canary = WANTED
        return 1

    def _pause(self, order: dict[str, Any], granted_at: int | None, explained: bool) -> int:
        state = self.state
        assert state is not None
        lengths = [window.us for window in self.windows]
        granted, begun = self.now if granted_at is None else granted_at, False
        if self.now >= state.paused_until and granted > state.incident_at and state.hit_id != order["id"]:
            state.incident_at, state.hit_id = self.now, order["id"]
            state.hits += 1
            state.in_a_row += 1
            of_ours = not (order["asked"] and order["us"] > max(lengths) + 2 * SECOND)
            refused = self.request["profile"] == "auto" and order["status"] == 429 and of_ours
            if refused and not explained and not order.get("was_canary"):
                begun = self._mistrust()
        us, times = order["us"], 2 ** min(max(state.in_a_row - 1, 0), 30)
        if order["asked"]:
            us = max(us, min(us * times, order["longest_us"]))
        else:
            us = min(min(min(lengths) / (2 if begun else 1), MINUTE_US) * times, order["longest_us"])
        state.paused_until = max(state.paused_until, math.floor(self.now + us))
        state.canary = WANTED
        return int(state.hit_id == order["id"])

    def _mistrust(self) -> bool:
        """A refusal that nothing explains: first a steady rate, then windows a second longer; again all at once."""
        state = self.state
        assert state is not None
        before, lesson = state.level, state.forgotten_lesson
        learned = min(2, before + 1)
        if not before and lesson and self.now < lesson[0] + max(state.lasts_us, RELAPSE_US):
            learned, state.lasts_us = lesson[1], min(2 * state.lasts_us, LONGEST_RELAX_US)
        elif not before:
            state.lasts_us = RELAX_US
        state.learned_at, state.forgotten_lesson, state.paced = self.now, None, True
        state.taught_once_at = self.now if not before and learned == 1 else 0
        if learned == 2 and before < 2:
            state.widened_us = SECOND
            for window in self.windows:
                window.us += SECOND
        begins = not before and bool(self._paced_windows())
        if begins:
            self._begin_pace()
        shortest = min(window.us for window in self.windows)
        return begins and self._pace_opens(shortest) >= self.now + shortest / 2

    def _relax(self) -> None:
        """What auto learned is forgotten when none was refused for long enough."""
        state = self.state
        assert state is not None
        since = max(state.incident_at, state.paused_until, state.learned_at)
        if state.level and self.now >= since + state.lasts_us:
            state.forgotten_lesson = self.now, state.level
            state.paced, state.widened_us, state.learned_at = False, 0, 0
            if self.request["profile"] != "paced":
                state.paced_at, state.tats = 0, {}

    # --- what people see ------------------------------------------------------------------------------------------

    def _compare(self, state: State, seen: dict[str, Any]) -> None:
        used = [
            [w.full, w.limit, state.units + min(state.size, self.used(w, state) - state.units) + w.others]
            for w in self.windows
        ]
        paced = self._is_paced() and bool(self._paced_windows())
        expected = [used, state.units, state.granted, state.hits, state.foreign, state.widened_us, paced]
        names = "windows in_flight granted hits foreign widened paced"
        if [seen[name] for name in names.split()] != expected:
            raise Disagreement(f"{seen} where the rule says {expected}")

    def copy(self) -> State | None:
        """The state, to be set back to."""
        return copy.deepcopy(self.state)
