"""A Postgres of a fault run's own: to be restarted, in order and not."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from benchmarks.fleet import _die_with_parent
from tests.helpers.postgres_folder import postgres_folder

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class ClusterError(Exception):
    """The cluster did not start; says which log to read."""


class Cluster:
    """A cluster in a folder of its own, up within the `with` block.

    Attributes:
      url: Its server, with the database every server has.
    """

    def __enter__(self) -> Self:
        folder = postgres_folder()
        if folder is None:
            raise ClusterError("there is no PostgreSQL on this machine: `apt install postgresql`, or leave it out")
        self._server = str(folder / "postgres")
        self._home = Path(tempfile.mkdtemp(prefix="sluice-faults-postgres-"))
        self._user = "postgres" if os.geteuid() == 0 else None  # Postgres refuses to run as root
        if self._user:
            shutil.chown(self._home, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = int(listener.getsockname()[1])
        self.url = f"postgresql://sluice@127.0.0.1:{self._port}/postgres"
        subprocess.run(
            [str(folder / "initdb"), "-D", str(self._home / "data"), "-A", "trust", "-U", "sluice", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._home,
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
        """Start the server where it is down; return once it lets clients in.

        Raises:
          ClusterError: It does not.
        """
        if self._process is None:
            with (self._home / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._server, *self._options()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._home,
                    user=self._user,
                    group=self._user,
                    extra_groups=[] if self._user else None,
                    start_new_session=True,
                    preexec_fn=_die_with_parent if sys.platform == "linux" else None,
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

    def _options(self) -> list[str]:
        settings = ("listen_addresses=127.0.0.1", "fsync=off", "max_connections=200")
        where = ["-D", str(self._home / "data"), "-p", str(self._port), "-k", str(self._home)]
        return where + [part for setting in settings for part in ("-c", setting)]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True
