"""Redis checks: checks that Redis and the broker can keep budgets and messages, and that workers take them."""

import re
import socket
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.exceptions import BusyLoadingError, NoPermissionError, RedisError, ResponseError

from workers import clock
from workers.connections import outages, redis_errors, redis_url
from workers.connections.redis_client import probe_client
from workers.doctor.finding import Finding, error, in_words, ok, warning
from workers.errors import ConfigurationError
from workers.messaging import process_heartbeat, scheduler_heartbeat
from workers.messaging.broker import make_broker
from workers.messaging.process_heartbeat import Process
from workers.processes import preflight
from workers.reports.metrics import Persistence, messages, persistence
from workers.settings import get_settings
from workers.sources.registry import get_registry
from workers.text.durations import duration

_PATIENCE_SECONDS = 5.0
#: limiter.lua needs this version; before 6.0 redis-py cannot even connect.
_OLDEST = (6, 2)
#: Servers with the Redis protocol that Sluice has not been tested with.
_UNTRIED = ("dragonfly_version", "garnet_version")
_PINGS = 5
_SLOW_SECONDS = 0.02
_CLOCKS_APART_SECONDS = 5.0
_NEARLY_FULL = 0.9
#: How many sources that a worker does not know are named.
_MOST_NAMED = 5
#: Uses the functions of limiter.lua that a server can lack, or its access list forbid. It changes nothing.
_PROBE = """
return {#struct.pack('>I8', 1), #cmsgpack.pack({1}), #cjson.encode({1}), redis.call('TIME')[1],
  redis.call('EXISTS', KEYS[1])}
"""


def budgets_redis() -> Iterator[Finding]:
    """Check the Redis of the budgets."""
    yield from _server("redis", get_settings().redis_url, "SLUICE_REDIS_URL")


def broker() -> Iterator[Finding]:
    """Check the broker, where it is another server than the Redis of the budgets."""
    found = get_settings()
    scheme = found.broker.partition(":")[0]
    if found.broker == found.redis_url:
        return
    if redis_url.is_redis(found.broker):
        yield from _server("broker", found.broker, "SLUICE_BROKER_URL")
    elif scheme == "stub":
        yield warning("broker", "stub:// keeps messages in one process: no worker gets them", "unset SLUICE_BROKER_URL")
    else:
        try:
            make_broker(found.broker)  # raises what it cannot use
            yield from _listens(found.broker)
        except ValueError:  # its text may hold a piece of the password
            yield error("broker", "SLUICE_BROKER_URL cannot be read", "write it as amqp://user:password@host:port/name")


def _listens(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or (5671 if parts.scheme == "amqps" else 5672)
    try:
        socket.create_connection((host, port), timeout=_PATIENCE_SECONDS).close()
    except OSError as why:
        what = f"the broker at {host}:{port} does not answer ({why.strerror or type(why).__name__})"
        yield error("broker", what, "start it, or correct SLUICE_BROKER_URL", down=True)
    else:
        yield ok("broker", f"{host}:{port} accepts connections; the log of a worker shows whether it is RabbitMQ")


def workers() -> Iterator[Finding]:
    """Check that a worker takes messages, and that each worker knows all sources."""
    waiting = "" if (count := messages()) is None else f"; {count:,} messages in the queue"
    try:
        found = process_heartbeat.processes()
    except (RedisError, ValueError):
        return  # `_server` reports it
    taking = [process for process in found if process.takes_messages]
    if not taking:
        missing = process_heartbeat.no_worker(found)
        what = missing.headline if missing else "every worker was asked to stop"
        yield warning("workers", f"{what}{waiting}", "start `python -m workers worker`")
        return
    threads, count = sum(process.threads for process in taking), len(taking)
    several = "1 worker process takes" if count == 1 else f"{count:,} worker processes take"
    yield ok("workers", f"{several} messages, on {threads:,} threads{waiting}")
    yield from _outdated(taking)


def _outdated(taking: Sequence[Process]) -> Iterator[Finding]:
    """Name the workers that started before the sources changed."""
    with suppress(ConfigurationError):  # another check reports it
        known = sorted(get_registry())
        for process in taking:
            if lacking := [name for name in known if not process.knows(name)]:
                listed = ", ".join(lacking[:_MOST_NAMED]) + (" and others" if lacking[_MOST_NAMED:] else "")
                name = f"the worker {process.host}:{process.pid}"
                what = f"{name} started before the sources changed: it does not know {listed}"
                yield warning("workers", what, "restart the workers")


def scheduler() -> Iterator[Finding]:
    """Check that a scheduler runs."""
    if missing := scheduler_heartbeat.no_scheduler():
        meaning = missing.meaning.removesuffix(".")
        yield warning("workers", f"{missing.headline}. {meaning}", missing.repair)


# --- one server


def _server(area: str, url: str, variable: str) -> Iterator[Finding]:
    """Check a Redis.

    Parameters:
      variable(str): The setting that names it.
    """
    try:
        address = redis_url.Address.of(url)
        name = preflight.find_redis(url, _PATIENCE_SECONDS)
    except BusyLoadingError as why:
        yield in_words(area, redis_errors.trouble(why), variable)
        return
    except ConfigurationError as why:
        what, fix = (text.replace("SLUICE_REDIS_URL", variable) for text in (why.what, why.repair))
        yield error(area, what, fix or f"correct {variable}", down=True)
        return
    if name is None:
        start = "start it (`python -m workers redis` does)" if address.local else "start it"
        yield error(area, f"{redis_errors.AWAY} at {address}", f"{start}, or correct {variable}", down=True)
        return
    with closing(probe_client(url, _PATIENCE_SECONDS)) as client:
        yield from _look_into(area, client, f"{name} at {address}", variable)


def _look_into(area: str, client: "redis.Redis", title: str, variable: str) -> Iterator[Finding]:
    try:
        info: Any = client.info()
    except RedisError as why:
        trouble = redis_errors.trouble(why)
        yield warning(area, f"{title} does not answer INFO: {trouble.what}", "allow INFO to its user")
        info = {}
    yield from _version(area, info, title)
    yield from _use(area, client, info, variable)
    cli = _command_line(client)
    yield from _memory(area, info, cli)
    yield from _persistence(area, client, info, cli)
    yield from _speed(area, client)
    yield from _time(area, client)


def _version(area: str, info: dict[str, Any], title: str) -> Iterator[Finding]:
    number = re.match(r"(\d+)\.(\d+)", str(info.get("redis_version", "")))
    if any(name in info for name in _UNTRIED):
        yield warning(area, f"{title}: Sluice has not been tested with it", "use Redis 6.2 or newer, or Valkey")
    elif number and (int(number[1]), int(number[2])) < _OLDEST:
        yield error(area, f"{title} is too old", "install Redis 6.2 or newer, or Valkey")
    else:
        yield ok(area, title)


def _use(area: str, client: "redis.Redis", info: dict[str, Any], variable: str) -> Iterator[Finding]:
    """Check that it is a single server, can be written, and runs scripts."""
    mode = info.get("redis_mode", "standalone")
    if mode == "cluster":
        yield in_words(area, redis_errors.cluster(), variable)
        return
    if mode != "standalone":
        yield error(area, f"it runs as a {mode}; Sluice needs a single server", f"let {variable} name a single server")
        return
    prefix = get_settings().prefix
    try:
        outages.probe(client)
        client.register_script(_PROBE)(keys=[f"{prefix}:probe", f"{prefix}:probe:2"])
    except RedisError as why:
        yield in_words(area, redis_errors.trouble(why), variable)
        return
    if info.get("role") == "slave":
        yield in_words(area, redis_errors.trouble(ResponseError("READONLY")), variable)
    else:
        yield ok(area, "it can be written, and runs scripts")


def _memory(area: str, info: dict[str, Any], cli: str) -> Iterator[Finding]:
    policy, most, used = info.get("maxmemory_policy"), info.get("maxmemory", 0), info.get("used_memory", 0)
    if policy is None:
        return
    bounded = f"maxmemory {most / 1e6:,.0f} MB, {used / 1e6:,.0f} used" if most else "no maxmemory"
    state = f"maxmemory-policy {policy}, {bounded}"
    fix = f"`{cli} CONFIG SET maxmemory-policy noeviction`, and the same in its configuration"
    if policy == "noeviction":
        if most and used > _NEARLY_FULL * most:
            yield warning(area, f"nearly out of memory: {state}", "raise its maxmemory")
        else:
            yield ok(area, state)
    elif most and policy.startswith("allkeys"):
        yield error(area, f"{state}: it can evict a budget, or a message", fix)
    else:  # nothing is evicted yet; or only keys that expire, and budgets do not
        yield warning(area, f"{state}: a budget that is evicted is forgotten", fix)


def _persistence(area: str, client: "redis.Redis", info: dict[str, Any], cli: str) -> Iterator[Finding]:
    kept = persistence(info)
    if kept is Persistence.SAVE_FAILED:
        yield warning(area, "its last save failed", "see its log; free disk space where it runs")
    elif kept is Persistence.APPEND_ONLY:
        yield ok(area, "appendonly yes: a restart keeps the budgets")
    elif kept is Persistence.NOT_APPEND_ONLY:
        lost = "after a restart each budget waits until its windows have passed"
        saved = "only snapshots are saved" if _saves(client) else "nothing is saved to disk"
        yield warning(area, f"{saved}: {lost}", f"`{cli} CONFIG SET appendonly yes`, and the same in its configuration")


def _saves(client: "redis.Redis") -> bool:
    with suppress(NoPermissionError, ResponseError):
        config: Any = client.config_get("save")
        return bool(config.get("save"))
    return True


def _speed(area: str, client: "redis.Redis") -> Iterator[Finding]:
    took = []
    for _ in range(_PINGS):
        began = clock.monotonic()
        client.ping()
        took.append(clock.monotonic() - began)
    median = statistics.median(took)
    state = f"it answers in {median * 1000:.1f} ms"
    if median > _SLOW_SECONDS:
        yield warning(area, f"{state}: each permit takes at least as long", "run the workers near it")
    else:
        yield ok(area, state)


def _time(area: str, client: "redis.Redis") -> Iterator[Finding]:
    sent: datetime = clock.now()
    seconds, microseconds = client.time()
    there = datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)
    yield from apart(area, (there - sent - (clock.now() - sent) / 2).total_seconds())


def apart(area: str, ahead: float) -> Iterator[Finding]:
    """Compare a clock with this machine's.

    Parameters:
      ahead(float): How far it is ahead, in seconds.
    """
    if abs(ahead) < _CLOCKS_APART_SECONDS:
        yield ok(area, "its clock and this machine's agree")
        return
    where = "ahead of" if ahead > 0 else "behind"
    what = f"its clock is {duration(abs(ahead))} {where} this machine's: displayed times can be wrong by that"
    yield warning(area, what, "set both by NTP: `timedatectl set-ntp true`")


def _command_line(client: "redis.Redis") -> str:
    options = client.connection_pool.connection_kwargs
    if "path" in options:
        return f"redis-cli -s {options['path']}"
    return f"redis-cli -h {options.get('host', 'localhost')} -p {options.get('port', 6379)}"
