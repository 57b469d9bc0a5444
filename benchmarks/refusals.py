"""Group the 429s that an onlooker saw into bursts."""

from dataclasses import dataclass
from typing import Any

from benchmarks.fleet import Fleet
from benchmarks.onlooker import Onlooker

_LOOK_SECONDS = 0.05
#: Refusals further apart are two bursts. A Retry-After is never less than a second.
_APART_SECONDS = 0.5


@dataclass
class Burst:
    """Refusals close together, and the quiet after them. Instants are monotonic seconds, one look late at most."""

    first_at: float
    last_at: float
    refused: int
    quiet_seconds: float | None = None


class RefusalWatch(Onlooker):
    """Looks on during a `with` block.

    Attributes:
      bursts: What was seen, in order; of the last burst the quiet may be unknown.
    """

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet, _LOOK_SECONDS)
        self.bursts: list[Burst] = []
        self._requests = self._rejected = 0

    @property
    def shortest_quiet_seconds(self) -> float | None:
        """The shortest time without any request after a burst."""
        return min((b.quiet_seconds for b in self.bursts if b.quiet_seconds is not None), default=None)

    def note(self, stats: dict[str, Any], now: float) -> None:
        """Take in one look at the mock's counts."""
        moved, refused = stats["requests"] > self._requests, stats["rejected"] - self._rejected
        self._requests, self._rejected = stats["requests"], stats["rejected"]
        last = self.bursts[-1] if self.bursts else None
        going_on = last is not None and last.quiet_seconds is None and now - last.last_at < _APART_SECONDS
        if last and moved and going_on:
            # A request that was already under way belongs to the burst, accepted or not.
            last.last_at, last.refused = now, last.refused + refused
            return
        if last and moved and last.quiet_seconds is None:
            last.quiet_seconds = now - last.last_at
        if refused:
            self.bursts.append(Burst(now, now, refused))
