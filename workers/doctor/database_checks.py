"""Database checks: checks that the database works, has Sluice's tables, and has a connection for every thread."""

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
from workers.doctor.finding import Finding, error, met, ok, refused, warning
from workers.doctor.redis_checks import apart
from workers.errors import ConfigurationError, DependencyDown
from workers.records import schema
from workers.records.tables import Run
from workers.reports import labels
from workers.scheduling import schedule_stats
from workers.settings import Settings, get_settings

#: The oldest versions with RETURNING and materialized CTEs, which claims need.
_OLDEST_SQLITE, _OLDEST_POSTGRES = (3, 35), 12
#: Network filesystems: SQLite's WAL needs shared memory of one machine.
_REMOTE = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.s3fs", "vboxsf")
_SLOW_SECONDS = 0.05
_ASKED = 3
#: Connections of the scheduler (1), the page and a few commands.
_OTHERS = 10
#: Connections of a worker process beside its threads': of the flusher, of the sampler, and for stopping.
_OF_A_PROCESS = 3
#: Sessions of other programs than this installation.
_OTHERS_CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND NOT coalesce(datname = current_database()
    AND usename = current_user AND application_name = current_setting('application_name'), false)
"""
#: After how many ticks of the scheduler a run counts as overdue.
_TICKS = 3
_MIGRATE = "`python -m workers migrate --create-models`"


def connection(patience_milliseconds: int = 3_000) -> Iterator[Finding]:
    """Check that the database answers, its version, and that it can be written.

    Parameters:
      patience_milliseconds(int): How long to wait for another writer of a SQLite file.
    """
    found = get_settings()
    path = database.sqlite_path(found.database)
    if not is_there():
        yield error("database", f"{path} does not exist yet", _MIGRATE)
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
    """Check that a scheduler starts the due runs."""
    with tables() as there:
        if not there:
            return
        late = database.now() - timedelta(seconds=_TICKS * get_settings().tick_seconds)
        waiting = Run.select().where(labels.has_label(labels.OVERDUE, late))
        run = waiting.order_by(Run.scheduled_at).first()
    if run:
        what = f"run {run.id} of {run.source} is overdue since {run.scheduled_at:%Y-%m-%d %H:%M:%S} UTC"
        yield warning("workers", what, "start `python -m workers scheduler`")


def schedules() -> Iterator[Finding]:
    """Check that the stored schedules can be read, and have their next runs."""
    with tables() as there:
        found = schedule_stats.all_schedules() if there else ()
    for one in found:
        name = one.source if one.tenant is None else f"{one.source}, tenant {one.tenant}"
        if one.trouble:
            yield error("schedules", f"{name}: {one.trouble}", "`python -m workers schedule --help` shows how")
        elif one.paused_at:
            yield ok("schedules", f"{name}: {one.cron}, paused")
        elif one.next_run_id is None:
            what = f"{name}: {one.cron}, and its next run has not been created"
            yield warning("schedules", what, "start `python -m workers scheduler`")
        else:
            yield ok("schedules", f"{name}: {one.in_words}, {one.timezone}")


def is_there() -> bool:
    """Whether there is a database to connect to: a check must not create an empty file."""
    path = database.sqlite_path(get_settings().database)
    return path is None or path.exists()


@contextmanager
def tables() -> Iterator[bool]:
    """Connect, where there is a database, and yield whether it has Sluice's tables.

    Raises:
      DependencyDown: It does not answer.
    """
    if not is_there():
        yield False
        return
    with database.connection():
        yield schema.is_migrated()


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
    state = f"it answers in {statistics.median(took) * 1000:.1f} ms"
    if statistics.median(took) > _SLOW_SECONDS:
        yield warning(
            "database", f"{state}: each claim and commit takes several times as long", "run the workers near it"
        )
    else:
        yield ok("database", state)


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
    """Return the type of the filesystem of a file; empty where that is unknown."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    folder = path.resolve()
    holding = [line for line in lines if len(line) > 2 and folder.is_relative_to(line[1].replace("\\040", " "))]
    return max(holding, key=lambda line: len(line[1]))[2] if holding else ""


def _rights(path: Path) -> Iterator[Finding]:
    """Check who can write the file, and the files that SQLite keeps beside it."""
    parts = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
    for part in parts:
        if part.exists() and not os.access(part, os.W_OK):
            fix = f"`chown` it, and what is beside it, to the user that the workers run as: {path.name}*"
            yield error("database", f"{part} cannot be written by this user", fix, down=True)
    if path.stat().st_mode & stat.S_IWOTH:
        yield warning("database", f"every user of this machine can write {path}", f"chmod o-w {path}")


def _sqlite(patience_milliseconds: int) -> Iterator[Finding]:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        yield error("database", f"SQLite {version} is too old", "use a Python whose SQLite is 3.35 or newer")
    else:
        yield ok("database", f"SQLite {version} at {database.sqlite_path(get_settings().database)}")
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
    state = f"Postgres {_shown('server_version')}"
    if version < _OLDEST_POSTGRES * 10_000:
        yield error("database", f"{state} is too old", f"use Postgres {_OLDEST_POSTGRES} or newer")
        return
    yield ok("database", state)
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
    """Return the names of Sluice's tables that this user may not change."""
    lacking = "NOT has_table_privilege(oid, 'SELECT') OR NOT has_table_privilege(oid, 'INSERT')"
    lacking += " OR NOT has_table_privilege(oid, 'UPDATE') OR NOT has_table_privilege(oid, 'DELETE')"
    found = db.execute_sql(
        f"SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'sluice_')"
        f" AND pg_table_is_visible(oid) AND ({lacking}) ORDER BY relname"
    )
    return ", ".join(name for (name,) in found.fetchall())


def _pooler(settings: Settings) -> Iterator[Finding]:
    """Check whether a pooler is in front of Postgres, and that the settings say so."""
    from workers.connections.pool import is_pooled  # it needs the extra `postgres`

    if settings.database_pooler == "transaction":
        yield ok("database", "SLUICE_DATABASE_POOLER=transaction: no statement is prepared")
    elif is_pooled(db.connection()):
        what = "a pooler (PgBouncer or the like) is in front of Postgres, and SLUICE_DATABASE_POOLER does not say so"
        yield warning("database", what, "set SLUICE_DATABASE_POOLER=transaction")


def _room(settings: Settings) -> Iterator[Finding]:
    """Check that there are enough connections: one for each thread, beside those of other programs."""
    most, others = _most_connections(), _asked(_OTHERS_CONNECTIONS)
    needed = settings.worker_processes * (settings.worker_threads + _OF_A_PROCESS) + _OTHERS
    state = f"{most} connections may be open, others use {others}, and this installation needs up to {needed}"
    if needed + others > most:
        more = int(_shown("max_connections")) + needed + others - most
        yield warning("database", state, f"set max_connections={more} in postgresql.conf, or run fewer threads")
    else:
        yield ok("database", state)


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
