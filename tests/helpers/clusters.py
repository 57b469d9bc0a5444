"""A Postgres cluster of a test's own, and PgBouncer in front of one: for what the shared cluster must not be set to."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.conftest import free_port, missing, wait_until
from tests.helpers.postgres_folder import postgres_folder


def _as_postgres(home: str) -> list[str]:
    """Return what runs a command as another user where we are root, which neither server accepts."""
    if os.geteuid() != 0:
        return []
    shutil.chown(home, "postgres")
    return [shutil.which("runuser") or "/usr/sbin/runuser", "-u", "postgres", "--"]


@contextmanager
def cluster(*options: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a cluster whose superuser is `sluice`, with a user `worker` who owns the database `work`.

    Parameters:
      options(str): Of the server, as `max_connections=20`.
      variables(Mapping[str, str]): Of its environment.

    Returns:
      str: The host and the port.
    """
    folder = postgres_folder()
    if folder is None:
        missing("PostgreSQL")
    home, port = tempfile.mkdtemp(prefix="sluice-postgres-"), free_port()
    as_user = _as_postgres(home)
    control = [*as_user, f"{folder}/pg_ctl", "-D", f"{home}/data", "-w"]
    chosen = " ".join(f"-c {option}" for option in ("listen_addresses=127.0.0.1", "fsync=off", *options))

    def run(*command: str) -> None:
        environment = {**os.environ, **(variables or {})}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=home, env=environment)

    run(*as_user, f"{folder}/initdb", "-D", f"{home}/data", "-A", "trust", "-U", "sluice")
    run(*control, "-o", f"-p {port} -k {home} {chosen}", "-l", f"{home}/log", "start")
    try:
        with psycopg.connect(f"postgresql://sluice@127.0.0.1:{port}/postgres", autocommit=True) as connection:
            connection.execute("CREATE ROLE worker LOGIN")
            connection.execute("CREATE DATABASE work OWNER worker")
        yield f"127.0.0.1:{port}"
    finally:
        run(*control, "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def pgbouncer(address: str, *, mode: str = "transaction", servers: int = 2) -> Iterator[str]:
    """Start PgBouncer in front of the Postgres at `address` with so many server connections.

    Returns:
      str: Its own host and port.
    """
    binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not binary:
        missing("PgBouncer")
    home, port = tempfile.mkdtemp(prefix="sluice-pgbouncer-"), free_port()
    host, _, server_port = address.partition(":")
    Path(home, "users").write_text('"sluice" ""\n"worker" ""\n')
    Path(home, "ini").write_text(
        f"[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {home}/users\nunix_socket_dir =\n"
        f"pool_mode = {mode}\ndefault_pool_size = {servers}\nmax_client_conn = 300\nlogfile = {home}/log\n"
    )
    as_user = _as_postgres(home)
    process = subprocess.Popen([*as_user, binary, "-q", f"{home}/ini"], cwd=home, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://sluice@127.0.0.1:{port}/postgres", connect_timeout=2).close()
            return True
        return False

    try:
        wait_until(answers, what="PgBouncer")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(home, ignore_errors=True)
