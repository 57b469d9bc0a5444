"""Draw the delay of a response, and the part of it that passes before the request is counted."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Delay:
    """One request's delay, in seconds: before it is counted, and before its answer leaves."""

    before_count_seconds: float
    before_answer_seconds: float


class Delays:
    """Draws delays of `latency` plus 0 to `jitter`, split at random.

    A request reaches the server, waits a random part of its delay, is counted, and waits the rest before it is
    answered. So a client knows neither from when it sent nor from when it was answered at what instant it was
    counted, only that it was between the two: the order and the spacing of the counts are not those of the sends.

    Parameters:
      latency_seconds: The delay of every request.
      jitter_seconds: The most that is added, drawn evenly.
      seed: Decides the draws. Their order among concurrent requests is the threads' own.
    """

    def __init__(self, latency_seconds: float, jitter_seconds: float, seed: int) -> None:
        self._latency_seconds = latency_seconds
        self._jitter_seconds = jitter_seconds
        self._random = random.Random(f"delays {seed}")

    def draw(self) -> Delay:
        """Return the next request's delay."""
        total = self._latency_seconds + self._jitter_seconds * self._random.random()
        before = total * self._random.random()
        return Delay(before, total - before)
