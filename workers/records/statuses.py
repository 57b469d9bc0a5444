"""Defines the statuses of runs and items, and every legal change of a run's status."""

from enum import StrEnum


class RunStatus(StrEnum):
    """The status of a run."""

    #: Waits for its scheduled time.
    SCHEDULED = "scheduled"
    #: Due, and waits: another run of its source and tenant is active.
    PENDING = "pending"
    #: Discovery reads the list, or lanes fetch details.
    RUNNING = "running"
    #: Paused by a person or after a long wait that the API asked for; no item is claimed.
    PAUSED = "paused"
    #: Every item has ended. Some may have failed.
    COMPLETED = "completed"
    #: Ended early: the list could not be read, or the API refused the credentials of every request.
    FAILED = "failed"
    #: Cancelled by a person or by the scheduler. Its items keep their statuses.
    CANCELLED = "cancelled"


ACTIVE = (RunStatus.RUNNING, RunStatus.PAUSED)
ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)

#: Every legal transition, and its cause.
TRANSITIONS: dict[tuple[RunStatus, RunStatus], str] = {
    (RunStatus.SCHEDULED, RunStatus.PENDING): "Its scheduled time has come, or a person started it earlier.",
    (RunStatus.SCHEDULED, RunStatus.CANCELLED): "A person cancelled it before its scheduled time.",
    (RunStatus.PENDING, RunStatus.RUNNING): "No other run of its source and tenant is active.",
    (RunStatus.PENDING, RunStatus.CANCELLED): "A person cancelled it before it started.",
    (RunStatus.RUNNING, RunStatus.PAUSED): "A person paused it; each lane stops at its next item.",
    (RunStatus.RUNNING, RunStatus.COMPLETED): "Finalize found no item that can still change.",
    (
        RunStatus.RUNNING,
        RunStatus.FAILED,
    ): "Its list cannot be read, the API refuses the credentials, or a row cannot be removed.",
    (RunStatus.RUNNING, RunStatus.CANCELLED): "A person cancelled it; each lane stops at its next item.",
    (RunStatus.PAUSED, RunStatus.RUNNING): "A person resumed it.",
    (RunStatus.PAUSED, RunStatus.CANCELLED): "A person cancelled it while it was paused.",
    (RunStatus.COMPLETED, RunStatus.PENDING): "A person retried its failed items.",
    (RunStatus.FAILED, RunStatus.PENDING): "A person retried its failed items, or its list.",
}


class ItemStatus(StrEnum):
    """The status of one item of a run."""

    #: Can be claimed from `due_at` on.
    PENDING = "pending"
    #: Claimed until `due_at`; after that the claim has expired, and the item can be claimed again.
    PROCESSING = "processing"
    #: Fetched and saved.
    COMPLETED = "completed"
    #: Not wanted: the source raised Skip.
    SKIPPED = "skipped"
    #: No attempt is left; it has a failure class and a reason.
    FAILED = "failed"


OPEN = (ItemStatus.PENDING, ItemStatus.PROCESSING)
