"""Budget: checks and holds the limits of one API, as the user configures them. The limiter enforces them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from workers.deprecation import warn_renamed
from workers.errors import ConfigurationError
from workers.limiter.number_checks import is_number, is_whole
from workers.limiter.rate_limit_headers import Quota

#: The largest limit. Its ring takes 8 bytes of Redis for each request.
MOST_REQUESTS = 1_000_000
#: Windows are made a thousandth longer: a clock that is being corrected can run that much too fast.
_WIDENED = 1.001

_LONGEST_SECONDS = 31 * 86_400

Profile = Literal["auto", "burst", "paced"]


@dataclass(frozen=True)
class Limit:
    """At most `requests` requests in any `seconds` seconds.

    Parameters:
      requests(int): How many requests; at least 1.
      seconds(float): The length of the window; more than 0.
      granularity_seconds(float): How coarse the server's own clock is; 1 for a server that counts in whole seconds.
      burst(int): The most requests that the server takes at once, where that is less than `requests`; else 0. Only the
        profile `paced` observes it.
      granularity(float | None): The old name of `granularity_seconds`, deprecated.

    Raises:
      ConfigurationError: A number is out of range.
    """

    requests: int
    seconds: float
    granularity_seconds: float
    burst: int

    def __init__(
        self,
        requests: int,
        seconds: float,
        granularity_seconds: float = 0.0,
        burst: int = 0,
        *,
        granularity: float | None = None,
    ) -> None:
        if granularity is not None:
            warn_renamed("Limit(granularity=...)", "granularity_seconds=")
            granularity_seconds = granularity
        object.__setattr__(self, "requests", requests)
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "granularity_seconds", granularity_seconds)
        object.__setattr__(self, "burst", burst)
        self._check()

    @property
    def granularity(self) -> float:
        """The old name of `granularity_seconds`, deprecated."""
        warn_renamed("Limit.granularity", "Limit.granularity_seconds")
        return self.granularity_seconds

    def _check(self) -> None:
        written = f"Limit({self.requests!r:.40}, seconds={self.seconds!r:.40})"
        lengths = (self.seconds, self.granularity_seconds)
        if not all(is_number(length) and 0 <= length <= _LONGEST_SECONDS for length in lengths):
            raise ConfigurationError(
                f"{written}: seconds must be more than 0 and at most 31 days, granularity_seconds not negative"
            )
        if self.seconds == 0:
            raise ConfigurationError(f"{written}: seconds must be more than 0")
        if not is_whole(self.requests, 1, MOST_REQUESTS):
            raise ConfigurationError(
                f"{written}: requests must be a whole number from 1 to {MOST_REQUESTS:,}{self._instead()}"
            )
        if not is_whole(self.burst, 0, self.requests):
            raise ConfigurationError(
                f"{written}: burst must be a whole number from 0 to requests, not {self.burst!r:.40}"
            )

    def _instead(self) -> str:
        """Return what to write in place of a limit that is too large: a smaller one, with the same pace."""
        if not is_whole(self.requests, 1, 10**15):
            return ""
        parts = -(-self.requests // MOST_REQUESTS)
        return f". Write Limit({self.requests // parts}, seconds={self.seconds / parts:g}): the same pace"

    @property
    def window_microseconds(self) -> int:
        """How long a completed request counts."""
        return math.ceil((self.seconds + self.granularity_seconds) * _WIDENED * 1_000_000)

    def __str__(self) -> str:
        return f"{self.requests}/{self.seconds:g} s"


@dataclass(frozen=True)
class Budget:
    """A named set of limits, shared by all processes that call the same API with the same credentials.

    Parameters:
      name(str): The same name everywhere is the same budget.
      limits(Sequence[Limit]): All of them hold; at least one.
      share(float): The part of each limit that Sluice uses, more than 0 and at most 1. The rest is for other programs
        with the same credentials.
      profile(str): `burst`: as fast as the windows allow. `paced`: a steady rate, for servers that refuse bursts.
        `auto`: burst, until the API refuses a request though every window had room; then windows of up to 100 s are
        paced, until no request was refused for ten minutes.
      trust_server(bool): Whether a limit is also raised when the API's headers name a higher one. Lower limits are
        always adopted.

    Raises:
      ConfigurationError: The name, the share, the profile or the limits are not valid.
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
            raise ConfigurationError(f"A budget's name must not be empty or contain spaces or braces: {name!r}")
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
            raise ConfigurationError(
                f"The budget {name!r} has two limits for windows of {lengths[0]} s: keep the lower one"
            )

    @property
    def lowest(self) -> int:
        """Our share of the lowest limit: no request can weigh more."""
        return min(our_part(limit.requests, self.share) for limit in self.limits)

    def window_of(self, quota: Quota) -> int | None:
        """Return the index of the limit whose window length a response header names; None where none."""
        seconds = quota.seconds or math.nan
        return next((i for i, limit in enumerate(self.limits) if math.isclose(limit.seconds, seconds)), None)


def our_part(requests: int, share: float) -> int:
    """Return our share of a limit, in requests."""
    return max(1, math.floor(requests * share + 1e-6))
