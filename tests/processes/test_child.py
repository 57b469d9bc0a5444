"""One child process: how it ends, how it is stopped, and when it is started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.machine import wait_until
from workers.processes.child import Backoff, ChildProcess

#: Ignores SIGTERM, and says when it does.
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def child_of() -> Iterator[Callable[..., ChildProcess]]:
    """Start children of a shell; none is left behind."""
    started: list[ChildProcess] = []

    def start(script: str, *, session: bool = False) -> ChildProcess:
        child = ChildProcess(["sh", "-c", script], session=session, stdout=subprocess.PIPE)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_a_child_that_ends_when_asked_is_not_killed(child_of: Callable[..., ChildProcess]) -> None:
    child = child_of("exec sleep 60")

    child.stop(10)

    assert (child.returncode, child.killed_by_us) == (-signal.SIGTERM, False)
    assert child.how_it_ended() == "was killed by SIGTERM"


def test_a_child_that_does_not_end_is_killed_at_the_deadline(child_of: Callable[..., ChildProcess]) -> None:
    child = child_of(STUBBORN)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"

    began = time.monotonic()
    child.stop(0.3)

    assert 0.3 <= time.monotonic() - began < 3
    assert (child.returncode, child.killed_by_us) == (-signal.SIGKILL, True)
    assert child.how_it_ended() == "was killed by SIGKILL"


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_what_a_child_has_started_is_killed_with_its_session(child_of: Callable[..., ChildProcess]) -> None:
    # Given a child that ignores SIGTERM, as does what it has started
    child = child_of("trap '' TERM; sleep 60 & echo $!; wait; wait", session=True)
    assert child.stdout is not None
    grandchild = Path(f"/proc/{int(child.stdout.readline())}")

    # When
    child.stop(0.2)

    # Then
    wait_until(lambda: not grandchild.exists() or " Z " in (grandchild / "stat").read_text(), 5, "its end")


def test_a_child_that_others_killed_is_known_from_one_that_we_killed(child_of: Callable[..., ChildProcess]) -> None:
    child = child_of("exec sleep 60")

    child.send_signal(signal.SIGKILL)

    assert child.ended_within(5)
    assert not child.killed_by_us
    assert "out of memory" in child.how_it_ended()


def test_a_status_is_named(child_of: Callable[..., ChildProcess]) -> None:
    child = child_of("exit 3")

    assert child.ended_within(5)
    assert child.how_it_ended() == "ended with status 3"


def test_a_stop_of_a_child_that_has_ended_does_nothing(child_of: Callable[..., ChildProcess]) -> None:
    child = child_of("exit 0")
    assert child.ended_within(5)

    child.stop(5)

    assert (child.returncode, child.killed_by_us) == (0, False)


@pytest.mark.parametrize(
    ("lives_seconds", "waits_seconds"),
    [
        ([0, 0, 0, 0], [1, 2, 5, 5]),
        ([0, 0, 31, 0], [1, 2, 1, 2]),
        ([30, 30, 30], [1, 2, 5]),
        ([40, 40], [1, 1]),
    ],
    ids=["short lives", "a long life in between", "just not long enough", "long lives"],
)
def test_the_wait_grows_with_each_short_life(lives_seconds: list[float], waits_seconds: list[float]) -> None:
    backoff = Backoff([1, 2, 5], steady_seconds=30)

    assert [backoff.wait_seconds(lived) for lived in lives_seconds] == waits_seconds
