"""Plan: requests one list page with a permit, imports nothing, and returns the estimate of a run of that source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers import clock
from workers.control import first_page
from workers.control.estimate import Estimate, ListSample, Plan, lanes_of
from workers.engine import list_parser as pages
from workers.errors import LongWait, RateLimited, UsageError
from workers.records import model_database, run_connector
from workers.records.watermark import Watermark
from workers.reports import budget_text
from workers.reports.budget_states import budget_state
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.text.error_text import describe


def plan(source_name: str | None = None, *, tenant: str | None = None) -> Plan:
    """Request the first list page of a source, and estimate a run of it.

    The request takes a permit and counts against the budget like any other. No row and no run is written. The caller
    holds a connection to a database with Sluice's tables.

    Parameters:
      source_name(str | None): The source; None: the only one there is.
      tenant(str | None): For which tenant, if the source has tenants.

    Raises:
      UnknownSource, ConfigurationError: There is no such source, or the sources cannot be loaded.
      UsageError: The source has no API for this tenant.
      RateLimited: The budget is closed for longer than SLUICE_MAX_WAIT_SECONDS, or the API refused.
      RetryableError, PermanentError: The API did not answer, or not with a page that the source reads.
      DependencyDown: Redis does not answer, so no permit can be had.
    """
    source = get_registry()[source_name] if source_name is not None else get_registry().only()
    connector = _connector(source, tenant)
    try:
        with model_database.connected(source.model):
            sample = _ask(source, connector)
    except LongWait:
        raise
    except RateLimited as closed:
        until = budget_text.instant(clock.now(), closed.wait_seconds)
        raise RateLimited(closed.wait_seconds, f"{closed.reason}, until {until}") from closed
    return Estimate(source, tenant, connector, sample, budget_state(connector.budget)).plan()


@dataclass(frozen=True)
class _PlannedRun:
    """The planned run, which is not stored, as `get_connector` takes it: a `SourceRun`."""

    source: str
    tenant: str | None
    lanes: int
    id: None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def _connector(source: ImportSource, tenant: str | None) -> Connector:
    """Return the connector of a run for this tenant.

    Raises:
      UsageError: The source's `get_connector` fails.
    """
    run = _PlannedRun(source=source.name, tenant=tenant, lanes=lanes_of(source))
    try:
        return run_connector.of(run)
    except Exception as error:  # a user's get_connector may fail in any way
        whom = f"the tenant {tenant!r}" if tenant else "no tenant: does it need --tenant?"
        raise UsageError(f"{type(source).__name__}.get_connector fails for {whom} ({describe(error)})") from error


# --- the one request --------------------------------------------------------------------------------------------------


def _ask(source: ImportSource, connector: Connector) -> ListSample:
    """Send the list request as discovery does, and read the answer."""
    request = first_page.request_for(source)
    permits = connector.permit_client(watermark=Watermark(connector.name))
    answer = first_page.fetch(source, connector, permits, request)
    page = pages.read(source, answer.data, first_page.FIRST_CURSOR)
    found = len(source.get_list_items(answer.data))
    sample = ListSample(page, found, answer.answer_seconds, connector.weigh(request))
    _look_at_details(sample, connector)
    return sample


def _look_at_details(sample: ListSample, connector: Connector) -> None:
    """Tell which items need a request of their own; none is sent."""
    for model in sample.page.models.values():
        try:
            request = model.get_api_detail_request()
            if request is not None:
                sample.detail_weights.append(connector.weigh(request))
        except Exception as error:  # the row is not in the table yet: a user's model may need that
            sample.detail_weights.append(1)
            sample.untold = describe(error)
