"""Define the benchmark cases: which API, how many items and processes, and the bounds that each case must keep."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.floor import closings, floor_seconds
from benchmarks.mishaps import FRESH_SECONDS, Mishap
from mock_server import Window, parse_limits

PER_PAGE = 100  # what the source asks for
LANES = 16


@dataclass(frozen=True)
class Case:
    """One import by one fleet.

    Parameters:
      name: What it is called by.
      story: What it shows, in a sentence.
      items: How many items the API has.
      limits: What the API enforces.
      client_limits: What the importer believes; empty: the same.
      latency_seconds, jitter_seconds: The API's delays.
      processes, threads: The workers.
      settings: More SLUICE_* variables.
      slack_seconds: By how much the span may be over the floor, apart from response times; None: no bound.
      mishap: What is done to the fleet, at even distances, `mishaps` times.
      lost_seconds: Longest time without a request after each mishap; None: requests do not stop.
      newcomers: How many runs of one item are started beside it; it is cancelled when the last one has been served.
    """

    name: str
    story: str
    items: int = 1000
    limits: str = "50/2,200/10"
    client_limits: str = ""
    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    processes: int = 2
    threads: int = 8
    settings: Mapping[str, str] = field(default_factory=dict)
    slack_seconds: float | None = 1.0
    mishap: Mishap | None = None
    mishaps: int = 1
    lost_seconds: float | None = None
    newcomers: int = 0

    @property
    def windows(self) -> tuple[Window, ...]:
        return parse_limits(self.limits)

    @property
    def catalogue_items(self) -> int:
        """How many items the API has: what is imported, and the one for newcomers."""
        return self.items + (1 if self.newcomers else 0)

    @property
    def pages(self) -> int:
        return -(-self.items // PER_PAGE)

    @property
    def requests(self) -> int:
        """The list pages and a request for each item."""
        return self.pages + self.items

    @property
    def floor_seconds(self) -> float:
        return floor_seconds(self.windows, self.requests)

    @property
    def bound_seconds(self) -> float | None:
        """The longest span: the floor, the slack, what mishaps may cost, and what slow answers may.

        The latter is one longest response for each window that opens, and a mean one for each list page: they are read
        one after another.
        """
        if self.slack_seconds is None:
            return None
        lost = self.mishaps * (self.lost_seconds or 0.0)
        longest, mean = self.latency_seconds + self.jitter_seconds, self.latency_seconds + self.jitter_seconds / 2
        windows = 1 + sum(count for _, count in closings(self.windows, self.requests))
        return self.floor_seconds + self.slack_seconds + lost + longest * windows + mean * self.pages

    @property
    def provable_seconds(self) -> float:
        """When, after a loss of Redis's state, windows are provably empty, if requests were sent to the last.

        A permit granted then is used within a second, meets its timeout, lingers, and leaves the longest window.
        """
        timeout = float(self.settings["SLUICE_REQUEST_TIMEOUT_SECONDS"])
        linger = float(self.settings["SLUICE_LINGER_SECONDS"])
        return FRESH_SECONDS + timeout + linger + max(window.seconds for window in self.windows)

    @property
    def mishaps_after(self) -> list[int]:
        """After how many requests each mishap comes."""
        return [self.requests * number // (self.mishaps + 1) for number in range(1, self.mishaps + 1)]

    @property
    def most_repeated(self) -> int:
        """Requests that may be made twice: what one killed process can have claimed and not committed."""
        if self.mishap is not Mishap.WORKER_KILLED:
            return 0
        smallest = min(window.limit for window in self.windows)
        return self.threads * max(1, min(25, smallest // LANES))

    @property
    def refused(self) -> bool:
        """Whether the API must answer 429, for the importer believes in more than there is."""
        return bool(self.client_limits)

    @property
    def longest_seconds(self) -> float:
        """When to stop waiting for the run."""
        return 60.0 + 2 * self.floor_seconds + 2 * self.mishaps * (self.lost_seconds or 0.0)

    @property
    def mock_options(self) -> list[str]:
        return ["--latency", str(self.latency_seconds), "--jitter", str(self.jitter_seconds)]


_KILL_LEASE_SECONDS = 10
#: Windows that are taken as full: how long after a request that may be under way, 5 s and 1 s, and 1 s to send it.
_SOON_LOST = {"SLUICE_REQUEST_TIMEOUT_SECONDS": "5", "SLUICE_LINGER_SECONDS": "1"}
_PROVABLE_SECONDS = 17.0
#: Until Redis is up again, or is only asked again.
_RESTART_SECONDS, _NOTICED_SECONDS = 3.0, 2.0

CASES = {
    case.name: case
    for case in (
        Case(
            "full",
            "4,110 items under the real limits, 500 in 20 s and 2,000 in 100 s.",
            items=4110,
            limits="500/20,2000/100",
            slack_seconds=3.0,
        ),
        Case("scaled", "1,000 items under a tenth of the limits and of the windows."),
        Case("scaled-1x2", "The same by one process of 2 threads.", processes=1, threads=2),
        Case("scaled-4x8", "The same by 4 processes of 8 threads.", processes=4),
        Case(
            "jitter",
            "The same from an API that takes 0.05 to 0.3 s for an answer.",
            latency_seconds=0.05,
            jitter_seconds=0.25,
        ),
        Case(
            "overlimit",
            "The importer believes in 210 requests in 10 s where the API allows 200.",
            client_limits="50/2,210/10",
            slack_seconds=None,
        ),
        Case(
            "kill",
            "kill -9 of a worker process in the middle; its items are due again when their lease ends.",
            items=600,
            limits="50/1,200/5",
            latency_seconds=0.1,
            settings={
                "SLUICE_LEASE_SECONDS": str(_KILL_LEASE_SECONDS),
                "SLUICE_REQUEST_TIMEOUT_SECONDS": "3",
            },
            slack_seconds=_KILL_LEASE_SECONDS + 5.0,
            mishap=Mishap.WORKER_KILLED,
        ),
        Case(
            "redis-killed",
            "kill -9 of Redis at a third and at two thirds of the requests; it is started again on what it wrote.",
            settings=_SOON_LOST,
            mishap=Mishap.REDIS_KILLED,
            mishaps=2,
            lost_seconds=_PROVABLE_SECONDS + _RESTART_SECONDS,
        ),
        Case(
            "redis-flushed",
            "FLUSHALL at a third and at two thirds: budget and messages are gone.",
            settings=_SOON_LOST,
            mishap=Mishap.REDIS_FLUSHED,
            mishaps=2,
            lost_seconds=_PROVABLE_SECONDS + _NOTICED_SECONDS,
        ),
        Case(
            "one-of-many",
            "Runs of one item, started while a run with 100,000 waiting items has used up the windows.",
            items=100_000,
            limits="50/2,100/15",
            slack_seconds=None,
            newcomers=5,
        ),
    )
}
