"""Source stats: success rate and duration over the last runs, the last success, and the next run."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from workers.connections import database
from workers.monitor.html.sparkline import sparkline
from workers.records.tables import Run, RunEvent, RunStatus
from workers.reports.source_stats import LAST, SourceStats, source_stats


def past(status: RunStatus = RunStatus.COMPLETED, minutes_ago: float = 0, seconds: float = 60, **values: Any) -> Run:
    ended = database.now() - timedelta(minutes=minutes_ago)
    usual = {"source": "items", "lanes": 4, "created_by": "me", "total_count": 10, "ended_at": ended}
    return Run.create(**usual | {"status": status, "started_at": ended - timedelta(seconds=seconds)} | values)


def of_items() -> SourceStats:
    return source_stats(["items"])["items"]


def test_a_source_without_runs_claims_nothing(house: pytest.MonkeyPatch) -> None:
    assert of_items() == SourceStats("items")
    assert of_items().success is None and of_items().average_seconds is None


def test_success_is_computed_from_the_last_twenty_runs_that_were_decided(house: pytest.MonkeyPatch) -> None:
    # Given what is too old, of another source, called off, or never began
    past(RunStatus.FAILED)
    for _ in range(LAST - 5):
        past()
    past(RunStatus.FAILED)
    past(RunStatus.FAILED)
    past(failed_count=3)
    past(RunStatus.CANCELLED)
    past(RunStatus.CANCELLED, started_at=None, slot_at=database.now())
    past(RunStatus.FAILED, source="other")
    past()
    past(RunStatus.RUNNING, ended_at=None)

    # When
    found = of_items()

    # Then
    assert [run.label for run in found.runs[-5:]] == [
        *("failed", "failed", "completed with failures", "cancelled", "completed")
    ]
    assert (len(found.runs), found.decided, found.succeeded, found.with_failures) == (LAST, LAST - 1, LAST - 3, 1)
    assert found.success == (LAST - 3) / (LAST - 1)


def test_the_average_leaves_out_pauses(house: pytest.MonkeyPatch) -> None:
    past(seconds=60)
    paused = past(seconds=1000)
    past(RunStatus.FAILED, seconds=5)
    for what, seconds in (("started", 0), ("paused", 10), ("resumed", 910)):
        at = paused.started_at + timedelta(seconds=seconds)
        RunEvent.create(run_id=paused.id, what=what, who="me", door="test", at=at)
    assert of_items().average_seconds == pytest.approx((60 + 100) / 2)


def test_the_last_success_is_found_however_long_ago(house: pytest.MonkeyPatch) -> None:
    long_ago = past(minutes_ago=9000, failed_count=2)
    past(minutes_ago=9999)
    for _ in range(LAST + 1):
        past(RunStatus.FAILED)
    assert of_items().success == 0.0
    assert of_items().last_success_at == long_ago.ended_at


def test_the_next_run_is_the_first_that_is_scheduled(house: pytest.MonkeyPatch) -> None:
    now = database.now()
    for hours in (3, 2):
        at = now + timedelta(hours=hours)
        past(RunStatus.SCHEDULED, scheduled_at=at, started_at=None, ended_at=None)
    assert of_items().next_at == now + timedelta(hours=2)
    assert isinstance(of_items().next_at, datetime)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_sparkline_shows_how_runs_ended_by_height_shape_and_word(house: pytest.MonkeyPatch) -> None:
    # Given
    past()
    past(failed_count=1)
    past(failed_count=10)
    past(RunStatus.FAILED)
    past(RunStatus.CANCELLED)

    # When
    svg = sparkline(of_items().runs)

    # Then
    bars = svg.split("<g ")[1:]
    heights = [float(bar.split('height="')[1].split('"')[0]) for bar in bars]
    assert heights[0] < heights[1] < heights[2] <= heights[3] and heights[4] == heights[0]
    assert ["circle" in bar for bar in bars] == [False, True, True, False, False]
    assert ["<path" in bar for bar in bars] == [False, False, False, True, False]
    assert "run 2: completed with failures, 1 of 10 items failed; ended " in bars[1]
    assert 'aria-label="the last 5 runs: 1 completed, 2 completed with failures, 1 failed, 1 cancelled"' in svg
