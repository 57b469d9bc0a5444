"""Why: a run without progress has a reason code, each state its own, the same on pages and commands."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.helpers.machine import ROOT, free_port
from workers import Limit, clock, settings
from workers.cli.command_line import cli
from workers.connections import outages
from workers.connections.trouble import Trouble
from workers.limiter.state import BudgetState, WindowState
from workers.messaging import broker, process_heartbeat, scheduler_heartbeat
from workers.records import lanes, old_rows, runs, samples
from workers.records.tables import ItemStatus, Lane, RemovalState, Run, RunItem, RunStatus, Sample
from workers.reports import run_stats, why
from workers.reports.budget_text import Closing
from workers.reports.reasons import Reason
from workers.reports.snapshot import RunFacts
from workers.reports.why import Why
from workers.reports.why_log import WhyLog
from workers.reports.why_text import words

NOW = datetime.fromisoformat("2026-12-01T12:00:00+00:00")


# --- in the database ------------------------------------------------------------------------------------------------


@dataclass
class Stand:
    """A run of ten items that has made no progress for a minute; `house` sets its environment."""

    run: Run
    house: pytest.MonkeyPatch

    def set(self, **values: Any) -> None:
        Run.update({getattr(Run, name): value for name, value in values.items()}).where(Run.id == self.run.id).execute()

    def items(self, count: int, status: ItemStatus, due_in: float, **values: Any) -> None:
        due = clock.now() + timedelta(seconds=due_in)
        first = RunItem.select().count()
        rows = [
            {"run_id": self.run.id, "external_id": f"i{first + n}", "status": status, "due_at": due}
            for n in range(count)
        ]
        RunItem.insert_many([row | values for row in rows]).execute()

    def lanes(self, due_in: float) -> None:
        lanes.open_for(self.run.id, 2)
        Lane.update({Lane.due_at: clock.now() + timedelta(seconds=due_in)}).execute()

    def setting(self, name: str, value: str) -> None:
        self.house.setenv(name, value)
        settings.get_settings.cache_clear()
        broker.get_broker.cache_clear()


def works(stand: Stand, *, busy: int = 0, sources: tuple[str, ...] | None = None) -> None:
    process_heartbeat.Heartbeat("worker", 8, lambda: busy, sources).write()
    scheduler_heartbeat.beat()


def pending(stand: Stand) -> None:
    stand.items(10, ItemStatus.PENDING, -60)


def queued(stand: Stand) -> None:
    works(stand)
    pending(stand)
    stand.lanes(-1)


def threads_busy(stand: Stand) -> None:
    works(stand, busy=8)
    pending(stand)
    stand.lanes(-1)


def no_worker(stand: Stand) -> None:
    scheduler_heartbeat.beat()
    pending(stand)


def inline_beside_workers_that_do_not_know_it(stand: Stand) -> None:
    works(stand, sources=("orders",))
    stand.items(3, ItemStatus.PROCESSING, 40)
    samples.take(clock.now())


def stopping(stand: Stand) -> None:
    clock.stop_requested.set()
    works(stand)
    clock.stop_requested.clear()
    pending(stand)


def source_not_on_workers(stand: Stand) -> None:
    works(stand, sources=("orders", "customers"))
    pending(stand)


def source_not_on_workers_that_sample_every_run(stand: Stand) -> None:
    source_not_on_workers(stand)
    samples.take(clock.now())


def source_unknown(stand: Stand) -> None:
    works(stand)
    stand.set(source="gone")


def source_removed(stand: Stand) -> None:
    works(stand, sources=("orders",))
    stand.set(source="gone")
    pending(stand)


def door_older_than_the_source(stand: Stand) -> None:
    works(stand, sources=("items", "new"))
    stand.set(source="new")
    pending(stand)
    stand.lanes(-1)


def budget_unknown(stand: Stand) -> None:
    works(stand)
    from tests.helpers import registered_sources

    def raises(self: Any, run: Run) -> Any:
        raise OSError("the vault does not answer")

    type(registered_sources.SOURCES[0]).get_connector = raises
    pending(stand)


def list_backs_off(stand: Stand) -> None:
    works(stand)
    later = clock.now() + timedelta(seconds=40)
    stand.set(discovered_at=None, error_summary="list page 3, attempt 2 of 5: 500", discovery_due_at=later)


def lanes_back_off(stand: Stand) -> None:
    works(stand)
    pending(stand)
    for run_id, lane, turn in lanes.open_for(stand.run.id, 2):
        assert lanes.crashed(run_id, lane, turn, "KeyError: 'a'") == 1
        assert lanes.end_turn(run_id, lane, turn, 30.0)


def list_claimed(stand: Stand) -> None:
    works(stand)
    stand.set(discovered_at=None, discovery_due_at=clock.now() + timedelta(seconds=40))


def list_lost(stand: Stand) -> None:
    works(stand)
    stand.set(discovered_at=None, discovery_due_at=clock.now() - timedelta(seconds=600))


def list_queued(stand: Stand) -> None:
    works(stand)
    stand.set(discovered_at=None, discovery_due_at=None)


def notes_rows(stand: Stand) -> None:
    works(stand)
    stand.set(discovered_at=None, total_count=None, options={"fresh": True}, discovery_due_at=clock.now())
    old_rows.begin(stand.run)


def removes_rows(stand: Stand) -> None:
    works(stand)
    stand.set(options={"fresh": True}, succeeded_count=10)
    old_rows.begin(stand.run)
    old_rows.Removal.update({old_rows.Removal.state: RemovalState.REMOVING}).execute()


def finalizing(stand: Stand) -> None:
    works(stand)
    stand.set(succeeded_count=10)


def items_back_off(stand: Stand) -> None:
    works(stand)
    stand.items(10, ItemStatus.PENDING, 40, failure_reason="GET /i1: 500")


def items_claimed(stand: Stand) -> None:
    works(stand)
    stand.items(3, ItemStatus.PROCESSING, 40)


def one_claimed_and_the_others_back_off(stand: Stand) -> None:
    works(stand)
    stand.items(9, ItemStatus.PENDING, 40, failure_reason="GET /i1: 500")
    stand.items(1, ItemStatus.PROCESSING, 40)


def lanes_silent(stand: Stand) -> None:
    works(stand)
    pending(stand)
    stand.lanes(-600)


def no_scheduler(stand: Stand) -> None:
    process_heartbeat.Heartbeat("worker", 8).write()
    pending(stand)
    stand.lanes(-600)


def no_lane(stand: Stand) -> None:
    works(stand)
    pending(stand)


def gives_way(stand: Stand) -> None:
    works(stand)
    pending(stand)
    values = {"source": "items", "tenant": "b", "lanes": 2, "created_by": "me", "priority": 5}
    Run.create(status=RunStatus.RUNNING, started_at=clock.now(), **values)


def redis_away(stand: Stand) -> None:
    pending(stand)
    stand.setting("SLUICE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")


def broker_away(stand: Stand) -> None:
    works(stand)
    pending(stand)
    stand.lanes(-1)
    stand.setting("SLUICE_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")


def database_away(stand: Stand) -> None:
    pending(stand)
    disk_full = Trouble("the database cannot be used", "free disk space", "disk full")
    outages._report_in_redis(disk_full, OSError(), clock.now())


def paused(stand: Stand) -> None:
    stand.set(status=RunStatus.PAUSED)


def paused_itself(stand: Stand) -> None:
    stand.set(status=RunStatus.PAUSED, error_summary="the API asked for a wait of 2 d 0 h")


def scheduled(stand: Stand) -> None:
    stand.set(status=RunStatus.SCHEDULED, scheduled_at=clock.now() + timedelta(hours=2))


def overdue(stand: Stand) -> None:
    stand.set(status=RunStatus.SCHEDULED, scheduled_at=clock.now() - timedelta(hours=2))


def behind(stand: Stand) -> None:
    stand.set(status=RunStatus.PENDING)
    Run.create(status=RunStatus.RUNNING, source="items", lanes=2, created_by="me", started_at=clock.now())


def starting(stand: Stand) -> None:
    stand.set(status=RunStatus.PENDING)


STATES: dict[Callable[[Stand], None], Reason] = {
    queued: Reason.QUEUED,
    threads_busy: Reason.THREADS_BUSY,
    no_worker: Reason.NO_WORKER,
    inline_beside_workers_that_do_not_know_it: Reason.ITEMS_CLAIMED,
    stopping: Reason.WORKERS_STOPPING,
    source_not_on_workers: Reason.SOURCE_NOT_ON_WORKERS,
    source_not_on_workers_that_sample_every_run: Reason.SOURCE_NOT_ON_WORKERS,
    source_unknown: Reason.SOURCE_UNKNOWN,
    source_removed: Reason.SOURCE_UNKNOWN,
    door_older_than_the_source: Reason.QUEUED,
    budget_unknown: Reason.BUDGET_UNKNOWN,
    list_backs_off: Reason.LIST_BACKS_OFF,
    lanes_back_off: Reason.LANES_BACK_OFF,
    list_claimed: Reason.LIST_CLAIMED,
    list_lost: Reason.LANES_SILENT,
    list_queued: Reason.QUEUED,
    notes_rows: Reason.NOTES_ROWS,
    removes_rows: Reason.REMOVES_ROWS,
    finalizing: Reason.FINALIZING,
    items_back_off: Reason.ITEMS_BACK_OFF,
    items_claimed: Reason.ITEMS_CLAIMED,
    one_claimed_and_the_others_back_off: Reason.ITEMS_CLAIMED,
    lanes_silent: Reason.LANES_SILENT,
    no_scheduler: Reason.NO_SCHEDULER,
    no_lane: Reason.UNKNOWN,
    gives_way: Reason.GIVES_WAY,
    redis_away: Reason.REDIS_AWAY,
    broker_away: Reason.BROKER_AWAY,
    database_away: Reason.DATABASE_AWAY,
    paused: Reason.PAUSED,
    paused_itself: Reason.PAUSED_ITSELF,
    scheduled: Reason.SCHEDULED,
    overdue: Reason.OVERDUE,
    behind: Reason.BEHIND,
    starting: Reason.STARTING,
}


@pytest.fixture
def stand(import_from: Callable[..., Any], house: pytest.MonkeyPatch) -> Stand:
    import_from("http://127.0.0.1:1", limits=(Limit(100, seconds=1),))
    ago = clock.now() - timedelta(seconds=60)
    values = {"source": "items", "lanes": 2, "created_by": "me", "total_count": 10}
    return Stand(Run.create(status=RunStatus.RUNNING, started_at=ago, discovered_at=ago, **values), house)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_a_run_that_does_not_move_has_the_code_of_what_is_in_its_way(stand: Stand, state: Callable[..., None]) -> None:
    state(stand)

    found = run_stats.run_stats(runs.get(stand.run.id))
    listed = next(one for one in run_stats.recent_runs() if one.id == stand.run.id)

    assert (found.why_code, listed.why_code) == (STATES[state], STATES[state])
    assert found.why and listed.why


def test_the_command_line_answers_with_the_code(stand: Stand) -> None:
    items_claimed(stand)
    answer = CliRunner().invoke(cli, ["status", str(stand.run.id), "--json"])
    assert json.loads(answer.output)["why_code"] == "items_claimed"
    shown = CliRunner().invoke(cli, ["status", str(stand.run.id)])
    assert "items_claimed" in shown.output


# --- since when -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampled", "is_quiet"),
    [
        ([(8, 4), (6, 4), (4, 4), (2, 4)], True),
        ([(6, 3), (4, 4), (2, 4)], False),
        ([(8, 1), (6, 2), (4, 3), (2, 4)], False),
        ([(30, 3), (28, 4)], True),
        ([(4, 3)], False),
        ([(60, 3)], True),
        ([], True),
    ],
    ids=["still", "moved 4 s ago", "moves", "still, and no process samples it", "young", "old", "never sampled"],
)
def test_a_reason_is_asked_for_once_nothing_has_moved_for_some_seconds(
    stand: Stand, sampled: list[tuple[int, int]], is_quiet: bool
) -> None:
    works(stand)
    stand.set(succeeded_count=4)
    stand.items(3, ItemStatus.PROCESSING, 40)
    zeros = dict.fromkeys(["failed", "skipped", "requests", "hits", "sleeps", "waiting_seconds"], 0)
    for ago, succeeded in sampled:
        at = clock.now() - timedelta(seconds=ago)
        Sample.create(run_id=stand.run.id, slot=int(at.timestamp()) // 2, at=at, succeeded=succeeded, **zeros)

    found = run_stats.run_stats(runs.get(stand.run.id))

    assert found.why_code == ("items_claimed" if is_quiet else "")


# --- a closed budget ------------------------------------------------------------------------------------------------

WINDOW = WindowState(Limit(10, seconds=60), 10, 10, 10)
OPEN = BudgetState("api", (replace(WINDOW, used=3),))


@pytest.mark.parametrize(
    ("budget", "code"),
    [
        (replace(OPEN, paused_for_seconds=30, paused_why="the API answered 429"), Closing.API_PAUSE),
        (replace(OPEN, canary=True), Closing.CANARY),
        (replace(OPEN, windows=(WINDOW,), opens_in_seconds=30), Closing.WINDOW_FULL),
        (
            replace(OPEN, windows=(WINDOW,), opens_in_seconds=30, taken_as_full_seconds=30, lost_why="it was flushed"),
            Closing.WINDOW_TAKEN_AS_FULL,
        ),
        (replace(OPEN, profile="paced", opens_in_seconds=11_493.5), Closing.PACED),
        (replace(OPEN, opens_in_seconds=3), Closing.NO_PERMIT),
        (replace(OPEN, opens_in_seconds=0.2), None),
        (OPEN, None),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_closed_budget_has_its_code(stand: Stand, budget: BudgetState, code: Closing | None) -> None:
    run = runs.get(stand.run.id)
    still = RunFacts(run, run.started_at + timedelta(seconds=1), budget)

    found = why.why(still)

    assert (found.code if found else None) == code
    assert "11493" not in (found.what if found else "")


# --- in words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", Reason)
def test_every_code_has_a_sentence_and_stands_in_the_docs(code: Reason) -> None:
    said = words(Why(code, what="{what}", repair="{it}", until=NOW + timedelta(seconds=11_493), number=12_345), NOW)
    assert said
    assert "11,493" not in said
    assert f"| `{code}` |" in (ROOT / "docs" / "operations.md").read_text()


def test_every_closing_of_a_budget_is_a_reason() -> None:
    assert {code.value for code in Closing} < {code.value for code in Reason}


def test_no_other_module_words_why_a_run_waits() -> None:
    made = [path.name for path in Path(ROOT / "workers").rglob("*.py") if "Why(Reason." in path.read_text()]
    assert made == ["why.py"]


def test_the_log_says_a_reason_once_when_two_looks_have_found_it_and_when_it_is_over(stand: Stand, caplog: Any) -> None:
    # Given a run that no worker works on
    caplog.set_level("INFO", logger="workers.reports.why_log")
    pending(stand)
    log = WhyLog()

    # When it is looked at, as at the start of a fleet, whose workers come a moment later
    log.check()
    assert caplog.messages == []

    # Then it is said when that lasts, once
    for _ in range(3):
        log.check()
    said = (
        f"run {stand.run.id} of items makes no progress (no_worker): no worker runs; start `python -m workers worker`"
    )
    assert caplog.messages == [said]

    # And when it is over
    works(stand)
    stand.set(started_at=clock.now(), discovered_at=clock.now())
    log.check()
    assert caplog.messages[1:] == [f"run {stand.run.id} of items makes progress again"]


def test_the_log_leaves_out_what_ends_by_itself(stand: Stand, caplog: Any) -> None:
    caplog.set_level("INFO", logger="workers.reports.why_log")
    items_back_off(stand)
    log = WhyLog()

    for _ in range(3):
        log.check()

    assert caplog.messages == []
