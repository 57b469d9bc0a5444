"""Start a Redis and a mock API for one benchmark, each as a process on a free port of this machine."""

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from workers.processes.parent_death import end_with_parent
from workers.processes.redis_data_folder import find_binary

ROOT = Path(__file__).resolve().parent.parent

_START_SECONDS = 15.0
_STOP_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_GREETING = re.compile(r"(http://[^/\s]+)/api")


class LoopbackError(Exception):
    """A process of the benchmark did not start, or ended unasked."""


def python(*arguments: str, **more: object) -> "subprocess.Popen[str]":
    """Start `python ARGUMENTS` from the repository's root, to end with the thread that started it.

    Parameters:
      arguments: What follows `python`.
      more: As `subprocess.Popen` takes it.
    """
    return subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, *arguments], cwd=ROOT, text=True, preexec_fn=end_with_parent(), **more
    )


@contextmanager
def own_redis() -> Iterator[str]:
    """Run a Redis that keeps nothing, for the length of a block.

    Returns:
      Its URL, without a database's number.

    Raises:
      LoopbackError: It did not answer in time.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-redis-") as folder:
        port = _free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen(
            [find_binary(), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=end_with_parent(),
        )  # fmt: skip
        try:
            url = f"redis://127.0.0.1:{port}"
            _wait_for_redis(url, process)
            yield url
        finally:
            end(process)


@contextmanager
def own_mock(arguments: Sequence[str]) -> Iterator[str]:
    """Run a mock API for the length of a block.

    Parameters:
      arguments: As `python -m mock_server --help` says; the port is free.

    Returns:
      Its URL, without a path.

    Raises:
      LoopbackError: It did not come up; with its last words.
    """
    with tempfile.TemporaryFile("w+") as complaints:
        process = python(
            *("-m", "mock_server", "--port", "0", *arguments), stdout=subprocess.PIPE, stderr=complaints
        )  # fmt: skip
        try:
            assert process.stdout is not None
            greeting = _GREETING.search(process.stdout.readline())
            if greeting is None:
                complaints.seek(0)
                raise LoopbackError(f"the mock API did not start: {complaints.read().strip()[-300:]}")
            yield greeting[1]
        finally:
            end(process)


def end(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and kill it where it does not."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(BrokenPipeError):
                stream.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for_redis(url: str, process: "subprocess.Popen[bytes]") -> None:
    ends_at = time.monotonic() + _START_SECONDS
    with redis.Redis.from_url(url, socket_timeout=2) as client:
        while process.poll() is None and time.monotonic() < ends_at:
            with suppress(redis.RedisError):
                client.ping()
                return
            time.sleep(_LOOK_SECONDS)
    raise LoopbackError(f"{find_binary()} does not answer at {url}")
