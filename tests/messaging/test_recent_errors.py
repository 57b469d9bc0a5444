"""Recent errors: the last warnings and errors of all processes, bounded, without secrets, at no cost to the work."""

import logging
import os
import threading
import time

import pytest
import redis

from tests.helpers.machine import free_port, wait_until
from workers import settings
from workers.messaging import recent_errors
from workers.text import redaction

ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
pytestmark = ON_ONE_DATABASE
log = logging.getLogger("a.test")


@pytest.fixture
def keeper(house):
    """A keeper whose thread is not started: the test writes."""
    keeper = recent_errors._Writer("worker")
    logging.getLogger().addHandler(keeper._handler)
    yield keeper
    logging.getLogger().removeHandler(keeper._handler)


def texts() -> list[str]:
    return [line.text for line in recent_errors.recent_errors()]


def test_warnings_and_errors_of_a_process_are_kept_and_nothing_below(house):
    # When
    with recent_errors.kept("worker"):
        log.info("all is well")
        log.warning("the API is slow")
        log.error("item %d failed", 42)
        wait_until(lambda: len(texts()) == 2)
    log.error("after its end")

    # Then: the newest first
    last, first = recent_errors.recent_errors()
    assert (last.level, last.text, first.level, first.text) == (
        "ERROR",
        "item 42 failed",
        "WARNING",
        "the API is slow",
    )
    assert last.process.startswith(f"worker {os.getpid()} on ")


def test_what_is_said_at_the_very_end_is_kept_too(house):
    with recent_errors.kept("worker"):
        log.warning("the last word")
    assert texts() == ["the last word"]


def test_an_error_is_named_by_its_class_and_message_without_traceback_or_secret(keeper):
    # Given
    redaction.hide("tr0ub4dor")

    # When
    try:
        raise ConnectionError("postgresql://me:tr0ub4dor@db/x refused us\nsecond line, token=abcdef123456")
    except ConnectionError:
        log.exception("the page cannot be read")
    log.warning("x" * 5_000)
    keeper.write()

    # Then
    long, said = texts()
    assert said == "the page cannot be read: ConnectionError: postgresql://***@db/x refused us"
    assert len(long) == 500


def test_the_same_line_within_a_minute_is_counted_not_repeated(keeper):
    # When
    for _ in range(3):
        log.warning("Redis does not answer")
    keeper.write()
    log.warning("Redis does not answer")
    log.warning("another line")
    keeper.write()

    # Then
    assert sorted((line.text, line.count) for line in recent_errors.recent_errors()) == [
        ("Redis does not answer", 4),
        ("another line", 1),
    ]

    # When a minute has passed, it is news again
    later = log.makeRecord(log.name, logging.WARNING, "", 0, "Redis does not answer", (), None)
    later.created = time.time() + 61
    log.handle(later)
    keeper.write()
    assert texts().count("Redis does not answer") == 2


def test_they_are_bounded_and_expire(keeper, redis_server):
    # When
    for number in range(recent_errors.KEPT + 50):
        log.warning("line %d", number)
    keeper.write()

    # Then
    assert len(recent_errors.recent_errors(1_000)) == recent_errors.KEPT
    assert texts()[0] == f"line {recent_errors.KEPT + 49}"
    with redis.Redis.from_url(redis_server) as client:
        assert client.ttl(f"{os.environ['SLUICE_PREFIX']}:errors") > 0


def test_who_logs_never_waits_and_what_nobody_can_write_is_dropped(keeper, capsys):
    # Given a queue that is full, because no thread writes
    for number in range(recent_errors._WAITING + 10):
        log.warning("line %d", number)

    # Then: no error, no wait, and the queue is as long as it may be
    assert keeper._lines.qsize() == recent_errors._WAITING
    assert capsys.readouterr().err == ""


def test_a_redis_that_is_away_ends_nothing_and_says_nothing_of_itself(house, caplog):
    # Given
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    settings.get_settings.cache_clear()

    # When
    with recent_errors.kept("worker"):
        log.warning("Redis does not answer")
        wait_until(lambda: not _waiting())

        # Then: its thread continues, and has logged nothing
        assert [thread.name for thread in threading.enumerate()].count("recent-errors") == 1
    assert [record.getMessage() for record in caplog.records] == ["Redis does not answer"]


def _waiting() -> int:
    (handler,) = [h for h in logging.getLogger().handlers if isinstance(h, recent_errors._Copies)]
    return int(handler.queue.qsize())


def test_what_the_writing_thread_logs_is_not_kept(keeper):
    thread = threading.Thread(target=lambda: log.warning("Redis refused"), name="recent-errors")
    thread.start()
    thread.join()
    keeper.write()
    assert texts() == []


@pytest.mark.parametrize("said", [b"", b"[]", b"\xff", b'{"level": 1}', b'{"level": "E", "process": "", "count": "x"}'])
def test_what_somebody_else_wrote_there_is_left_out(keeper, redis_server, said):
    log.warning("ours")
    keeper.write()
    with redis.Redis.from_url(redis_server) as client:
        client.zadd(f"{os.environ['SLUICE_PREFIX']}:errors", {said: 9_999_999_999})
    assert texts() == ["ours"]
