"""Wakes runs that wait for a budget which has opened earlier than expected.

A lane waits as a delayed message: for hours, where a limit is per day. A budget opens earlier after `relearn`, after
limits are raised in the code, and with a new Redis. `relearn` calls `wake_budget`; the scheduler calls `wake_sleepers`,
which finds the other cases.
"""

import logging
from datetime import datetime, timedelta
from functools import partial

from workers.connections import database, outages
from workers.connections.fault_isolation import isolated
from workers.messaging import broker
from workers.records import claims, cursor, lanes, priority, runs
from workers.records.tables import Run
from workers.reports.budget_states import budget_state_of
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: A lane whose message is due within its lease and this time is not woken: it can be running, or in the queue.
_BEYOND_LEASE_SECONDS = 1.0
#: A budget that opens within this time counts as open.
_OPEN_SECONDS = 1.0


def wake_budget(name: str) -> int:
    """Wake the running runs on a budget, even those that wait for another reason.

    Parameters:
      name(str): Name of the budget.

    Returns:
      int: How many messages were sent. The reaper sends those that failed.
    """
    with database.connection():
        return sum(_wake(run) for run in runs.running() if priority.budget_name(run) == name)


def wake_sleepers() -> int:
    """Wake the runs that have due work and wait, though their budget is open; return how many messages were sent."""
    until = database.now() + timedelta(seconds=get_settings().lane_lease_seconds + _BEYOND_LEASE_SECONDS)
    sleepers = [
        run_id for run_id in runs.running_ids() if isolated(_what(run_id), partial(_sleeps_long, run_id, until))
    ]
    if not sleepers or outages.redis_trouble():
        return 0  # each run would wait for a Redis that hangs
    return sum(isolated(_what(run_id), partial(_wake_early, run_id, until)) or 0 for run_id in sleepers)


def _what(run_id: int) -> str:
    return f"run {run_id} cannot be woken"


def _wake_early(run_id: int, until: datetime) -> int:
    run = runs.get(run_id)
    if not _is_open(run):
        return 0
    log.info("run %d: its budget has opened earlier than expected; its lanes are woken", run_id)
    return _wake(run, until)


def _wake(run: Run, until: datetime | None = None) -> int:
    if run.discovered_at is None:
        return int(cursor.wake_page(run.id) and broker.send("discover", run.id))
    sent = 0
    for message in lanes.wake(run.id, until):
        if not broker.send("fetch_details", *message):
            break  # the reaper sends the others: each would wait for a broker that hangs
        sent += 1
    return sent


def _sleeps_long(run_id: int, until: datetime) -> bool:
    """Whether no message of a run is due until then, though an item, or its list page, could be requested now."""
    run = runs.get(run_id)
    if run.discovered_at is None:
        return cursor.sleeps(run) and run.discovery_due_at > until
    first = lanes.first_due(run.id)
    return first is not None and first > until and claims.is_any_due(run.id, database.now())


def _is_open(run: Run) -> bool:
    state = budget_state_of(run)
    if state is None or not state.known:
        return state is not None  # the first request makes it known: that happens once
    return not state.canary and state.opens_in_seconds < _OPEN_SECONDS
