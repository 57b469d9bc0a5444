"""Budget: what an API allows, as its user states it. Who keeps it is the limiter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from workers.errors import ConfigurationError
from workers.limiter.headers import Quota
from workers.limiter.number_checks import is_number, is_whole

#: The largest limit there can be: for each one its ring takes 8 bytes of Redis.
MOST_REQUESTS = 1_000_000
#: Windows are taken a thousandth longer than they are: clocks that are being corrected may run that fast.
_WIDENED = 1.001

_LONGEST_SECONDS = 31 * 86_400

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
        said = f"Limit({self.requests!r:.40}, seconds={self.seconds!r:.40})"
        if not all(
            is_number(length) and 0 <= length <= _LONGEST_SECONDS for length in (self.seconds, self.granularity)
        ):
            raise ConfigurationError(
                f"{said}: seconds must be more than 0 and at most 31 days, granularity not negative"
            )
        if self.seconds == 0:
            raise ConfigurationError(f"{said}: seconds must be more than 0")
        if not is_whole(self.requests, 1, MOST_REQUESTS):
            raise ConfigurationError(
                f"{said}: requests must be a whole number from 1 to {MOST_REQUESTS:,}{self._instead()}"
            )
        if not is_whole(self.burst, 0, self.requests):
            raise ConfigurationError(f"{said}: burst must be a whole number from 0 to requests, not {self.burst!r:.40}")

    def _instead(self) -> str:
        """Say what to write for a limit that is too large: parts of it, in the same part of the time each."""
        if not is_whole(self.requests, 1, 10**15):
            return ""
        parts = -(-self.requests // MOST_REQUESTS)
        return f". Write Limit({self.requests // parts}, seconds={self.seconds / parts:g}): the same pace"

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
        bursts. `auto`: burst, until the API refuses a request though every window had room; then its windows of up to
        100 s are paced, until none was refused for ten minutes.
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
        if not isinstance(name, str) or not name or any(c in name for c in "{} \n"):
            raise ConfigurationError(f"A budget's name may not be empty or hold spaces or braces: {name!r}")
        if not self.limits:
            raise ConfigurationError(
                f"The budget {name!r} has no limits: give it at least one Limit(requests, seconds)"
            )
        if not is_number(share) or not 0 < share <= 1:
            raise ConfigurationError(f"The budget {name!r}: share must be more than 0 and at most 1, not {share!r:.40}")
        if profile not in get_args(Profile):
            raise ConfigurationError(f"The budget {name!r}: profile must be auto, burst or paced, not {profile!r}")
        lengths = [f"{limit.seconds:g}" for limit in self.limits]
        if len(set(lengths)) < len(lengths):
            raise ConfigurationError(f"The budget {name!r} has two limits for {lengths[0]} s: only the lower one holds")

    @property
    def lowest(self) -> int:
        """The lowest of its limits, as far as it is ours: no request may weigh more."""
        return min(our_part(limit.requests, self.share) for limit in self.limits)

    def window_of(self, quota: Quota) -> int | None:
        """Return the index of the limit whose length a response's header names; None where it names none of these."""
        seconds = quota.seconds or math.nan
        return next((i for i, limit in enumerate(self.limits) if math.isclose(limit.seconds, seconds)), None)


def our_part(requests: int, share: float) -> int:
    """Return how many of a limit's requests are ours."""
    return max(1, math.floor(requests * share + 1e-6))
