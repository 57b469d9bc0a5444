"""What a fault run imports: the benchmarks' items, in short list pages, so that the list can be struck too."""

from benchmarks.sources import BenchmarkSource
from tests.faults.facts import PER_PAGE


class FaultSource(BenchmarkSource):
    per_page = PER_PAGE


SOURCES = [FaultSource()]
