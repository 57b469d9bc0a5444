"""Works one turn of a lane, and announces the lane's next message.

The walk of an item, top to bottom:

1. begin     `fetch_details`: the message moves its lane to the next turn; a duplicate is dropped. The run's row is
             read, once a turn. A lane that is not needed any more ends; one of an unknown source is left to other
             workers; one of lower priority comes back a second later.
2. turn      `_work_turn`, `lane_turn.Turn.work`: batches, for about a second.
3. reserve   `Turn._reserve`: a permit, before items are claimed for it.
4. claim     `lane_claim.LaneClaim.take`: due items become `processing` until the lease ends; their rows are loaded.
5. fetch     `attempt.attempt`: a permit, the detail request.
6. fill      `attempt._fetch_and_fill`: `populate_from_api_response`; nothing is saved yet. `attempt._outcome_of` sorts
             errors; after a refusal, `Turn._after_refusal` decides whose it is.
7. commit    `LaneClaim.commit`: rows, item statuses and the run's counters in one transaction (`commits.commit`).
8. give back `LaneClaim.end`: items of the batch that were not attempted are due again, their attempts refunded.
9. announce  `_announce`: the lane's next message, for when its earliest open item is due; if none is open, `finalize`.
"""

from workers.connections import database
from workers.engine import lane_crash, unknown_source
from workers.engine.finalize import tidy_up
from workers.engine.lane_turn import Turn
from workers.errors import BudgetClosed, LongWait, Refused
from workers.messaging import broadcast, broker
from workers.records import items, lanes, priority, runs
from workers.records.tables import ENDED, Run, RunStatus
from workers.settings import get_settings

#: Shortest wait of a lane that could claim nothing.
_IDLE_SECONDS = 0.5
#: Wait of a lane that gives way to a run of higher priority.
_GIVE_WAY_SECONDS = 1.0


def fetch_details(run_id: int, lane: int, turn: int) -> None:
    """Work one turn of a lane, and announce the next.

    Parameters:
      run_id(int), lane(int): The lane.
      turn(int): The turn to begin; of messages with the same turn only the first takes effect.

    Raises:
      BudgetClosed, Refused: The budget is closed for long. The lane is rewound, and the middleware sends this message
        again.

    Any other error is counted as a crash of the lane: see `lane_crash`.
    """
    if not lanes.start_turn(run_id, lane, turn, get_settings().lane_lease_seconds):
        return
    notices_seen = broadcast.received()  # before the run is read: a notice between the two is not missed
    run = runs.get(run_id)
    if run.status != RunStatus.RUNNING or lane >= run.lanes:
        lanes.end(run_id, lane, turn + 1)
        return
    if unknown_source.is_unknown(run):
        _come_back(run_id, lane, turn + 1, unknown_source.wait_seconds(run))
        return
    if lane and priority.first_on_its_budget(run):
        _come_back(run_id, lane, turn + 1, _GIVE_WAY_SECONDS)
        return
    try:
        worked = _work_turn(run, lane, turn, notices_seen)
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
        _end_turn(run, lane, turn + 1, worked)


def _work_turn(run: Run, lane: int, turn: int, notices_seen: int) -> Turn:
    """Work a turn, and close it however it ends."""
    work = Turn(run, lane, turn, notices_seen)
    try:
        work.work()
    finally:
        work.close()
    if work.has_worked:
        lanes.worked(run.id, lane)
    return work


def _end_turn(run: Run, lane: int, next_turn: int, worked: Turn) -> None:
    """Announce the lane's next turn; end the lane if the run was stopped or has ended."""
    if worked.status is RunStatus.RUNNING:
        _announce(run.id, lane, next_turn, at_least_seconds=_IDLE_SECONDS if worked.idle else 0.0)
        return
    lanes.end(run.id, lane, next_turn)
    if worked.status in ENDED:
        tidy_up(run)


def _announce(run_id: int, lane: int, next_turn: int, at_least_seconds: float) -> None:
    """Send the lane's next message for when its earliest open item is due; if none is open, end the lane."""
    due = items.next_due(run_id)
    if due is None:
        lanes.end(run_id, lane, next_turn)
        broker.send("finalize", run_id)
        return
    _come_back(run_id, lane, next_turn, max(at_least_seconds, (due - database.now()).total_seconds()))


def _come_back(run_id: int, lane: int, next_turn: int, wait_seconds: float) -> None:
    """Send the lane's next message, unless another message has overtaken the lane."""
    if lanes.end_turn(run_id, lane, next_turn, wait_seconds):
        broker.send("fetch_details", run_id, lane, next_turn, delay_seconds=wait_seconds)
