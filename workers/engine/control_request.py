"""Control: what the API has answered in this run before, asked for again, to know whether it answers anything now."""

import logging
from typing import Any

import requests

from workers.engine.attempt import DOWN_SECONDS
from workers.errors import BudgetClosed, BudgetUnknown, Refused
from workers.limiter.permits import PermitClient, Subject
from workers.records import saving
from workers.records.tables import ItemStatus, Run, RunItem
from workers.sources import model_keys
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.text.error_text import describe

log = logging.getLogger(__name__)


def ask(run: Run, source: ImportSource, connector: Connector, permits: PermitClient) -> None:
    """Ask for the details that came last in this run or, where none did, for its list's first page.

    What is answered is thrown away. Where nothing was answered before, and where the control fails in another way than
    by a refusal, nothing is known, and nothing is raised: what the budget's own count says holds.

    Raises:
      Refused: The API refuses what it answered before: the budget pauses.
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
        raise BudgetClosed(DOWN_SECONDS, str(error)) from error
    except Exception as error:
        log.debug("run %d: the control says nothing: %s", run.id, describe(error))


def _detail_request(run: Run, source: ImportSource) -> requests.Request | None:
    done = (RunItem.run_id == run.id) & (RunItem.status == ItemStatus.COMPLETED) & RunItem.item_id.is_null(False)
    key = RunItem.select(RunItem.item_id).where(done).order_by(RunItem.completed_at.desc()).limit(1).scalar()
    if key is None:
        return None
    try:
        found = saving.load(source.model, [model_keys.from_text(source.model, key)], source.unique_by)
        row: Any = next(iter(found.values()), None)
        request: requests.Request | None = row.get_api_detail_request()
        return request
    except Exception as error:  # whatever a user's code raises, there is another control
        log.debug("run %d: no control by details: %s", run.id, describe(error))
        return None


def _list_request(run: Run, source: ImportSource) -> requests.Request | None:
    if run.total_count is None:  # no page was answered yet
        return None
    try:
        return source.get_list_request(source.first_cursor, source.per_page)
    except Exception as error:
        log.debug("run %d: no control by the list: %s", run.id, describe(error))
        return None
