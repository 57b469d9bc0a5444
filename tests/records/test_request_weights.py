"""Weights: a run whose requests count as several ends as late as its budget lets it, and says so."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
from peewee import CharField, IntegerField, Model

from tests.helpers.model_imports import Detailed, imported, register, serving
from workers import Connector, Limit
from workers.connections import database
from workers.limiter.state import BudgetState, WindowState
from workers.records import runs
from workers.records.request_weights import detail_weight
from workers.records.tables import ItemStatus, Run, RunItem
from workers.reports import run_stats, running_runs
from workers.reports.eta import eta
from workers.reports.pace import Pace
from workers.reports.running_runs import RunningRuns

FRESH = BudgetState("api", (WindowState(Limit(500, seconds=20), 0, 500, 500),))
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def listed(left: int, source: str = "items") -> Run:
    run = runs.create(source, lanes=16, created_by="test", door="test")
    known = {"total_count": left, "discovered_at": database.now(), "status": "running"}
    Run.update(known).where(Run.id == run.id).execute()
    return runs.get(run.id)


@pytest.mark.parametrize("weight", [1.0, 5.0, 2.5, 500.0])
@ON_SQLITE
def test_a_request_of_a_weight_takes_as_long_as_that_many(house: Any, weight: float) -> None:
    run, pace = listed(1000), Pace(0.0, 200.0)
    weighed = eta(run, database.now(), FRESH, pace, RunningRuns([run], (), {run.id: "api"}, {}, {run.id: weight}))
    many = listed(round(1000 * weight), "others")
    same = eta(many, database.now(), FRESH, Pace(0.0, 200.0 * weight), RunningRuns([many], (), {many.id: "api"}, {}))
    assert weighed and same
    assert weighed.seconds == pytest.approx(same.seconds, rel=0.03, abs=0.5)


class Costly(Connector):
    def weigh(self, request: requests.Request) -> int:
        return 5


class Failing(Connector):
    def weigh(self, request: requests.Request) -> int:
        raise ValueError("no such endpoint")


@pytest.mark.parametrize(("kind", "weight"), [(Connector, 1.0), (Costly, 5.0), (Failing, 1.0)])
@ON_SQLITE
def test_the_weight_of_a_run_is_that_of_its_details(
    import_from: Callable[..., Any], kind: type[Connector], weight: float
) -> None:
    class Thing(Detailed, Model):
        external_id = CharField(unique=True)
        size = IntegerField(null=True)

        class Meta:
            database = database.db
            table_name = "weighed_things"

    with serving([[{"external_id": "a"}, {"external_id": "b"}]], {"a": {"size": 1}, "b": {"size": 2}}) as api:
        connector = Connector("plain", base_url=api.url, limits=[Limit(100, seconds=1)])
        source = register(Thing, api.url, connector=connector)
        run = imported()
        RunItem.update({RunItem.status: ItemStatus.PENDING}).execute()
        type(source).connector = kind("weighed", base_url=api.url, limits=[Limit(100, seconds=1)])
        Run.update({Run.status: "running", Run.ended_at: None, Run.succeeded_count: 0}).execute()
        again = runs.get(run.id)

        assert detail_weight(again) == weight
        assert running_runs.snapshot(database.now()).weight_of(again) == weight
        assert run_stats.run_stats(again).id == run.id
