"""List the sources of the planning benchmark: the demo's items, and the same from a list that needs no details."""

from benchmarks.sources import BenchmarkSource
from models import Item


class ListedItem(Item):
    """An item that needs no request of its own."""

    class Meta:
        table_name = "listed_items"

    def get_api_detail_request(self):
        return None


class ListedSource(BenchmarkSource):
    name = "listed"
    model = ListedItem


SOURCES = [BenchmarkSource(), ListedSource()]
