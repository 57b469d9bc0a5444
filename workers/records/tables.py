"""Sluice's own tables and their statuses. They sit in the package, so that a project may have a models.py of its own.

Only `runs`, `items` and `lanes` write to them, `schedules`, `watermark`, `samples` and `old_rows` to their own.
"""

from enum import StrEnum
from typing import Any

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    CompositeKey,
    FloatField,
    IntegerField,
    JSONField,
    Model,
    TextField,
)

from workers import clock
from workers.connections.database import UTCDateTimeField, db
from workers.cron import CatchUp


class RunStatus(StrEnum):
    """Where a run stands."""

    #: Waits for its time.
    SCHEDULED = "scheduled"
    #: Its time has come, and another run of its source and tenant is active.
    PENDING = "pending"
    #: Discovery or lanes are at work.
    RUNNING = "running"
    #: Held by a person; nothing is claimed.
    PAUSED = "paused"
    #: Every item has ended. Some may have failed.
    COMPLETED = "completed"
    #: It could not go on: the list could not be read, or everything was refused.
    FAILED = "failed"
    #: Called off by a person or by the scheduler. Its items stay as they were.
    CANCELLED = "cancelled"


ACTIVE = (RunStatus.RUNNING, RunStatus.PAUSED)
ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)

#: Every legal transition, and how it happens.
TRANSITIONS: dict[tuple[RunStatus, RunStatus], str] = {
    (RunStatus.SCHEDULED, RunStatus.PENDING): "Its time has come, or somebody pulled it forward.",
    (RunStatus.SCHEDULED, RunStatus.CANCELLED): "Somebody called it off before its time.",
    (RunStatus.PENDING, RunStatus.RUNNING): "No other run of its source and tenant is active.",
    (RunStatus.PENDING, RunStatus.CANCELLED): "Somebody called it off before its turn.",
    (RunStatus.RUNNING, RunStatus.PAUSED): "Somebody paused it; lanes stop at their next item.",
    (RunStatus.RUNNING, RunStatus.COMPLETED): "Finalize found no item left that can change.",
    (
        RunStatus.RUNNING,
        RunStatus.FAILED,
    ): "Its list cannot be read, all is refused, or a row cannot be removed.",
    (RunStatus.RUNNING, RunStatus.CANCELLED): "Somebody called it off; lanes stop at their next item.",
    (RunStatus.PAUSED, RunStatus.RUNNING): "Somebody resumed it.",
    (RunStatus.PAUSED, RunStatus.CANCELLED): "Somebody called it off while it was paused.",
    (RunStatus.COMPLETED, RunStatus.PENDING): "Somebody asked for its failed items again.",
    (RunStatus.FAILED, RunStatus.PENDING): "Somebody asked for its failed items, or its list, again.",
}


class ItemStatus(StrEnum):
    """Where one item of a run stands."""

    #: Waits to be claimed from `due_at` on.
    PENDING = "pending"
    #: Claimed until `due_at`; from then on its claimer is taken for dead.
    PROCESSING = "processing"
    #: Fetched and saved.
    COMPLETED = "completed"
    #: Not wanted, says the source.
    SKIPPED = "skipped"
    #: Given up, with a class and a reason.
    FAILED = "failed"


OPEN = (ItemStatus.PENDING, ItemStatus.PROCESSING)

#: Said literally, SQLite sees that a partial index of items will do; of a bound value it cannot know.
IS_OPEN = SQL("status IN ('pending', 'processing')")
HAS_FAILED = SQL("status = 'failed'")
#: How the external id of the item ends that stands for list pages that could not be had.
MISSING = ", and what follows"


def _now() -> Any:
    return clock.now()


class Table(Model):
    class Meta:
        database = db
        legacy_table_names = False


class Run(Table):
    """One execution of a source."""

    id = BigAutoField()
    kind = CharField(max_length=20, default="import")
    source = CharField(max_length=60)
    tenant = CharField(max_length=100, null=True)
    status = CharField(max_length=20)
    scheduled_at = UTCDateTimeField(null=True)
    #: The schedule that made it, and for which of its slots; null: a person asked for it.
    schedule_id = BigIntegerField(null=True)
    slot_at = UTCDateTimeField(null=True)
    started_at = UTCDateTimeField(null=True)
    ended_at = UTCDateTimeField(null=True)
    total_count = IntegerField(null=True)
    succeeded_count = IntegerField(default=0)
    failed_count = IntegerField(default=0)
    skipped_count = IntegerField(default=0)
    #: What its list did to the user's rows.
    rows_created = IntegerField(default=0)
    rows_updated = IntegerField(default=0)
    rows_unchanged = IntegerField(default=0)
    discovery_cursor = JSONField(null=True)
    discovery_attempts = IntegerField(default=0)
    discovery_due_at = UTCDateTimeField(null=True)
    discovered_at = UTCDateTimeField(null=True)
    lanes = IntegerField()
    priority = IntegerField(default=0)
    options = JSONField(default=dict)
    error_summary = TextField(null=True)
    rate_limit_hits_count = IntegerField(default=0)
    rate_limit_sleeps_count = IntegerField(default=0)
    total_sleep_seconds = FloatField(default=0.0)
    #: For how long nothing could work on it: no worker, no Redis, no database.
    idle_seconds = FloatField(default=0.0)
    #: Requests that were sent for it, list pages and repeated ones included.
    requests_count = IntegerField(default=0)
    #: How many answers in a row refused the credentials, over all lanes.
    auth_failures_in_a_row = IntegerField(default=0)
    finalize_attempts = IntegerField(default=0)
    last_finalize_attempt_at = UTCDateTimeField(null=True)
    metadata = JSONField(default=dict)
    #: When its items were removed for their age; its counts stay.
    items_removed_at = UTCDateTimeField(null=True)
    created_by = CharField(max_length=100)
    created_at = UTCDateTimeField(default=_now)
    updated_at = UTCDateTimeField(default=_now)

    @property
    def stands_for_its_slot(self) -> bool:
        """Whether it is its schedule's: one that a person has moved, or asked for, is the person's."""
        return bool(self.slot_at is not None and self.scheduled_at == self.slot_at)

    class Meta:
        table_name = "sluice_runs"


#: The same in SQL.
STANDS_FOR_ITS_SLOT = Run.scheduled_at == Run.slot_at
#: Said literally, as the statuses of items above.
IS_AHEAD = SQL("status IN ('scheduled', 'pending')")
#: What people call a run, as far as its own row tells: `stats` makes *overdue* and *pausing* of two of them.
LABEL = SQL(
    "(CASE WHEN status = 'completed' AND failed_count > 0 THEN 'completed with failures' "
    "WHEN status = 'cancelled' AND slot_at IS NOT NULL AND started_at IS NULL THEN 'skipped' ELSE status END)"
)

Run.add_index(Run.index(Run.status, Run.scheduled_at, name="sluice_runs_status"))
Run.add_index(Run.index(Run.source, Run.id, name="sluice_runs_of_source"))
Run.add_index(Run.index(Run.created_at, name="sluice_runs_created"))
Run.add_index(SQL(f"CREATE INDEX IF NOT EXISTS sluice_runs_label ON sluice_runs ({LABEL.sql}, id)"))
Run.add_index(SQL(f"CREATE INDEX IF NOT EXISTS sluice_runs_label_of_source ON sluice_runs (source, {LABEL.sql}, id)"))
Run.add_index(
    SQL("CREATE INDEX IF NOT EXISTS sluice_runs_of_tenant ON sluice_runs (tenant, id) WHERE tenant IS NOT NULL")
)
Run.add_index(
    SQL(
        "CREATE UNIQUE INDEX IF NOT EXISTS sluice_runs_one_active ON sluice_runs (source, coalesce(tenant, '')) "
        "WHERE status IN ('running', 'paused')"
    )
)
Run.add_index(
    SQL(
        "CREATE UNIQUE INDEX IF NOT EXISTS sluice_runs_slot ON sluice_runs (schedule_id, slot_at) "
        "WHERE schedule_id IS NOT NULL"
    )
)
Run.add_index(
    SQL(
        "CREATE UNIQUE INDEX IF NOT EXISTS sluice_runs_one_future ON sluice_runs (schedule_id) "
        "WHERE status = 'scheduled' AND scheduled_at = slot_at"
    )
)
Run.add_index(
    SQL(
        "CREATE INDEX IF NOT EXISTS sluice_runs_ahead ON sluice_runs (schedule_id) "
        "WHERE status IN ('scheduled', 'pending')"
    )
)
Run.add_index(
    SQL(
        "CREATE INDEX IF NOT EXISTS sluice_runs_old_items ON sluice_runs (ended_at, id) "
        "WHERE ended_at IS NOT NULL AND items_removed_at IS NULL"
    )
)
Run.add_index(
    SQL(
        "CREATE INDEX IF NOT EXISTS sluice_runs_bare ON sluice_runs (ended_at, id) "
        "WHERE ended_at IS NOT NULL AND items_removed_at IS NOT NULL"
    )
)


class RunItem(Table):
    """One thing in a run that succeeds or fails by itself; it points at a row of any model."""

    id = BigAutoField()
    run_id = BigIntegerField()
    item_type = CharField(max_length=100, null=True)
    item_id = CharField(max_length=255, null=True)
    external_id = CharField(max_length=255)
    status = CharField(max_length=20, default=ItemStatus.PENDING)
    attempts = IntegerField(default=0)
    due_at = UTCDateTimeField()
    last_failed_at = UTCDateTimeField(null=True)
    failure_class = CharField(max_length=20, null=True)
    failure_reason = TextField(null=True)
    #: What failures of one kind have in common: see `failures.fingerprint`.
    failure_fingerprint = CharField(max_length=12, null=True)
    failure_count = IntegerField(default=0)
    completed_at = UTCDateTimeField(null=True)
    metadata = JSONField(null=True)

    class Meta:
        table_name = "sluice_run_items"


RunItem.add_index(RunItem.index(RunItem.run_id, RunItem.external_id, unique=True, name="sluice_run_items_identity"))
RunItem.add_index(RunItem.index(RunItem.item_type, RunItem.item_id, name="sluice_run_items_item"))
RunItem.add_index(
    SQL(
        "CREATE INDEX IF NOT EXISTS sluice_run_items_claim ON sluice_run_items (run_id, status, due_at, id) "
        "WHERE status IN ('pending', 'processing')"
    )
)
RunItem.add_index(
    SQL(
        "CREATE INDEX IF NOT EXISTS sluice_run_items_finished ON sluice_run_items (run_id, completed_at) "
        "WHERE completed_at IS NOT NULL"
    )
)
RunItem.add_index(
    SQL(
        "CREATE INDEX IF NOT EXISTS sluice_run_items_failures ON sluice_run_items "
        "(run_id, failure_class, failure_fingerprint, id) WHERE status = 'failed'"
    )
)


class Lane(Table):
    """One strand of a run's detail work. Its message carries its turn; a message of another turn does nothing."""

    id = BigAutoField()
    run_id = BigIntegerField()
    lane = IntegerField()
    turn = IntegerField(default=0)
    #: When its next message should have been heard of; null: the lane has ended.
    due_at = UTCDateTimeField(null=True)
    #: How many of its turns in a row ended in an error, and what the last of them was.
    crashes = IntegerField(default=0)
    crash_reason = TextField(null=True)

    class Meta:
        table_name = "sluice_lanes"


Lane.add_index(Lane.index(Lane.run_id, Lane.lane, unique=True, name="sluice_lanes_identity"))


class ListPage(Table):
    """A page that a run has read of its list, until the list has ended: none is to come again."""

    run_id = BigIntegerField()
    #: Digests: of the cursor that it was asked for with, and of its items; null: it had none.
    cursor = CharField(max_length=16)
    digest = CharField(max_length=16, null=True)
    #: Which page of the run it was, from 1.
    number = IntegerField()

    class Meta:
        table_name = "sluice_list_pages"
        primary_key = CompositeKey("run_id", "cursor")


ListPage.add_index(ListPage.index(ListPage.run_id, ListPage.digest, name="sluice_list_pages_digest"))


class RunEvent(Table):
    """Who did what to which run, when, from which door."""

    id = BigAutoField()
    run_id = BigIntegerField(index=True)
    at = UTCDateTimeField(default=_now)
    what = CharField(max_length=40)
    who = CharField(max_length=100)
    door = CharField(max_length=20)
    detail = TextField(null=True)

    class Meta:
        table_name = "sluice_run_events"


class Sample(Table):
    """A run's counters at a time, for charts: totals since its beginning, so that rows in between may go."""

    run_id = BigIntegerField()
    #: Which two seconds since 1970: one row in each, whoever writes it.
    slot = BigIntegerField()
    at = UTCDateTimeField()
    succeeded = IntegerField()
    failed = IntegerField()
    skipped = IntegerField()
    requests = IntegerField()
    hits = IntegerField()
    sleeps = IntegerField()
    #: Of the sleeps that had ended: one that goes on is told by its budget.
    waiting_seconds = FloatField()

    class Meta:
        table_name = "sluice_samples"
        primary_key = CompositeKey("run_id", "slot")


class RemovalState(StrEnum):
    """How far a fresh run is with the removal of rows that its list does not bring."""

    #: The keys of the rows that are there are being copied, before the first list page is asked for.
    COPYING = "copying"
    #: They are copied; the list is read, and the items are imported.
    COPIED = "copied"
    #: The list was whole: the rows that it did not bring are being removed.
    REMOVING = "removing"
    #: Nothing is left to be removed, or nothing may be.
    OVER = "over"


class Removal(Table):
    """The removal at the end of a fresh run: how far it is, and who is at it."""

    run_id = BigIntegerField(primary_key=True)
    state = CharField(max_length=20, default=RemovalState.COPYING)
    #: The last key that was copied or, later, looked at for the removal; null: none yet.
    position = TextField(null=True)
    #: When the lease ends of the process that is removing; null: none is.
    due_at = UTCDateTimeField(null=True)
    removed_count = IntegerField(default=0)
    #: Why nothing may be removed; or, while rows are removed, why the first one could not be.
    reason = TextField(null=True)

    class Meta:
        table_name = "sluice_removals"


class OldRow(Table):
    """A row that a fresh run may remove: it was there before the run's list, and no list has brought it since."""

    run_id = BigIntegerField()
    #: Its primary key as text, as in `RunItem.item_id`.
    item_id = TextField()
    #: Its `unique_by` value when the run began: SQLite may give the primary key to another row.
    row_key = TextField()

    class Meta:
        table_name = "sluice_old_rows"
        primary_key = CompositeKey("run_id", "item_id")


class BudgetRow(Table):
    """What outlives Redis of one budget."""

    name = TextField(primary_key=True)
    #: No request that was sent before this is next moved can be counted by the API later; null: none was ever sent.
    counts_until = UTCDateTimeField(null=True)
    #: The longest time for which a permit of it counts that is never answered.
    longest_ttl_seconds = FloatField(default=0.0)
    profile = TextField(default="")
    profile_why = TextField(default="")
    widened_seconds = FloatField(default=0.0)
    #: When that was learned, or forgotten; after how long without a refusal it is forgotten.
    learned_at = UTCDateTimeField(null=True)
    lesson_lasts_seconds = FloatField(default=0.0)
    #: The end of a long pause that the API asked for.
    paused_until = UTCDateTimeField(null=True)
    paused_why = TextField(default="")
    updated_at = UTCDateTimeField(default=_now)

    class Meta:
        table_name = "sluice_budgets"


class Schedule(Table):
    """When a source, for a tenant or for none, is run by itself."""

    id = BigAutoField()
    source = CharField(max_length=60)
    tenant = CharField(max_length=100, null=True)
    #: Five fields, read in `timezone`: see `cron`.
    cron = CharField(max_length=100)
    timezone = CharField(max_length=60)
    catch_up = CharField(max_length=10, default=CatchUp.LATEST)
    paused_at = UTCDateTimeField(null=True)
    #: What its source declared when that was last taken over; null: only a person made it.
    declared = CharField(max_length=200, null=True)
    #: Whether a person changed it since: then what its source declares is left alone.
    edited = BooleanField(default=False)
    #: Slots at or before it are none of this schedule's: it was made, changed or resumed then.
    since = UTCDateTimeField(default=_now)
    #: Moved with each change and each decision: of two schedulers that decide at once, one gives up.
    version = IntegerField(default=0)
    created_by = CharField(max_length=100)
    created_at = UTCDateTimeField(default=_now)
    updated_by = CharField(max_length=100)
    updated_at = UTCDateTimeField(default=_now)

    class Meta:
        table_name = "sluice_schedules"


Schedule.add_index(
    SQL(
        "CREATE UNIQUE INDEX IF NOT EXISTS sluice_schedules_identity ON sluice_schedules (source, coalesce(tenant, ''))"
    )
)


class ActKey(Table):
    """An act that was done from a page: see `act_keys`."""

    key = TextField(primary_key=True)
    at = UTCDateTimeField()
    who = CharField(max_length=100)

    class Meta:
        table_name = "sluice_act_keys"


TABLES = (Run, RunItem, Lane, ListPage, RunEvent, Sample, Removal, OldRow, BudgetRow, Schedule, ActKey)

__all__ = [
    "ACTIVE",
    "ENDED",
    "HAS_FAILED",
    "IS_AHEAD",
    "IS_OPEN",
    "LABEL",
    "MISSING",
    "OPEN",
    "STANDS_FOR_ITS_SLOT",
    "TABLES",
    "TRANSITIONS",
    "ActKey",
    "BudgetRow",
    "ItemStatus",
    "Lane",
    "ListPage",
    "OldRow",
    "Removal",
    "RemovalState",
    "Run",
    "RunEvent",
    "RunItem",
    "RunStatus",
    "Sample",
    "Schedule",
]
