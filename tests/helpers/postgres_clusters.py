"""Start a Postgres cluster for one test, and PgBouncer before one: for settings that the shared one must not have."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from tests.helpers.machine import free_port, missing, wait_until
from tests.helpers.postgres_folder import postgres_folder
from workers.processes.parent_death import end_with_parent

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


def _as_postgres(home: str) -> list[str]:
    """Return what runs a command as another user where we are root, which neither server accepts."""
    if os.geteuid() != 0:
        return []
    shutil.chown(home, "postgres")
    return [shutil.which("runuser") or "/usr/sbin/runuser", "-u", "postgres", "--"]


class ClusterError(Exception):
    """The cluster did not start; says which log to read."""


class Cluster:
    """A Postgres cluster whose superuser is `sluice`, up within the `with` block; it can be stopped and started again.

    Parameters:
      options(str): Settings of the server, as `max_connections=20`.
      variables(Mapping[str, str]): Of its environment.

    Attributes:
      address: The host and the port.
      url: The same as a URL, with the database that every server has.
    """

    def __init__(self, *options: str, variables: Mapping[str, str] | None = None) -> None:
        self._options = ("listen_addresses=127.0.0.1", "fsync=off", *options)
        self._environment = {**os.environ, **(variables or {})}
        self._user = "postgres" if os.geteuid() == 0 else None  # Postgres refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        folder = postgres_folder()
        if folder is None:
            raise ClusterError("there is no PostgreSQL on this machine: `apt install postgresql`, or leave it out")
        self._server = str(folder / "postgres")
        self._home = Path(tempfile.mkdtemp(prefix="sluice-postgres-"))
        if self._user:
            shutil.chown(self._home, self._user)
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self.url = f"postgresql://sluice@{self.address}/postgres"
        subprocess.run(
            [str(folder / "initdb"), "-D", str(self._home / "data"), "-A", "trust", "-U", "sluice", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._home,
            env=self._environment,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start the server where it is down; return once it accepts connections.

        Raises:
          ClusterError: It does not.
        """
        if self._process is None:
            with (self._home / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._server, *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._home,
                    env=self._environment,
                    user=self._user,
                    group=self._user,
                    extra_groups=[] if self._user else None,
                    start_new_session=True,
                    preexec_fn=end_with_parent(),
                )
        ends_at = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > ends_at:
                raise ClusterError(f"Postgres does not answer: {(self._home / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals) -> None:
        """Stop the server, and wait for its end.

        Parameters:
          how: SIGINT rolls back and disconnects (fast), SIGQUIT leaves everything as it is (immediate).
        """
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _arguments(self) -> list[str]:
        where = ["-D", str(self._home / "data"), "-p", str(self._port), "-k", str(self._home)]
        return where + [part for option in self._options for part in ("-c", option)]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def cluster(*options: str, variables: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a cluster for a test, with a user `worker` that owns the database `work`; skip where there is no Postgres.

    Parameters are those of `Cluster`.

    Returns:
      str: The host and the port.
    """
    if postgres_folder() is None:
        missing("PostgreSQL")
    with Cluster(*options, variables=variables) as started:
        with psycopg.connect(started.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE worker LOGIN")
            connection.execute("CREATE DATABASE work OWNER worker")
        yield started.address


@contextmanager
def pgbouncer(address: str, *, mode: str = "transaction", servers: int = 2) -> Iterator[str]:
    """Start PgBouncer in front of the Postgres at `address` with `servers` server connections.

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
