"""Sends a control request: one that the API has answered before in this run, to see whether it answers anything now."""

import logging
from typing import Any

import requests

from workers.engine.backoff import closed_by_outage
from workers.errors import BudgetClosed, BudgetUnknown, Refused
from workers.limiter.permits import PermitClient, Subject
from workers.records import loaded_rows
from workers.records.tables import ItemStatus, Run, RunItem
from workers.sources import model_keys
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.text.error_text import describe

log = logging.getLogger(__name__)


def send(run: Run, source: ImportSource, connector: Connector, permits: PermitClient) -> None:
    """Request the newest details of this run again or, where it has none, its list's first page.

    The answer is dropped. Where nothing was answered before, or the request fails other than by a refusal, nothing is
    known and nothing is raised: then `Refused.own`, the budget's own count, decides.

    Raises:
      Refused: The API refuses a request that it answered before: the budget pauses.
      BudgetClosed: There is no permit.
    """
    request = _detail_request(run, source) or _list_request(run, source)
    if request is None or (request.method or "GET").upper() != "GET":
        return
    permits.subject = Subject()
    try:
        connector.send(request, permits)
    except (BudgetClosed, Refused):
        raise
    except BudgetUnknown as error:
        raise closed_by_outage(error) from error
    except Exception as error:
        log.debug("run %d: the control request failed: %s", run.id, describe(error))


def _detail_request(run: Run, source: ImportSource) -> requests.Request | None:
    done = (RunItem.run_id == run.id) & (RunItem.status == ItemStatus.COMPLETED) & RunItem.item_id.is_null(False)
    key = RunItem.select(RunItem.item_id).where(done).order_by(RunItem.completed_at.desc()).limit(1).scalar()
    if key is None:
        return None
    try:
        rows = loaded_rows.load(source.model, [model_keys.from_text(source.model, key)], source.unique_by)
        row: Any = next(iter(rows.values()), None)
        request: requests.Request | None = row.get_api_detail_request()
        return request
    except Exception as error:  # a user's code can raise anything; the list's first page is left
        log.debug("run %d: no control request for details: %s", run.id, describe(error))
        return None


def _list_request(run: Run, source: ImportSource) -> requests.Request | None:
    if run.total_count is None:  # no page was answered yet
        return None
    try:
        return source.get_list_request(source.first_cursor, source.per_page)
    except Exception as error:
        log.debug("run %d: no control request for the list: %s", run.id, describe(error))
        return None
