"""The limiter's benchmark: its arguments, what it needs of our limiter, and one small table from end to end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import cost, limiter, memory, peers, versus
from benchmarks.peers import PEERS
from mock_server import parse_limits

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "benchmarks" / "limiter.py")


def test_a_small_table_from_end_to_end() -> None:
    # Given the log and the smallest windows, which hold for our limiter and without any limiter
    small = ["--algorithms", "log", "--jitters", "0.01", "--limits", "5/0.5", "--requests", "8", "--parallel", "2"]

    # When both are measured
    line = [sys.executable, SCRIPT, "versus", "--json", "--clients", "ours,retry", *small]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    # Then all requests were made, and ours met no 429; how long that took is the machine's
    report = json.loads(done.stdout)
    ours, retry = report["versus"]
    assert (ours["peer"], ours["accepted"], ours["rejected"], ours["why"]) == ("ours", 8, 0, "")
    assert (retry["peer"], retry["accepted"], retry["why"]) == ("retry", 8, "")
    assert retry["rejected"] > 0
    assert ours["span_seconds"] > ours["floor_seconds"] == 0.5
    assert not [missed for missed in report["missed"] if "span" not in missed]


def test_cells_are_every_limiter_against_every_server() -> None:
    made = versus.cells(["ours", "retry"], ["log", "gcra"], [0.0, 0.25], requests=7)
    assert len({(cell.peer, cell.algorithm, cell.jitter_seconds) for cell in made}) == len(made) == 8
    assert {cell.requests for cell in made} == {7}


def test_the_bound_is_a_hundredth_over_the_floor_and_a_response_for_each_window() -> None:
    cell = versus.Cell("ours", "log", 0.25)
    assert cell.floor_seconds == 50.0
    assert cell.bound_seconds == pytest.approx(50.5 + 5 * 0.255)


def test_a_429_misses_a_bound_of_ours_only() -> None:
    ours, theirs = (versus.Result(versus.Cell(peer, "log", 0.01), 1010, 1, 50.1) for peer in ("ours", "limits"))
    assert [check.name for check in ours.checks if not check.holds] == ["ours, log, jitter 10 ms: 429s"]
    assert not theirs.checks


def test_a_counter_may_refuse_ours_but_every_request_must_be_made() -> None:
    result = versus.Result(versus.Cell("ours", "counter", 0.01), 1009, 30, 70.0)
    assert [check.name for check in result.checks if not check.holds] == ["ours, counter, jitter 10 ms: requests"]


def test_a_cell_of_ours_without_figures_misses_its_bounds() -> None:
    assert any(not check.holds for check in versus.Result(versus.Cell("ours", "log", 0.01), why="it fell").checks)


def test_a_missing_peer_is_said_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda package: None)
    result = versus.measure(versus.Cell("limits", "log", 0.01), "redis://127.0.0.1:1")
    assert result.why == "not installed: make bench-limiter"
    assert not result.checks


def test_windows_of_parts_of_a_second_are_not_for_everyone() -> None:
    assert PEERS["dramatiq"].cannot(parse_limits("5/0.5,50/5")) == "its windows are whole seconds"
    assert not PEERS["dramatiq"].cannot(parse_limits("5/1,50/5"))
    assert not PEERS["ours"].cannot(parse_limits("5/0.5"))


@pytest.mark.parametrize(
    "options",
    [
        ("versus", "--clients", "ours,theirs"),
        ("versus", "--algorithms", "leaky"),
        ("versus", "--jitters", "soon"),
        ("versus", "--jitters", "-1"),
        ("versus", "--limits", "none"),
        ("versus", "--limits", "50 in 2 s"),
        ("versus", "--parallel", "0"),
        ("memory", "--permits", "1"),
        ("cost", "--rounds", "1"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(options: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(limiter.main, options)
    assert answer.exit_code == 2
    assert options[1] in answer.output


def test_the_bound_on_the_cost_is_on_what_a_lane_does() -> None:
    def made(way: str, ratio: float) -> cost.Cost:
        return cost.Cost("any", 1, way, 100.0, 100.0 * ratio, ratio, ratio, ratio, 4)

    assert [check.holds for check in cost.checks([made(cost.ONE, 2.0), made(cost.SEVERAL, 1.1)])] == [True]
    assert [check.holds for check in cost.checks([made(cost.ONE, 1.0), made(cost.SEVERAL, 1.6)])] == [False]


def test_the_bound_on_memory_is_ours() -> None:
    assert [check.holds for check in memory.Memory("ours", 20_000, 20_001, 5).checks] == [False]
    assert not memory.Memory("limits", 20_000, 50_000, 2).checks
