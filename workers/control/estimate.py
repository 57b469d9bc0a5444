"""Estimate: computes how long a run would take from one list page, the budget's state and measured worker overhead."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from workers import clock
from workers.engine.list_parser import Page
from workers.limiter.state import BudgetState
from workers.records import run_connector
from workers.records.tables import ACTIVE, Run
from workers.reports import budget_text
from workers.reports.forecast import Rule, Work, gates_of, rules_of, seconds_for, steady_seconds
from workers.settings import get_settings
from workers.sources.connector import Connector
from workers.sources.contracts import ImportSource
from workers.text import redaction

# The overhead of workers, as measured by `python benchmarks/plan.py`, which compares plans with runs.
#: From a response to the next request of the same lane.
_PAGE_PAUSE_SECONDS = 0.03
_DETAIL_PAUSE_SECONDS = 0.018
#: CPU time of a worker process for one detail.
_PROCESS_SECONDS = 0.004
#: For one claim, and for an item that needs no detail request.
_CLAIM_SECONDS = 0.005
_ITEM_SECONDS = 0.00015
#: From the last response until the run is completed.
_END_SECONDS = 0.3
#: How many pages are assumed, to find what is slowest, if the length of the list is unknown.
_SOME_PAGES = 100


@dataclass(frozen=True)
class Plan:
    """The estimate of a run that begins now and shares its budget with no other run.

    Attributes:
      source, tenant: What the run would import.
      api: The address of the API.
      items: How many items the list has; None if it does not state a total.
      items_on_page: How many items are on the page that was read.
      per_page: How many items a page has.
      pages, requests: List pages; list pages and details. None if `items` is.
      detail_share: The share of the page's items that need a detail request, 0 to 1.
      seconds: From now to the end of the run; None if `items` is.
      floor_seconds: How long the rate limits alone require, if every response came at once; None if `items` is.
      seconds_per_1000: How long a thousand items take in a long run.
      slowest: What limits the run: "limits"; "lanes", the responses to details; "list", the responses to list pages.
      starts_in_seconds, why_closed: When the budget grants the next permit, and why not now; 0 and empty if it is open.
      answer_seconds: How long the API took for the page.
      lanes, strands: The lanes of the run, and how many of them have a worker thread.
      limits: The limits in force.
      profile, slowed: burst or paced; what makes the budget slower than configured, and why.
      refused, skipped: Why items of the page would fail or be skipped, by their position on it.
      remarks: What else a person should know before the run.
      unknowns: What could not be known, and what was assumed instead.
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


@dataclass
class ListSample:
    """The first list page of a source, as the API sent it.

    Attributes:
      found: How many items it has.
      answer_seconds: How long the API took for it.
      page_weight: As how many requests the API counts it.
      detail_weights: As how many requests the API counts each detail request that its items need.
      untold: Why it is unknown whether an item needs a detail request; then it is assumed to need one.
    """

    page: Page
    found: int
    answer_seconds: float
    page_weight: int
    detail_weights: list[int] = field(default_factory=list)
    untold: str = ""


def lanes_of(source: ImportSource) -> int:
    """Return how many lanes a new run of a source has."""
    return get_settings().lanes or source.lanes


@dataclass
class Estimate:
    """Computes a plan from a sample page and the state of the budget."""

    source: ImportSource
    tenant: str | None
    connector: Connector
    sample: ListSample
    state: BudgetState

    def plan(self) -> Plan:
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
            lanes=lanes_of(self.source),
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
        """The share of the items that need a detail request; 1 if the page has no items."""
        return len(self.sample.detail_weights) / self.sample.found if self.sample.found else 1.0

    @property
    def details(self) -> int:
        items = _SOME_PAGES * self.per_page if self.items is None else self.items
        return round(items * self.share)

    @property
    def strands(self) -> int:
        settings = get_settings()
        return min(lanes_of(self.source), settings.worker_processes * settings.worker_threads)

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
        """Return as how many requests the API counts one request of this work, on average."""
        weights = self.sample.detail_weights
        of_details = work.details * sum(weights) / len(weights) if weights else 0.0
        return (work.pages * self.sample.page_weight + of_details) / (work.pages + work.details)

    def _seconds_per_1000(self, limits: Sequence[Rule]) -> float:
        work = self._work(1000, 1000 * len(self.sample.detail_weights))
        return steady_seconds(work, limits) / self.per_page + self._unasked_seconds(1000 * (1 - self.share))

    def _unasked_seconds(self, items: float) -> float:
        """Return how long items take that need no detail request: they are claimed and committed like the others."""
        smallest = min(limit.requests for limit in self.connector.budget.limits)
        claimed_at_once = max(1, min(get_settings().batch_size, smallest // lanes_of(self.source)))
        return items * (_ITEM_SECONDS + _CLAIM_SECONDS / claimed_at_once)

    def _remarks(self) -> Iterator[str]:
        yield from _other_runs(self.source, self.tenant, self.connector)
        stated, most = self.sample.page.total, self.source.max_items
        if (self.items or 0) > most:
            yield f"the run would fail after {most:,} items: raise max_items on {type(self.source).__name__}"
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
                f"how long the API takes for a detail: assumed to be {sample.answer_seconds:.2f} s, as for this page, "
                f"which includes its connection"
            )
        yield "how many requests fail and are retried: assumed to be none"
        yield "whether others use the same quota: only what the budget counts now is considered"
        yield (
            f"how many workers run: assumed to be {settings.worker_processes} processes of "
            f"{settings.worker_threads} threads, from SLUICE_WORKER_PROCESSES and SLUICE_WORKER_THREADS"
        )

    def _why_no_total(self) -> str:
        stated, key = self.sample.page.total, self.source.total_key
        if stated is not None:
            return f"the list continues after {self.sample.found:,}, though it states a total of {stated:,}"
        return f"the page has no number under {key!r}" if key else "total_key is None"


def _slowest(work: Work, floor_seconds: float) -> str:
    unlimited = seconds_for(work, ())
    if floor_seconds >= unlimited:
        return "limits"
    the_list = work.pages * (work.page_seconds + work.page_pause_seconds)
    return "list" if the_list > unlimited / 2 else "lanes"


def _other_runs(source: ImportSource, tenant: str | None, connector: Connector) -> Iterator[str]:
    """Yield which active runs such a run would wait for, or share its budget with."""
    lanes = lanes_of(source)
    for run in Run.select().where(Run.status.in_(ACTIVE)).order_by(Run.id):
        if (run.source, run.tenant) == (source.name, tenant):
            yield f"run {run.id} of {run.source} is {run.status}: a new one waits until it has ended"
        elif (budget := run_connector.budget_of(run)) and budget.name == connector.budget.name:
            part = 100 * lanes / (lanes + run.lanes)
            yield (
                f"run {run.id} of {run.source} is {run.status} on the same budget, with {run.lanes} lanes: "
                f"this run gets about {part:.0f} % of the permits"
            )


def _redacted(reasons: Mapping[str, str]) -> dict[str, str]:
    return {where: redaction.redact(why) for where, why in reasons.items()}
