"""Decides whether a refusal (429 and its like) is the budget's or one request's own, and when its item or page fails.

A refusal is the budget's as long as nothing else was answered between it and the one before: the budget pauses, and the
item or page is requested again. It is the item's or page's own if other requests were answered in between, and a
control request is answered now. Then only this item or page waits. All its refusals count, and it fails after as many
of them as there are attempts. Without the control, good items would fail where the limits are configured too high:
there, too, the API answers some requests between two refusals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from workers import clock
from workers.errors import RateLimited, Refused
from workers.limiter.permits import Subject
from workers.settings import get_settings
from workers.text.error_text import message_of

#: The metadata key of an item, or of a run, under which its refusals are stored.
KEY = "refusals"
#: An item fails if all but this many of its refusals are its own: the first ones can be the budget's.
_POSSIBLY_OF_BUDGET = 2
#: From this number of refusals on, a control request goes first, if nothing else was requested in between.
_CONTROL_FROM = 2
#: An item or page that has been refused for longer fails, although the API refuses everything else, too.
_LONGEST_SECONDS = 25 * 3600.0


@dataclass(frozen=True)
class Refusals:
    """The refusals of one item or list page.

    Attributes:
      times: How many there were.
      at_us: When the last was, in microseconds by the budget's clock.
      own: How many of them were its own.
      since: When the first was, in seconds since 1970.
    """

    times: int = 0
    at_us: int = 0
    own: int = 0
    since: float = 0.0

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> Self:
        """Return the refusals that the metadata of an item, or of a run, holds."""
        stored = (metadata or {}).get(KEY)
        return cls(*stored) if stored else cls()

    @property
    def subject(self) -> Subject:
        """What a permit client must know before the item or page is requested again."""
        return Subject(self.at_us, alone=self.own > 0)

    @property
    def need_control(self) -> bool:
        """Whether a control request goes first, to decide whose refusals these are.

        It goes every other time: an API that allows one request in a while would answer the control each time, and
        never the item.
        """
        return self.times >= _CONTROL_FROM and self.times % 2 == 0 and not self.own and not self.are_old

    @property
    def are_too_many(self) -> bool:
        """Whether the item or page fails."""
        most = get_settings().max_attempts
        return self.times >= most and (self.own >= max(1, most - _POSSIBLY_OF_BUDGET) or self.are_old)

    @property
    def are_old(self) -> bool:
        """Whether the first was more than 25 hours ago: then it fails, although nothing else is answered either."""
        return clock.now().timestamp() - self.since > _LONGEST_SECONDS

    def with_refusal(self, refusal: Refused, *, own: bool) -> Self:
        """Return these and one more.

        Parameters:
          own(bool): Whether it is the item's or page's own: `refusal.own`, and a control request was answered.
        """
        return self._with_one(refusal.at_us, own=own)

    def with_wait(self) -> Self:
        """Return these and one more that the source's own code raised: it is always the item's or page's own."""
        return self._with_one(self.at_us, own=True)

    def _with_one(self, at_us: int, *, own: bool) -> Self:
        since = self.since or clock.now().timestamp()
        return replace(self, times=self.times + 1, at_us=at_us, own=self.own + own, since=since)

    def to_metadata(self) -> dict[str, list[Any]]:
        """Return these as metadata, which `of` reads."""
        return {KEY: [self.times, self.at_us, self.own, self.since]}

    def reason(self, wait: RateLimited) -> str:
        """Return why an item or page waits, or has failed: how often it was refused, and the last message."""
        others = "though others were answered" if self.own else "and nothing else was answered"
        return f"refused {self.times} times {others}: {_message(wait)}"


def _message(wait: RateLimited) -> str:
    """Return why an error asks to wait; its text, if a user's own subclass has no reason."""
    reason = getattr(wait, "reason", None)
    return reason if isinstance(reason, str) else message_of(wait)
