"""The doctor looks at everything that an import stands on, and says what it found, each finding with its fix."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from urllib.parse import unquote, urlsplit

from workers.connections.redis_url import Address
from workers.doctor import api_checks, database_checks, machine_checks, redis_checks, run_checks, source_checks
from workers.doctor.finding import Check, Finding, Level, error, met
from workers.errors import ConfigurationError
from workers.settings import get_settings
from workers.text import redaction
from workers.text.plain_text import one_line

__all__ = ["Finding", "Level", "examine"]

#: Each server is waited for 5 s at most; a folder whose disk is gone, or a user's module, may take forever.
_PATIENCE_SECONDS = 20.0

_WITHOUT_SETTINGS: tuple[tuple[str, Check], ...] = (
    ("python", machine_checks.python),
    ("python", machine_checks.packages),
    ("settings", machine_checks.settings),
)
_WITH_SETTINGS: tuple[tuple[str, Check], ...] = (
    ("files", machine_checks.files),
    ("machine", machine_checks.open_files),
    ("ports", machine_checks.ports),
    ("redis", redis_checks.budgets_redis),
    ("broker", redis_checks.broker),
    ("database", database_checks.connection),
    ("sources", source_checks.registry),
    ("sources", source_checks.models),
    ("sources", source_checks.connectors),
    ("sources", source_checks.budgets),
    ("schedules", database_checks.schedules),
    ("workers", redis_checks.workers),
    ("workers", redis_checks.scheduler),
    ("workers", database_checks.overdue),
    ("runs", run_checks.standing),
)
#: Without these nothing goes on.
_SERVERS = {"redis", "database"}
#: What has nothing to say of its own where the database is away.
_NEED_DATABASE = (source_checks.models, database_checks.schedules, database_checks.overdue, run_checks.standing)


def examine(*, ask: bool = False) -> Iterator[Finding]:
    """Look at everything, and yield each finding as soon as it is known.

    Nothing is raised: what cannot be found out is a finding. Nothing is changed, but by `ask`, which takes permits.

    Parameters:
      ask(bool): Send one list request to each API, too.
    """
    for area, check in _WITHOUT_SETTINGS:
        yield from _findings(area, check)
    try:
        get_settings()
    except ConfigurationError:
        return  # which has been said, and nothing else can be looked at
    _hide_passwords()
    down: set[str] = set()
    for area, check in _WITH_SETTINGS:
        if "database" in down and check in _NEED_DATABASE:
            continue
        for finding in _findings(area, check):
            down |= {area} if finding.down else set()
            yield finding
    if ask:
        yield from _ask(down=bool(down & _SERVERS))


def _ask(*, down: bool) -> Iterator[Finding]:
    if down:
        yield error("APIs", "none was asked: that takes Redis and the database", "mend these first")
        return
    with suppress(ConfigurationError):  # which has been said
        sources = api_checks.sources_to_ask()
        patience = _PATIENCE_SECONDS + api_checks.longest_wait_seconds(sources)
        for source in sources:
            yield from _findings(f"API {source.connector.name}", partial(api_checks.ask, source), patience)


def _findings(area: str, check: Check, patience_seconds: float = _PATIENCE_SECONDS) -> Iterator[Finding]:
    """Yield what a check finds out, in a thread of its own: one that hangs is left behind, and ends with the process.

    Parameters:
      patience_seconds(float): How long each finding is waited for.
    """
    found: SimpleQueue[Finding | None] = SimpleQueue()
    threading.Thread(target=_run, args=(area, check, found), name=f"doctor-{area}", daemon=True).start()
    while True:
        try:
            finding = found.get(timeout=patience_seconds)
        except Empty:
            what = f"this was not found out within {patience_seconds:g} s"
            yield error(area, what, "see whether its server, or its disk, hangs", down=area in _SERVERS)
            return
        if finding is None:
            return
        yield _clean(finding)


def _run(area: str, check: Check, found: "SimpleQueue[Finding | None]") -> None:
    try:
        for finding in check():
            found.put(finding)
    except (Exception, SystemExit) as why:
        found.put(met(area, why))
    finally:
        found.put(None)


def _clean(finding: Finding) -> Finding:
    """Return a finding as it may be shown: what an API or a user's code said stands in some."""
    what, fix = (one_line(redaction.redact(text)) for text in (finding.what, finding.fix))
    return replace(finding, what=what, fix=fix)


def _hide_passwords() -> None:
    found = get_settings()
    for url in (found.redis_url, found.broker, found.database):
        with suppress(ValueError):
            redaction.hide(unquote(urlsplit(url).password or ""))
    for url in (found.redis_url, found.broker):
        with suppress(ConfigurationError):
            redaction.hide(Address.of(url).password)
