"""Measure one case: run it on a fleet, and compare the results with the bounds."""

import operator
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from benchmarks.cases import Case
from benchmarks.fleet import Fleet, RunRow
from benchmarks.mishaps import Met, Mishap, look_back, meet
from benchmarks.newcomers import empty_windows, serve
from benchmarks.onlooker import RequestWatch
from benchmarks.refusals import RefusalWatch
from mock_server.catalogue import Catalogue

_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {"=": operator.eq, "≤": operator.le, "≥": operator.ge}
_MOCK_SEED = 1  # the mock's default
#: The least Retry-After, less two looks of the onlooker.
_LEAST_QUIET_SECONDS = 0.9
#: How long a newcomer may wait after the opening it has waited for.
_SERVED_SECONDS = 1.0
_DISCOVERED_SECONDS = 120.0
_CANCELLED_SECONDS = 15.0


@dataclass(frozen=True)
class Check:
    """A figure and its bound."""

    name: str
    measured: float | str | None
    relation: str
    bound: float | str

    @property
    def holds(self) -> bool:
        return self.measured is not None and _RELATIONS[self.relation](self.measured, self.bound)

    def __str__(self) -> str:
        return f"{_text(self.measured)} {self.relation} {_text(self.bound)}"


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
      checks: The figures that have bounds.
      facts: The figures that have none, by name.
      notes: The same in sentences, where a table has no room for them.
      folder: The fleet's folder, where it was kept.
    """

    case: Case
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    folder: str = ""

    @property
    def missed(self) -> list[Check]:
        return [check for check in self.checks if not check.holds]

    def check(self, name: str) -> Check | None:
        return next((check for check in self.checks if check.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        return {
            "case": self.case.name,
            "holds": not self.missed,
            "checks": [asdict(check) | {"holds": check.holds} for check in self.checks],
            "facts": self.facts,
            "folder": self.folder,
        }


def measure(case: Case, *, database: str = "", keep: bool = False, say: Callable[[str], None]) -> Outcome:
    """Run a case with a fleet of its own.

    Parameters:
      case: Which one.
      database: As `Fleet` takes it.
      keep: Leave the fleet's folder behind; it is kept in any case where a bound is missed.
      say: Called every half second with the progress of the case.

    Raises:
      FleetError: The fleet did not come up, lost a process, or did not go away.
    """
    outcome = Outcome(case)
    began, load = time.monotonic(), os.getloadavg()
    say(f"{case.name}: starting {case.processes} x {case.threads}")
    with Fleet(
        items=case.catalogue_items,
        limits=case.limits,
        client_limits=case.client_limits,
        mock_options=case.mock_options,
        processes=case.processes,
        threads=case.threads,
        settings=case.settings,
        database=database,
        keep=keep,
    ) as fleet:
        _run(case, fleet, outcome, say)
        fleet.keep = keep or bool(outcome.missed)
        outcome.folder = str(fleet.folder) if fleet.keep else ""
    outcome.facts |= {
        "processes": case.processes,
        "threads": case.threads,
        "database": "postgresql" if database else "sqlite",
        "load_average_before": [round(one, 2) for one in load],
        "load_average_after": [round(one, 2) for one in os.getloadavg()],
        "took_seconds": round(time.monotonic() - began, 1),
    }
    return outcome


def _run(case: Case, fleet: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    if case.newcomers:
        _run_newcomers(case, fleet, outcome, say)
    else:
        _run_alone(case, fleet, outcome, say)


def _run_alone(case: Case, fleet: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    mishaps: list[Met] = []
    with ExitStack() as stack:
        refusals = stack.enter_context(RefusalWatch(fleet)) if case.refused else None
        requests = stack.enter_context(RequestWatch(fleet)) if case.lost_seconds else None
        run_id = fleet.start_run()
        began = time.monotonic()

        def look(row: RunRow) -> None:
            done = row.succeeded + row.failed + row.skipped
            say(f"{case.name}: {row.status}, {done:,} of {case.items:,}, {time.monotonic() - began:.0f} s")

        if case.mishap:
            mishaps = _meet_all(case, case.mishap, fleet, say)
        row = fleet.wait_for_run(run_id, case.longest_seconds, look)
    stats = fleet.mock_stats()
    outcome.checks += [*_pace(case, stats), *_counts(case, fleet, run_id, row, stats)]
    if refusals:
        outcome.checks += _pauses(row, refusals)
        outcome.facts["bursts"] = [burst.refused for burst in refusals.bursts]
    if requests:
        outcome.checks.append(_losses(case, mishaps, requests, outcome))
    if case.mishap:
        outcome.checks.append(Check("mishaps", len(mishaps), "=", case.mishaps))
        outcome.checks.append(Check("worker processes at the end", len(fleet.worker_children()), "=", case.processes))
        outcome.facts["mishaps"] = [asdict(met) for met in mishaps]
    outcome.facts |= _facts(case, stats) | {
        "floor_seconds": case.floor_seconds,
        "hits": row.hits,
        "sleeps": row.sleeps,
        "slept_seconds": round(row.slept_seconds, 3),
        "extra_requests": stats["accepted"] - case.requests,
    }


def _facts(case: Case, stats: dict[str, Any]) -> dict[str, Any]:
    return {
        "items": case.items,
        "limits": case.limits,
        "client_limits": case.client_limits or case.limits,
        "span_seconds": stats["span_seconds"],
        "rejected": stats["rejected"],
        "windows": stats["windows"],
    }


def _meet_all(case: Case, mishap: Mishap, fleet: Fleet, say: Callable[[str], None]) -> list[Met]:
    def named(text: str) -> None:
        say(f"{case.name}: {text}")

    met = [meet(mishap, after, fleet, case.longest_seconds, named) for after in case.mishaps_after]
    return [one for one in met if one]


def _losses(case: Case, mishaps: list[Met], watch: RequestWatch, outcome: Outcome) -> Check:
    """Word how soon requests were sent again, and how soon that is provably safe."""
    for met in mishaps:
        look_back(met, watch)
        first = met.first_request_seconds
        over = "" if first is None else f", {first - case.provable_seconds:.2f} s after it is provably safe"
        outcome.notes.append(
            f"{met.mishap} after {met.after_requests:,} requests: it answered again after {met.back_seconds:.2f} s; "
            f"the next request came after {_text(first)} s{over}"
        )
    longest = _longest([met.first_request_seconds for met in mishaps])
    return Check("longest time without requests", longest, "≤", case.lost_seconds or 0.0)


def _longest(waits: list[float | None]) -> float | None:
    """Return the longest of some waits; None where there is none, or one did not end."""
    return None if None in waits else max((round(wait, 3) for wait in waits if wait is not None), default=None)


def _run_newcomers(case: Case, fleet: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Let a run with very many items work, start the newcomers beside it, and cancel it."""
    with RequestWatch(fleet) as watch:
        run_id = fleet.start_run("many")
        say(f"{case.name}: reading the list of {case.items:,} items")
        found = f"SELECT count(*) FROM sluice_runs WHERE id = {run_id:d} AND discovered_at IS NOT NULL"
        fleet.wait_until(lambda: fleet.query(found)[0][0], _DISCOVERED_SECONDS, "the list is known")
        discovered = fleet.mock_stats()["accepted"]
        empty_windows(case.windows, run_id, fleet, watch)
        served = serve(case.newcomers, fleet, watch, lambda text: say(f"{case.name}: {text}"))
        fleet.command("cancel", str(run_id))
        row = fleet.wait_for_run(run_id, _CANCELLED_SECONDS)
    stats = fleet.mock_stats()
    waits = [one.after_seconds for one in served]
    outcome.checks = [
        Check("429s", stats["rejected"], "=", 0),
        Check("status", row.status, "=", "cancelled"),
        Check("counter total", row.total, "=", case.items),
        Check("counter failed and skipped", row.failed + row.skipped, "=", 0),
        Check("newcomers", len(served), "=", case.newcomers),
        Check("longest wait after an opening", _longest(waits), "≤", _SERVED_SECONDS),
    ]
    outcome.notes = [
        f"a run of one item, started {one.before_seconds:.2f} s before the opening, was served "
        f"{_text(one.after_seconds)} s after it"
        for one in served
    ]
    outcome.facts |= _facts(case, stats) | {
        "floor_seconds": None,
        "requests_for_the_list": discovered,
        "served": [asdict(one) for one in served],
        "hits": row.hits,
    }


def _pace(case: Case, stats: dict[str, Any]) -> list[Check]:
    checks = []
    if (bound := case.bound_seconds) is not None:
        checks.append(Check("span", round(stats["span_seconds"], 3), "≤", round(bound, 3)))
    if not case.refused:
        checks.append(Check("429s", stats["rejected"], "=", 0))
    checks.append(Check("requests", stats["accepted"], "≤", case.requests + case.most_repeated))
    return checks


def _counts(case: Case, fleet: Fleet, run_id: int, row: RunRow, stats: dict[str, Any]) -> list[Check]:
    """Set the run's counters, its items, the model's rows and the API's record beside the catalogue."""
    by_status = dict(
        fleet.query(f"SELECT status, count(*) FROM sluice_run_items WHERE run_id = {run_id:d} GROUP BY status")
    )
    asked = Counter(stats["items"].values())
    pages = Counter(stats["pages"].values())
    return [
        Check("status", row.status, "=", "completed"),
        Check("counter total", row.total, "=", case.items),
        Check("counter succeeded", row.succeeded, "=", case.items),
        Check("counter failed and skipped", row.failed + row.skipped, "=", 0),
        Check("run items completed", by_status.pop("completed", 0), "=", case.items),
        Check("run items of another status", sum(by_status.values()), "=", 0),
        Check("rows like the catalogue", _rows_like_the_catalogue(case, fleet), "=", case.items),
        Check("rows", fleet.query("SELECT count(*) FROM items")[0][0], "=", case.items),
        Check("pages asked once", pages[1], "=", case.pages),
        Check("items asked", len(stats["items"]), "=", case.items),
        Check("items asked once", asked[1], "≥" if case.most_repeated else "=", case.items - case.most_repeated),
    ]


def _rows_like_the_catalogue(case: Case, fleet: Fleet) -> int:
    catalogue = Catalogue(case.items, _MOCK_SEED)
    wanted = {
        (str(item["id"]), item["name"], item["description"], _money(item["price"]))
        for item in map(catalogue.item, range(1, case.items + 1))
    }
    rows = fleet.query("SELECT external_id, name, description, price FROM items")
    return sum((str(i), n, d, _money(p)) in wanted for i, n, d, p in rows)


def _money(value: object) -> Decimal:
    return Decimal(str(value if value is not None else -1)).quantize(Decimal("0.01"))


def _pauses(row: RunRow, watch: RefusalWatch) -> list[Check]:
    quiet = watch.shortest_quiet_seconds
    return [
        Check("bursts refused", len(watch.bursts), "≥", 1),
        Check("hits", row.hits, "=", len(watch.bursts)),
        Check("shortest quiet after a burst", round(quiet, 2) if quiet else None, "≥", _LEAST_QUIET_SECONDS),
    ]


def _text(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "none"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
