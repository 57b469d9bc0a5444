"""The runs list: which runs are listed, and that each way of asking for them has an index, on both databases."""

from datetime import timedelta
from typing import Any

import pytest
from peewee import chunked

from workers.connections import database
from workers.monitor.html.badge import BADGES
from workers.records import claims, runs
from workers.records.tables import ItemStatus, Run, RunItem, RunStatus
from workers.reports import run_stats, runs_list
from workers.reports.labels import LABELS
from workers.reports.runs_list import WITH_FAILURES, Wanted

HOUR = timedelta(hours=1)


def record(status: RunStatus, **values: Any) -> Run:
    now = database.now()
    usual: dict[str, Any] = {"source": "items", "lanes": 4, "created_by": "me", "started_at": now - HOUR}
    if status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
        usual["ended_at"] = now
    return Run.create(**usual | {"status": status} | values)


def listed(**wanted: Any) -> list[int]:
    return [run.id for run in runs_list.newest(Wanted(**wanted), database.now())]


def test_a_run_is_found_by_what_it_is_called(house: pytest.MonkeyPatch) -> None:
    # Given a run of each label
    now = database.now()
    for status in RunStatus:
        record(status, source=status.value, scheduled_at=now + HOUR)
    record(RunStatus.COMPLETED, failed_count=1)
    record(RunStatus.SCHEDULED, scheduled_at=now - HOUR)
    record(RunStatus.CANCELLED, started_at=None, slot_at=now)
    pausing = record(RunStatus.PAUSED)
    RunItem.create(run_id=pausing.id, external_id="1", status=ItemStatus.PROCESSING, due_at=now)
    assert claims.has_any(pausing.id)

    # When
    found = {label: [run_stats.run_stats(runs.get(run_id)).label for run_id in listed(label=label)] for label in LABELS}

    # Then
    assert found == {label: [label] for label in LABELS}
    assert set(LABELS) == set(BADGES)


def test_what_has_failures_is_found_however_it_is_called(house: pytest.MonkeyPatch) -> None:
    # Given a run of each status with failed items, and one without
    having = [record(status, failed_count=2, source=status.value) for status in RunStatus]
    for status in RunStatus:
        record(status, source=f"well {status.value}")

    # Then: one that waits for its time has not begun
    begun = [run.id for run in reversed(having) if run.status != RunStatus.SCHEDULED]
    assert listed(label=WITH_FAILURES) == begun
    assert listed(label=WITH_FAILURES, source="cancelled", lately=True) == [having[-1].id]


def test_the_last_day_has_what_ended_ran_or_waited_in_it(house: pytest.MonkeyPatch) -> None:
    # Given
    now = database.now()
    long_ago = now - 25 * HOUR
    recent = [
        record(RunStatus.COMPLETED, started_at=long_ago, created_at=long_ago),
        record(RunStatus.FAILED, items_removed_at=now),
        record(RunStatus.RUNNING, started_at=long_ago, created_at=long_ago),
        record(RunStatus.PENDING, started_at=None),
        record(RunStatus.SCHEDULED, started_at=None, scheduled_at=long_ago),
        record(RunStatus.CANCELLED, started_at=None, slot_at=now),
    ]
    record(RunStatus.COMPLETED, ended_at=long_ago)
    record(RunStatus.FAILED, ended_at=long_ago, items_removed_at=now)
    record(RunStatus.SCHEDULED, started_at=None, scheduled_at=now + HOUR)

    # Then
    assert listed(lately=True) == [run.id for run in reversed(recent)]
    assert listed(lately=True, label="failed") == [2]
    assert listed(lately=True, before=3) == [2, 1]


def test_of_skipped_slots_the_newest_few_are_listed_unless_asked_for(house: pytest.MonkeyPatch) -> None:
    ran = record(RunStatus.COMPLETED)
    for _ in range(9):
        record(RunStatus.CANCELLED, started_at=None, slot_at=database.now())
    newest = [10, 9, 8, 7, 6]
    assert listed() == [*newest, ran.id]
    assert listed(before=8) == [7, 6, ran.id]
    assert listed(label="skipped") == [10, 9, 8, 7, 6, 5, 4, 3, 2]
    assert runs_list.count(Wanted(), database.now()) == 6


def test_sources_and_tenants_are_named_once_each(house: pytest.MonkeyPatch) -> None:
    assert runs_list.sources() == runs_list.tenants() == []
    for source, tenant in (("b", "y"), ("a", None), ("b", "x"), ("b", "y")):
        record(RunStatus.COMPLETED, source=source, tenant=tenant)
    assert runs_list.sources() == ["a", "b"]
    assert runs_list.tenants() == ["x", "y"]


def test_counting_ends_at_a_limit(house: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"source": "items", "lanes": 4, "created_by": "me", "status": RunStatus.COMPLETED}
    for chunk in chunked([row] * (runs_list.MOST + 7), 200):
        Run.insert_many(chunk).execute()
    assert runs_list.count(Wanted(), database.now()) == runs_list.MOST + 1
    assert runs_list.count(Wanted(before=10), database.now()) == runs_list.MOST + 1  # of all pages


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(house: pytest.MonkeyPatch) -> None:
    """Runs enough for a planner to care: of several sources and tenants, few of them failed or lately ended."""
    now = database.now()
    rows = [
        {
            "source": f"s{number % 5}",
            "tenant": f"t{number % 100}" if number % 3 else None,
            "status": RunStatus.COMPLETED if number % 500 else RunStatus.FAILED,
            "lanes": 4,
            "created_by": "me",
            "started_at": now - (6000 - number) * HOUR,
            "ended_at": now - (6000 - number) * HOUR,
        }
        for number in range(6000)
    ]
    for chunk in chunked(rows, 500):
        Run.insert_many(chunk).execute()
    if not database.is_sqlite():
        database.db.execute_sql("ANALYZE sluice_runs")


#: Each filter alone, and what people combine; what is left out here narrows one of these further.
WAYS: list[dict[str, Any]] = [
    {},
    {"before": 3000},
    {"source": "s1"},
    {"tenant": "t7"},
    {"source": "s1", "tenant": "t7"},
    *({"label": label} for label in LABELS),
    {"label": WITH_FAILURES},
    {"label": WITH_FAILURES, "source": "s1"},
    {"label": "failed", "source": "s1"},
    *({"status": status.value} for status in RunStatus),
    {"status": "completed", "source": "s1"},
    {"label": "completed", "tenant": "t7"},
    {"lately": True},
    {"lately": True, "source": "s1", "before": 5999},
    {"lately": True, "label": "failed"},
]


def test_every_way_of_asking_is_explained_by_an_index(many: None) -> None:
    asked: list[Any] = []
    database.db.query_hooks.append(asked.append)
    now = database.now()
    for way in WAYS:
        runs_list.newest(Wanted(**way), now)
        runs_list.count(Wanted(**way), now)
    for wanted in ({}, {"source": "s1"}):
        runs_list.newest_active_first(Wanted(**wanted), now)
    runs_list.active(20)
    runs_list.count_active()
    runs_list.sources()
    runs_list.tenants()
    database.db.query_hooks.remove(asked.append)

    for event in asked:
        plan = explained(event.sql, event.params)
        assert not reads_all(plan), f"{event.sql}\n{event.params}\n" + "\n".join(plan)


def explained(sql: str, params: Any) -> list[str]:
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite() else "EXPLAIN"
    return [str(row[-1]) for row in database.db.execute_sql(f"{explain} {sql}", params).fetchall()]


def reads_all(plan: list[str]) -> bool:
    """Whether it reads the table of runs from one end to the other."""
    return any("Seq Scan on sluice_runs" in line or line.startswith(("SCAN t1", "SCAN sluice_runs")) for line in plan)
