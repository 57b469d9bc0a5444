"""Run one seed: a fleet, a run, the schedule's faults, and the facts at the end."""

import json
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.fleet import ROOT, FleetError, RunRow
from tests.faults.facts import PER_PAGE, Facts, Shape, Struck, breaches
from tests.faults.schedule import Fault, schedule
from tests.faults.stillness import Stillness, code_of
from tests.faults.supervision import FaultInjector, SupervisedFleet
from tests.helpers.postgres_clusters import Cluster

#: A run that has not ended by then hangs.
DEADLINE_SECONDS = 300.0
ITEMS = 1_000
SHORT_ITEMS = 160

LIMITS = "48/1,80/2"
_SMALLEST_LIMIT = 48
_LANES, _PROCESSES, _THREADS = 16, 2, 8
_LOOK_SECONDS = 0.1
#: The id of the first run of a new database.
_RUN = 1
_SAY_SECONDS = 10.0
_SETTLE_SECONDS = 5.0

#: In a smaller time: 40 requests a second, and what was lost is due again within seconds.
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "SLUICE_SOURCES": "tests.faults.host:SOURCES",
    "SLUICE_LANES": str(_LANES),
    # A process that is stopped for 5 s between a permit and its request sends it then: it counts for 1 + 2 + 3.5 s.
    "SLUICE_REQUEST_TIMEOUT_SECONDS": "2",
    "SLUICE_LINGER_SECONDS": "3.5",
    "SLUICE_LEASE_SECONDS": "5",
    "SLUICE_BACKOFF_SECONDS": "1,2,4,8",
    "SLUICE_TICK_SECONDS": "1",
    "SLUICE_LANE_LEASE_SECONDS": "3",
    "SLUICE_FINALIZE_SECONDS": "2",
    "SLUICE_DRAIN_SECONDS": "4",
}
#: Answers take a moment, so that there are always requests in flight to be lost; and the strictest of servers, which
#: does not say what is left, so that the limiter cannot learn from it how many were sent before.
_MOCK_OPTIONS = ("--latency", "0.02", "--jitter", "0.08", "--algorithm", "log", "--headers", "none")


@dataclass
class _Strike:
    """A fault that is to come, the first time or again."""

    fault: Fault
    not_before: float = 0.0


def fault_run(
    seed: int,
    *,
    cluster: Cluster | None = None,
    short: bool = False,
    items: int | None = None,
    keep: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Facts:
    """Run one seed on one database.

    Parameters:
      seed: Decides what strikes, and when.
      cluster: The Postgres it runs on, which faults restart; None: an SQLite file.
      short: 160 items and three or four faults, not 1,000 and some ten.
      items: As many items instead.
      keep: Leave the fleet's folder, with its logs; it is left anyway where a property does not hold.
      say: Called with what strikes, and how far the run is.

    Raises:
      FleetError: The fleet did not come up, or the mock API died.
    """
    count = items or (SHORT_ITEMS if short else ITEMS)
    shape = Shape(count, PER_PAGE, _SMALLEST_LIMIT, _LANES, _PROCESSES, _THREADS)
    faults = schedule(seed, postgres=cluster is not None, short=short)
    fleet = SupervisedFleet(
        items=count,
        limits=LIMITS,
        mock_options=_MOCK_OPTIONS,
        processes=_PROCESSES,
        threads=_THREADS,
        settings=SETTINGS,
        database=cluster.url if cluster else "",
        keep=keep,
    )
    with fleet:
        course = _Course(fleet, FaultInjector(fleet, cluster), shape, say)
        course.run(faults)
        facts = course.facts(seed, "postgres" if cluster else "sqlite")
        fleet.keep |= bool(breaches(facts))
    return facts


class _Course:
    """The course of one run: it looks at it, strikes it, and keeps what it saw."""

    def __init__(
        self, fleet: SupervisedFleet, injector: FaultInjector, shape: Shape, say: Callable[[str], None]
    ) -> None:
        self.fleet, self.injector, self.shape, self.say = fleet, injector, shape, say
        self.struck: list[Struck] = []
        self.began = time.monotonic()
        self.stillness = Stillness(lambda: code_of(fleet, _RUN), lambda: time.monotonic() - self.began)
        self.most_percent = 0.0

    def run(self, faults: tuple[Fault, ...]) -> None:
        """Start a run, and let every fault strike it, until it has ended or should have."""
        self.coming = [_Strike(fault) for fault in faults]
        self.began = time.monotonic()
        with ThreadPoolExecutor(1) as beside:
            try:
                # Beside: on a busy machine much of the run could be over before the command that started it has ended.
                self._go(beside.submit(self.fleet.start_run))
            finally:
                self.seconds = time.monotonic() - self.began
                self.injector.undo_all()
                self.stillness.end()

    def _go(self, starting: "Future[int]") -> None:
        said = self.began
        while True:
            row, accepted = self._row(), self._accepted()
            if row is None and accepted == 0 and starting.done():
                starting.result()  # where it failed, and nothing had been struck yet, it says why
            if (row and row.ended) or time.monotonic() > self.began + DEADLINE_SECONDS:
                return
            self.stillness.look(row)
            self._strike_what_is_due(accepted)
            if time.monotonic() > said + _SAY_SECONDS:
                said = time.monotonic()
                self._tell(accepted, f"{row.succeeded:,} completed" if row else "the database is away")
            self.injector.undo_due()
            time.sleep(_LOOK_SECONDS)

    def facts(self, seed: int, database: str) -> Facts:
        """Gather what is to be known, and stop the fleet."""
        row = self._row() or RunRow("unknown", 0, 0, 0, 0, 0, 0, 0.0)
        why = "" if row.ended else self._why()
        query, mock = self.fleet.query, self._counted()
        of_run = f"FROM sluice_run_items WHERE run_id = {_RUN:d}"
        ids, failures = query(f"SELECT count(DISTINCT external_id), coalesce(sum(failure_count), 0) {of_run}")[0]
        rows, row_ids, filled = query("SELECT count(*), count(DISTINCT external_id), count(price) FROM items")[0]
        by_status = dict(query(f"SELECT status, count(*) {of_run} GROUP BY status"))
        pages_failed = (self.fleet.folder / "worker.log").read_text(errors="replace").count(": list page ")
        died = [
            f"{death.name} (status {death.status}, after {death.at - self.began:.0f} s)"
            for death in self.fleet.deaths
            if not death.of_a_fault and death.name != "redis"  # which cannot start where a server is still stopped
        ]
        return Facts(
            seed=seed,
            database=database,
            shape=self.shape,
            struck=tuple(self.struck),
            missed=tuple(strike.fault for strike in self.coming if strike.not_before == 0.0),
            seconds=round(self.seconds, 1),
            status=row.status,
            why=why,
            total=row.total,
            succeeded=row.succeeded,
            failed=row.failed,
            skipped=row.skipped,
            hits=row.hits,
            most_percent=self.most_percent,
            items=by_status,
            item_ids=ids,
            rows=rows,
            row_ids=row_ids,
            filled=filled,
            accepted=mock["accepted"],
            rejected=mock["rejected"],
            fullest=max(window["max_in_any_window"] / window["limit"] for window in mock["windows"]),
            asked=(len(mock["items"]), sum(mock["items"].values())),
            listed=(len(mock["pages"]), sum(mock["pages"].values()) + mock["pages_beyond_last"]),
            attempts_failed=int(failures),
            pages_failed=pages_failed,
            died=tuple(died),
            left=self.fleet.stop_all(),
            folder=str(self.fleet.folder),
            reasons=tuple(self.stillness.reasons),
            unexplained=tuple(self.stillness.unexplained),
        )

    def _strike_what_is_due(self, accepted: int) -> None:
        if not accepted:
            return  # the run has not begun
        share = accepted / self.shape.requests
        for strike in list(self.coming):
            again = strike.not_before > 0
            if (
                share < strike.fault.at
                or time.monotonic() < strike.not_before
                or not self.injector.strike(strike.fault)
            ):
                continue  # its process is being started again: the fault strikes later
            now = time.monotonic()
            self.coming.remove(strike)
            self.struck.append(Struck(strike.fault, round(now - self.began, 1), accepted))
            self._tell(accepted, f"{strike.fault.kind}{', again' if again else ''}")
            if strike.fault.again_after_seconds and not again:
                self.coming.append(_Strike(strike.fault, now + strike.fault.again_after_seconds))

    def _row(self) -> RunRow | None:
        with suppress(psycopg.Error, sqlite3.Error, IndexError):  # the database is away, or has no run yet
            row = self.fleet.run_row(_RUN)
            if row.total:
                done = row.succeeded + row.failed + row.skipped
                self.most_percent = max(self.most_percent, 100 * done / row.total)
            return row
        return None

    def _counted(self) -> dict[str, Any]:
        """Return what the mock counted once no request comes any more: a stopped process can still have sent one."""
        ends_at = time.monotonic() + _SETTLE_SECONDS
        before: dict[str, Any] = {}
        while (now := self.fleet.mock_stats()) != before and time.monotonic() < ends_at:
            before = now
            time.sleep(0.5)
        return now

    def _accepted(self) -> int:
        return int(self.fleet.mock_stats()["accepted"])

    def _tell(self, accepted: int, what: str) -> None:
        self.say(f"{time.monotonic() - self.began:5.1f} s, {accepted:5,} requests: {what}")

    def _why(self) -> str:
        try:
            status: dict[str, Any] = json.loads(self.fleet.command("status", str(_RUN), "--json"))
        except FleetError as error:
            return f"(no status: {error})"
        due = f"SELECT status, attempts, count(*), min(due_at) FROM sluice_run_items WHERE run_id = {_RUN:d}"
        open_items = self.fleet.query(f"{due} AND status IN ('pending', 'processing') GROUP BY 1, 2")
        lanes = self.fleet.query(f"SELECT lane, turn, due_at FROM sluice_lanes WHERE run_id = {_RUN:d}")
        return f"{status.get('why') or 'it does not say'}; open items: {open_items}; lanes: {lanes}"
