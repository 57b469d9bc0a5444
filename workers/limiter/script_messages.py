"""Typed requests to limiter.lua and its replies. The names of the keys are part of the protocol between versions."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

#: Reply codes of limiter.lua that the ledger itself acts on: the state is lost; Redis's clock is later than expected.
STATE_LOST, CLOCK_AHEAD = -2, -3

#: A reply as redis-py returns it; redis-py has no types for it.
RawReply = list[Any]
#: What one header says about one window: window, limit, remaining, named, header, reset_us; see `response`.
Statement = tuple[int, int, int, int, str, int]


class PermitRequest(TypedDict):
    """Ask for permits.

    Keys:
      ids: Permit ids, never used before; the script grants all, or the first ones of them.
      weight: Units of each permit.
      ttl_us: How long a permit counts if no response completes it.
      waiter: The name of the permit client.
      patience_us: The longest wait that the client sleeps in the queue.
      knock: True for a client that asks ahead of the request, and keeps no place in the queue.
      run: The run's id; empty where there is none.
    """

    ids: list[str]
    weight: int
    ttl_us: int
    waiter: str
    patience_us: int
    knock: bool
    run: str


class PauseRequest(TypedDict):
    """Report that the API refused the request of a permit.

    Keys:
      id: The permit.
      us: How long to pause; 0 where the API does not say.
      asked: Whether the API says how long.
      longest_us: The longest pause where it does not.
      status: The HTTP status.
      reason: What the response said.
      refused_at: When the same item or list page was refused before; 0 where it was not.
      alone: Whether its refusals were found to concern it alone.
    """

    id: str
    us: int
    asked: bool
    longest_us: int
    status: int
    reason: str
    refused_at: int
    alone: bool


class NewState(TypedDict, total=False):
    """Make lost state anew.

    Keys:
      epoch: The random name of the new state.
      ttl_us: The longest `ttl_us` that this process asked for.
      counts_us: Until when, from now, an unknown request can be counted; missing where that is not known.
      paused: Microseconds and reason of a pause that lasts.
      profile, why, widened_us, learned_us, relax_us: What the profile `auto` had learned; see `Lesson`.
    """

    epoch: int
    ttl_us: int
    counts_us: int
    profile: str
    why: str
    widened_us: int
    learned_us: int
    relax_us: int
    paused: tuple[int, str]


class Request(TypedDict, total=False):
    """One call of limiter.lua; its header comment describes each key."""

    ask: PermitRequest
    done: list[tuple[str, float]]
    drop: list[str]
    bad: list[str]
    again: list[str]
    said: list[tuple[str, *Statement]]
    pause: PauseRequest
    paused: tuple[int, str]
    stop: tuple[str, int]
    relearn: str
    leave: str
    ended: str
    anew: NewState
    step: list[int]
    sure: bool
    look: bool
    weight: int


class StateReport(TypedDict):
    """The state of a budget, as limiter.lua reports it. Lengths of time are in microseconds."""

    level: float
    learned: float
    relax: float
    relaxes: float
    windows: list[tuple[float, float, float]]
    in_flight: float
    opens: float
    unsure: bool
    waiting: float
    paused: float
    reason: str
    canary: bool
    paced: bool
    paced_why: str
    widened: float
    lost: float
    lost_why: str
    granted: float
    hits: float
    sleeps: float
    slept: float
    foreign: float
    sleeping: float
    notes: list[tuple[float, str]]


@dataclass(frozen=True)
class Granted:
    """The first `count` of the requested ids are permits now; the run's planned wait was `waited_seconds` long."""

    waited_seconds: float
    count: int
    hits: int


@dataclass(frozen=True)
class Closed:
    """No permit now. `sleeps` is 1 where this planned wait is new to the run."""

    wait_seconds: float
    reason: str
    sleeps: int
    hits: int


@dataclass(frozen=True)
class RunStopped:
    """No permit: the run was stopped."""

    reason: str
    hits: int


@dataclass(frozen=True)
class TooHeavy:
    """No permit, ever: the request weighs more than the limit of `most`."""

    most: int
    hits: int


@dataclass(frozen=True)
class Applied:
    """A call that asks for no permit was applied.

    Attributes:
      paused_seconds: How much of the budget's pause is left.
      slept_seconds: How long the planned wait had lasted that a stop ended.
      own: Whether the reported refusal concerns its request alone.
      hits: 1 where a rate-limit hit was counted.
      at_us: When, by the budget's clock.
    """

    paused_seconds: float
    slept_seconds: float
    own: bool
    hits: int
    at_us: int


PermitReply = Granted | Closed | RunStopped | TooHeavy


@dataclass(frozen=True)
class ReplyInfo:
    """What every reply says about the state: `learned` changes with each hit and each change of the profile."""

    epoch: int
    seq: int
    offset_us: int
    now_us: int
    learned: int


def read_info(reply: RawReply) -> ReplyInfo:
    """Return the last part of a reply."""
    return ReplyInfo(*map(int, reply[-1].split()))


def is_granted(reply: RawReply) -> bool:
    """Return whether a reply grants permits."""
    return bool(reply[0] == 1)


def read_reply(reply: RawReply) -> PermitReply | Applied:
    """Return what a reply says; not of a state report, and not where nothing was done."""
    code: Literal[1, 0, 2, 4, -1] = reply[0]
    hits = int(reply[-2])
    if code == 1:
        return Granted(reply[1] / 1e6, reply[2], hits)
    if code == 0:
        return Closed(reply[1] / 1e6, _text(reply[2]), reply[3], hits)
    if code == 2:
        return Applied(reply[1] / 1e6, reply[2] / 1e6, bool(reply[3]), hits, read_info(reply).now_us)
    if code == 4:
        return RunStopped(_text(reply[1]), hits)
    return TooHeavy(reply[1], hits)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
