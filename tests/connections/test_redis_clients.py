"""Redis clients are made in one module, so that each has bounded waits. No other module of workers/ makes one."""

import ast
from pathlib import Path

import pytest

from workers.connections.redis_client import probe_client, quick_client, redis_client, shared_quick_client

WORKERS = Path(__file__).resolve().parents[2] / "workers"
MAKER = WORKERS / "connections" / "redis_client.py"
#: Calls that make a client or a pool of connections, by the end of their dotted name.
MAKES = {"from_url", "Redis", "StrictRedis", "ConnectionPool", "BlockingConnectionPool", "Sentinel", "RedisCluster"}
URL = "redis://127.0.0.1:1/0"


def clients_made(tree: ast.AST, module: str) -> list[str]:
    """Name each call of a module that makes a Redis client."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [(node.lineno, ast.unparse(node.func)) for node in calls]
    return [f"{module}:{line} calls {name}" for line, name in names if name.rpartition(".")[2] in MAKES]


def test_no_other_module_makes_a_redis_client() -> None:
    paths = [path for path in sorted(WORKERS.rglob("*.py")) if path != MAKER]

    made = [one for path in paths for one in clients_made(ast.parse(path.read_text()), str(path.relative_to(WORKERS)))]

    assert len(paths) > 100
    assert made == []
    assert len(clients_made(ast.parse(MAKER.read_text()), "redis_client")) == 3


@pytest.mark.parametrize(
    "code", ["redis.Redis.from_url(url)", "Redis(host)", "redis.ConnectionPool.from_url(url)", "redis.Redis()"]
)
def test_the_rule_finds_each_way_to_make_a_client(code: str) -> None:
    assert len(clients_made(ast.parse(code), "x")) == 1


def test_every_client_has_bounded_waits() -> None:
    clients = [redis_client(URL), quick_client(URL), shared_quick_client(URL), probe_client(URL, 0.5)]

    for client in clients:
        waits = client.connection_pool.connection_kwargs
        assert 0 < waits["socket_timeout"] <= 5
        assert 0 < waits["socket_connect_timeout"] <= 5
        client.close()


def test_the_shared_client_is_one_per_url() -> None:
    assert shared_quick_client(URL) is shared_quick_client(URL)
    assert shared_quick_client(URL) is not shared_quick_client(URL.replace("/0", "/1"))
