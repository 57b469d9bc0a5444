"""Shared readings: ten open browsers cost the database what one does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.helpers.machine import wait_until
from workers.clock import MovedClock
from workers.monitor.readings import cache as readings
from workers.monitor.readings.cache import cached
from workers.monitor.readings.unreadable import Unreadable


@pytest.fixture(autouse=True)
def nothing_read() -> Iterator[None]:
    readings.forget()
    yield
    readings.forget()


def counted() -> tuple[list[int], Callable[[], int]]:
    reads: list[int] = []

    def read() -> int:
        reads.append(len(reads))
        return reads[-1]

    return reads, read


def test_ten_sessions_that_ask_at_once_are_answered_by_one_reading() -> None:
    # Given
    begun, go_on = threading.Event(), threading.Event()
    reads, answers = [], []

    def slow() -> str:
        reads.append(1)
        begun.set()
        go_on.wait(5)
        return "answer"

    def ask() -> None:
        answers.append(cached("runs", 60.0, slow))

    sessions = [threading.Thread(target=ask) for _ in range(10)]

    # When
    for session in sessions:
        session.start()
    begun.wait(5)
    go_on.set()
    for session in sessions:
        session.join(5)

    # Then
    assert answers == ["answer"] * 10
    assert len(reads) == 1


def test_a_reading_is_good_for_its_time_and_no_longer(moved_clock: MovedClock) -> None:
    reads, read = counted()
    assert cached("runs", 0.9, read) == cached("runs", 0.9, read) == 0
    moved_clock.advance(0.8)
    assert cached("runs", 0.9, read) == 0
    moved_clock.advance(0.2)
    assert cached("runs", 0.9, read) == 1
    assert len(reads) == 2


def test_what_depends_on_something_else_is_another_reading() -> None:
    _, read = counted()
    assert cached(("run", 1), 60.0, read) == 0
    assert cached(("run", 2), 60.0, read) == 1


def test_an_error_is_shared_too_and_does_not_grow(moved_clock: MovedClock) -> None:
    # Given
    reads = []

    def fail() -> None:
        reads.append(1)
        raise OSError("away")

    # When
    depths = []
    for _ in range(3):
        with pytest.raises(OSError, match="away") as raised:
            cached("runs", 0.9, fail)
        depths.append(len(list(raised.traceback)))

    # Then
    assert len(reads) == 1
    assert depths[1] == depths[2]

    moved_clock.advance(1.0)
    assert cached("runs", 0.9, lambda: "back") == "back"


def test_after_an_act_everything_is_read_anew() -> None:
    _, read = counted()
    assert cached("runs", 60.0, read) == 0
    readings.forget()
    assert cached("runs", 60.0, read) == 1


def test_what_nobody_asks_for_any_more_is_not_kept(moved_clock: MovedClock) -> None:
    for number in range(100):
        cached(("run", number), 1.0, lambda: "large")
    moved_clock.advance(120.0)
    cached("another", 1.0, lambda: 1)
    assert len(readings._readings) == 1


def test_a_reading_that_hangs_is_waited_for_once(moved_clock: MovedClock) -> None:
    # Given a database that takes a connection and says nothing
    begun, go_on, reads = threading.Event(), threading.Event(), []

    def hang() -> str:
        reads.append(1)
        begun.set()
        go_on.wait(10)
        return "late"

    def ask() -> None:
        with suppress(Unreadable):
            cached("runs", 0.9, hang)

    threading.Thread(target=ask).start()
    begun.wait(5)
    moved_clock.advance(10.0)

    # When others ask, then they get an error, and it is not read again
    for _ in range(2):
        with pytest.raises(Unreadable, match="Reading takes too long"):
            cached("runs", 0.9, hang)
    assert len(reads) == 1

    # And when it answers, all is well again
    go_on.set()
    wait_until(lambda: readings._readings["runs"].done is None, what="its answer")
    assert cached("runs", 0.9, hang) == "late"


def test_a_reading_that_ends_its_thread_is_an_error_and_no_wait() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        cached("runs", 60.0, leave)


def test_where_no_thread_can_be_started_the_next_one_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            cached("runs", 60.0, lambda: 1)
    assert cached("runs", 60.0, lambda: 2) == 2
