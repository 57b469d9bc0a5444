"""Snapshot: the read side reads rows once per refresh, in few queries, and computes every figure from values."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.machine import ROOT
from tests.reports.test_why import Stand, queued, stand  # noqa: F401, a fixture
from workers.connections import database
from workers.records import runs, samples
from workers.records.tables import Run, RunStatus
from workers.reports import run_stats, snapshot

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
#: What one run that waits for its messages costs: the snapshot, and each question of `why` up to its last reason.
STALLED = 15


def queries(read: Callable[[], Any]) -> int:
    asked: list[Any] = []
    database.db.query_hooks.append(asked.append)
    read()
    database.db.query_hooks.remove(asked.append)
    return len(asked)


@ON_SQLITE
def test_the_figures_of_runs_cost_few_queries(stand: Stand) -> None:  # noqa: F811
    # Given a run that makes no progress, which costs the most
    queued(stand)
    samples.take(database.now())
    run = runs.get(stand.run.id)
    assert queries(lambda: run_stats.run_stats(run)) == STALLED

    # When seven more run, then they share what they have in common
    times = {"started_at": run.started_at, "discovered_at": run.discovered_at}
    for number in range(7):
        tenant = f"t{number}"
        Run.create(status=RunStatus.RUNNING, source="items", tenant=tenant, lanes=2, created_by="me", **times)
    samples.take(database.now())
    shared = queries(lambda: snapshot.take(runs.running()))
    assert shared <= 6
    assert queries(run_stats.recent_runs) < 8 * STALLED - 7 * (shared - 1)

    # And when all have ended, their pauses are read, and no more
    Run.update(status=RunStatus.COMPLETED, ended_at=database.now()).execute()
    ended = list(Run.select())
    assert queries(lambda: run_stats.all_stats(ended)) == 1


@pytest.mark.parametrize("name", ["eta", "forecast", "pace", "budget_text", "why_text", "reasons"])
def test_what_computes_reads_nothing(name: str) -> None:
    text = (ROOT / "workers" / "reports" / f"{name}.py").read_text()

    assert [
        word for word in (".select(", "execute_sql", "quick_client", "import database", "import items") if word in text
    ] == []
