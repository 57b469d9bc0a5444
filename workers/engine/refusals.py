"""Refusals: how often an API refused one thing, an item or a list page, and whether that is the thing's own doing.

A refusal is the budget's as long as nothing else was answered between it and the one before: then the budget pauses,
and the thing is asked again. Where others were answered in between, and a control is at this moment, it is the thing's
own: it waits alone, all its refusals count, and as many of them as there are attempts end it. Without the control good
items would be given up where the limits are given too high: others are answered then, too, by turns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from workers import clock
from workers.errors import Refused
from workers.limiter.permits import Subject
from workers.settings import get_settings

#: Under this name they are kept in the metadata of an item, or of a run.
KEY = "refusals"
#: Of as many refusals as there are attempts, all but this number must be its own: the first ones may be the budget's.
_NOT_KNOWN = 2
#: From this number of refusals on, a control is asked for first, where nothing else was asked in between.
_DOUBTED = 2
#: A thing that was refused for longer ends, although the API answers nothing else either.
_LONGEST_SECONDS = 25 * 3600.0


@dataclass(frozen=True)
class Refusals:
    """What is known of one thing's refusals.

    Attributes:
      times: How many there were.
      at_us: When the last was, by the budget's clock.
      own: How many of them were its own.
      since: When the first was, in seconds since 1970.
    """

    times: int = 0
    at_us: int = 0
    own: int = 0
    since: float = 0.0

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> Self:
        """Return what an item's, or a run's, metadata holds."""
        kept = (metadata or {}).get(KEY)
        return cls(*kept) if kept else cls()

    @property
    def subject(self) -> Subject:
        """What a permit client is to know before the thing is asked for again."""
        return Subject(self.at_us, alone=self.own > 0)

    @property
    def are_doubted(self) -> bool:
        """Whether something else is to be asked for before it, to know whose refusals these are.

        Every other time: an API that allows one request in a while would answer that, and never the thing itself.
        """
        return self.times >= _DOUBTED and self.times % 2 == 0 and not self.own and not self.are_old

    @property
    def are_too_many(self) -> bool:
        """Whether the thing has ended."""
        most = get_settings().max_attempts
        return self.times >= most and (self.own >= max(1, most - _NOT_KNOWN) or self.are_old)

    @property
    def are_old(self) -> bool:
        """Whether the thing ends although nothing else is answered either: it was refused for more than 25 hours."""
        return clock.now().timestamp() - self.since > _LONGEST_SECONDS

    def and_one(self, refusal: Refused, *, own: bool) -> Self:
        """Return them with one more.

        Parameters:
          own(bool): Whether it is the thing's own: `refusal.own`, and a control was answered.
        """
        return self._and(refusal.at_us, own=own)

    def and_a_wait(self) -> Self:
        """Return them with one more that the source's own code brought about: it is the thing's."""
        return self._and(self.at_us, own=True)

    def _and(self, at_us: int, *, own: bool) -> Self:
        since = self.since or clock.now().timestamp()
        return replace(self, times=self.times + 1, at_us=at_us, own=self.own + own, since=since)

    def kept(self) -> dict[str, list[Any]]:
        """Return them as metadata."""
        return {KEY: [self.times, self.at_us, self.own, self.since]}

    def said(self, reason: str) -> str:
        """Say what they came to."""
        others = "though others were answered" if self.own else "and nothing else was answered"
        return f"refused {self.times} times {others}: {reason}"
