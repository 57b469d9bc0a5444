"""fetch_details(run_id, lane, turn): work one turn of a lane, and announce the next."""

from workers.connections import database
from workers.engine import lane_crash
from workers.engine.finalize import tidy_up
from workers.engine.lane_turn import Turn
from workers.errors import BudgetClosed, LongWait, Refused
from workers.messaging import broadcast, broker
from workers.records import items, lanes, priority, runs
from workers.records.tables import ENDED, Run, RunStatus
from workers.settings import get_settings

#: How long a lane that could claim nothing stays away at least.
_IDLE_SECONDS = 0.5
#: How long a lane stays away that gives way to a run of higher priority.
_GIVE_WAY_SECONDS = 1.0


def fetch_details(run_id: int, lane: int, turn: int) -> None:
    """Work one turn of a lane, and announce the next.

    Raises:
      BudgetClosed, Refused: The budget is closed for long. The lane is rewound: the middleware sends this very message
        again.

    Any other error counts: see `lane_crash`.
    """
    settings = get_settings()
    if not lanes.start_turn(run_id, lane, turn, settings.lane_lease_seconds):
        return
    heard = broadcast.received()  # before the look at the run: what comes between the two is not missed
    run = runs.get(run_id)
    if run.status != RunStatus.RUNNING or lane >= run.lanes:
        lanes.end(run_id, lane, turn + 1)
        return
    if lane and priority.first_on_its_budget(run):
        _come_back(run_id, lane, turn + 1, _GIVE_WAY_SECONDS)
        return
    try:
        at_work = _work(run, lane, turn, heard)
    except LongWait as wait:
        runs.pause_because(run_id, str(wait))
        lanes.end(run_id, lane, turn + 1)
    except (BudgetClosed, Refused) as wait:
        if lanes.rewind(run_id, lane, turn, wait.wait_seconds):
            raise
    except BaseException as error:
        wait_seconds = lane_crash.count(run, lane, turn + 1, error)
        if wait_seconds is not None:
            _come_back(run_id, lane, turn + 1, wait_seconds)
    else:
        _go_on(run, lane, turn + 1, at_work)


def _go_on(run: Run, lane: int, turn: int, at_work: Turn) -> None:
    """Announce the lane's next turn, or end it."""
    if at_work.status is RunStatus.RUNNING:
        _announce(run.id, lane, turn, at_least_seconds=_IDLE_SECONDS if at_work.idle else 0.0)
        return
    lanes.end(run.id, lane, turn)
    if at_work.status in ENDED:
        tidy_up(run)


def _work(run: Run, lane: int, turn: int, heard: int) -> Turn:
    at_work = Turn(run, lane, turn, heard)
    try:
        at_work.work()
    finally:
        at_work.close()
    if at_work.has_worked:
        lanes.worked(run.id, lane)
    return at_work


def _announce(run_id: int, lane: int, turn: int, at_least_seconds: float) -> None:
    due = items.next_due(run_id)
    if due is None:
        lanes.end(run_id, lane, turn)
        broker.send("finalize", run_id)
        return
    _come_back(run_id, lane, turn, max(at_least_seconds, (due - database.now()).total_seconds()))


def _come_back(run_id: int, lane: int, turn: int, wait_seconds: float) -> None:
    if lanes.end_turn(run_id, lane, turn, wait_seconds):
        broker.send("fetch_details", run_id, lane, turn, delay_seconds=wait_seconds)
