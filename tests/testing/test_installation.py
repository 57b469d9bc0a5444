"""A test's installation: a source runs in it to its end, it leaves nothing behind and nothing around reaches it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from models import Item
from sources import ItemSource
from tests.helpers.machine import ROOT
from workers import ConfigurationError, Connector, Limit, clock, testing
from workers.connections import database
from workers.settings import get_settings
from workers.sources.registry import get_registry

ITEM = {"id": 1, "name": "a", "description": "b", "price": "1.00"}
ROUTES = {"/api/items": {"data": [{"id": 1, "name": "a"}], "total": 1}, "/api/items/1": ITEM}


def source_of(url: str) -> ItemSource:
    connector = Connector("test", base_url=url, limits=[Limit(2, seconds=60)])
    return type("TestSource", (ItemSource,), {"connector": connector, "schedule": None})()


def test_a_source_runs_to_its_end_without_waiting(environment):
    with testing.api(ROUTES, limits=[Limit(2, seconds=60)]) as api, testing.installation([source_of(api.url)]) as place:
        runs = [testing.import_all() for _ in range(3)]

        assert [(run.status, run.succeeded, run.hits) for run in runs] == [("completed", 1, 0)] * 3
        assert Item.get().price == 1
        assert testing.items_of(runs[0].id)["1"].status == "completed"
        assert place.clock is not None
        assert place.clock.elapsed_seconds >= 120


def test_nothing_is_left_of_it_and_nothing_around_it_reaches_it(environment):
    environment.setenv("SLUICE_LANES", "7")
    environment.setenv("SLUICE_SOURCES", "sources:SOURCES")
    before = dict(os.environ)

    with testing.installation([source_of("http://127.0.0.1:1")], batch_size=3, moved=False) as place:
        assert (get_settings().lanes, get_settings().batch_size) == (0, 3)
        assert list(get_registry()) == ["items"]
        assert place.folder.exists()
        assert place.clock is None

    assert dict(os.environ) == before
    assert not place.folder.exists()
    assert database.db.obj is None
    assert get_settings().lanes == 7
    assert not clock.current().moved


def test_a_source_that_cannot_work_is_refused_and_leaves_nothing(environment):
    broken = type("Broken", (ItemSource,), {"per_page": 0})()

    with pytest.raises(ConfigurationError, match="per_page"), testing.installation([broken]):
        raise AssertionError("it was set up")

    assert not clock.current().moved
    assert "SLUICE_BROKER_URL" not in os.environ


def test_two_installations_after_another_share_neither_rows_nor_budgets(environment):
    with testing.api(ROUTES) as api:
        source = source_of(api.url)
        for _ in range(2):
            with testing.installation([source]):
                assert source.connector.limiter.snapshot().granted == 0
                assert testing.import_all().id == 1
                assert source.connector.limiter.snapshot().granted == 2


def test_a_served_redis_ends_with_its_block():
    with testing.redis_server() as url, redis.Redis.from_url(url) as client:
        assert client.ping()

    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(url).ping()


def test_the_double_needs_no_test_runner(tmp_path: Path):
    code = "import sys; from workers import testing; sys.exit('pytest' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False, timeout=60
    )

    assert done.returncode == 0
