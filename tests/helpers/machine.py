"""Waits, ports, the repository's folder, and the skip of a test whose server is not installed."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from workers import clock, testing

ROOT = Path(__file__).resolve().parents[2]
IN_CI = bool(os.environ.get("CI"))


def missing(what: str) -> NoReturn:
    """Skip a test whose server is not installed, and name the server; in CI that is a failure."""
    if IN_CI:
        pytest.fail(f"{what} is missing, and CI must have it (.ci/run installs it)")
    pytest.skip(f"{what} is missing: .ci/run installs it")


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(true: Callable[[], object], seconds: float = 10.0, what: str = "it") -> None:
    """Wait for an event in another process or thread; fail after `seconds`."""
    ends_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends_at, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def forget() -> None:
    """Make this process read its settings, its sources and its connections anew, by the machine's clock."""
    testing.reset()
    clock.use(clock.Clock())
