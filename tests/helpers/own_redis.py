"""Start a Redis for one test, which can be stopped, killed, restarted and followed; and list the servers to try."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.helpers.machine import free_port, wait_until
from workers.processes.redis_data_folder import find_binary


class OwnRedis:
    """A Redis that a test may stop, kill and start again, and a client with little patience.

    It writes nothing unasked: SAVE, BGSAVE and SHUTDOWN SAVE do, and what they wrote is read at the next start.
    """

    def __init__(self, folder: Path, binary: str = "", **options: str) -> None:
        self.port, self.folder, self.binary = free_port(), folder, binary or find_binary()
        self.options = {"bind": "127.0.0.1", "save": "", "appendonly": "no", "repl-diskless-sync-delay": "0"} | options
        self.client = self.connect()
        folder.mkdir(exist_ok=True)
        self.start()

    def connect(self, client: type[redis.Redis] = redis.Redis) -> redis.Redis:
        return client(port=self.port, socket_timeout=0.3, retry=Retry(NoBackoff(), 1))

    def start(self) -> None:
        command = [self.binary, "--port", str(self.port), "--dir", str(self.folder)]
        for name, value in self.options.items():
            command += f"--{name}", value
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            with suppress(redis.ConnectionError, redis.TimeoutError):
                return bool(self.client.ping())
            return False

        wait_until(answers, what="a Redis of its own")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def restart(self, *, save: bool = False) -> None:
        """Kill it, or let it save first, and start it again."""
        if save:
            self.client.shutdown(save=True)
            self.process.wait(10)
        self.kill()
        self.start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)
        self.wait_until_it_answers()

    def follow(self, master: "OwnRedis") -> None:
        """Become a replica, and wait until it has all."""
        self.client.replicaof("127.0.0.1", str(master.port))
        wait_until(lambda: self.client.info("replication")["master_link_status"] == "up", what="the replication")
        self.catch_up(master)

    def catch_up(self, master: "OwnRedis") -> None:
        """Wait until it has all that its master has."""
        wait_until(lambda: master.client.wait(1, 100) == 1, what="the replica's acknowledgement")
