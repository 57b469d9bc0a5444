"""Weights: as how many requests an API counts a detail request of a run, where its connector weighs them."""

from functools import lru_cache
from typing import Any

from workers.records import saving
from workers.records.tables import IS_OPEN, ItemStatus, Run, RunItem
from workers.sources import model_keys
from workers.sources.connector import Connector
from workers.sources.registry import get_registry


def detail_weight(run: Run) -> float:
    """Return the weight of one of a run's open details; 1 where requests are not weighed, or that cannot be told."""
    try:
        source = get_registry()[run.source]
        connector = source.get_connector(run)
    except Exception:  # a user's get_connector may fail in any way
        return 1.0
    if type(connector).weigh is Connector.weigh or run.discovered_at is None:
        return 1.0
    done = run.succeeded_count + run.failed_count + run.skipped_count
    return _of_an_open_item(_Asked(run.id, done // 100, source, connector))


class _Asked:
    """What is asked, and remembered until another hundred items have ended."""

    def __init__(self, run_id: int, progress: int, source: Any, connector: Connector) -> None:
        self.run_id, self.source, self.connector = run_id, source, connector
        self._key = (run_id, progress, source, type(connector))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


@lru_cache(maxsize=256)
def _of_an_open_item(asked: _Asked) -> float:
    waits = (RunItem.run_id == asked.run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN
    item = RunItem.select().where(waits, RunItem.item_id.is_null(False)).order_by(RunItem.due_at).limit(1).first()
    try:
        model = asked.source.model
        key = model_keys.from_text(model, item.item_id)
        with saving.connected(model):
            row = saving.load(model, [key], asked.source.unique_by)[key]
        return max(1.0, float(asked.connector.weigh(row.get_api_detail_request())))
    except Exception:  # the model's own code, and weigh, may fail in any way
        return 1.0
