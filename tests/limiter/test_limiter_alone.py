"""The limiter without a database: runs the example of docs/limiter.md around plain `requests` calls."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def example() -> str:
    """The first Python block of docs/limiter.md."""
    return re.search(r"```python\n(.*?)```", (ROOT / "docs" / "limiter.md").read_text(), re.DOTALL)[1]


def run(text: str, folder: Path) -> subprocess.Popen[str]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


def here(text: str, redis_url: str, api_url: str) -> str:
    """The example, but for this test's Redis and API, and for fewer requests with shorter windows."""
    for theirs, ours in [
        ("redis.Redis()", f"redis.Redis.from_url({redis_url!r})"),
        ("http://127.0.0.1:8001", api_url),
        ("range(1, 1001)", "range(1, 41)"),
        ("Limit(500, seconds=20), Limit(2000, seconds=100)", "Limit(20, seconds=1), Limit(60, seconds=3)"),
    ]:
        assert theirs in text, f"the example does not say {theirs} any more"
        text = text.replace(theirs, ours)
    return text


def test_the_example_is_ten_lines(example):
    assert len([line for line in example.splitlines() if line.strip()]) <= 10


def test_two_processes_that_run_the_example_together_keep_to_the_limits(example, redis_server, mock_api, tmp_path):
    # Given an API that keeps a log of requests, and two processes that know nothing of each other
    server = mock_api(items=40, limits="20/1,60/3", algorithm="log")

    # When both run the example
    processes = [run(here(example, redis_server, server.url), tmp_path) for _ in range(2)]

    # Then they come to their ends, and nothing was refused
    for process in processes:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 0, complaint
    stats = requests.get(f"{server.url}/stats", timeout=5).json()
    assert (stats["accepted"], stats["rejected"]) == (80, 0)


def test_a_429_in_the_block_pauses_everyone(example, redis_server, mock_api, tmp_path):
    # Given an API that allows half of what the example believes
    server = mock_api(items=40, limits="10/1", algorithm="log")
    text = here(example, redis_server, server.url).replace('Budget("shop"', 'Budget("half"')

    # When it runs
    _, complaint = run(text, tmp_path).communicate(timeout=60)

    # Then it must wait, once, and says why
    assert "Refused" in complaint
    assert "half: the API answered 429, Retry-After" in complaint
    assert requests.get(f"{server.url}/stats", timeout=5).json()["rejected"] == 1
