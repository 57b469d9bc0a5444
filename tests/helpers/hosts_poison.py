"""A second host: the benchmarks' items, one of which kills the process that fills its row."""

import os
import signal

from benchmarks.sources import BenchmarkSource
from models import Item

POISON = 7


class PoisonousItem(Item):
    class Meta:
        table_name = "items"

    def populate_from_api_response(self, data):
        if data["id"] == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        super().populate_from_api_response(data)


class PoisonousSource(BenchmarkSource):
    model = PoisonousItem


SOURCES = [PoisonousSource()]
