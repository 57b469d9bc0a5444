"""The data of a run's charts."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from workers.monitor.sections import run_charts
from workers.monitor.sections.run_charts import Charts, charts_of
from workers.reports.history import History, Point
from workers.reports.pauses import Span

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def point(second: int, **values: Any) -> Point:
    """A span of two seconds that ends then: 40 items, 42 requests."""
    usual = {"done": 20 * second, "succeeded": 20 * second, "failed": 0, "skipped": 0, "waiting_share": 0.0}
    usual |= {"items_per_second": 20.0, "requests_per_second": 21.0, "hits": 0, "sleeps": 0}
    return Point(at=BEGIN + timedelta(seconds=second), seconds=2.0, **usual | values)


def past(*points: Point, allowed: float | None = 20.0, held: tuple[Span, ...] = ()) -> History:
    end = points[-1].at if points else BEGIN
    return History(points, allowed, "2000/100 s", held, BEGIN, end)


def drawn(*points: Point, total: int | None = 1000, **values: Any) -> Charts:
    found = charts_of(past(*points, **values), total)
    assert found is not None
    return found


def test_a_run_that_has_not_lived_has_no_chart() -> None:
    assert charts_of(past(), 1000) is None


def test_each_span_is_a_row_and_the_first_begins_where_the_run_began() -> None:
    found = drawn(point(2), point(4, items_per_second=0.0, waiting_share=1.0, hits=1))

    assert list(found.pace["at"]) == [BEGIN, BEGIN + timedelta(seconds=2), BEGIN + timedelta(seconds=4)]
    assert list(found.pace["seconds"]) == [0, 2, 2]
    assert list(found.pace["items"]) == [20, 20, 0]
    assert list(found.pace["requests"]) == [21, 21, 21]
    assert list(found.pace["waiting"]) == [0, 0, 1] and list(found.pace["hits"]) == [0, 0, 1]
    assert list(found.progress["done"]) == [0, 40, 80]
    assert found.has_waits and found.has_hits and not found.has_pauses and not found.has_failed


def test_the_ideal_line_is_flat_during_a_pause_and_ends_with_the_items() -> None:
    held = Span(BEGIN + timedelta(seconds=2), BEGIN + timedelta(seconds=4))
    found = drawn(point(2), point(4), point(6), point(8), total=70, held=(held,))

    assert list(found.progress["ideal"]) == [0, 40, 40, 70, 70]
    assert found.has_pauses and list(found.pauses["shown"]) == [0, 1]
    assert found.progress["room"].max() == 70


@pytest.mark.parametrize(("allowed", "total"), [(None, 1000), (math.inf, 1000), (20.0, None)])
def test_where_the_ideal_is_not_known_none_is_drawn(allowed: float | None, total: int | None) -> None:
    found = drawn(point(2), point(4), allowed=allowed, total=total)

    assert not found.has_ideal
    assert [math.isnan(value) for value in found.progress["ideal"]] == [False, True, True]


def test_a_budget_far_above_all_that_was_reached_does_not_press_the_chart_to_the_floor() -> None:
    assert drawn(point(2), allowed=84.0).rule.to_dict("list") == {"allowed": [84.0], "shown": [1.0]}
    far = drawn(point(2), allowed=85.0)
    assert far.beyond and far.allowed == 85.0 and far.rule.to_dict("list") == {"allowed": [0.0], "shown": [0.0]}


def test_no_data_is_empty_so_that_the_browser_has_nothing_to_complain_of() -> None:
    for chart in drawn(point(2), allowed=None, total=None).specifications():
        assert all(pa.ipc.open_stream(rows).read_all().num_rows for rows in chart["datasets"].values())


def test_the_charts_are_made_once_and_only_their_data_moves() -> None:
    first, second = drawn(point(2)).specifications()[0], drawn(point(2), point(4)).specifications()[0]

    assert first["layer"] is second["layer"]
    assert first["datasets"]["pace"] is not second["datasets"]["pace"]


@pytest.mark.parametrize(("seconds", "axis"), [(90, "%H:%M:%S"), (7200, "%H:%M"), (200_000, "%d %b %H:%M")])
def test_times_are_written_as_the_run_is_long(seconds: int, axis: str) -> None:
    assert drawn(point(seconds)).axis == axis


def test_every_line_tells_the_time_here_and_in_utc() -> None:
    for chart in (run_charts.pace_chart("%H:%M"), run_charts.progress_chart("%H:%M")):
        tips = [layer["encoding"]["tooltip"] for layer in chart["layer"] if "tooltip" in layer["encoding"]]
        assert [(tip["field"], tip["title"]) for tip in tips[0][:2]] == [("at", "at"), ("utc", "UTC")]
        assert len(tips) == 1
