"""Record the requests that the mock API received, for /stats."""

import threading
from collections import Counter
from typing import Any

from mock_server.clock import Clock
from mock_server.limiter import Verdict
from mock_server.limits import NANOSECONDS


class Stats:
    """Counts of requests and answers since the start or the last reset."""

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._started_ns = clock.monotonic_ns()
        self._started_epoch_ns = clock.epoch_ns()
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._forget()

    def judged(self, verdict: Verdict) -> None:
        """Count one request at the instant the windows judged it."""
        with self._lock:
            self._requests += 1
            if not verdict.accepted:
                return
            self._accepted += 1
            # Threads come here in any order, so neither the first to come is first nor the last one last.
            self._first_ns = verdict.at_ns if self._first_ns is None else min(self._first_ns, verdict.at_ns)
            self._last_ns = verdict.at_ns if self._last_ns is None else max(self._last_ns, verdict.at_ns)

    def page_listed(self, page: int, last_page: int) -> None:
        """Count an accepted list request; those beyond the last page are counted together."""
        with self._lock:
            if page <= last_page:
                self._pages[page] += 1
            else:
                self._pages_beyond_last += 1

    def item_asked(self, item_id: int) -> None:
        """Count an accepted GET of a known item."""
        with self._lock:
            self._items[item_id] += 1

    def item_put(self, item_id: int) -> None:
        """Count an accepted PUT to a known item."""
        with self._lock:
            self._puts[item_id] += 1

    def unknown_item_asked(self) -> None:
        """Count an accepted request for an item that is not there; its id is not kept."""
        with self._lock:
            self._unknown_items += 1

    def answered(self, status: int, fault: str | None) -> None:
        """Count an answer by the status it is sent with, and the fault that struck it."""
        with self._lock:
            self._statuses[status] += 1
            if fault:
                self._faults[fault] += 1

    def reset(self) -> None:
        """Set every count to zero. Seconds still count from the server's start."""
        with self._lock:
            self._forget()

    def as_dict(self) -> dict[str, Any]:
        """Return the counts, in types JSON has.

        Returns:
          requests (accepted + rejected, which are the 429s); statuses sent and faults, with their counts; the first
          and last accepted request, in epoch seconds by the monotonic clock (`_at`) and in seconds since the start
          (`_seconds`), None before there was one; span_seconds between the two; and the accepted requests for each
          page, item (GET) and put (PUT), spoiled ones included.
        """
        with self._lock:
            return {
                "requests": self._requests,
                "accepted": self._accepted,
                "rejected": self._requests - self._accepted,
                "statuses": dict(self._statuses),
                "faults": dict(self._faults),
                **self._times(),
                "pages": dict(self._pages),
                "pages_beyond_last": self._pages_beyond_last,
                "items": dict(self._items),
                "puts": dict(self._puts),
                "unknown_items": self._unknown_items,
            }

    def _times(self) -> dict[str, float | None]:
        return {
            "first_request_at": self._epoch_seconds(self._first_ns),
            "last_request_at": self._epoch_seconds(self._last_ns),
            "first_request_seconds": self._seconds(self._first_ns),
            "last_request_seconds": self._seconds(self._last_ns),
            "span_seconds": ((self._last_ns or 0) - (self._first_ns or 0)) / NANOSECONDS,
        }

    def _seconds(self, at_ns: int | None) -> float | None:
        return None if at_ns is None else (at_ns - self._started_ns) / NANOSECONDS

    def _epoch_seconds(self, at_ns: int | None) -> float | None:
        return None if at_ns is None else (self._started_epoch_ns + at_ns - self._started_ns) / NANOSECONDS

    def _forget(self) -> None:
        self._requests = self._accepted = self._pages_beyond_last = self._unknown_items = 0
        self._first_ns = self._last_ns = None
        self._statuses: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._pages: Counter[int] = Counter()
        self._items: Counter[int] = Counter()
        self._puts: Counter[int] = Counter()
