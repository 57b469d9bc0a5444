"""Parses the arguments that commands share: a source, a run, a time, a time zone; and completes them in a shell."""

import contextlib
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any
from zoneinfo import available_timezones

import click
from click.shell_completion import CompletionItem

from workers.connections import database
from workers.failures import FailureClass
from workers.records.tables import Run
from workers.settings import get_settings
from workers.sources.registry import get_registry
from workers.text.redaction import redact

#: How long a completion can take: the shell waits for it.
_PATIENCE_SECONDS = 1.0
_RUNS = 30


class SourceName(click.ParamType[str]):
    """A source's name. The registry checks that it exists."""

    name = "source"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [c for c in _at_most(_sources) if c.value.startswith(incomplete)]


class RunId(click.ParamType[int]):
    """A run's number."""

    name = "run"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).removeprefix("#")
        if text.isdecimal() and len(text) <= 18:  # as many digits as both databases take
            return int(text)
        return self.fail(
            f"{value!r} is not the number of a run: `python -m workers status` lists them. "
            "A schedule is changed by the name of its source: `python -m workers schedule --help`.",
            param,
            ctx,
        )

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [c for c in _at_most(_runs) if c.value.startswith(incomplete)]


class Instant(click.ParamType[datetime]):
    """An ISO date and time; UTC unless it names an offset."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(str(value))
            return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time: write it like 2026-12-24T18:00 or 2026-12-24T18:00+01:00", param, ctx)


class Zone(click.ParamType[str]):
    """The name of a time zone. The schedule checks that it exists; this suggests the name that was meant."""

    name = "zone"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        zone = str(value)
        meant = None if zone in available_timezones() else _zone_meant(zone)
        if meant:
            self.fail(f"There is no timezone {zone!r}. Did you mean {meant!r}?", param, ctx)
        return zone

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        wanted = incomplete.lower()
        return [CompletionItem(zone) for zone in sorted(available_timezones()) if zone.lower().startswith(wanted)]


SOURCE = click.argument("source", required=False, type=SourceName())
TENANT = click.option("--tenant", help="For which tenant, if the source has tenants.")
#: How an option takes a failure class.
FAILURE_CLASS: Mapping[str, Any] = {"type": click.Choice([c.value for c in FailureClass]), "metavar": "CLASS"}


def _zone_meant(typed: str) -> str | None:
    """Return the zone that was probably meant: other letter case, no continent, or a typing error."""
    known = {zone.lower(): zone for zone in sorted(available_timezones())}
    cities = {name.rpartition("/")[2]: zone for name, zone in known.items() if "/" in name}
    wanted = typed.strip().lower().replace(" ", "_")
    near = known.get(wanted) or cities.get(wanted)
    if near:
        return near
    near_misses = get_close_matches(wanted, known, n=1) or get_close_matches(wanted, cities, n=1)
    return (known | cities)[near_misses[0]] if near_misses else None


def _sources() -> list[CompletionItem]:
    return [CompletionItem(name, help=redact(source.connector.base_url)) for name, source in get_registry().items()]


def _runs() -> list[CompletionItem]:
    path = database.sqlite_path(get_settings().database)
    if path and not path.exists():
        return []  # a look makes no database
    with database.connection():
        newest = Run.select(Run.id, Run.source, Run.status).order_by(Run.id.desc()).limit(_RUNS)
        return [CompletionItem(str(run.id), help=f"{run.source}, {run.status}") for run in newest]


def _at_most(look: Callable[[], Sequence[CompletionItem]]) -> Sequence[CompletionItem]:
    """Return what `look` finds within a second; nothing if it fails, because a shell cannot show an error."""
    found: list[CompletionItem] = []

    def try_it() -> None:
        with contextlib.suppress(Exception):
            found.extend(look())

    looking = threading.Thread(target=try_it, daemon=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        looking.start()
        looking.join(_PATIENCE_SECONDS)
    return tuple(found)
