"""Source checks: checks the sources, the tables of their models, and the address and limits of their APIs."""

import math
import socket
import traceback
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from workers import clock
from workers.connections import database
from workers.connections.loopback import is_loopback
from workers.doctor import database_checks
from workers.doctor.finding import Finding, error, met, ok, refused, warning
from workers.errors import ConfigurationError, DependencyDown
from workers.limiter.budget import Limit
from workers.records import model_database, table_check
from workers.reports import budget_text
from workers.reports.budget_states import budget_state
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.error_text import describe

_ANSWER_SECONDS = 2.0


def registry() -> Iterator[Finding]:
    """Check that the sources can be loaded, and that each one is valid."""
    try:
        known = get_registry()
    except ConfigurationError as why:
        cause = f" ({_where(why.__cause__)})" if why.__cause__ else ""
        found = refused("sources", why, f"correct what SLUICE_SOURCES={get_settings().sources} names")
        yield error("sources", f"{found.what}{cause}", found.fix)
        return
    if not known:
        yield warning("sources", f"{get_settings().sources} lists no source", "docs/write-a-source.md shows how")
    for source in known.values():
        yield ok("sources", f"{source.name}: {source.model.__name__} from {source.connector.base_url}")


def models() -> Iterator[Finding]:
    """Check that the table of each model exists, with its columns and its unique index."""
    for source in _sources():
        try:
            yield from _table(source)
        except Exception as why:  # a database of the user's own can fail in any way
            yield met("sources", why)


def connectors() -> Iterator[Finding]:
    """Check the address, the timeout and the limits of each API."""
    for connector in apis():
        yield from _address(connector)
        yield from _listening(connector)
        yield from _timeout(connector)
        yield from _limits(connector)


def budgets() -> Iterator[Finding]:
    """Check what each budget has learned from its API's responses."""
    for connector in apis():
        try:
            state = budget_state(connector.budget)
        except (DependencyDown, ValueError):  # Redis is away, or its URL cannot be read
            return  # the findings about Redis explain it
        slowed, closed = budget_text.slowed(state), budget_text.why_closed(state, clock.now())
        if slowed:
            relearn = f"correct the limits in the source; then `python -m workers budgets {connector.name} --relearn`"
            yield warning("sources", f"budget {connector.name}: {slowed}", relearn)
        elif closed:
            yield ok("sources", f"budget {connector.name}: {closed}")


def apis() -> list[Connector]:
    """Return each connector of the sources once."""
    return list({(c.name, c.base_url): c for c in (source.connector for source in _sources())}.values())


def _sources() -> Sequence[ImportSource]:
    try:
        return list(get_registry().values())
    except ConfigurationError:
        return ()  # `registry` reports it


def _where(cause: BaseException) -> str:
    last = traceback.extract_tb(cause.__traceback__)[-1]
    return f"{describe(cause)}, {last.filename}:{last.lineno}"


# --- models


def _table(source: ImportSource) -> Iterator[Finding]:
    title = type(source).__name__
    try:
        if database.is_ours(source.model):
            if not database_checks.is_there():
                return
            with database.connection():
                yield from _columns(source, title)
        else:
            table_check.check_named(title, source.model)
            with model_database.connected(source.model):
                yield from _columns(source, title)
    except ConfigurationError as why:
        yield refused("sources", why, "see docs/write-a-source.md")


def _columns(source: ImportSource, title: str) -> Iterator[Finding]:
    meta = source.model._meta
    place, name = meta.database, meta.table_name
    missing: set[str] = set()
    if source.model.table_exists():
        missing = set(meta.columns) - {column.name for column in place.get_columns(name, meta.schema)}
    if missing:
        what = (
            f"{source.name}: the table {name} has no {', '.join(sorted(missing))}, which {source.model.__name__} names"
        )
        yield error("sources", what, "add what is missing with a migration of yours: Sluice never alters your tables")
        return
    table_check.check(title, source.model, source.unique_by)
    yield ok("sources", f"{source.name}: the table {name} fits")


# --- connectors


def _address(connector: Connector) -> Iterator[Finding]:
    parts = urlsplit(connector.base_url)
    if connector.sends_credentials and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        what = f"{connector.name}: {connector.base_url} is plain http: its credentials can be read in transit"
        yield warning("sources", what, "let base_url begin with https://, if the API has it")


def _listening(connector: Connector) -> Iterator[Finding]:
    """Check that a server listens at an API's address, where that is on this machine."""
    parts = urlsplit(connector.base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not is_loopback(host):
        return
    try:
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
    except ConnectionRefusedError:
        mock = " (`python -m mock_server` is the demo's)" if port == get_settings().mock_port else ""
        what = f"nothing listens at {connector.base_url.rstrip('/')}, the API of {_users(connector)}"
        yield warning("sources", what, f"start it{mock}, or correct base_url")
    except OSError:
        return  # --ask says more


def _users(connector: Connector) -> str:
    """Return the names of the sources that import from an API."""
    return ", ".join(source.name for source in _sources() if source.connector.base_url == connector.base_url)


def _timeout(connector: Connector) -> Iterator[Finding]:
    lease, timeout, default = (
        get_settings().lease_seconds,
        connector.timeout_seconds,
        get_settings().request_timeout_seconds,
    )
    if timeout != default and lease < 2 * timeout:  # the default is a finding of the settings
        what = f"{connector.name}: a request can take {timeout:g} s, and a claim expires after {lease:g} s"
        yield warning("sources", what, f"set SLUICE_LEASE_SECONDS={2 * timeout:g}, or a shorter timeout_seconds")


def _limits(connector: Connector) -> Iterator[Finding]:
    limits = connector.budget.limits
    for limit in limits:
        others = [other for other in limits if other is not limit]
        if others and (most := most_in(others, limit.seconds)) <= limit.requests:
            what = f"{connector.name}: the limit {limit} never applies: the other limits allow {most:,} in its time"
            yield warning("sources", what, f"correct {limit} in the connector's limits, or remove it")


def most_in(limits: Sequence[Limit], seconds: float) -> int:
    """Return how many requests some limits allow within `seconds` at most."""
    return min(limit.requests * math.ceil(seconds / limit.seconds - 1e-9) for limit in limits)
