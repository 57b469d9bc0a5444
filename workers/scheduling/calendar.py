"""Calendar: the past, skipped and scheduled runs of the week around today, by source and blocks of three hours."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from peewee import SQL, fn

from workers.connections import database
from workers.cron import Cron
from workers.errors import SluiceError
from workers.records.tables import Run, RunEvent, RunStatus, Schedule
from workers.reports.labels import EXPLAINED, OUTCOMES, outcome
from workers.scheduling import schedules
from workers.sources.registry import get_registry

DAYS_BEFORE, DAYS_AFTER = 3, 3
#: In local time: a block can be an hour longer or shorter on the day of a clock change.
BLOCK_HOURS = 3
#: How many sources and tenants are shown, and how many reasons are read, at most: this bounds the cost.
MOST_ROWS, MOST_REASONS = 25, 300

#: Runs are counted by quarters of an hour, because days begin at one in every time zone.
_BUCKET_SECONDS = 900
_INSTANT = timedelta(microseconds=1)

Whose = tuple[str, str | None]
Block = tuple[date, int]


class Part(NamedTuple):
    """Runs of one block with the same outcome.

    Parameters:
      outcome(str): One of `labels.OUTCOMES`.
      runs(int): How many.
      first(datetime), last(datetime): When the first and the last were due, UTC-aware.
      run_id(int | None): The newest of them; None if it does not exist yet.
      reason(str): The reason for the outcome of the newest; empty if it needs none.
    """

    outcome: str
    runs: int
    first: datetime
    last: datetime
    run_id: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """The past and future runs of a source and tenant.

    Attributes:
      blocks: By day and number of the block, 0 to 7; in each the most urgent outcome first.
    """

    source: str
    tenant: str | None
    blocks: Mapping[Block, tuple[Part, ...]]


@dataclass(frozen=True)
class Strip:
    """The calendar of all sources.

    Attributes:
      days: In the viewer's zone, oldest first; `today` is one of them.
      left_out: How many sources and tenants there are beyond those shown.
    """

    now: datetime
    today: date
    days: tuple[date, ...]
    rows: tuple[Row, ...]
    left_out: int


def calendar_strip(zone: tzinfo, now: datetime) -> Strip:
    """Return the runs around today, at the time they were due or else created, and the slots that have no run yet.

    Parameters:
      zone(tzinfo): The viewer's time zone, which determines where days begin.
      now(datetime): The database's time, UTC-aware.
    """
    today = now.astimezone(zone).date()
    days = tuple(today + timedelta(days=n) for n in range(-DAYS_BEFORE, DAYS_AFTER + 1))
    every = schedules.every()
    found: dict[Whose, dict[Block, list[Part]]] = {(name, None): {} for name in get_registry()}
    found |= {(schedule.source, schedule.tenant): {} for schedule in every}
    for whose, part in _made(_midnight(days[0], zone), _midnight(days[-1] + timedelta(days=1), zone), now):
        found.setdefault(whose, {}).setdefault(_block(part.first, zone), []).append(part)
    shown = sorted(found, key=lambda whose: (not found[whose], whose[0], whose[1] or ""))[:MOST_ROWS]
    active = [schedule for schedule in every if (schedule.source, schedule.tenant) in shown and _is_followed(schedule)]
    used = _used(active, now)
    for schedule in active:
        for part in _upcoming(schedule, days[DAYS_BEFORE:], zone, now, used[schedule.id]):
            found[schedule.source, schedule.tenant].setdefault(_block(part.first, zone), []).append(part)
    merged = {whose: {block: _merge(parts) for block, parts in found[whose].items()} for whose in shown}
    reasons = _reasons(part for blocks in merged.values() for parts in blocks.values() for part in parts)
    rows = tuple(_row(whose, merged[whose], reasons) for whose in sorted(shown, key=lambda w: (w[0], w[1] or "")))
    return Strip(now, today, days, rows, len(found) - len(shown))


def _row(whose: Whose, blocks: Mapping[Block, Sequence[Part]], reasons: Mapping[int, str]) -> Row:
    explained = {
        block: tuple(part._replace(reason=reasons.get(part.run_id or 0, "")) for part in parts)
        for block, parts in blocks.items()
    }
    return Row(*whose, explained)


def _midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _block(at: datetime, zone: tzinfo) -> Block:
    local = at.astimezone(zone)
    return local.date(), local.hour // BLOCK_HOURS


def _merge(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Merge the parts with the same outcome."""
    merged: dict[str, Part] = {}
    for part in parts:
        other = merged.get(part.outcome)
        merged[part.outcome] = _sum(other, part) if other else part
    return tuple(sorted(merged.values(), key=lambda part: OUTCOMES.index(part.outcome)))


def _sum(one: Part, other: Part) -> Part:
    newest = max((one.run_id or 0, other.run_id or 0)) or None
    first, last = min(one.first, other.first), max(one.last, other.last)
    return Part(one.outcome, one.runs + other.runs, first, last, newest)


# --- existing runs


def _made(begin: datetime, end: datetime, now: datetime) -> Iterator[tuple[Whose, Part]]:
    """Yield how many runs were due in each quarter of an hour, by source, tenant and outcome."""
    due = Run.status.in_(list(RunStatus)) & Run.scheduled_at.between(begin, end - _INSTANT)  # as its index needs it
    asked = Run.scheduled_at.is_null() & Run.created_at.between(begin, end - _INSTANT)
    for at, which in ((Run.scheduled_at, due), (Run.created_at, asked)):
        first, last = fn.MIN(at).coerce(False), fn.MAX(at).coerce(False)
        columns = (Run.source, Run.tenant, _bucket(at), outcome(now), fn.COUNT(Run.id), first, last, fn.MAX(Run.id))
        rows: Any = Run.select(*columns).where(which).group_by(*(SQL(str(n)) for n in (1, 2, 3, 4))).tuples()
        for source, tenant, _, result, count, earliest, latest, newest in rows:
            yield (source, tenant), Part(str(result), count, _instant(earliest), _instant(latest), newest)


def _bucket(at: Any) -> Any:
    if database.is_sqlite():
        return fn.STRFTIME("%s", at).cast("INTEGER") / _BUCKET_SECONDS
    return fn.FLOOR(fn.DATE_PART("epoch", at) / _BUCKET_SECONDS)


def _instant(value: Any) -> datetime:
    field: Any = Run.scheduled_at
    instant: datetime = field.python_value(value)
    return instant


def _reasons(parts: Iterable[Part]) -> dict[int, str]:
    """Return the reasons for the outcomes of the newest runs, by id."""
    asked = sorted({part.run_id for part in parts if part.run_id and part.outcome in EXPLAINED}, reverse=True)
    newest = asked[:MOST_REASONS]
    rows: Any = Run.select(Run.id, Run.error_summary).where(Run.id.in_(newest)).tuples()
    found = {run_id: summary for run_id, summary in rows if summary}
    return _called_off([run_id for run_id in newest if run_id not in found]) | found


def _called_off(run_ids: Sequence[int]) -> dict[int, str]:
    """Return who cancelled or paused the runs without a stored reason."""
    events = RunEvent.select(RunEvent.run_id, RunEvent.what, RunEvent.who, RunEvent.door)
    own = events.where(RunEvent.run_id.in_(run_ids), RunEvent.what.in_(("cancelled", "paused")))
    rows: Any = own.order_by(RunEvent.id).tuples()
    return {run_id: f"{what} by {who} ({door})" for run_id, what, who, door in rows}


# --- slots without a run


def _is_followed(schedule: Schedule) -> bool:
    return not schedule.paused_at and schedule.source in get_registry()


def _used(active: Sequence[Schedule], now: datetime) -> dict[int, frozenset[datetime]]:
    """Return, by schedule, the future slots that have a run, or had one that was moved or cancelled."""
    ids = [schedule.id for schedule in active]
    rows: Any = Run.select(Run.schedule_id, Run.slot_at).where(Run.schedule_id.in_(ids), Run.slot_at > now).tuples()
    return {wanted: frozenset(slot for schedule_id, slot in rows if schedule_id == wanted) for wanted in ids}


def _upcoming(
    schedule: Schedule, days: Sequence[date], zone: tzinfo, now: datetime, used: frozenset[datetime]
) -> Iterator[Part]:
    """Yield the future slots of a schedule, by block; none if it cannot be read."""
    minute = now.replace(second=0, microsecond=0)  # slots are whole minutes, so the cache holds within one
    with suppress(SluiceError):  # the list of schedules shows the error
        for day in days:
            after, end = max(_midnight(day, zone) - _INSTANT, minute), _midnight(day + timedelta(days=1), zone)
            yield from _slots(schedule.cron, schedule.timezone, (after, end), used, zone)


@lru_cache(maxsize=1024)
def _slots(
    cron: str, timezone: str, span: tuple[datetime, datetime], used: frozenset[datetime], zone: tzinfo
) -> tuple[Part, ...]:
    """Return the unused slots within a span, by block: a schedule that runs every minute has 1,440 a day."""
    after, end = span
    blocks: defaultdict[Block, list[datetime]] = defaultdict(list)
    for slot in takewhile(lambda slot: slot < end, Cron(cron, timezone).after(after)):
        if slot not in used:
            blocks[_block(slot, zone)].append(slot)
    return tuple(Part("scheduled", len(own), own[0], own[-1]) for own in blocks.values())
