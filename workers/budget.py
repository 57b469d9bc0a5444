"""Budget: what an API allows, as its user states it. Who keeps it is the limiter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from workers.errors import ConfigurationError
from workers.headers import Quota

#: Windows are taken a thousandth longer than they are: clocks that are being corrected may run that fast.
_WIDENED = 1.001

Profile = Literal["auto", "burst", "paced"]


@dataclass(frozen=True)
class Limit:
    """At most `requests` requests in any `seconds` seconds.

    Parameters:
      requests(int): How many; at least 1.
      seconds(float): In which time; more than 0.
      granularity(float): How coarse the server's own clock is, in seconds; 1 for a server that counts in whole seconds.
      burst(int): The most the server takes at once, where that is less than `requests`; 0 where it is not. Only the
        profile `paced` keeps to it.

    Raises:
      ConfigurationError: A number is out of range.
    """

    requests: int
    seconds: float
    granularity: float = 0.0
    burst: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.requests, int) or not 1 <= self.requests <= 1_000_000:
            raise ConfigurationError(
                f"Limit({self.requests}, ...): requests must be a whole number from 1 to 1,000,000"
            )
        if not 0 < self.seconds <= 31 * 86_400 or not 0 <= self.granularity <= 31 * 86_400:
            raise ConfigurationError(
                f"{self}: seconds must be more than 0 and at most 31 days, granularity not negative"
            )
        if not isinstance(self.burst, int) or not 0 <= self.burst <= self.requests:
            raise ConfigurationError(f"{self}: burst must be a whole number from 0 to requests, not {self.burst}")

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
      share(float): The part of each limit that is ours, more than 0 and at most 1; the rest is for others who use the
        same credentials.
      profile(str): `burst`: as fast as a log of requests allows. `paced`: a steady rate, for servers that refuse
        bursts. `auto`: burst, until the API refuses a request though every window had room; then paced, for good.
      trust_server(bool): Whether a limit is raised, too, when the API's headers name a higher one. Lower ones are
        always adopted.

    Raises:
      ConfigurationError: The name, the share, the profile or the limits cannot be.
    """

    name: str
    limits: tuple[Limit, ...]
    share: float
    profile: Profile
    trust_server: bool

    def __init__(
        self,
        name: str,
        limits: Sequence[Limit],
        *,
        share: float = 1.0,
        profile: Profile = "auto",
        trust_server: bool = False,
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "limits", tuple(limits))
        object.__setattr__(self, "share", share)
        object.__setattr__(self, "profile", profile)
        object.__setattr__(self, "trust_server", trust_server)
        if not name or any(c in name for c in "{} \n"):
            raise ConfigurationError(f"A budget's name may not be empty or hold spaces or braces: {name!r}")
        if not self.limits:
            raise ConfigurationError(
                f"The budget {name!r} has no limits: give it at least one Limit(requests, seconds)"
            )
        if not 0 < share <= 1:
            raise ConfigurationError(f"The budget {name!r}: share must be more than 0 and at most 1, not {share}")
        if profile not in get_args(Profile):
            raise ConfigurationError(f"The budget {name!r}: profile must be auto, burst or paced, not {profile!r}")
        lengths = [f"{limit.seconds:g}" for limit in self.limits]
        if len(set(lengths)) < len(lengths):
            raise ConfigurationError(f"The budget {name!r} has two limits for {lengths[0]} s: only the lower one holds")

    def window_of(self, quota: Quota) -> int | None:
        """Return the index of the limit whose length a response's header names; None where it names none of these."""
        seconds = quota.seconds or math.nan
        return next((i for i, limit in enumerate(self.limits) if math.isclose(limit.seconds, seconds)), None)
