"""Cron: checks five cron fields in a named timezone and computes their slots. Defines the catch-up policies."""

import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from workers.errors import UsageError

#: Names that replace the five fields.
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_LONGEST = 100
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_EXAMPLE = 'write minute, hour, day, month and weekday, like "0 */3 * * *" (every three hours)'


class Cron:
    """Five cron fields and the timezone in which they are read.

    Parameters:
      expression(str): minute, hour, day of month, month, day of week, as in Debian's cron; or an alias, such as @daily.
      timezone(str): A name of the IANA database, such as Europe/Paris.

    Raises:
      UsageError: The expression or the timezone cannot be read, or the time never occurs; the message says the repair.

    A fixed time that summer time skips is a slot at the end of the skipped hour; a time that occurs twice is a slot the
    first time only. Where the minute or the hour begins with a star, every matching time that the zone's clock shows is
    a slot: in both of two hours with the same name, and in none of a skipped hour.

    Source: Debian's cron, as implemented in cronsim for fixed times; see `_steady` for the others.
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self.expression = ALIASES.get(expression.strip().lower(), " ".join(expression.split()))
        self.timezone = timezone
        self._zone = _zone(timezone)
        self._check()

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.timezone!r})"

    @property
    def in_words(self) -> str:
        """The expression for people, without the timezone."""
        text: str = CronSim(self.expression, _ANY_DAY).explain()
        return text

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the slots after `instant` (UTC-aware), oldest first, in UTC. The slots do not depend on `instant`."""
        minute, hour, *_ = self.expression.split()
        steady = minute.startswith("*") or hour.startswith("*")
        last = instant
        for slot in self._steady(instant) if steady else self._at_fixed_times(instant):
            if slot > last:  # both can begin a little too early, and two skipped times can give one slot
                yield slot
                last = slot

    def next(self, count: int, after: datetime) -> list[datetime]:
        """Return the next `count` slots after an instant, in UTC; fewer where the calendar ends."""
        return list(islice(self.after(after), count))

    def between(self, begin: datetime, end: datetime, most: int) -> list[datetime]:
        """Return the slots after `begin` and not after `end`: the newest `most` of them, oldest first."""
        span = timedelta(days=1)
        while end - span > begin:  # to count a year of minutes would take 10 s
            slots = self._between(end - span, end, most)
            if len(slots) == most:
                return slots
            span *= 4
        return self._between(begin, end, most)

    def _between(self, begin: datetime, end: datetime, most: int) -> list[datetime]:
        return list(deque(takewhile(lambda slot: slot <= end, self.after(begin)), maxlen=most))

    def _at_fixed_times(self, instant: datetime) -> Iterator[datetime]:
        """Yield the instants that cronsim computes, which knows of summer time."""
        for local in CronSim(self.expression, instant.astimezone(self._zone)):
            yield local.astimezone(UTC)

    def _steady(self, instant: datetime) -> Iterator[datetime]:
        """Yield every instant at which the zone's clock shows a matching time.

        cronsim computes in whole hours here, and misses slots where a clock is moved by half an hour. So this passes it
        times without a zone.
        """
        here = instant.astimezone(self._zone)
        twice = here.replace(fold=0).utcoffset() - here.replace(fold=1).utcoffset()  # type: ignore[operator]
        again: deque[datetime] = deque()  # times that the clock shows a second time
        for wall in CronSim(self.expression, here.replace(tzinfo=None) - twice):
            shown = self._shown(wall)
            while again and shown and again[0] < shown[0]:
                yield again.popleft()
            yield from shown[:1]
            again.extend(shown[1:])

    def _shown(self, wall: datetime) -> list[datetime]:
        """Return the instants at which the zone's clock shows a time: one, or none or two when the clock is moved."""
        instants = {wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        return sorted(at for at in instants if at.astimezone(self._zone).replace(tzinfo=None) == wall)

    def _check(self) -> None:
        expression = self.expression
        if expression.startswith("@"):
            raise UsageError(f"{expression!r} is no alias of a schedule: use one of {', '.join(ALIASES)}")
        if len(expression) > _LONGEST or len(expression.split()) != 5:
            raise UsageError(f"{_short(expression)} does not have five fields: {_EXAMPLE}")
        try:
            comes = next(CronSim(expression, _ANY_DAY), None)
        except (
            CronSimError,
            ValueError,
            AssertionError,
            RecursionError,
        ) as error:  # cronsim raises AssertionError for some
            raise UsageError(f"{_short(expression)} cannot be read ({error or 'bad field'}): {_EXAMPLE}") from None
        for step, most in _steps(expression):
            if step > most:  # it looks like every 90 minutes, and would be every hour
                raise UsageError(f"{expression!r} cannot work: a step of {step} is more than {most}; {_EXAMPLE}")
        if comes is None:
            raise UsageError(f"{_short(expression)} never occurs: does the month have such a day?")


def _steps(expression: str) -> Iterator[tuple[int, int]]:
    """Yield each step of an expression that can be read, and how many values its field has."""
    for field, most in zip(expression.split(), (60, 24, 31, 12, 7), strict=True):
        for step in re.findall(r"/(\d+)", field):
            yield int(step), most


def _short(expression: str) -> str:
    return repr(expression if len(expression) <= _LONGEST else expression[:_LONGEST] + "...")


def _zone(name: str) -> ZoneInfo:
    if name not in _names():  # a name that is a path must not be opened as a file
        raise UsageError(f"There is no timezone {name[:60]!r}: write a name like Europe/Paris, or UTC")
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime"}  # which is a different zone on each host


class CatchUp(StrEnum):
    """Which missed slots get a run later. The others get a skipped run, with the reason."""

    #: The newest one.
    LATEST = "latest"
    #: None.
    NONE = "none"
    #: Each, one after the other.
    ALL = "all"


def read_catch_up(text: str) -> CatchUp:
    """Return the policy of this name.

    Raises:
      UsageError: There is no such policy; the message lists them.
    """
    if text not in list(CatchUp):
        raise UsageError(f"catch-up cannot be {str(text)[:40]!r}: use {', '.join(CatchUp)}")
    return CatchUp(text)
