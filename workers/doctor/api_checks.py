"""API checks: requests one list page of an API with a permit, and compares its headers with the configured limits."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from workers import clock
from workers.control import first_page
from workers.doctor import database_checks
from workers.doctor.finding import Finding, error, met, ok, refused, warning
from workers.doctor.source_checks import most_in
from workers.engine import list_parser
from workers.errors import AuthError, PermanentError, RateLimited, RetryableError, SluiceError
from workers.limiter.budget import Budget
from workers.limiter.permits import Permit, PermitClient
from workers.limiter.rate_limit_headers import Quota, quotas
from workers.records.watermark import Watermark
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text import redaction
from workers.text.durations import duration
from workers.text.error_text import describe

_CLOCKS_APART_SECONDS = 5.0
_SLOW_SECONDS = 5.0
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(eq=False)
class Witness(PermitClient):
    """A permit client that keeps the status and headers of the response to its one request.

    Attributes:
      status: 0 where there was no response.
      took_seconds: From the permit to the response's headers.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    took_seconds: float = 0.0
    received_at: datetime = _NEVER

    def report(self, permit: Permit, status: int, headers: Mapping[str, str]) -> None:
        self.status, self.headers, self.received_at = status, headers, clock.now()
        self.took_seconds = clock.monotonic() - permit.granted_at
        super().report(permit, status, headers)


def sources_to_ask() -> list[ImportSource]:
    """Return one source for each API: the first that names it."""
    found: dict[tuple[str, str], ImportSource] = {}
    for source in get_registry().values():
        found.setdefault((source.connector.name, source.connector.base_url), source)
    return list(found.values())


def ask(source: ImportSource) -> Iterator[Finding]:
    """Request the first list page of a source from its API: exactly one request.

    It is the API of the source's own connector; only runs know the connectors of tenants.

    Raises:
      peewee.PeeweeException: The database cannot be used; a permit needs it.
    """
    connector, area = source.connector, _area(source.connector)
    with database_checks.tables() as there:
        if not there:
            yield error(
                area,
                "it was not asked, because a permit needs the database",
                "create its tables first: `python -m workers migrate`",
            )
            return
    try:
        request = first_page.request_for(source)
    except PermanentError as why:
        yield error(area, f"{source.name}: {why.what}", f"correct get_list_request of {type(source).__name__}")
        return
    witness = _witness(connector)
    try:
        answer = first_page.fetch(source, connector, witness, request)
    except SluiceError as why:
        yield _refusal(source, witness, why)
    else:
        yield from _speed(connector, witness)
        yield from _page(source, answer.data)
    if witness.status:
        yield from _headers(connector, witness)


def _area(connector: Connector) -> str:
    return f"API {connector.name}"


def _witness(connector: Connector) -> Witness:
    usual = connector.permit_client(None, None, Watermark(connector.name))
    return Witness(usual.ledger, None, usual.name, usual.max_wait_seconds, usual.longest_pause_seconds)


def _refusal(source: ImportSource, witness: Witness, why: SluiceError) -> Finding:
    """Return the finding for a request that brought no page."""
    area = _area(source.connector)
    if isinstance(why, RateLimited):
        what = str(why) if witness.status else f"it was not asked: {why}"
        return warning(area, what, "ask again then; `python -m workers budgets` shows more")
    if isinstance(why, AuthError):
        return error(area, str(why), f"correct auth=, or the headers, of the connector {source.connector.name!r}")
    if isinstance(why, RetryableError):
        return error(
            area, str(why), f"check that {source.connector.base_url} is right, and can be reached from this machine"
        )
    if isinstance(why, PermanentError):
        return _of_a_redirect(area, witness) or refused(area, why, "correct get_list_request of its source")
    return met(area, why)


def _of_a_redirect(area: str, witness: Witness) -> Finding | None:
    if not 300 <= witness.status < 400 or witness.status == HTTPStatus.NOT_MODIFIED:
        return None
    goal = redaction.excerpt(witness.headers.get("Location", ""), 200)
    where = f" to {goal}" if goal else ""
    fix = "set base_url, or get_list_request, to the final address"
    return error(area, f"it answered {witness.status}: it redirects{where}, and redirects are not followed", fix)


def _speed(connector: Connector, witness: Witness) -> Iterator[Finding]:
    kind = witness.headers.get("Content-Type", "no content type")
    state = f"it answered {witness.status} in {witness.took_seconds:.2f} s ({redaction.excerpt(kind, 60)})"
    if witness.took_seconds > _SLOW_SECONDS:
        yield warning(_area(connector), state, "request smaller pages: per_page of the source")
    else:
        yield ok(_area(connector), state)


# --- the page


def _page(source: ImportSource, data: Any) -> Iterator[Finding]:
    area, title = _area(source.connector), type(source).__name__
    try:
        read = list_parser.read(source, data, first_page.FIRST_CURSOR)
    except PermanentError as why:
        yield error(area, f"{source.name}: {why}", f"correct get_list_items or next_cursor of {title}{_keys(data)}")
        return
    except Exception as why:
        yield error(area, f"{source.name}: {describe(why)}", f"correct the methods of {title}")
        return
    total = "" if read.total is None else f" of {read.total:,}"
    last = ", and it is the last page" if read.next_cursor is None else ""
    state = f"{source.name}: the page holds {len(read.models):,} items{total}{last}"
    if read.refused:
        where = next(iter(read.refused.values()))
        what = f"{source.name}: {len(read.refused):,} items of the page cannot be used, as: {where}"
        yield error(area, what, f"correct create_model_from_list_item of {title}, or the model's get_external_id")
    elif read.models or read.skipped:
        yield ok(area, state)
    else:
        yield warning(area, f"{source.name}: the page holds no items", f"see get_list_items of {title}{_keys(data)}")


def _keys(data: Any) -> str:
    """Return what the page contains, to help find its items."""
    if not isinstance(data, Mapping):
        return f"; the page is a {type(data).__name__}"
    return f"; the page has {redaction.excerpt(json.dumps(list(data)[:12], ensure_ascii=False), 200)}"


# --- the headers


def _headers(connector: Connector, witness: Witness) -> Iterator[Finding]:
    yield from _clock(connector, witness)
    named = quotas(witness.headers, witness.received_at)
    if not named:
        what = "its headers name no limits: the configured ones are used"
        yield ok(_area(connector), f"{what} ({_configured(connector.budget)})")
    for quota in named:
        if quota.limit is not None:
            yield _of_quota(connector, quota)


def _clock(connector: Connector, witness: Witness) -> Iterator[Finding]:
    area = _area(connector)
    there = None
    with suppress(ValueError, TypeError, IndexError, OverflowError):
        there = parsedate_to_datetime(witness.headers.get("Date", ""))
    if there is None:
        yield ok(area, "it sends no Date: a Retry-After that is a date is read by this machine's clock")
        return
    if witness.headers.get("Age", "0").strip() != "0":
        fix = "bypass it: send a Cache-Control header in get_list_request"
        yield warning(area, "the response came out of a cache: the list, and its limits, can be old", fix)
        return
    sent = witness.received_at - timedelta(seconds=witness.took_seconds / 2)
    ahead = (there.replace(tzinfo=there.tzinfo or UTC) - sent).total_seconds() + 0.5  # it has whole seconds only
    if abs(ahead) <= _CLOCKS_APART_SECONDS:
        yield ok(area, "its clock and this machine's agree")
        return
    where = "ahead of" if ahead > 0 else "behind"
    what = f"its clock is {duration(abs(ahead))} {where} this machine's, and the instants in its headers are by its own"
    yield warning(
        area,
        what,
        "set this machine's by NTP: `timedatectl set-ntp true`; or inform the owner of the API",
    )


def _of_quota(connector: Connector, quota: Quota) -> Finding:
    """Compare a limit that a header names with the configured ones."""
    area, budget, most = _area(connector), connector.budget, quota.limit or 0
    if quota.seconds is None:
        return _of_nameless(connector, quota)
    named = f"{quota.header} says {most:,}/{quota.seconds:g} s"
    let_through = most_in(budget.limits, quota.seconds)
    if let_through > most:
        what = f"{named}, and the configured limits ({_configured(budget)}) allow {let_through:,} in that time"
        index = budget.window_of(quota)
        instead = "" if index is None else f", instead of {budget.limits[index]},"
        fix = f"write Limit({most}, seconds={quota.seconds:g}){instead} into the limits of {connector.name!r}"
        return error(area, what, fix)
    if let_through < most:
        return ok(area, f"{named}: more than is configured ({_configured(budget)}), so imports could be faster")
    return ok(area, f"{named}, as configured")


def _of_nameless(connector: Connector, quota: Quota) -> Finding:
    area, budget, most = _area(connector), connector.budget, quota.limit or 0
    named = f"{quota.header} says {most:,}, without its time"
    if any(limit.requests == most for limit in budget.limits):
        return ok(area, f"{named}, as configured ({_configured(budget)})")
    what = f"{named}, and no configured limit has that number ({_configured(budget)})"
    return warning(area, what, f"see the API's documentation, and correct the limits of {connector.name!r}")


def _configured(budget: Budget) -> str:
    return ", ".join(map(str, budget.limits))


def longest_wait_seconds(sources: Sequence[ImportSource]) -> float:
    """Return how long a request to one of these APIs can take at most."""
    longest = max((source.connector.timeout_seconds for source in sources), default=0.0)
    return longest + max((source.connector.limiter.max_wait_seconds for source in sources), default=0.0)
