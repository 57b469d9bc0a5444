"""Estimates the weight of a run's next detail requests, for APIs that count some requests as several."""

from functools import lru_cache
from typing import Any

from workers.records import loaded_rows, model_database, run_connector
from workers.records.tables import IS_OPEN, ItemStatus, Run, RunItem
from workers.sources import model_keys
from workers.sources.connector import Connector
from workers.sources.registry import get_registry


def detail_weight(run: Run) -> float:
    """Return the weight of one of a run's open detail requests; 1 if its connector has no weights or fails."""
    connector = run_connector.connector_or_error(run)
    if isinstance(connector, Exception) or type(connector).weigh is Connector.weigh or run.discovered_at is None:
        return 1.0
    done = run.succeeded_count + run.failed_count + run.skipped_count
    return _of_an_open_item(_CacheKey(run.id, done // 100, get_registry()[run.source], connector))


class _CacheKey:
    """The key of the cache: a weight is estimated again after a hundred items have ended."""

    def __init__(self, run_id: int, progress: int, source: Any, connector: Connector) -> None:
        self.run_id, self.source, self.connector = run_id, source, connector
        self._key = (run_id, progress, source, type(connector))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _CacheKey) and self._key == other._key


@lru_cache(maxsize=256)
def _of_an_open_item(key: _CacheKey) -> float:
    waits = (RunItem.run_id == key.run_id) & (RunItem.status == ItemStatus.PENDING) & IS_OPEN
    item = RunItem.select().where(waits, RunItem.item_id.is_null(False)).order_by(RunItem.due_at).limit(1).first()
    try:
        model = key.source.model
        primary_key = model_keys.from_text(model, item.item_id)
        with model_database.connected(model):
            row = loaded_rows.load(model, [primary_key], key.source.unique_by)[primary_key]
        return max(1.0, float(key.connector.weigh(row.get_api_detail_request())))
    except Exception:  # the model's own code, and weigh, can fail in any way
        return 1.0
