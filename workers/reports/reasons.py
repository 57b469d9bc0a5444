"""Reasons: lists the codes of why a run makes no progress. They are stable: programs and scripts compare them."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a run makes no progress now. `why.why` decides it, `why_text.words` words it."""

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

    # A server that it needs is down.
    #: The Redis of the budgets does not answer.
    REDIS_AWAY = "redis_away"
    #: It answers, and refuses writes.
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

    # Its budget is closed; the codes of `budget_text.Closing`.
    #: The API asked for a wait.
    API_PAUSE = "api_pause"
    #: After a pause one request was sent, and the others wait for its answer.
    CANARY = "canary"
    #: A window has no room.
    WINDOW_FULL = "window_full"
    #: State was lost: a window counts requests that could have been sent.
    WINDOW_TAKEN_AS_FULL = "window_taken_as_full"
    #: Requests are sent at a steady rate.
    PACED = "paced"
    #: There is no permit for another reason: requests in flight, a share.
    NO_PERMIT = "no_permit"

    # It waits for a time, or for another run.
    #: Its list page failed, and is requested again later.
    LIST_BACKS_OFF = "list_backs_off"
    #: Its lanes crashed, and continue later.
    LANES_BACK_OFF = "lanes_back_off"
    #: All open items wait for another attempt.
    ITEMS_BACK_OFF = "items_back_off"
    #: A run of higher priority goes first.
    GIVES_WAY = "gives_way"

    # It works without visible progress.
    #: A fresh run records which rows exist.
    NOTES_ROWS = "notes_rows"
    #: A fresh run removes rows that are no longer in its list.
    REMOVES_ROWS = "removes_rows"
    #: Every item has ended, and the run is about to be completed.
    FINALIZING = "finalizing"
    #: A list page is being requested; if its worker died, it is requested again when the lease ends.
    LIST_CLAIMED = "list_claimed"
    #: Items are being requested; if their worker died, they are requested again when their leases end.
    ITEMS_CLAIMED = "items_claimed"

    # Its messages have not reached a worker.
    #: All threads of all workers are busy with other messages.
    THREADS_BUSY = "threads_busy"
    #: Its messages are in the queue; those that were lost are sent again.
    QUEUED = "queued"
    #: Its messages were lost, and the scheduler sends them again.
    LANES_SILENT = "lanes_silent"
    #: Its messages were lost, and no scheduler runs to send them again.
    NO_SCHEDULER = "no_scheduler"

    #: None of the above, and still no progress for some seconds.
    UNKNOWN = "unknown"


#: Those that last until a person acts.
NEEDS_A_PERSON = frozenset(
    {
        *(Reason.OVERDUE, Reason.REDIS_AWAY, Reason.REDIS_REFUSES, Reason.BROKER_AWAY, Reason.DATABASE_AWAY),
        *(Reason.NO_WORKER, Reason.WORKERS_STOPPING, Reason.SOURCE_NOT_ON_WORKERS, Reason.SOURCE_UNKNOWN),
        *(Reason.BUDGET_UNKNOWN, Reason.NO_SCHEDULER, Reason.UNKNOWN),
    }
)
