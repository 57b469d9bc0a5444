"""Hold the settings of one mock server, and check them when they are made."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mock_server.algorithms import ALGORITHMS
from mock_server.faults import Fault
from mock_server.headers import STYLES
from mock_server.limits import DEFAULT_LIMITS, MAX_LIMIT, Window

MAX_ITEMS = 1_000_000_000
MAX_SECONDS = 3600.0
MAX_THREADS = 1000


@dataclass(frozen=True)
class MockConfig:
    """What one mock server serves, and how badly.

    Parameters:
      items: How many items the catalogue has; their ids are 1 to items.
      limits: The windows enforced on /api/, per caller. None enforced when empty.
      host: The address to listen on.
      port: The port to listen on; 0 takes a free one.
      latency_seconds: The delay of every /api/ answer.
      jitter_seconds: The most that is added to the latency, drawn evenly from 0.
      faults: What goes wrong, and how often.
      timeout_seconds: How long the fault `timeout` holds an answer.
      seed: Decides the catalogue, the delays and the faults.
      threads: How many requests are answered at once; the rest queue, uncounted.
      algorithm: How the windows count: one of ALGORITHMS.
      headers: The style in which responses state the limits: one of STYLES.
      burst: How many requests `gcra` lets in at once, at most the smallest limit; the whole limit when None.
      recount_rejected: Count refused requests too: for `log` only.

    Raises:
      ValueError: A setting is out of range. The message names it.
    """

    items: int = 1000
    limits: tuple[Window, ...] = DEFAULT_LIMITS
    host: str = "127.0.0.1"
    port: int = 0
    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    faults: tuple[Fault, ...] = ()
    timeout_seconds: float = 60.0
    seed: int = 1
    threads: int = 32
    algorithm: str = "windows"
    headers: str = "x-ratelimit"
    burst: int | None = None
    recount_rejected: bool = False

    def __post_init__(self) -> None:
        _check("items", self.items, 0, MAX_ITEMS)
        _check("port", self.port, 0, 65535)
        _check("threads", self.threads, 1, MAX_THREADS)
        _check("latency", self.latency_seconds, 0, MAX_SECONDS)
        _check("jitter", self.jitter_seconds, 0, MAX_SECONDS)
        _check("timeout-seconds", self.timeout_seconds, 0, MAX_SECONDS)
        _check_faults(self.faults)
        _check_choice("algorithm", self.algorithm, ALGORITHMS)
        _check_choice("headers", self.headers, STYLES)
        self._check_algorithm()

    def _check_algorithm(self) -> None:
        if self.recount_rejected and self.algorithm != "log":
            raise ValueError("recount-rejected is for the algorithm log: choose that, or leave it out")
        if self.burst is None:
            return
        if self.algorithm != "gcra":
            raise ValueError("burst is for the algorithm gcra: choose that, or leave it out")
        _check("burst", self.burst, 1, min((window.limit for window in self.limits), default=MAX_LIMIT))


def _check(name: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{name} is {value}: give a number from {least:,} to {most:,}")


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: choose from {', '.join(choices)}")


def _check_faults(faults: tuple[Fault, ...]) -> None:
    kinds = [fault.kind for fault in faults]
    if len(set(kinds)) < len(kinds):
        raise ValueError("a fault is given twice: name each kind once")
    # A little above 1 is the rounding of decimal fractions, not a mistake.
    if sum(fault.probability for fault in faults) > 1 + 1e-9:
        raise ValueError("the faults' probabilities add up to more than 1: lower them")
