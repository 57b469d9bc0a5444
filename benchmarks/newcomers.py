"""Start runs of one item beside a run of many items, and measure how soon each is served."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.fleet import Fleet
from benchmarks.onlooker import RequestWatch
from mock_server import Window

#: A window is taken for closed when nothing was accepted for so long: longer than the shorter window of the case.
_CLOSED_SECONDS = 2.2
#: Each comes this much later into the closed window than the one before.
_LATER_SECONDS = 0.5
_CLOSED_WITHIN_SECONDS = 30.0
_SERVED_WITHIN_SECONDS = 30.0
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Served:
    """One newcomer. Seconds, one look of an onlooker late at most.

    Attributes:
      before_seconds: How long before the budget's next opening it was started.
      after_seconds: How long after that opening its item was asked for; None: it was not, or its run did not complete.
    """

    before_seconds: float
    after_seconds: float | None


def serve(count: int, fleet: Fleet, watch: RequestWatch, say: Callable[[str], None]) -> list[Served]:
    """Start `count` newcomers, one after the other, each a little later into a closed window.

    Returns:
      What came of each: of fewer, where windows did not close, or opened while newcomers were being started.

    Raises:
      FleetError: A process ended unasked meanwhile.
    """
    served: list[Served] = []
    for number in range(2 * count):
        say(f"newcomer {len(served) + 1} of {count}")
        if not _is_closed(watch, _CLOSED_SECONDS + number % count * _LATER_SECONDS):
            break
        if one := _serve_one(fleet, watch):
            served.append(one)
        if len(served) == count:
            break
    return served


def empty_windows(windows: Sequence[Window], run_id: int, fleet: Fleet, watch: RequestWatch) -> None:
    """Hold the large run until every window is empty: then they are used up at once, and closed together.

    The pages of its list came one by one. So would the openings, for good: what was sent at an instant leaves the
    window a window later, and what is sent then again.
    """
    longest = max(window.seconds for window in windows)
    fleet.command("pause", str(run_id))
    fleet.wait_until(lambda: watch.quiet_seconds() > longest + 0.5, 3 * longest, "the windows are empty")
    fleet.command("resume", str(run_id))


def _is_closed(watch: RequestWatch, seconds: float) -> bool:
    """Wait until requests are sent, and then until none was for so long; return whether that came to be."""
    ends_at = time.monotonic() + _CLOSED_WITHIN_SECONDS
    for least, most in ((0.0, 0.5), (seconds, math.inf)):
        while not least <= watch.quiet_seconds() < most:
            if time.monotonic() > ends_at:
                return False
            time.sleep(_LOOK_SECONDS)
    return True


def _serve_one(fleet: Fleet, watch: RequestWatch) -> Served | None:
    """Return None where the window opened while it was being started: then its next opening is not known."""
    began = time.monotonic()
    run_id = fleet.start_run("one")
    started = time.monotonic()
    row = fleet.wait_for_run(run_id, _SERVED_WITHIN_SECONDS, every=0.1)
    opened, asked = watch.accepted_after(began), watch.asked_after(began)
    if opened is None or opened <= started:
        return None
    completed = row.status == "completed" and row.succeeded == 1
    return Served(opened - started, asked - opened if asked and completed else None)
