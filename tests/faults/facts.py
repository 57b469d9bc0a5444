"""Check the facts of one fault run: a pure function from facts to a list of breaches."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.faults.schedule import Fault, Kind

#: Faults after which a worker process's lanes are lost, or come back after their leases.
_ONE_PROCESS = {Kind.CHILD_KILLED, Kind.CHILD_STOPPED}
#: Faults after which no lane of the fleet can commit what it has fetched.
_ALL_PROCESSES = {Kind.ALL_KILLED, Kind.POSTGRES_RESTARTED, Kind.POSTGRES_BROKEN_OFF}
#: Why a run may not move though no fault has struck: its limits, slow answers, the pause between two looks.
ALWAYS = frozenset(
    {
        "window_full",
        "window_taken_as_full",
        "no_permit",
        "paced",
        "list_claimed",
        "items_claimed",
        "finalizing",
        "queued",
    }
)
_LOST = {"items_claimed", "lanes_silent", "queued", "list_claimed", "items_back_off", "list_backs_off"}
_NOBODY = _LOST | {"no_worker", "workers_stopping", "threads_busy"}
_NO_REDIS = _LOST | {"redis_away", "redis_refuses", "window_taken_as_full", "canary", "api_pause"}
_NO_DATABASE = _LOST | {"database_away", "threads_busy"}
#: Why a run may not move once a fault has struck it: the codes of `workers.reports.reasons.Reason`.
REASONS: dict[Kind, set[str]] = {
    Kind.CHILD_KILLED: _NOBODY,
    Kind.SUPERVISOR_KILLED: _NOBODY,
    Kind.SCHEDULER_KILLED: {"no_scheduler"},
    Kind.REDIS_KILLED: _NO_REDIS,
    Kind.REDIS_KEEPER_KILLED: _NO_REDIS,
    Kind.ALL_KILLED: _NOBODY | _NO_REDIS | {"no_scheduler"},
    Kind.CHILD_STOPPED: _NOBODY,
    Kind.SUPERVISOR_STOPPED: _NOBODY,
    Kind.SCHEDULER_STOPPED: {"no_scheduler"},
    Kind.REDIS_STOPPED: _NO_REDIS,
    Kind.REDIS_RESTARTED: _NO_REDIS,
    Kind.REDIS_KEEPER_RESTARTED: _NO_REDIS,
    Kind.REDIS_FLUSHED: _NO_REDIS | {"no_worker", "no_scheduler"},
    Kind.DRAINED: _NOBODY,
    Kind.POSTGRES_RESTARTED: _NO_DATABASE,
    Kind.POSTGRES_BROKEN_OFF: _NO_DATABASE,
}
#: Items of a list page.
PER_PAGE = 20
#: `SLUICE_BATCH_SIZE`: most items that a lane claims at once.
_BATCH_SIZE = 25


@dataclass(frozen=True)
class Shape:
    """How a fleet is made up.

    Parameters:
      items, per_page: The catalogue, and how it is listed.
      smallest_limit: Of the API's limits.
      lanes, processes, threads: Of the run; worker processes; threads of each.
    """

    items: int
    per_page: int
    smallest_limit: int
    lanes: int
    processes: int
    threads: int

    @property
    def pages(self) -> int:
        return -(-self.items // self.per_page)

    @property
    def requests(self) -> int:
        """What a run without faults asks for."""
        return self.items + self.pages

    @property
    def batch(self) -> int:
        """Most items of one lane's batch: a lane claims its part of the smallest limit, and of what is left."""
        return max(1, min(_BATCH_SIZE, self.smallest_limit // self.lanes, -(-self.items // self.lanes)))


@dataclass(frozen=True)
class Struck:
    """One fault that struck.

    Parameters:
      fault: Which.
      seconds: When, since the run's start.
      accepted: How many requests the API had accepted by then.
    """

    fault: Fault
    seconds: float
    accepted: int


@dataclass(frozen=True)
class Facts:
    """What is known of a run after its end.

    Parameters:
      struck, missed: The faults that struck, and those that found the run ended.
      status, why: The run's; why it waits, where it has not ended.
      total, succeeded, failed, skipped, hits: The run's counters.
      most_percent: The highest percentage that was seen.
      items: Items of the run by their status.
      item_ids: How many distinct external ids they have.
      rows, row_ids, filled: Rows of the target table, their distinct external ids, and how many have their details.
      accepted, rejected: Requests by the mock's count.
      fullest: How full the fullest of the API's windows was: far below 1, the limits were not felt.
      asked: Of how many items the details were asked for, and how often in all.
      listed: How many list pages were asked for, and how often in all.
      attempts_failed, pages_failed: Requests that the record itself says have failed, for a timeout say.
      died: Workers and schedulers that ended though no fault had struck them.
      left: What was said of processes that had to be killed in the end.
      reasons: Codes of why the run did not move, each second that it had not for ten: when, and which.
      unexplained: When it did not move, and `status` gave no reason.
    """

    seed: int
    database: str
    shape: Shape
    struck: tuple[Struck, ...]
    missed: tuple[Fault, ...]
    seconds: float
    status: str
    why: str
    total: int
    succeeded: int
    failed: int
    skipped: int
    hits: int
    most_percent: float
    items: dict[str, int]
    item_ids: int
    rows: int
    row_ids: int
    filled: int
    accepted: int
    rejected: int
    fullest: float
    asked: tuple[int, int]
    listed: tuple[int, int]
    attempts_failed: int
    pages_failed: int
    died: tuple[str, ...]
    left: str
    folder: str
    reasons: tuple[tuple[float, str], ...] = ()
    unexplained: tuple[float, ...] = ()

    @property
    def extra_items(self) -> int:
        """Detail requests that a run without faults does not make."""
        return self.asked[1] - self.asked[0]

    @property
    def extra_pages(self) -> int:
        """List requests that a run without faults does not make."""
        return self.listed[1] - self.listed[0]

    @property
    def most_extra_items(self) -> int:
        """The bound: one batch of each lane that was lost, and one request for each attempt that is recorded as failed.

        A worker process has as many lanes at work as threads, at most the run's lanes. Killing it loses them; stopping
        it for 5 s lets their leases run out, and what they bring afterwards is no longer theirs. Without its database
        no lane can commit, so all that are at work can be lost. A draining process commits; and without Redis or the
        supervisor, the scheduler, everyone can commit: these faults cost nothing.
        """
        kinds = [struck.fault.kind for struck in self.struck]
        one = min(self.shape.threads, self.shape.lanes)
        every = min(self.shape.threads * self.shape.processes, self.shape.lanes)
        lanes = sum(one * (kind in _ONE_PROCESS) + every * (kind in _ALL_PROCESSES) for kind in kinds)
        return lanes * self.shape.batch + self.attempts_failed

    @property
    def most_extra_pages(self) -> int:
        """The bound: one page for each such fault, and for each list request that is recorded as failed."""
        losing = sum(struck.fault.kind in _ONE_PROCESS | _ALL_PROCESSES for struck in self.struck)
        return losing + self.pages_failed


def unexpected(facts: Facts) -> list[str]:
    """Return the codes of reasons that were given before any fault had struck that can bring them about."""
    strange = set()
    for at, code in facts.reasons:
        before = [struck.fault.kind for struck in facts.struck if struck.seconds <= at]
        if code not in ALWAYS.union(*(REASONS[kind] for kind in before)):
            strange.add(code)
    return sorted(strange)


def breaches(facts: Facts) -> list[str]:
    """Return what should not be, a sentence each; nothing where every property holds."""
    return [sentence for sentence, holds in _properties(facts) if not holds]


def _properties(facts: Facts) -> Iterable[tuple[str, bool]]:
    catalogue = facts.shape.items
    done = facts.succeeded + facts.failed + facts.skipped
    statuses = {"completed": facts.succeeded, "failed": facts.failed, "skipped": facts.skipped}
    yield f"the run is {facts.status}, and waits: {facts.why}", facts.status == "completed"
    yield f"{len(facts.missed)} faults did not strike", not facts.missed
    yield f"the counters say {done:,} done of {facts.total:,}", done == facts.total
    yield f"the total is {facts.total:,}, the API has {catalogue:,}", facts.total == catalogue
    yield f"the counters {statuses} are not the rows {facts.items}", _without_zeros(statuses) == facts.items
    yield f"{sum(facts.items.values()):,} items, {facts.item_ids:,} ids", sum(facts.items.values()) == facts.item_ids
    yield f"{facts.rows:,} rows, {facts.row_ids:,} distinct ids", facts.rows == facts.row_ids
    yield f"{facts.rows:,} rows, the API has {catalogue:,}", facts.rows == catalogue
    yield f"{facts.filled:,} rows have their details, {facts.succeeded:,} completed", facts.filled == facts.succeeded
    yield f"{facts.failed + facts.skipped:,} items need a person: retry", facts.failed + facts.skipped == 0
    yield f"{facts.rejected} x 429, and the run counted {facts.hits}", facts.rejected == facts.hits == 0
    yield f"percent reached {facts.most_percent:g}", facts.most_percent <= 100
    yield f"{facts.asked[0]:,} items were asked for, of {catalogue:,}", facts.asked[0] == catalogue
    yield f"{facts.listed[0]:,} pages were asked for, of {facts.shape.pages:,}", facts.listed[0] == facts.shape.pages
    known = facts.asked[1] + facts.listed[1]
    yield f"{facts.accepted:,} requests were accepted, {known:,} of them for items and pages", facts.accepted == known
    yield (
        f"{facts.extra_items} detail requests too many, {facts.most_extra_items} can be explained",
        facts.extra_items <= facts.most_extra_items,
    )
    yield (
        f"{facts.extra_pages} list requests too many, {facts.most_extra_pages} can be explained",
        facts.extra_pages <= facts.most_extra_pages,
    )
    yield f"{len(facts.died)} processes ended of themselves, first {facts.died[:1]}", not facts.died
    yield f"{len(facts.unexplained)} times it did not move, and nothing said why", not facts.unexplained
    strange = unexpected(facts)
    yield f"it did not move for reasons that no fault explains: {strange}", not strange
    yield f"not every process could be stopped in the end: {facts.left}", not facts.left


def _without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {status: count for status, count in counts.items() if count}
