"""Measure the page on a large database: python benchmarks/monitor.py --help. Works from any folder."""

import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if not __package__:  # run by its path, not imported
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import click
import psycopg
import redis
import requests
from rich.console import Console
from rich.table import Table

from benchmarks import databases
from benchmarks.loopback import ROOT, end, own_redis, python
from benchmarks.watcher import Watcher

_RUNS, _ITEMS = 1_000, 1_000_000
#: A tick takes so long at most, by the median.
_TICK_SECONDS = 0.1
#: The most that ten browsers can cost, as a multiple of one.
_TEN_FOR_ONE = 2.0
_COSTS = ("cpu_ms_a_second", "redis_commands")
_FIRST_TICKS = 5
_FEW_ROWS = 10_000
_LARGE = re.compile(r"sluice_(run_items|samples|run_events|runs)")


@dataclass(frozen=True)
class Site:
    """A served page, and what it stands on."""

    url: str
    database_url: str
    redis_url: str
    runs: int
    process_id: int

    @property
    def pages(self) -> dict[str, str]:
        """The pages there are: a run twice, the largest one while it is running and one with very many failures."""
        return {
            "runs": "",
            "run (running)": f"run?id={self.runs}",
            "run (failures)": f"run?id={self.runs - 1}",
            "schedule": "schedule",
            "budgets": "budgets",
            "system": "system",
        }

    @property
    def watched(self) -> dict[str, str]:
        """Those that people leave open."""
        return {name: page for name, page in self.pages.items() if name in ("runs", "run (running)")}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--database", default="", metavar="URL", help="A PostgreSQL server; else SQLite.")
@click.option("--runs", default=_RUNS, show_default=True, type=click.IntRange(10))
@click.option("--items", default=_ITEMS, show_default=True, type=click.IntRange(1_000))
@click.option("--json", "as_json", is_flag=True, help="Answer with JSON.")
@click.pass_context
def main(context: click.Context, database: str, runs: int, items: int, as_json: bool) -> None:
    """Seed a database with a month of runs, serve the page, and measure it as a browser would see it.

    Exit codes: 0 every bound was kept, 1 one was missed, 2 usage.
    """
    context.obj = {"database": database, "runs": runs, "items": items, "as_json": as_json}


@main.command()
@click.option("--count", default=60, show_default=True, help="Ticks of each page.")
@click.pass_obj
def ticks(options: dict[str, Any], count: int) -> None:
    """Time each page's tick, from the browser's question to the last word of the answer."""
    with _site(**_seed_options(options)) as site:
        rows = [_timed(site, name, count) for name in site.pages]
    _answer(options, "Ticks", rows, kept=all(row["median_ms"] <= 1000 * _TICK_SECONDS for row in rows))


@main.command()
@click.pass_obj
def plans(options: dict[str, Any]) -> None:
    """Have the database explain every query of every page's tick: what scans a large table is named."""
    with _site(**_seed_options(options), serve=False) as site:
        rows = [row for name, page in site.pages.items() for row in _explained(site, name, page)]
    kept = not any(row["scans"] for row in rows)
    if options["as_json"]:
        _answer(options, "Queries", rows, kept=kept)
    for row in rows:
        print(f"{row['page']}: {row['times']} × {row['query']}\n    {'SCANS ' if row['scans'] else ''}{row['plan']}")
    print(f"{len(rows)} queries, {sum(row['scans'] for row in rows)} of them scan a large table")
    sys.exit(0 if kept else 1)


@main.command()
@click.option("--seconds", default=20.0, show_default=True)
@click.pass_obj
def browsers(options: dict[str, Any], seconds: float) -> None:
    """Let one session, then ten, watch a page for a while: what the page's process and Redis do for them.

    The last page has nothing on it: what a session costs there is Streamlit's own. The bound is for Redis.
    """
    with _site(**_seed_options(options)) as site, _empty_page(site) as empty:
        rows = [row for name, page in site.watched.items() for row in _one_and_ten(site, name, page, seconds)]
        rows += _one_and_ten(empty, "nothing", "", seconds)
    kept = all(row["redis_commands"] <= _TEN_FOR_ONE for row in rows if row["sessions"] == "ten / one")
    _answer(options, "Browsers", rows, kept=kept)


@main.command()
@click.option("--count", default=10_000, show_default=True, help="Ticks.")
@click.pass_obj
def memory(options: dict[str, Any], count: int) -> None:
    """Let one session tick as fast as it is answered, and look at the memory of the page's process."""
    with _site(**_seed_options(options)) as site, Watcher(f"{site.url}/run?id={site.runs}") as watcher:
        rows = []
        for number in range(1, count + 1):
            watcher.tick()
            if number % (count // 10) == 0:
                rows.append({"ticks": number, "resident_mb": _resident_mb(site.process_id)})
    growth = rows[-1]["resident_mb"] / rows[1]["resident_mb"] - 1
    rows.append({"ticks": "growth since the second tenth", "resident_mb": f"{100 * growth:.1f} %"})
    _answer(options, "Memory", rows, kept=growth < 0.05)


# --- what is measured -------------------------------------------------------------------------------------------------


def _timed(site: Site, name: str, count: int) -> dict[str, Any]:
    with Watcher(f"{site.url}/{site.pages[name]}") as watcher:
        for _ in range(_FIRST_TICKS):
            watcher.tick()
        took = []
        for _ in range(count):
            time.sleep(1.0)  # so that each tick reads anew: what all browsers share is good for almost a second
            took.append(1000 * watcher.tick())
    return {
        "page": name,
        "median_ms": round(statistics.median(took), 1),
        "p95_ms": round(statistics.quantiles(took, n=20)[-1], 1),
        "most_ms": round(max(took), 1),
        "kilobytes": round(watcher.sent_bytes / 1000, 1),
    }


def _one_and_ten(site: Site, name: str, page: str, seconds: float) -> list[dict[str, Any]]:
    one, ten = ({"page": name} | _watched(site, page, sessions, seconds) for sessions in (1, 10))
    ratio = {figure: round(ten[figure] / one[figure], 2) if one[figure] else 1.0 for figure in _COSTS}
    return [one, ten, {"page": name, "sessions": "ten / one", **ratio}]


def _watched(site: Site, page: str, sessions: int, seconds: float) -> dict[str, Any]:
    stop = threading.Event()
    counts = [0] * sessions

    def watch(place: int) -> None:
        with Watcher(f"{site.url}/{page}") as watcher:
            while not stop.is_set():
                began = time.monotonic()
                watcher.tick()
                counts[place] += 1
                stop.wait(max(0.0, 1.0 - (time.monotonic() - began)))

    threads = [threading.Thread(target=watch, args=(place,), daemon=True) for place in range(sessions)]
    for thread in threads:
        thread.start()
    time.sleep(5.0)
    ticks, cpu, commands, began = (
        sum(counts),
        _cpu_seconds(site.process_id),
        _commands(site.redis_url),
        time.monotonic(),
    )
    time.sleep(seconds)
    lasted = time.monotonic() - began
    row = {
        "sessions": sessions,
        "ticks_a_second": round((sum(counts) - ticks) / lasted, 1),
        "cpu_ms_a_second": round(1000 * (_cpu_seconds(site.process_id) - cpu) / lasted, 1),
        "redis_commands": round((_commands(site.redis_url) - commands) / lasted, 1),
    }
    stop.set()
    for thread in threads:
        thread.join(30)
    return row


def _explained(site: Site, name: str, page: str) -> list[dict[str, Any]]:
    """Draw a page twice in this process, and explain what the second time asked the database."""
    from workers.connections import database

    statements = _Statements()
    for _ in range(2):
        statements.clear()
        _draw(page)
    rows = []
    with database.connection():
        for (sql, parameters), times in statements.counted().items():
            if _LARGE.search(sql):
                plan = _plan(site, sql, parameters)
                rows.append(
                    {
                        "page": name,
                        "times": times,
                        "query": _short(sql),
                        "plan": plan,
                        "scans": _scans(sql, plan, _small(site)),
                    }
                )
    return rows


class _Statements(logging.Handler):
    """Hears the SELECTs that peewee sends."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[str, tuple[Any, ...]]] = []
        logger = logging.getLogger("peewee")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, tuple) and str(record.msg[0]).lstrip("(").startswith(("SELECT", "WITH")):
            self._found.append((record.msg[0], tuple(record.msg[1] or ())))

    def clear(self) -> None:
        self._found = []

    def counted(self) -> dict[tuple[str, tuple[Any, ...]], int]:
        """Return each statement with its first parameters, and how often it was sent."""
        first: dict[str, tuple[Any, ...]] = {}
        times: dict[str, int] = {}
        for sql, parameters in self._found:
            first.setdefault(sql, parameters)
            times[sql] = times.get(sql, 0) + 1
        return {(sql, first[sql]): times[sql] for sql in first}


def _draw(page: str) -> None:
    from streamlit.testing.v1 import AppTest
    from streamlit.util import calc_hash

    from workers.monitor.readings import cache

    cache.forget()
    path, _, query = page.partition("?")
    test = AppTest.from_file(str(ROOT / "monitor_app.py"), default_timeout=60)
    if path:
        test._page_hash = calc_hash(path)
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        test.query_params[name] = value
    test.run()
    if test.exception:
        raise click.ClickException(f"{page or 'the first page'} cannot be drawn: {test.exception}")


def _plan(site: Site, sql: str, parameters: tuple[Any, ...]) -> str:
    from workers.connections.database import db

    if site.database_url.startswith("sqlite:"):
        return "; ".join(row[3] for row in db.execute_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall())
    rows = db.execute_sql(f"EXPLAIN {sql}", parameters).fetchall()
    return "; ".join(row[0].strip() for row in rows if "Scan" in row[0] or "Index Cond" in row[0])


def _small(site: Site) -> set[str]:
    """Return the tables that PostgreSQL rightly reads whole because they are small, where many of them are wanted."""
    from workers.connections.database import db

    if site.database_url.startswith("sqlite:"):
        return set()
    rows = db.execute_sql("SELECT relname FROM pg_class WHERE relname LIKE 'sluice%%' AND reltuples < %s", (_FEW_ROWS,))
    return {row[0] for row in rows.fetchall()}


def _scans(sql: str, plan: str, small: set[str]) -> bool:
    """Whether a plan reads all of a large table, or all of one of its indexes.

    The runs may be walked in the order of an index, for that ends at the LIMIT.
    """
    names = {alias: table for table, alias in re.findall(r'"(sluice_\w+)" AS "(t\d+)"', sql)}
    for step in plan.split("; "):
        scanned = re.search(r"(?:SCAN|Seq Scan on) (\w+)", step)
        table = names.get(scanned[1], scanned[1]) if scanned else ""
        walked = table == "sluice_runs" and "INDEX" in step
        if _LARGE.match(table) and not walked and table not in small:
            return True
    return False


def _short(sql: str) -> str:
    text = re.sub(r"\s+", " ", sql.replace('"', ""))
    return re.sub(r"^SELECT .*? FROM", "SELECT … FROM", text)[:160]


def _cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(process_id: int) -> float:
    status = Path(f"/proc/{process_id}/status").read_text()
    return round(int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000, 1)


def _commands(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("stats")["total_commands_processed"])


# --- the site ---------------------------------------------------------------------------------------------------------


def _seed_options(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("database", "runs", "items")}


@contextmanager
def _site(database: str, runs: int, items: int, serve: bool = True) -> Iterator[Site]:
    """Seed a database, and serve the page in a process of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-monitor-")))
        redis_url = f"{stack.enter_context(own_redis())}/0"
        try:
            url = stack.enter_context(databases.fresh(database, folder))
        except psycopg.Error as error:
            raise click.UsageError(f"--database: {error}") from None
        port = _free_port()
        os.environ |= {
            "SLUICE_DATABASE_URL": url,
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_DATA_DIR": str(folder),
            "SLUICE_SOURCES": "benchmarks.crowded:SOURCES",
            "SLUICE_MONITOR_PORT": str(port),
            "PYTHONPATH": str(ROOT),
        }
        _seed(url, runs, items)
        site = Site(f"http://127.0.0.1:{port}", url, redis_url, runs, 0)
        if not serve:
            yield site
            return
        process = python("-m", "workers", "monitor", stderr=(folder / "log").open("w"))
        stack.callback(end, process)
        yield Site(site.url, url, redis_url, runs, _serving(folder / "log", process.pid))


@contextmanager
def _empty_page(site: Site) -> Iterator[Site]:
    """Serve a page with nothing on it, as `site` is served, without the wall, and with the same Redis: idle by then."""
    port = _free_port()
    options = {"port": port, "address": "127.0.0.1", "headless": "true", "fileWatcherType": "none"}
    flags = [f"--server.{name}={value}" for name, value in options.items()]
    own = ["--runner.postScriptGC=false", "--browser.gatherUsageStats=false"]
    page = str(ROOT / "benchmarks" / "empty_page.py")
    process = python("-m", "streamlit", "run", page, *flags, *own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url)
        yield replace(site, url=url, process_id=process.pid)
    finally:
        end(process)


def _wait_for(url: str) -> None:
    for _ in range(300):
        with suppress(requests.RequestException):
            if requests.get(f"{url}/_stcore/health", timeout=1).ok:
                return
        time.sleep(0.1)
    raise click.ClickException(f"{url} did not come up")


def _seed(url: str, runs: int, items: int) -> None:
    from benchmarks import crowded
    from workers.connections import database, redis_client
    from workers.limiter import rate_limiter
    from workers.records import schema
    from workers.scheduling import timetable
    from workers.settings import get_settings

    get_settings.cache_clear()
    now = datetime.now(UTC)
    schema.migrate([crowded.Item])
    began = time.monotonic()
    _say(f"writing {runs:,} runs with {items:,} items ...")
    crowded.fill(url, crowded.month(runs, items, now), now)
    with database.connection():
        for source in crowded.SOURCES:
            timetable.set_schedule(source.name, source.schedule, who="benchmark", door="script")
    client = redis_client.redis_client(get_settings().redis_url)
    caller = rate_limiter.RateLimiter(crowded.api.budget, client, prefix=get_settings().prefix).permit_client()
    for _ in range(500):
        caller.answered(caller.acquire(5))
    caller.flush()
    _say(f"... in {time.monotonic() - began:.0f} s")


def _serving(log: Path, supervisor: int) -> int:
    """Wait for the page; return the process that serves it."""
    for _ in range(600):
        if "Sluice is ready" in log.read_text():
            children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
            return int(children[0])
        time.sleep(0.1)
    raise click.ClickException(f"the page did not come up: {log.read_text()[-500:]}")


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# --- what is said -----------------------------------------------------------------------------------------------------


def _answer(options: dict[str, Any], title: str, rows: list[dict[str, Any]], *, kept: bool) -> None:
    if options["as_json"]:
        print(json.dumps({"options": options, "rows": rows, "kept": kept}, indent=1))
    else:
        table = Table(title=f"{title}, {'PostgreSQL' if options['database'] else 'SQLite'}", title_justify="left")
        for name in rows[0]:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(str(row.get(name, "")) for name in rows[0]))
        Console().print(table)
    sys.exit(0 if kept else 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
