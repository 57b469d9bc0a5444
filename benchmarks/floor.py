"""Compute the shortest possible time for a number of requests under given limits."""

from collections.abc import Sequence

from mock_server import Window


def closings(windows: Sequence[Window], requests: int) -> list[tuple[Window, int]]:
    """Return how often each window must be waited for, the longest window first.

    Parameters:
      windows: The limits, nested: what a longer one allows fits into its time under the shorter ones.
      requests: How many requests are made.
    """
    left, waits = max(0, requests - 1), []
    for window in sorted(windows, key=lambda window: window.seconds, reverse=True):
        waits.append((window, left // window.limit))
        left %= window.limit
    return waits


def floor_seconds(windows: Sequence[Window], requests: int) -> float:
    """Return the seconds from the first request to the last at no latency: W2*((R-1)//L2) + W1*(((R-1) % L2)//L1).

    Parameters: those of `closings`.
    """
    return float(sum(window.seconds * count for window, count in closings(windows, requests)))
