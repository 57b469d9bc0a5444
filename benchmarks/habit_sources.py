"""List the sources that `habits.py` imports: the benchmarks' own, and one whose tenants each have a daily budget."""

import os

from benchmarks.sources import SOURCES as BENCHMARK_SOURCES
from benchmarks.sources import BenchmarkSource, ManySource
from workers import Connector, Limit

FORTY = 40
#: Requests a day that each tenant's key allows: its list page, and no item.
A_DAY = [Limit(1, seconds=86_400)]


class BesideSource(ManySource):
    """All items but the first forty."""

    name = "beside"
    total_key = None

    def get_list_items(self, data):
        return [item for item in super().get_list_items(data) if item["id"] > FORTY]


class DailySource(BenchmarkSource):
    """A run of it reads its list, and then all its lanes wait for tomorrow."""

    name = "daily"
    lanes = 16
    per_page = 1_000

    def get_connector(self, run):
        return Connector(f"daily-{run.tenant}", base_url=os.environ["DEMO_API_URL"], limits=A_DAY)


class FortySource(BenchmarkSource):
    """The first forty items."""

    name = "forty"
    per_page = FORTY
    total_key = None

    def next_cursor(self, data, cursor):
        return None


SOURCES = [*BENCHMARK_SOURCES, FortySource(), BesideSource(), DailySource()]
