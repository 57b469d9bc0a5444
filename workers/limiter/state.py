"""Snapshot of a budget, read from Redis once: usage and limit of each window, pause, profile, counters."""

from dataclasses import dataclass

from workers.limiter.budget import Limit


@dataclass(frozen=True)
class WindowState:
    """One limit of a budget, now.

    Attributes:
      limit(Limit): As it is configured.
      full(int): The whole limit now, our share and the others': as configured, or as the API named it.
      in_force(int): How many requests can count at once now: our share of `full`.
      used(int): How many do: in flight, completed within the window, or spent by others.
    """

    limit: Limit
    full: int
    in_force: int
    used: int

    @property
    def title(self) -> str:
        """The limit as it is now: `500/20 s`."""
        return f"{self.full}/{self.limit.seconds:g} s"


@dataclass(frozen=True)
class Note:
    """A decision about a budget, and its reason.

    Attributes:
      seconds_ago(float): Its age.
      text(str): The decision and the reason, in one line.
    """

    seconds_ago: float
    text: str


@dataclass(frozen=True)
class BudgetState:
    """A budget, now. Times to come are seconds from now; 0 means that the budget is open.

    Attributes:
      name(str): The budget's name.
      windows(tuple[WindowState, ...]): One for each limit, in the order of the limits.
      in_flight(int): Units of the requests that were granted a permit and have no response yet.
      waiting(int): Permit clients that wait for a permit.
      opens_in_seconds(float): When the next permit can be granted. An estimate where it depends on a request in flight.
      paused_for_seconds(float): How much of the pause is left.
      paused_why(str): What the API's response said.
      canary(bool): After a pause one request was sent to test whether the API answers; the others wait for it.
      profile(str): `burst` or `paced`, as it is now.
      profile_why(str): Why `auto` switched to `paced`.
      widened_seconds(float): By how much windows are longer than configured.
      relaxes_in_seconds(float): When `auto` forgets what it learned, if no request is refused until then; 0 where it
        has learned nothing.
      taken_as_full_seconds(float): The state was lost. Until then, the windows count requests that were possibly
        sent.
      lost_why(str): How the state was lost.
      granted(int): Permits granted, since the beginning.
      hits(int): Rate-limit hits, since the beginning.
      sleeps(int): Planned waits, since the beginning.
      foreign(int): Requests of others that response headers showed, since the beginning.
      slept_seconds(float): The length of all planned waits that have ended.
      sleeping_seconds(float): How long the current planned wait has lasted.
      known(bool): False where Redis has no state of this budget: never used, or lost and not yet rebuilt.
      weight(int): The weight of the request for which `opens_in_seconds` holds.
      notes(tuple[Note, ...]): The last decisions, newest first.
    """

    name: str
    windows: tuple[WindowState, ...]
    in_flight: int = 0
    waiting: int = 0
    opens_in_seconds: float = 0.0
    paused_for_seconds: float = 0.0
    paused_why: str = ""
    canary: bool = False
    profile: str = "burst"
    profile_why: str = ""
    widened_seconds: float = 0.0
    relaxes_in_seconds: float = 0.0
    taken_as_full_seconds: float = 0.0
    lost_why: str = ""
    granted: int = 0
    hits: int = 0
    sleeps: int = 0
    foreign: int = 0
    slept_seconds: float = 0.0
    sleeping_seconds: float = 0.0
    known: bool = True
    weight: int = 1
    notes: tuple[Note, ...] = ()
