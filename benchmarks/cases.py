"""The named cases: what is imported from what, by how many, and the bounds each must keep."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.floor import closings, floor_seconds
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
      kill: kill -9 a worker process when half of the requests have been made.
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
    kill: bool = False

    @property
    def windows(self) -> tuple[Window, ...]:
        return parse_limits(self.limits)

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
        """The longest span: the floor, the slack, and what slow answers may cost.

        That is one longest response for each window that opens, and a mean one for each list page: they are read one
        after another.
        """
        if self.slack_seconds is None:
            return None
        longest, mean = self.latency_seconds + self.jitter_seconds, self.latency_seconds + self.jitter_seconds / 2
        windows = 1 + sum(count for _, count in closings(self.windows, self.requests))
        return self.floor_seconds + self.slack_seconds + longest * windows + mean * self.pages

    @property
    def most_repeated(self) -> int:
        """Requests that may be made twice: what one killed process can have claimed and not committed."""
        if not self.kill:
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
        return 60.0 + 2 * self.floor_seconds

    @property
    def mock_options(self) -> list[str]:
        return ["--latency", str(self.latency_seconds), "--jitter", str(self.jitter_seconds)]


_KILL_LEASE_SECONDS = 10

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
            kill=True,
        ),
    )
}
