"""Cron: five fields in a named timezone, and the slots they stand for. cronsim does the arithmetic."""

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

#: What people write instead of five fields.
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
      expression(str): minute, hour, day of month, month, day of week, as in Debian's cron; or an alias, as @daily.
      timezone(str): A name of the IANA database, as Europe/Paris.

    Raises:
      UsageError: The expression or the timezone cannot be read, or the time never comes; the message says the fix.

    A time that summer time leaps over comes when the leap is over; one that comes twice, comes the first time only.
    Where the minute or the hour begins with a star, every time that the zone's clock shows is a slot: such slots come
    in both of two hours with one name, and what is leapt over is not made up for.

    Source: Debian's cron, as cronsim has it for fixed times; see `_steady` for the others.
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
        said: str = CronSim(self.expression, _ANY_DAY).explain()
        return said

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the slots after `instant` (UTC-aware), oldest first, in UTC; from whichever instant, the same ones."""
        minute, hour, *_ = self.expression.split()
        steady = minute.startswith("*") or hour.startswith("*")
        last = instant
        for slot in self._steady(instant) if steady else self._at_fixed_times(instant):
            if slot > last:  # both may begin a little too early; and two slots may be leapt over
                yield slot
                last = slot

    def next(self, count: int, after: datetime) -> list[datetime]:
        """Return the next `count` slots after an instant, in UTC; fewer where the calendar ends."""
        return list(islice(self.after(after), count))

    def between(self, begin: datetime, end: datetime, most: int) -> list[datetime]:
        """Return the slots after `begin` up to and with `end`: the newest `most` of them, oldest first."""
        span = timedelta(days=1)
        while end - span > begin:  # a year of minutes would take ten seconds to count
            slots = self._between(end - span, end, most)
            if len(slots) == most:
                return slots
            span *= 4
        return self._between(begin, end, most)

    def _between(self, begin: datetime, end: datetime, most: int) -> list[datetime]:
        return list(deque(takewhile(lambda slot: slot <= end, self.after(begin)), maxlen=most))

    def _at_fixed_times(self, instant: datetime) -> Iterator[datetime]:
        """Yield the instants at which cronsim, which knows of summer time, says they come."""
        for local in CronSim(self.expression, instant.astimezone(self._zone)):
            yield local.astimezone(UTC)

    def _steady(self, instant: datetime) -> Iterator[datetime]:
        """Yield every instant at which the zone's clock shows such a time.

        cronsim goes by whole hours here, and misses slots where a clock is moved by half an hour; so it is given times
        without a zone.
        """
        here = instant.astimezone(self._zone)
        twice = here.replace(fold=0).utcoffset() - here.replace(fold=1).utcoffset()  # type: ignore[operator]
        again: deque[datetime] = deque()  # what the clock shows a second time
        for wall in CronSim(self.expression, here.replace(tzinfo=None) - twice):
            shown = self._shown(wall)
            while again and shown and again[0] < shown[0]:
                yield again.popleft()
            yield from shown[:1]
            again.extend(shown[1:])

    def _shown(self, wall: datetime) -> list[datetime]:
        """Return the instants at which the zone's clock shows a time: one or, when it is moved, none or two."""
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
        except (CronSimError, ValueError, AssertionError, RecursionError) as error:  # cronsim asserts some of them
            raise UsageError(f"{_short(expression)} cannot be read ({error or 'bad field'}): {_EXAMPLE}") from None
        for step, most in _steps(expression):
            if step > most:  # it reads like every 90 minutes, and would be every hour
                raise UsageError(f"{expression!r} cannot be kept: a step of {step} does not fit in {most}; {_EXAMPLE}")
        if comes is None:
            raise UsageError(f"{_short(expression)} never comes: is there such a day in that month?")


def _steps(expression: str) -> Iterator[tuple[int, int]]:
    """Yield each step of an expression that can be read, and how many values its field has."""
    for field, most in zip(expression.split(), (60, 24, 31, 12, 7), strict=True):
        for step in re.findall(r"/(\d+)", field):
            yield int(step), most


def _short(expression: str) -> str:
    return repr(expression if len(expression) <= _LONGEST else expression[:_LONGEST] + "...")


def _zone(name: str) -> ZoneInfo:
    if name not in _names():  # a name that is a path must not reach the files
        raise UsageError(f"There is no timezone {name[:60]!r}: write a name like Europe/Paris, or UTC")
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime"}  # which each host takes for another one


class CatchUp(StrEnum):
    """Which slots are made up for. The others leave a row, with the reason."""

    #: The newest one.
    LATEST = "latest"
    #: None.
    NONE = "none"
    #: Each, one after the other.
    ALL = "all"


def read_catch_up(text: str) -> CatchUp:
    """Return what the text names.

    Raises:
      UsageError: It names none; the message lists them.
    """
    if text not in list(CatchUp):
        raise UsageError(f"catch-up cannot be {str(text)[:40]!r}: use {', '.join(CatchUp)}")
    return CatchUp(text)
