"""List the benchmarks' sources: the demo's items, from an API whose limits BENCH_LIMITS names (as the mock's --limits).

Three sources share its budget: all items, very many, and one.
"""

import os

from mock_server import parse_limits
from sources import ItemSource
from workers import Connector, Limit

#: The one item, which the source of very many leaves out.
THE_ONE = 1
#: How many items a list page of the source of very many stands for.
MANY_PER_PAGE = 5_000

api = Connector(
    "benchmark",
    base_url=os.environ["DEMO_API_URL"],
    limits=[Limit(window.limit, seconds=window.seconds) for window in parse_limits(os.environ["BENCH_LIMITS"])],
)


class BenchmarkSource(ItemSource):
    connector = api
    schedule = None  # a scheduled run would spoil the figures


class ManySource(BenchmarkSource):
    """A list page stands for 5,000 items, not for 100: else the list of 100,000 would take most of a minute."""

    name = "many"

    def get_list_items(self, data):
        first = THE_ONE + 1 + (data["current_page"] - 1) * MANY_PER_PAGE
        ids = range(first, min(first + MANY_PER_PAGE, data["total"] + 1))
        return [{"id": item_id, "name": f"item {item_id}"} for item_id in ids]

    def next_cursor(self, data, cursor):
        return cursor + 1 if THE_ONE + cursor * MANY_PER_PAGE < data["total"] else None


class OneSource(BenchmarkSource):
    """A list of one page with one item."""

    name = "one"

    def get_list_request(self, cursor, per_page):
        return super().get_list_request(THE_ONE, 1)

    def next_cursor(self, data, cursor):
        return None


SOURCES = [BenchmarkSource(), ManySource(), OneSource()]
