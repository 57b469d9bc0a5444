"""The last run of a source is the one that something happened to last, whatever its number; a button says its dialog's
number."""

from datetime import timedelta
from typing import Any

import pytest

from workers import clock
from workers.connections import database
from workers.monitor.actions import run_buttons, run_questions
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus
from workers.reports import run_stats, source_stats
from workers.reports.failure_groups import retriable_count
from workers.scheduling import last_run

DONE = RunStatus.COMPLETED


def past(began: float, ended: float | None, status: RunStatus = DONE, **values: Any) -> Run:
    """Write a run that began, and ended, these seconds ago."""
    times = {"started_at": clock.now() - timedelta(seconds=began)}
    times["ended_at"] = None if ended is None else clock.now() - timedelta(seconds=ended)
    return Run.create(source="items", lanes=1, created_by="me", status=status, **times, **values)


@pytest.mark.parametrize(
    ("runs", "last"),
    [
        ([(90, 80), (50, 40)], 2),
        ([(90, 10), (50, 40)], 1),
        ([(90, None), (50, 40)], 1),
        ([(90, 80), (50, None)], 2),
        ([(90, 10), *[(50, 40)] * 150], 1),
    ],
    ids=["in order", "the first was tried again", "the first runs again", "the second runs", "of very many"],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_last_run_is_what_happened_last(
    import_from: Any, runs: list[tuple[float, float | None]], last: int
) -> None:
    import_from("http://127.0.0.1:1")
    for began, ended in runs:
        past(began, ended, RunStatus.RUNNING if ended is None else DONE)
    by_end = min((ended, -n) for n, (_, ended) in enumerate(runs, 1) if ended is not None)

    assert last_run.last_runs(database.now())["items", None].id == last
    assert source_stats.source_stats(["items"])["items"].runs[-1].id == -by_end[1]


@pytest.mark.parametrize(
    ("lost", "label"),
    [(0, "Retry 90 failed items"), (13, "Retry 77 failed items"), (89, "Retry 1 failed item"), (90, "Retry")],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_button_says_what_its_dialog_says(import_from: Any, lost: int, label: str) -> None:
    import_from("http://127.0.0.1:1")
    run = past(90, 80, failed_count=90, total_count=90, discovered_at=clock.now())
    common = {"run_id": run.id, "status": ItemStatus.FAILED, "due_at": clock.now(), "failure_class": "transient"}
    rows = [common | {"external_id": str(n), "item_id": None if n < lost else str(n)} for n in range(90)]
    RunItem.insert_many(rows).execute()

    one = run_stats.run_stats(run)
    offered = run_buttons.acts_of(one, is_stuck=False, has_items=True, retriable=retriable_count(run.id))
    (button,) = [act.label for act in offered if act.name == "retry"]

    assert button == label
    assert run_questions.retry_failed(run).yes == ("" if lost == 90 else label.replace(" failed", ""))
