"""Errors of Redis are named with their repair; a cluster is recognised as a cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions

from tests.helpers.machine import free_port
from tests.helpers.own_redis import OwnRedis
from workers import settings
from workers.connections import outages, redis_errors
from workers.connections.trouble import Cause
from workers.doctor import redis_checks
from workers.processes.redis_data_folder import find_binary
from workers.reports import health, snapshot

CLUSTER = "Redis runs as a cluster, and Sluice needs a single server"


def refusal(line: str) -> Exception:
    """Return what redis-py makes of a server's reply."""
    from redis._parsers.base import BaseParser

    return BaseParser.parse_error(line)


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (refusal("MOVED 3999 127.0.0.1:6381"), CLUSTER),
        (refusal("ASK 3999 127.0.0.1:6381"), CLUSTER),
        (refusal("CROSSSLOT Keys in request don't hash to the same slot"), CLUSTER),
        (refusal("TRYAGAIN Multiple keys request during rehashing of slot"), CLUSTER),
        (refusal("CLUSTERDOWN Hash slot not served"), CLUSTER),
        (refusal("CLUSTERDOWN The cluster is down"), CLUSTER),
        (refusal("ERR SELECT is not allowed in cluster mode"), CLUSTER),
        (refusal("ERR This command is only available with cluster mode disabled"), CLUSTER),
        (refusal("ERR Script attempted to access a non local key in a cluster node"), CLUSTER),
        (refusal("ERR Script attempted to access keys that do not hash to the same slot"), CLUSTER),
        (exceptions.RedisClusterException("Redis Cluster cannot be connected"), CLUSTER),
        (exceptions.MovedError("3999 127.0.0.1:6381"), CLUSTER),
        (refusal("ERR max number of clients reached"), "Redis has no connection left"),
        (refusal("ERR DB index is out of range"), "Redis has no database of that number"),
        (refusal("OOM command not allowed when used memory > 'maxmemory'."), "Redis is out of memory"),
        (refusal("READONLY You can't write against a read only replica."), "Redis is a replica, and read only"),
        (refusal("ERR unknown command 'X'"), "Redis refuses a command (unknown command 'X')"),
        (redis.ConnectionError("refused"), "Redis does not answer"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, Exception) else "",
)
def test_what_redis_refuses_is_named(error: Exception, what: str) -> None:
    found = redis_errors.trouble(error)
    assert found.what == what
    assert ("single server" in found.repair) == (what == CLUSTER)


class OwnCluster(OwnRedis):
    """A node in cluster mode: it takes a second port, 10,000 above its own."""

    def __init__(self, folder: Path) -> None:
        self.port = next(port for port in iter(free_port, None) if port < 55_000)
        self.folder, self.binary = folder, find_binary()
        self.options = {"bind": "127.0.0.1", "save": "", "cluster-enabled": "yes"}
        self.client = self.connect()
        self.start()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    """A cluster of one node that serves every slot: single keys are written, several at once are not."""
    server = OwnCluster(tmp_path_factory.mktemp("cluster"))
    server.client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
    server.client.config_set("cluster-require-full-coverage", "no")
    yield server
    server.kill()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_cluster_is_named_at_every_door(house: Any, cluster: OwnRedis, tmp_path: Path) -> None:
    house.setenv("SLUICE_REDIS_URL", f"redis://127.0.0.1:{cluster.port}/0")
    house.setenv("SLUICE_BROKER_URL", "")
    settings.get_settings.cache_clear()

    trouble = outages.redis_trouble()
    outage = snapshot.fleet_state().outage
    troubles = health.health().troubles
    findings = [finding for finding in redis_checks.budgets_redis() if finding.down]

    assert trouble and trouble.what == CLUSTER
    assert outage and (outage.cause, outage.what) == (Cause.REDIS_REFUSES, CLUSTER)
    assert troubles[0].what == CLUSTER
    assert [finding.what.partition(" (")[0] for finding in findings] == [CLUSTER]
    assert [finding.fix for finding in findings] == ["let SLUICE_REDIS_URL name a single server"]
