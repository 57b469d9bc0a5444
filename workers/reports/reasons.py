"""Reason: the code that says why a run does not move. Stable: doors, tests and scripts may compare it."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a run does not move now. `why.why` finds it, `why_words` says it."""

    # The run is not running.
    #: Its time has not come.
    SCHEDULED = "scheduled"
    #: Its time has come, and no scheduler has started it.
    OVERDUE = "overdue"
    #: Another run of its source and tenant is active.
    BEHIND = "behind"
    #: No other run is active: it starts in a moment.
    STARTING = "starting"
    #: A person paused it.
    PAUSED = "paused"
    #: It paused itself: its API asked for a long wait, or refused everything.
    PAUSED_ITSELF = "paused_itself"

    # What it stands on is down.
    #: The Redis of the budgets does not answer.
    REDIS_AWAY = "redis_away"
    #: It answers, and refuses to be written.
    REDIS_REFUSES = "redis_refuses"
    #: The broker, a Redis of its own, does not answer.
    BROKER_AWAY = "broker_away"
    #: The workers cannot use the database.
    DATABASE_AWAY = "database_away"

    # No process works on it.
    #: No worker process runs.
    NO_WORKER = "no_worker"
    #: Every worker process was asked to stop, and ends.
    WORKERS_STOPPING = "workers_stopping"
    #: No worker process knows its source: they started before the sources changed.
    SOURCE_NOT_ON_WORKERS = "source_not_on_workers"
    #: Its source is not registered here.
    SOURCE_UNKNOWN = "source_unknown"
    #: `get_connector` of its source raises.
    BUDGET_UNKNOWN = "budget_unknown"

    # Its budget is closed; the codes of `budget_words.Closing`.
    #: The API asked for a wait.
    API_PAUSE = "api_pause"
    #: After a pause one request is out, and the others wait for its answer.
    CANARY = "canary"
    #: A window has no room.
    WINDOW_FULL = "window_full"
    #: State was lost: a window counts what may have been sent.
    WINDOW_TAKEN_AS_FULL = "window_taken_as_full"
    #: Requests leave one by one.
    PACED = "paced"
    #: There is no permit for another reason: requests in flight, a share.
    NO_PERMIT = "no_permit"

    # It waits for a time, or for another run.
    #: Its list page failed, and is asked for again.
    LIST_BACKS_OFF = "list_backs_off"
    #: Its lanes ended in errors, and come back later.
    LANES_BACK_OFF = "lanes_back_off"
    #: All open items wait for another attempt.
    ITEMS_BACK_OFF = "items_back_off"
    #: A run of higher priority goes first.
    GIVES_WAY = "gives_way"

    # It does what shows no progress.
    #: A fresh run notes which rows are there.
    NOTES_ROWS = "notes_rows"
    #: A fresh run removes rows that are no longer in its list.
    REMOVES_ROWS = "removes_rows"
    #: Every item has ended, and it is about to be closed.
    FINALIZING = "finalizing"
    #: A list page is being asked for; a dead worker's comes back when its lease ends.
    LIST_CLAIMED = "list_claimed"
    #: Items are being asked for; a dead worker's come back when their leases end.
    ITEMS_CLAIMED = "items_claimed"

    # Its messages are on their way.
    #: All threads of all workers are busy with other messages.
    THREADS_BUSY = "threads_busy"
    #: Its messages are in the queue; those that were lost are sent again.
    QUEUED = "queued"
    #: Its messages were lost, and the scheduler sends them again.
    LANES_SILENT = "lanes_silent"
    #: Its messages were lost, and no scheduler runs that would send them again.
    NO_SCHEDULER = "no_scheduler"

    #: None of the above, and yet nothing has moved for a while.
    UNKNOWN = "unknown"


#: Those that last until a person has done something.
NEEDS_A_PERSON = frozenset(
    {
        *(Reason.OVERDUE, Reason.REDIS_AWAY, Reason.REDIS_REFUSES, Reason.BROKER_AWAY, Reason.DATABASE_AWAY),
        *(Reason.NO_WORKER, Reason.WORKERS_STOPPING, Reason.SOURCE_NOT_ON_WORKERS, Reason.SOURCE_UNKNOWN),
        *(Reason.BUDGET_UNKNOWN, Reason.NO_SCHEDULER, Reason.UNKNOWN),
    }
)
