"""Draw the faults of a run and their times from a seed: the same for the same seed on every machine."""

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is done."""

    CHILD_KILLED = "kill -9 of a worker process"
    SUPERVISOR_KILLED = "kill -9 of the supervisor"
    SCHEDULER_KILLED = "kill -9 of the scheduler"
    REDIS_KILLED = "kill -9 of Redis"
    REDIS_KEEPER_KILLED = "kill -9 of `workers redis`"
    ALL_KILLED = "kill -9 of everything"
    CHILD_STOPPED = "SIGSTOP of a worker process"
    SUPERVISOR_STOPPED = "SIGSTOP of the supervisor"
    SCHEDULER_STOPPED = "SIGSTOP of the scheduler"
    REDIS_STOPPED = "SIGSTOP of Redis"
    REDIS_RESTARTED = "SIGTERM to Redis, and start"
    REDIS_KEEPER_RESTARTED = "SIGTERM to `workers redis`, and start"
    REDIS_FLUSHED = "FLUSHALL"
    DRAINED = "SIGTERM to the supervisor, and start"
    POSTGRES_RESTARTED = "restart of Postgres, fast"
    POSTGRES_BROKEN_OFF = "restart of Postgres, immediate"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Parameters:
      at: When: once this share of the requests that a run without faults makes has been accepted.
      kind: What is done.
      which: To which worker process, where there are several.
      seconds: How long what was stopped stays so, or how long Postgres is away.
      again_after_seconds: When the same is done once more: during the recovery. None: never.
    """

    at: float
    kind: Kind
    which: int = 0
    seconds: float = 0.0
    again_after_seconds: float | None = None


#: How long a SIGSTOP lasts.
STOPPED_SECONDS = 5.0
#: The list is read within this share of a run's requests.
_LIST_SHARE = 0.04
#: Short runs are struck after their list: a page that is lost with its reader takes a lease to come back.
_SHORT_FIRST_SHARE = 0.1
#: After it so little is left that the run could end before the fault strikes.
_LAST_SHARE = 0.95
#: How many of each seed's faults come in turn, so that a few seeds meet every kind. A worker process is killed in
#: every seed, and Postgres, where there is one, restarted; the others are drawn by lot.
_IN_TURN = 3
_MOST_FAULTS = 12
_FEWEST_FAULTS = 8
_TWICE_OVER = 2

_POSTGRES = (Kind.POSTGRES_RESTARTED, Kind.POSTGRES_BROKEN_OFF)
_STOPPED = (Kind.CHILD_STOPPED, Kind.SUPERVISOR_STOPPED, Kind.SCHEDULER_STOPPED, Kind.REDIS_STOPPED)
#: Together they meet each way in which a part can go; the third is for Postgres.
_SHORT = (
    (Kind.CHILD_KILLED, Kind.SUPERVISOR_KILLED, Kind.REDIS_FLUSHED),
    (Kind.DRAINED, Kind.CHILD_STOPPED, Kind.REDIS_KILLED),
    (Kind.POSTGRES_BROKEN_OFF, Kind.CHILD_KILLED, Kind.SCHEDULER_KILLED, Kind.POSTGRES_RESTARTED),
)


def kinds(*, postgres: bool) -> tuple[Kind, ...]:
    """Return the kinds of fault that a run on this database can meet."""
    return tuple(kind for kind in Kind if postgres or kind not in _POSTGRES)


def schedule(seed: int, *, postgres: bool, short: bool = False) -> tuple[Fault, ...]:
    """Return what strikes the run of a seed, in order.

    Parameters:
      seed: From 1. Decides everything.
      postgres: Whether the run's database is a Postgres, which can be restarted.
      short: For a run of 160 items: three or four faults. Three seeds in a row meet each way to go.

    Returns:
      8 to 12 faults, spread over the run, two of them twice over; in half of the seeds the first strikes the list.
    """
    lot = random.Random(f"{seed} {postgres} {short}")
    chosen = _short_kinds(seed, postgres) if short else _kinds(lot, seed, postgres)
    twice = set() if short else set(lot.sample(range(len(chosen)), _TWICE_OVER))
    first = _SHORT_FIRST_SHARE if short else 0.0
    faults = []
    for place, kind in enumerate(chosen):
        at = first + (_LAST_SHARE - first) * (place + lot.random()) / len(chosen)
        if place == 0 and not short and lot.random() < 0.5:
            at = lot.uniform(0, _LIST_SHARE)
        again = lot.uniform(0.2, 2.0) if place in twice else None
        faults.append(Fault(round(at, 3), kind, lot.randrange(16), _seconds(lot, kind), again))
    return tuple(faults)


def _kinds(lot: random.Random, seed: int, postgres: bool) -> list[Kind]:
    there = kinds(postgres=postgres)
    chosen = [Kind.CHILD_KILLED]
    if postgres:
        chosen.append(_POSTGRES[seed % len(_POSTGRES)])
    chosen += [there[(_IN_TURN * (seed - 1) + place) % len(there)] for place in range(_IN_TURN)]
    chosen += lot.choices(there, k=lot.randint(_FEWEST_FAULTS, _MOST_FAULTS) - len(chosen))
    lot.shuffle(chosen)
    return chosen


def _short_kinds(seed: int, postgres: bool) -> list[Kind]:
    deck = _SHORT[(seed - 1) % len(_SHORT)]
    return [kind for kind in deck if postgres or kind not in _POSTGRES]


def _seconds(lot: random.Random, kind: Kind) -> float:
    if kind in _STOPPED:
        return STOPPED_SECONDS
    return round(lot.uniform(0, 3), 1) if kind in _POSTGRES else 0.0
