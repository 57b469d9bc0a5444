"""Plan: what a run of a source would come to. One list page is asked for, with a permit; nothing is imported."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from workers import clock
from workers.engine import list_page as pages
from workers.engine.list_page import Page
from workers.errors import LongWait, PermanentError, RateLimited, UsageError
from workers.failures import FailureClass
from workers.limiter.permits import PermitClient
from workers.limiter.rate_limiter import BudgetState
from workers.records import model_database, run_connector
from workers.records.tables import ACTIVE, Run
from workers.records.watermark import Watermark
from workers.reports import budget_text, run_stats
from workers.reports.forecast import Rule, Work, gates_of, rules_of, seconds_for, steady_seconds
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.sources.registry import get_registry
from workers.sources.request_purpose import asking
from workers.text import redaction
from workers.text.error_text import describe

# A fleet's own time, as measured where `python benchmarks/plan.py` compares plans with runs.
#: From an answer to the next request of the same strand.
_PAGE_PAUSE_SECONDS = 0.03
_DETAIL_PAUSE_SECONDS = 0.018
#: What a detail takes of its worker process.
_PROCESS_SECONDS = 0.004
#: What a claim takes of the fleet, and an item that needs no request.
_CLAIM_SECONDS = 0.005
_ITEM_SECONDS = 0.00015
#: From the last answer until the run is completed.
_END_SECONDS = 0.3
#: Where nobody knows how long the list is, so many pages show what is slowest.
_SOME_PAGES = 100


@dataclass(frozen=True)
class Plan:
    """What a run would come to, if it began now and had its API for itself.

    Attributes:
      api: Where the API is.
      items: How many the list has; None where it does not say.
      items_on_page: How many are on the page that was asked for.
      per_page: How many a page holds.
      pages, requests: List pages; these and the details. None where `items` is.
      detail_share: The part of the page's items that need a request of their own, 0 to 1.
      seconds: From now to the end; None where `items` is.
      floor_seconds: How long the limits alone take, if every answer came at once; None where `items` is.
      seconds_per_1000: What a thousand items take in the long run.
      slowest: What decides: "limits"; or the answers, "lanes" those to details, "list" those to list pages.
      starts_in_seconds, why_closed: When the budget lets the next request leave; 0 and empty where it is open.
      answer_seconds: How long the API took for the page.
      lanes, strands: What the run would have, and how many of them have a thread.
      limits: The limits as they are now.
      profile, slowed: burst or paced; what makes the budget slower than configured, and why.
      refused, skipped: Why items of the page would fail, or be skipped, by their place on it.
      remarks: What else a person should know before the run.
      unknowns: What could not be known, and what was taken for it.
    """

    source: str
    tenant: str | None
    api: str
    items: int | None
    items_on_page: int
    per_page: int
    pages: int | None
    detail_share: float
    requests: int | None
    seconds: float | None
    floor_seconds: float | None
    seconds_per_1000: float
    slowest: str
    starts_in_seconds: float
    why_closed: str
    answer_seconds: float
    lanes: int
    strands: int
    limits: tuple[str, ...]
    profile: str
    slowed: str
    refused: dict[str, str]
    skipped: dict[str, str]
    remarks: tuple[str, ...]
    unknowns: tuple[str, ...]


def plan(source_name: str | None = None, *, tenant: str | None = None) -> Plan:
    """Ask for the first list page of a source, and tell what a run of it would come to.

    The request takes a permit and counts against the budget like any other. No row is written, and no run. It needs a
    connection to a database with our tables.

    Parameters:
      source_name(str | None): Which source; None: the only one there is.
      tenant(str | None): For whom, where the source has tenants.

    Raises:
      UnknownSource, ConfigurationError: There is no such source, or the sources cannot be loaded.
      UsageError: The source has no API for this tenant.
      RateLimited: The budget is closed for longer than SLUICE_MAX_WAIT_SECONDS, or the API refused.
      RetryableError, PermanentError: The API did not answer, or not with a page that the source reads.
      DependencyDown: Redis does not answer, so there is no permit.
    """
    source = get_registry()[source_name] if source_name else get_registry().only()
    connector = _connector(source, tenant)
    try:
        with model_database.connected(source.model):
            sample = _ask(source, connector)
    except LongWait:
        raise
    except RateLimited as closed:
        until = budget_text.instant(clock.now(), closed.wait_seconds)
        raise RateLimited(closed.wait_seconds, f"{closed.reason}, until {until}") from closed
    return _Planning(source, tenant, connector, sample, run_stats.look(connector.budget)).told()


def _connector(source: ImportSource, tenant: str | None) -> Connector:
    """Return the API that a run for this tenant would ask.

    Raises:
      UsageError: The source's own method fails.
    """
    run = SimpleNamespace(id=None, source=source.name, tenant=tenant, lanes=_lanes(source), options={})
    try:
        return run_connector.of(run)
    except Exception as error:  # a user's get_connector may fail in any way
        whom = f"the tenant {tenant!r}" if tenant else "no tenant: does it need --tenant?"
        raise UsageError(f"{type(source).__name__}.get_connector fails for {whom} ({describe(error)})") from error


def _lanes(source: ImportSource) -> int:
    return get_settings().lanes or source.lanes


# --- the one request --------------------------------------------------------------------------------------------------


@dataclass
class _Sample:
    """The first list page.

    Attributes:
      found: How many items it holds.
      answer_seconds: How long the API took for it.
      page_weight: As how many requests the API counts it.
      detail_weights: The same of each detail request that its items need.
      untold: Why it could not be told whether an item needs one; then one is taken for granted.
    """

    page: Page
    found: int
    answer_seconds: float
    page_weight: int
    detail_weights: list[int] = field(default_factory=list)
    untold: str = ""


def _ask(source: ImportSource, connector: Connector) -> _Sample:
    """Send the list request as discovery does, and read the answer."""
    request = _first_request(source)
    permits = connector.permit_client(watermark=Watermark(connector.name))
    try:
        _await_permit(permits, connector)
        sent_at = clock.monotonic()
        with asking(f"{source.name} list page 1"):
            data = connector.get_json(request, permits)
        took = clock.monotonic() - sent_at
    finally:
        permits.flush()
    page = pages.read(source, data, 1)
    sample = _Sample(page, len(source.get_list_items(data)), took, connector.weigh(request))
    _look_at_details(sample, connector)
    return sample


def _first_request(source: ImportSource) -> Any:
    try:
        return source.get_list_request(1, source.per_page)
    except Exception as error:  # whatever a user's code raises
        title = type(source).__name__
        raise PermanentError(f"{title}.get_list_request fails: {describe(error)}", FailureClass.BUG) from error


def _await_permit(permits: PermitClient, connector: Connector) -> None:
    """Take the permit ahead of the request, so that the wait for it is not taken for the API's.

    Raises:
      RateLimited: It is to be had later than a person should wait for.
    """
    ends_at = clock.monotonic() + get_settings().max_wait_seconds
    permits.max_wait_seconds = 0.0
    while True:
        try:
            permits.reserve(connector.timeout_seconds)
            return
        except RateLimited as closed:
            if clock.monotonic() + closed.wait_seconds > ends_at or clock.sleep(closed.wait_seconds):
                raise


def _look_at_details(sample: _Sample, connector: Connector) -> None:
    """Tell which items need a request of their own; none is sent."""
    for model in sample.page.models.values():
        try:
            request = model.get_api_detail_request()
            if request is not None:
                sample.detail_weights.append(connector.weigh(request))
        except Exception as error:  # the row is not in the table yet: a user's model may need that
            sample.detail_weights.append(1)
            sample.untold = describe(error)


# --- what it comes to -------------------------------------------------------------------------------------------------


@dataclass
class _Planning:
    """What is known when the page is in, and what follows from it."""

    source: ImportSource
    tenant: str | None
    connector: Connector
    sample: _Sample
    state: BudgetState

    def told(self) -> Plan:
        sample, state = self.sample, self.state
        work = self._work(self.pages or _SOME_PAGES, self.details)
        limits, gates = rules_of(state, self._weight(work)), gates_of(state, self._weight(work))
        floor = seconds_for(work.instant, limits, gates)
        known = self.items is not None
        unasked = (self.items or 0) - work.details
        return Plan(
            source=self.source.name,
            tenant=self.tenant,
            api=redaction.redact(self.connector.base_url),
            items=self.items,
            items_on_page=sample.found,
            per_page=self.per_page,
            pages=self.pages,
            detail_share=self.share,
            requests=work.pages + work.details if known else None,
            seconds=seconds_for(work, limits, gates) + self._unasked_seconds(unasked) + _END_SECONDS if known else None,
            floor_seconds=floor if known else None,
            seconds_per_1000=self._seconds_per_1000(limits),
            slowest=_slowest(work, floor),
            starts_in_seconds=state.opens_in_seconds,
            why_closed=budget_text.why_closed(state, clock.now()),
            answer_seconds=sample.answer_seconds,
            lanes=_lanes(self.source),
            strands=self.strands,
            limits=tuple(window.title for window in state.windows),
            profile=state.profile,
            slowed=budget_text.slowed(state),
            refused=_redacted(sample.page.refused),
            skipped=_redacted(sample.page.skipped),
            remarks=tuple(self._remarks()),
            unknowns=tuple(self._unknowns()),
        )

    @property
    def items(self) -> int | None:
        page = self.sample.page
        if page.next_cursor is None:
            return self.sample.found
        return page.total if page.total and page.total > self.sample.found else None

    @property
    def per_page(self) -> int:
        return self.sample.found or self.source.per_page

    @property
    def pages(self) -> int | None:
        return None if self.items is None else max(1, -(-self.items // self.per_page))

    @property
    def share(self) -> float:
        """The part of the items that need a request of their own; all, where the page has none to tell by."""
        return len(self.sample.detail_weights) / self.sample.found if self.sample.found else 1.0

    @property
    def details(self) -> int:
        items = _SOME_PAGES * self.per_page if self.items is None else self.items
        return round(items * self.share)

    @property
    def strands(self) -> int:
        settings = get_settings()
        return min(_lanes(self.source), settings.worker_processes * settings.worker_threads)

    def _work(self, pages: int, details: int) -> Work:
        return Work(
            pages,
            details,
            page_seconds=self.sample.answer_seconds,
            detail_seconds=self.sample.answer_seconds,
            page_pause_seconds=_PAGE_PAUSE_SECONDS,
            detail_pause_seconds=_DETAIL_PAUSE_SECONDS,
            strands=self.strands,
            apart_seconds=_PROCESS_SECONDS / get_settings().worker_processes,
        )

    def _weight(self, work: Work) -> float:
        """Return as how many requests the API counts one of this work, on average."""
        weights = self.sample.detail_weights
        of_details = work.details * sum(weights) / len(weights) if weights else 0.0
        return (work.pages * self.sample.page_weight + of_details) / (work.pages + work.details)

    def _seconds_per_1000(self, limits: Sequence[Rule]) -> float:
        work = self._work(1000, 1000 * len(self.sample.detail_weights))
        return steady_seconds(work, limits) / self.per_page + self._unasked_seconds(1000 * (1 - self.share))

    def _unasked_seconds(self, items: float) -> float:
        """Return how long items take that need no request: they are claimed and committed like the others."""
        smallest = min(limit.requests for limit in self.connector.budget.limits)
        claimed_at_once = max(1, min(get_settings().batch_size, smallest // _lanes(self.source)))
        return items * (_ITEM_SECONDS + _CLAIM_SECONDS / claimed_at_once)

    def _remarks(self) -> Iterator[str]:
        yield from _beside(self.source, self.tenant, self.connector)
        stated, most = self.sample.page.total, self.source.max_items
        if (self.items or 0) > most:
            yield f"the run would fail after {most:,} items: set max_items on {type(self.source).__name__}"
        if self.sample.page.next_cursor is None and stated not in (None, self.sample.found):
            yield f"the list ends on this page of {self.sample.found:,} items, though it states a total of {stated:,}"

    def _unknowns(self) -> Iterator[str]:
        settings, sample = get_settings(), self.sample
        if self.items is None:
            yield f"how many items there are: {self._why_no_total()}; at least {sample.found:,}"
        elif self.items > sample.found:
            yield f"whether the other items are like the {sample.found:,} on this page"
        if sample.untold:
            yield f"whether each item needs a request: get_api_detail_request fails on an unsaved row ({sample.untold})"
        if sample.detail_weights:
            yield (
                f"how long the API takes for a detail: taken for {sample.answer_seconds:.2f} s, as this page took, "
                f"its connection included"
            )
        yield "how many requests fail and are sent again: taken for none"
        yield "whether others spend the same quota: only what its budget counts now is considered"
        yield (
            f"how many workers run, if any: taken for {settings.worker_processes} processes of "
            f"{settings.worker_threads} threads, as SLUICE_WORKER_PROCESSES and SLUICE_WORKER_THREADS say here"
        )

    def _why_no_total(self) -> str:
        stated, key = self.sample.page.total, self.source.total_key
        if stated is not None:
            return f"the list goes on after {self.sample.found:,}, though it states a total of {stated:,}"
        return f"the page has no number under {key!r}" if key else "total_key is None"


def _slowest(work: Work, floor_seconds: float) -> str:
    unlimited = seconds_for(work, ())
    if floor_seconds >= unlimited:
        return "limits"
    the_list = work.pages * (work.page_seconds + work.page_pause_seconds)
    return "list" if the_list > unlimited / 2 else "lanes"


def _beside(source: ImportSource, tenant: str | None, connector: Connector) -> Iterator[str]:
    """Say which runs are active that such a run would wait behind, or share its budget with."""
    lanes = _lanes(source)
    for run in Run.select().where(Run.status.in_(ACTIVE)).order_by(Run.id):
        if (run.source, run.tenant) == (source.name, tenant):
            yield f"run {run.id} of {run.source} is {run.status}: a new one waits behind it"
        elif _budget_name(run) == connector.budget.name:
            part = 100 * lanes / (lanes + run.lanes)
            yield (
                f"run {run.id} of {run.source} is {run.status} on the same budget, with {run.lanes} lanes: beside it "
                f"this run gets about {part:.0f} % of the permits"
            )


def _budget_name(run: Run) -> str:
    try:
        return run_connector.of(run).budget.name
    except Exception:  # a user's get_connector may fail in any way, and this is not its run
        return ""


def _redacted(reasons: Mapping[str, str]) -> dict[str, str]:
    return {where: redaction.redact(why) for where, why in reasons.items()}
