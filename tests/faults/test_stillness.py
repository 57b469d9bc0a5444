"""A run that has not moved for ten seconds is asked why; a reason that no fault explains is a breach."""

import dataclasses

import pytest

from benchmarks.fleet import RunRow
from tests.faults.facts import ALWAYS, REASONS, Struck, breaches, unexpected
from tests.faults.good_run import GOOD
from tests.faults.schedule import Fault, Kind
from tests.faults.stillness import Stillness
from workers.reports.reasons import Reason


def row(done: int, status: str = "running") -> RunRow:
    return RunRow(status, 100, done, 0, 0, 0, 0, 0.0)


def watched(rows: list[RunRow | None], code: str) -> Stillness:
    """Look at a run once a second."""
    now = [0.0]
    stillness = Stillness(lambda: code, lambda: now[0])
    for one in rows:
        now[0] += 1.0
        stillness.look(one)
        stillness.wait_for_answer()
    stillness.end()
    return stillness


@pytest.mark.parametrize(
    ("rows", "asked"),
    [
        ([row(n) for n in range(20)], 0),
        ([row(1)] * 10, 0),
        ([row(1)] * 14, 4),
        ([row(1)] * 9 + [None] + [row(1)] * 9, 0),
        ([row(1, "paused")] * 20, 0),
        ([row(1)] * 9 + [row(2)] * 9, 0),
    ],
    ids=["moves", "for 9 s", "for 13 s", "database away", "paused", "moves once"],
)
def test_a_run_that_stands_still_for_ten_seconds_is_asked_why_each_second(rows, asked):
    explained, silent = watched(rows, "window_full"), watched(rows, "")
    assert (len(explained.reasons), len(explained.unexplained)) == (asked, 0)
    assert (len(silent.reasons), len(silent.unexplained)) == (0, asked)


def test_a_stillness_without_a_reason_is_a_breach():
    facts = dataclasses.replace(GOOD, unexplained=(31.0, 32.0))
    assert breaches(facts) == ["2 times it did not move, and nothing said why"]


def test_a_reason_that_no_fault_explains_is_a_breach():
    killed = Struck(Fault(0.1, Kind.CHILD_KILLED), 20.0, 10)
    before = dataclasses.replace(GOOD, struck=(killed,), reasons=((19.0, "no_worker"), (25.0, "no_scheduler")))
    after = dataclasses.replace(GOOD, struck=(killed,), reasons=((21.0, "no_worker"), (1.0, "window_full")))
    assert unexpected(before) == ["no_scheduler", "no_worker"]
    assert unexpected(after) == []


def test_every_kind_of_fault_has_its_reasons_and_every_code_is_one():
    assert set(REASONS) == set(Kind)
    known = {code.value for code in Reason}
    assert known > ALWAYS
    assert all(codes < known for codes in REASONS.values())
