"""List a source of the benchmarks' items, one of which kills the process that fills its row."""

import os
import signal
from typing import Any

from benchmarks.sources import BenchmarkSource
from models import Item

POISON = 7


class PoisonousItem(Item):
    class Meta:
        table_name = "items"

    def populate_from_api_response(self, data: Any) -> None:
        if data["id"] == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        super().populate_from_api_response(data)  # type: ignore[no-untyped-call]


class PoisonousSource(BenchmarkSource):
    model = PoisonousItem


SOURCES = [PoisonousSource()]
