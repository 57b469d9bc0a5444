"""List the source of a fault run: the benchmarks' items in short list pages, so that faults hit the list, too."""

from benchmarks.sources import BenchmarkSource
from tests.faults.facts import PER_PAGE


class FaultSource(BenchmarkSource):
    per_page = PER_PAGE


SOURCES = [FaultSource()]
