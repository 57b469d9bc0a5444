"""What the doctor asks the database: whether it can be used, has our tables, and has room for every thread."""

import os
import sqlite3
import stat
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from peewee import PeeweeException

from workers import clock
from workers.connections import database
from workers.connections.database import db
from workers.connections.pool import is_pooled
from workers.doctor.finding import Finding, error, met, ok, refused, warning
from workers.doctor.redis_checks import apart
from workers.errors import ConfigurationError, DependencyDown
from workers.records import schema
from workers.records.tables import Run, RunStatus
from workers.scheduling import schedule_stats
from workers.settings import Settings, get_settings

#: RETURNING and materialized CTEs, which claims are made of.
_OLDEST_SQLITE, _OLDEST_POSTGRES = (3, 35), 12
#: Filesystems of other machines: SQLite's WAL needs memory that its users share.
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs", "vboxsf")
_SLOW_SECONDS = 0.05
_ASKED = 3
#: Connections of the scheduler (1), the page and a few commands.
_OTHERS = 10
#: Connections of a worker process beside its threads': the flusher's, the sampler's, and that of who stops it.
_OF_A_PROCESS = 3
#: Sessions that are not this installation's.
_OTHERS_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND NOT coalesce(datname = current_database()
    AND usename = current_user AND application_name = current_setting('application_name'), false)
"""
#: A run is overdue for longer than a scheduler needs to see it.
_TICKS = 3
_MIGRATE = "`python -m workers migrate --create-models`"


def connection(patience_milliseconds: int = 3_000) -> Iterator[Finding]:
    """Check that the database answers, what it is, and that it can be written.

    Parameters:
      patience_milliseconds(int): How long it waits for another writer of a SQLite file.
    """
    found = get_settings()
    path = _file(found)
    if not is_there():
        yield error("database", f"{path} is not there yet", _MIGRATE)
        return
    if path:
        yield from _place(path)
        yield from _rights(path)
    try:
        with database.connection():
            yield from _sqlite(patience_milliseconds) if database.is_sqlite() else _postgres(found)
            yield from _migrations()
            yield from _speed()
    except ConfigurationError as why:
        refusal = refused("database", why, "correct SLUICE_DATABASE_URL")
        yield error("database", refusal.what, refusal.fix, down=True)
    except (DependencyDown, PeeweeException) as why:
        yield met("database", why)


def overdue() -> Iterator[Finding]:
    """Check that somebody starts the runs whose time has come."""
    with tables() as there:
        if not there:
            return
        late = database.now() - timedelta(seconds=_TICKS * get_settings().tick_seconds)
        waiting = Run.select().where(Run.status == RunStatus.SCHEDULED, Run.scheduled_at < late)
        run = waiting.order_by(Run.scheduled_at).first()
    if run:
        what = f"run {run.id} of {run.source} is overdue since {run.scheduled_at:%Y-%m-%d %H:%M:%S} UTC"
        yield warning("workers", what, "start `python -m workers scheduler`")


def schedules() -> Iterator[Finding]:
    """Check that the stored schedules can be kept."""
    with tables() as there:
        found = schedule_stats.all_schedules() if there else ()
    for one in found:
        name = one.source if one.tenant is None else f"{one.source}, tenant {one.tenant}"
        if one.trouble:
            yield refused("schedules", f"{name}: {one.trouble}", "`python -m workers schedule --help` tells how")
        elif one.paused_at:
            yield ok("schedules", f"{name}: {one.cron}, paused")
        elif one.next_run_id is None:
            what = f"{name}: {one.cron}, and nobody has made its next run"
            yield warning("schedules", what, "start `python -m workers scheduler`")
        else:
            yield ok("schedules", f"{name}: {one.in_words}, {one.timezone}")


def is_there() -> bool:
    """Whether there is a database to connect to: a look must not make an empty file."""
    path = _file(get_settings())
    return path is None or path.exists()


@contextmanager
def tables() -> Iterator[bool]:
    """Hold a connection, where there is a database, and give whether our tables are in it.

    Raises:
      DependencyDown: It does not answer.
    """
    if not is_there():
        yield False
        return
    with database.connection():
        yield schema.is_migrated()


def _file(settings: Settings) -> Path | None:
    """Return the path of the SQLite file; None for a server, or a URL that cannot be read."""
    url = settings.database
    name = url.removeprefix("sqlite:///").partition("?")[0]
    return Path(name) if url.startswith("sqlite:///") and name and name != ":memory:" else None


def _migrations() -> Iterator[Finding]:
    if schema.is_migrated():
        yield ok("database", "every migration is applied")
    else:
        yield error("database", "it has no, or older, Sluice tables", _MIGRATE)


def _speed() -> Iterator[Finding]:
    took = []
    for _ in range(_ASKED):
        began = clock.monotonic()
        db.execute_sql("SELECT 1").fetchone()
        took.append(clock.monotonic() - began)
    said = f"it answers in {statistics.median(took) * 1000:.1f} ms"
    if statistics.median(took) > _SLOW_SECONDS:
        yield warning("database", f"{said}: each claim and commit takes several times that", "run the workers near it")
    else:
        yield ok("database", said)


# --- SQLite


def _place(path: Path) -> Iterator[Finding]:
    """Check that the file is on this machine."""
    kind = _filesystem(path)
    if kind.startswith(_REMOTE):
        yield error(
            "database",
            f"{path} is on another machine's disk ({kind}), where SQLite's locks and WAL cannot be relied on",
            "set SLUICE_DATA_DIR to a folder of this machine, or use Postgres",
        )


def _filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the kind of filesystem a file is on; empty where the system does not tell."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    folder = path.resolve()
    holding = [line for line in lines if len(line) > 2 and folder.is_relative_to(line[1].replace("\\040", " "))]
    return max(holding, key=lambda line: len(line[1]))[2] if holding else ""


def _rights(path: Path) -> Iterator[Finding]:
    """Check who may write the file, and those that SQLite keeps beside it."""
    parts = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    for part in parts:
        if part.exists() and not os.access(part, os.W_OK):
            fix = f"`chown` it, and what is beside it, to the user that the workers run as: {path.name}*"
            yield error("database", f"{part} cannot be written by this user", fix, down=True)
    if path.stat().st_mode & stat.S_IWOTH:
        yield warning("database", f"everybody on this machine may write {path}", f"chmod o-w {path}")


def _sqlite(patience_milliseconds: int) -> Iterator[Finding]:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        yield error("database", f"SQLite {version} is too old", "use a Python whose SQLite is 3.35 or newer")
    else:
        yield ok("database", f"SQLite {version} at {get_settings().database.removeprefix('sqlite:///')}")
    mode = str(db.obj.journal_mode)
    if mode != "wal":
        fix = "put its folder on a local disk that can lock files, or use Postgres"
        yield warning("database", f"journal_mode is {mode}, not wal: readers and writers wait for each other", fix)
    else:
        yield ok("database", "journal_mode wal")
    yield from _write(patience_milliseconds)


def _write(patience_milliseconds: int) -> Iterator[Finding]:
    """Take the write lock for a moment."""
    usual = _asked("PRAGMA busy_timeout")
    db.execute_sql(f"PRAGMA busy_timeout = {patience_milliseconds}")
    try:
        with db.atomic() as transaction:
            transaction.rollback()
        yield ok("database", "it can be written")
    except PeeweeException as why:
        yield met("database", why)
    finally:
        db.execute_sql(f"PRAGMA busy_timeout = {usual}")


# --- Postgres


def _postgres(settings: Settings) -> Iterator[Finding]:
    version = int(_shown("server_version_num"))
    said = f"Postgres {_shown('server_version')}"
    if version < _OLDEST_POSTGRES * 10_000:
        yield error("database", f"{said} is too old", f"use Postgres {_OLDEST_POSTGRES} or newer")
        return
    yield ok("database", said)
    yield from _may_write()
    yield from _pooler(settings)
    yield from _room(settings)
    before = clock.now()
    there = _asked("SELECT clock_timestamp()")
    yield from apart("database", (there - before - (clock.now() - before) / 2).total_seconds())


def _may_write() -> Iterator[Finding]:
    if _asked("SELECT pg_is_in_recovery()"):
        yield error("database", "it is a standby, and read only", "let SLUICE_DATABASE_URL name the primary", down=True)
    elif _shown("default_transaction_read_only") == "on":
        fix = "`ALTER DATABASE ... RESET default_transaction_read_only`, or the same for its role"
        yield error("database", "default_transaction_read_only is on: nothing can be written", fix, down=True)
    elif lacking := _lacking_rights():
        user = _asked("SELECT current_user")
        fix = f"GRANT SELECT, INSERT, UPDATE, DELETE ON {lacking} TO {user}, and USAGE of their sequences"
        yield error("database", f"its user may not change {lacking}", fix)
    else:
        yield ok("database", "it can be written")


def _lacking_rights() -> str:
    """Name the tables of ours that this user may not change."""
    lacking = "NOT has_table_privilege(oid, 'SELECT') OR NOT has_table_privilege(oid, 'INSERT')"
    lacking += " OR NOT has_table_privilege(oid, 'UPDATE') OR NOT has_table_privilege(oid, 'DELETE')"
    found = db.execute_sql(
        f"SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'sluice_')"
        f" AND pg_table_is_visible(oid) AND ({lacking}) ORDER BY relname"
    )
    return ", ".join(name for (name,) in found.fetchall())


def _pooler(settings: Settings) -> Iterator[Finding]:
    """Check whether a pooler is in front of Postgres, and that it is known."""
    if settings.database_pooler == "transaction":
        yield ok("database", "SLUICE_DATABASE_POOLER=transaction: no statement is prepared")
    elif is_pooled(db.connection()):
        what = "a pooler (PgBouncer or the like) is in front of Postgres, and SLUICE_DATABASE_POOLER does not say so"
        yield warning("database", what, "set SLUICE_DATABASE_POOLER=transaction")


def _room(settings: Settings) -> Iterator[Finding]:
    """Check the connections that may be open against the threads, each of which keeps one, and what others use."""
    most, others = _most_connections(), _asked(_OTHERS_CONNECTIONS)
    needed = settings.worker_processes * (settings.worker_threads + _OF_A_PROCESS) + _OTHERS
    said = f"{most} connections may be open, others use {others}, and this installation needs up to {needed}"
    if needed + others > most:
        more = int(_shown("max_connections")) + needed + others - most
        yield warning("database", said, f"set max_connections={more} in postgresql.conf, or run fewer threads")
    else:
        yield ok("database", said)


def _most_connections() -> int:
    """Return how many connections this user may have open in this database, all together."""
    reserved = _asked("SELECT coalesce(current_setting('reserved_connections', true), '0')::int")
    most = int(_shown("max_connections")) - int(_shown("superuser_reserved_connections")) - int(reserved)
    limits = db.execute_sql(
        "SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user "
        "UNION ALL SELECT datconnlimit FROM pg_database WHERE datname = current_database()"
    )
    return min([most, *(limit for (limit,) in limits.fetchall() if limit >= 0)])


def _shown(name: str) -> str:
    return str(_asked(f"SHOW {name}"))


def _asked(query: str) -> Any:
    return db.execute_sql(query).fetchone()[0]
