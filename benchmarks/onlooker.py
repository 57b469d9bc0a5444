"""Poll the mock API's counts from outside, again and again: what it notes is at most one poll late."""

import threading
import time
from types import TracebackType
from typing import Any, Self

from benchmarks.fleet import Fleet

_LOOK_SECONDS = 0.02


class Onlooker:
    """Looks on during a `with` block, in a thread of its own; what it sees goes to `note`.

    Parameters:
      fleet: Whose mock.
      every_seconds: The time between two looks.
    """

    def __init__(self, fleet: Fleet, every_seconds: float) -> None:
        self._fleet = fleet
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(15)

    def _look_on(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self.note(self._fleet.mock_stats(), time.monotonic())

    def note(self, stats: dict[str, Any], now: float) -> None:
        """Take in one look."""
        raise NotImplementedError


class RequestWatch(Onlooker):
    """Notes when requests were accepted, and when those for one item were.

    Parameters:
      fleet: Whose mock.
      item: The item's id.
    """

    def __init__(self, fleet: Fleet, item: int = 1) -> None:
        super().__init__(fleet, _LOOK_SECONDS)
        self.accepted = 0
        self._item = str(item)
        self._asked = 0
        self._accepted_at: list[float] = []
        self._asked_at: list[float] = []

    def note(self, stats: dict[str, Any], now: float) -> None:
        """Take in one look."""
        accepted, asked = stats["accepted"], stats["items"].get(self._item, 0)
        if accepted > self.accepted:
            self._accepted_at.append(now)
        if asked > self._asked:
            self._asked_at.append(now)
        self.accepted, self._asked = accepted, asked

    def accepted_after(self, instant: float) -> float | None:
        """Return when the first request after an instant (monotonic seconds) was accepted."""
        return next((at for at in self._accepted_at if at > instant), None)

    def asked_after(self, instant: float) -> float | None:
        """Return when the first request for the item after an instant was accepted."""
        return next((at for at in self._asked_at if at > instant), None)

    def quiet_seconds(self) -> float:
        """Return for how long no request has been accepted; 0 before the first."""
        return time.monotonic() - self._accepted_at[-1] if self._accepted_at else 0.0
