"""Examination: runs all checks of `doctor`, each in a thread with a deadline, and yields their findings."""

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

#: A check waits 5 s for a server; but a folder on a lost disk, or a module of the user, can hang for ever.
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
    ("runs", run_checks.stalled),
)
#: The servers without which no import works.
_SERVERS = {"redis", "database"}
#: Checks that are left out where the database does not answer.
_NEED_DATABASE = (source_checks.models, database_checks.schedules, database_checks.overdue, run_checks.stalled)


def examine(*, ask: bool = False) -> Iterator[Finding]:
    """Run all checks, and yield each finding as soon as it is known.

    It raises nothing: a check that fails is a finding. It changes nothing, except that `ask` uses permits.

    Parameters:
      ask(bool): Send one list request to each API, too.
    """
    for area, check in _WITHOUT_SETTINGS:
        yield from _findings(area, check)
    try:
        get_settings()
    except ConfigurationError:
        return  # a finding says so, and no other check works without settings
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
        yield error("APIs", "none was asked, because that needs Redis and the database", "repair these first")
        return
    with suppress(ConfigurationError):  # a finding says so
        sources = api_checks.sources_to_ask()
        patience = _PATIENCE_SECONDS + api_checks.longest_wait_seconds(sources)
        for source in sources:
            yield from _findings(f"API {source.connector.name}", partial(api_checks.ask, source), patience)


def _findings(area: str, check: Check, patience_seconds: float = _PATIENCE_SECONDS) -> Iterator[Finding]:
    """Yield the findings of a check, which runs in a thread: one that hangs is abandoned, and ends with the process.

    Parameters:
      patience_seconds(float): How long to wait for each finding.
    """
    found: SimpleQueue[Finding | None] = SimpleQueue()
    threading.Thread(target=_run, args=(area, check, found), name=f"doctor-{area}", daemon=True).start()
    while True:
        try:
            finding = found.get(timeout=patience_seconds)
        except Empty:
            what = f"this check did not finish within {patience_seconds:g} s"
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
    """Return a finding without secrets: some contain the text of an API, or of the user's code."""
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
