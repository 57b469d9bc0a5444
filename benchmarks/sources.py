"""A second host: the demo's items, from an API whose limits BENCH_LIMITS names (as the mock's --limits)."""

import os

from mock_server import parse_limits
from sources import ItemSource
from workers import Connector, Limit


class BenchmarkSource(ItemSource):
    connector = Connector(
        "benchmark",
        base_url=os.environ["DEMO_API_URL"],
        limits=[Limit(window.limit, seconds=window.seconds) for window in parse_limits(os.environ["BENCH_LIMITS"])],
    )


SOURCES = [BenchmarkSource()]
