"""Wake: runs that sleep for a budget ask again at once when it has opened before the time they were given.

Lanes sleep in messages that are delayed, for hours where a limit is a day's. Whatever opens a budget earlier (what the
API taught is forgotten, limits are raised in the code, Redis is made anew) is followed by this, or found by it.
"""

import logging
from datetime import datetime, timedelta
from functools import partial

from workers.connections import database, outages
from workers.connections.fault_isolation import isolated
from workers.messaging import broker
from workers.records import cursor, items, lanes, priority, runs
from workers.records.tables import Run
from workers.reports import run_stats
from workers.settings import get_settings

log = logging.getLogger(__name__)

#: Who comes back sooner than so long after a lane's lease is not woken unasked: it may be at work, or in the queue.
_LONGER_SECONDS = 1.0
#: A budget that opens that soon is open.
_OPEN_SECONDS = 1.0


def wake_budget(name: str) -> int:
    """Wake the running runs on a budget, whatever they wait for.

    Parameters:
      name(str): The budget's.

    Returns:
      int: How many messages were sent. Those that could not be are sent by the reaper.
    """
    with database.connection():
        return sum(_wake(run) for run in runs.running() if priority.budget_name(run) == name)


def wake_sleepers() -> int:
    """Wake the runs that have something to do and sleep on, though their budget is open; return how many messages."""
    until = database.now() + timedelta(seconds=get_settings().lane_lease_seconds + _LONGER_SECONDS)
    sleepers = [run_id for run_id in runs.running_ids() if isolated(_of(run_id), partial(_sleeps_long, run_id, until))]
    if not sleepers or outages.redis_trouble():
        return 0  # a Redis that hangs would be waited for once a run
    return sum(isolated(_of(run_id), partial(_wake_early, run_id, until)) or 0 for run_id in sleepers)


def _of(run_id: int) -> str:
    return f"run {run_id} cannot be woken"


def _wake_early(run_id: int, until: datetime) -> int:
    run = runs.get(run_id)
    if not _is_open(run):
        return 0
    log.info("run %d: its budget has opened earlier than it was to; its lanes are woken", run_id)
    return _wake(run, until)


def _wake(run: Run, until: datetime | None = None) -> int:
    if run.discovered_at is None:
        return int(cursor.wake_page(run.id) and broker.send("discover", run.id))
    sent = 0
    for message in lanes.wake(run.id, until):
        if not broker.send("fetch_details", *message):
            break  # the reaper sends the others: a broker that hangs would be waited for once a lane
        sent += 1
    return sent


def _sleeps_long(run_id: int, until: datetime) -> bool:
    """Whether nothing of a run is expected until then, though an item, or its list, could be asked for now."""
    run = runs.get(run_id)
    if run.discovered_at is None:
        return cursor.sleeps(run) and run.discovery_due_at > until
    first = lanes.first_due(run.id)
    return first is not None and first > until and items.is_any_due(run.id, database.now())


def _is_open(run: Run) -> bool:
    state = run_stats.budget_of(run)
    if state is None or not state.known:
        return state is not None  # who asks first makes it known: that is done once
    return not state.canary and state.opens_in_seconds < _OPEN_SECONDS
