"""What the doctor looks at in the sources: contracts and names, their models' tables, their addresses and limits."""

import ipaddress
import math
import socket
import traceback
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from workers import clock
from workers.connections import database
from workers.doctor import database_checks
from workers.doctor.finding import Finding, error, met, ok, refused, warning
from workers.errors import ConfigurationError, DependencyDown
from workers.limiter.budget import Limit
from workers.reports import budget_text, run_stats
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.error_text import describe

_ANSWER_SECONDS = 2.0


def registry() -> Iterator[Finding]:
    """Check that the sources can be read, and that each is what it must be."""
    try:
        known = get_registry()
    except ConfigurationError as why:
        cause = f" ({_where(why.__cause__)})" if why.__cause__ else ""
        found = refused("sources", why, f"correct what SLUICE_SOURCES={get_settings().sources} names")
        yield error("sources", f"{found.what}{cause}", found.fix)
        return
    if not known:
        yield warning("sources", f"{get_settings().sources} lists no source", "docs/write-a-source.md tells how")
    for source in known.values():
        yield ok("sources", f"{source.name}: {source.model.__name__} from {source.connector.base_url}")


def models() -> Iterator[Finding]:
    """Check that the table of each model is there, with its columns."""
    for source in _sources():
        try:
            yield from _table(source)
        except Exception as why:  # another database of the user's may fail in any way
            yield met("sources", why)


def connectors() -> Iterator[Finding]:
    """Check the address, the timeout and the limits of each API."""
    for connector in apis():
        yield from _address(connector)
        yield from _listening(connector)
        yield from _timeout(connector)
        yield from _limits(connector)


def budgets() -> Iterator[Finding]:
    """Check what each API's answers have taught its budget."""
    for connector in apis():
        try:
            state = run_stats.look(connector.budget)
        except (DependencyDown, ValueError):  # Redis is away, or its URL cannot be read
            return  # the findings about Redis tell why
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
        return ()  # `registry` tells why


def _where(cause: BaseException) -> str:
    last = traceback.extract_tb(cause.__traceback__)[-1]
    return f"{describe(cause)}, {last.filename}:{last.lineno}"


# --- models


def _table(source: ImportSource) -> Iterator[Finding]:
    meta = source.model._meta
    place = meta.database
    if place is None:
        fix = "write `database = workers.db` into its class Meta"
        yield error("sources", f"{source.name}: the model {source.model.__name__} has no database", fix)
        return
    if database.is_ours(source.model):
        if not database_checks.is_there():
            return
        with database.connection():
            yield from _columns(source, database.db)
    else:
        with place.connection_context():
            yield from _columns(source, place)


def _columns(source: ImportSource, place: Any) -> Iterator[Finding]:
    meta = source.model._meta
    name = meta.table_name
    if not place.table_exists(name, schema=meta.schema):
        make = "`python -m workers migrate --create-models` makes it"
        yield error("sources", f"{source.name}: there is no table {name}", make)
        return
    there = {column.name for column in place.get_columns(name, meta.schema)}
    if lacking := sorted(set(meta.columns) - there):
        what = f"{source.name}: the table {name} has no {', '.join(lacking)}, which {source.model.__name__} names"
        yield error("sources", what, "add what is missing with a migration of yours: Sluice never alters your tables")
    else:
        yield ok("sources", f"{source.name}: the table {name} fits")


# --- connectors


def _address(connector: Connector) -> Iterator[Finding]:
    parts = urlsplit(connector.base_url)
    if connector.sends_credentials and parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        what = f"{connector.name}: {connector.base_url} is plain http: its credentials can be read on the way"
        yield warning("sources", what, "let base_url begin with https://, if the API has it")


def _listening(connector: Connector) -> Iterator[Finding]:
    """Check that something listens where an API is said to be on this machine."""
    parts = urlsplit(connector.base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not _is_loopback(host):
        return
    try:
        socket.create_connection((host, port), timeout=_ANSWER_SECONDS).close()
    except ConnectionRefusedError:
        mock = " (`python -m mock_server` is the demo's)" if port == get_settings().mock_port else ""
        what = f"nothing listens at {connector.base_url.rstrip('/')}, the API of {_users(connector)}"
        yield warning("sources", what, f"start it{mock}, or correct base_url")
    except OSError:
        return  # --ask tells more


def _users(connector: Connector) -> str:
    """Name the sources that import from an API."""
    return ", ".join(source.name for source in _sources() if source.connector.base_url == connector.base_url)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _timeout(connector: Connector) -> Iterator[Finding]:
    lease, timeout, default = (
        get_settings().lease_seconds,
        connector.timeout_seconds,
        get_settings().request_timeout_seconds,
    )
    if timeout != default and lease < 2 * timeout:  # the default is a finding of the settings
        what = f"{connector.name}: a request may take {timeout:g} s, and a claim is over after {lease:g} s"
        yield warning("sources", what, f"set SLUICE_LEASE_SECONDS={2 * timeout:g}, or a shorter timeout_seconds")


def _limits(connector: Connector) -> Iterator[Finding]:
    limits = connector.budget.limits
    for limit in limits:
        others = [other for other in limits if other is not limit]
        if others and (most := most_in(others, limit.seconds)) <= limit.requests:
            what = f"{connector.name}: the limit {limit} never holds: the others let {most:,} through in its time"
            yield warning("sources", what, f"correct {limit} in the connector's limits, or leave it out")


def most_in(limits: Sequence[Limit], seconds: float) -> int:
    """Return how many requests some limits let through in a time, at the most."""
    return min(limit.requests * math.ceil(seconds / limit.seconds - 1e-9) for limit in limits)
