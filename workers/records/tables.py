"""Defines Sluice's own database tables. Only modules of `records/`, and `scheduling/schedules`, write to them."""

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
from workers.records.statuses import ACTIVE, ENDED, OPEN, TRANSITIONS, ItemStatus, RunStatus

#: The index that allows one active run for each source and tenant; databases name it in their errors.
ONE_ACTIVE_INDEX = "sluice_runs_one_active"

#: Written as literals: SQLite uses a partial index for a literal, but not for a bound value.
IS_OPEN = SQL("status IN ('pending', 'processing')")
HAS_FAILED = SQL("status = 'failed'")
#: The end of the external id of the item that stands for the list pages that could not be read.
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
    #: The schedule that made it, and its slot; null: a person started it.
    schedule_id = BigIntegerField(null=True)
    slot_at = UTCDateTimeField(null=True)
    started_at = UTCDateTimeField(null=True)
    ended_at = UTCDateTimeField(null=True)
    total_count = IntegerField(null=True)
    succeeded_count = IntegerField(default=0)
    failed_count = IntegerField(default=0)
    skipped_count = IntegerField(default=0)
    #: How many of the user's rows its list created, updated and left unchanged.
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
    #: How long no process could work on it: no worker ran, or Redis or the database was away.
    idle_seconds = FloatField(default=0.0)
    #: Requests sent for it, list pages and retries included.
    requests_count = IntegerField(default=0)
    #: How many responses in a row, over all lanes, refused the credentials.
    auth_failures_in_a_row = IntegerField(default=0)
    finalize_attempts = IntegerField(default=0)
    last_finalize_attempt_at = UTCDateTimeField(null=True)
    metadata = JSONField(default=dict)
    #: When retention removed its items; its counts stay.
    items_removed_at = UTCDateTimeField(null=True)
    created_by = CharField(max_length=100)
    created_at = UTCDateTimeField(default=_now)
    updated_at = UTCDateTimeField(default=_now)

    @property
    def stands_for_its_slot(self) -> bool:
        """Whether its schedule controls it: a run that a person started, or moved to another time, is not."""
        return bool(self.slot_at is not None and self.scheduled_at == self.slot_at)

    class Meta:
        table_name = "sluice_runs"


#: `Run.stands_for_its_slot` in SQL.
STANDS_FOR_ITS_SLOT = Run.scheduled_at == Run.slot_at
#: Written as a literal, as `IS_OPEN`.
IS_AHEAD = SQL("status IN ('scheduled', 'pending')")
#: How the error summary begins of a run whose slot was overtaken: a newer slot got a run in its place.
OVERTAKEN = "overtaken"
#: What people call a run, as far as its own row decides it: `reports.labels` adds *overdue* and *pausing*.
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
        f"CREATE UNIQUE INDEX IF NOT EXISTS {ONE_ACTIVE_INDEX} ON sluice_runs (source, coalesce(tenant, '')) "
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
    """One thing in a run that succeeds or fails on its own. It refers to a row of any model."""

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
    #: The same for failures of the same kind: see `failures.fingerprint`.
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
    """One sequence of detail requests of a run. Its message carries a turn number; an outdated message does nothing."""

    id = BigAutoField()
    run_id = BigIntegerField()
    lane = IntegerField()
    turn = IntegerField(default=0)
    #: When its next turn is due; null: the lane has ended.
    due_at = UTCDateTimeField(null=True)
    #: How many turns in a row ended in an error, and the last error.
    crashes = IntegerField(default=0)
    crash_reason = TextField(null=True)

    class Meta:
        table_name = "sluice_lanes"


Lane.add_index(Lane.index(Lane.run_id, Lane.lane, unique=True, name="sluice_lanes_identity"))


class ListPage(Table):
    """A list page that a run has read, kept until the list has ended: a page that comes twice is an endless list."""

    run_id = BigIntegerField()
    #: Digests of its cursor and of its items; null: it had no items.
    cursor = CharField(max_length=16)
    digest = CharField(max_length=16, null=True)
    #: The number of the page, from 1.
    number = IntegerField()

    class Meta:
        table_name = "sluice_list_pages"
        primary_key = CompositeKey("run_id", "cursor")


ListPage.add_index(ListPage.index(ListPage.run_id, ListPage.digest, name="sluice_list_pages_digest"))


class RunEvent(Table):
    """One line of a run's timeline: who did what, when, from where."""

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
    """A run's counters at one time, for charts: totals since its start, so that rows in between can be removed."""

    run_id = BigIntegerField()
    #: The number of a slot of two seconds since 1970; a run has at most one row for each slot.
    slot = BigIntegerField()
    at = UTCDateTimeField()
    succeeded = IntegerField()
    failed = IntegerField()
    skipped = IntegerField()
    requests = IntegerField()
    hits = IntegerField()
    sleeps = IntegerField()
    #: Only waits that have ended; a current wait is in the state of its budget.
    waiting_seconds = FloatField()

    class Meta:
        table_name = "sluice_samples"
        primary_key = CompositeKey("run_id", "slot")


class RemovalState(StrEnum):
    """The progress of a fresh run's removal of rows that are not in its list."""

    #: The keys of the existing rows are being copied, before the first list page is requested.
    COPYING = "copying"
    #: The keys are copied; the list is read and the items are imported.
    COPIED = "copied"
    #: The list was complete: the rows that are not in it are being removed.
    REMOVING = "removing"
    #: Nothing is left to remove, or nothing may be removed.
    OVER = "over"


class Removal(Table):
    """The removal at the end of a fresh run: its progress, and its lease."""

    run_id = BigIntegerField(primary_key=True)
    state = CharField(max_length=20, default=RemovalState.COPYING)
    #: The last key that was copied or, later, checked for removal; null: none yet.
    position = TextField(null=True)
    #: When the lease of the process that removes rows ends; null: no process has it.
    due_at = UTCDateTimeField(null=True)
    removed_count = IntegerField(default=0)
    #: Why nothing may be removed; while rows are removed: why the first row could not be removed.
    reason = TextField(null=True)

    class Meta:
        table_name = "sluice_removals"


class OldRow(Table):
    """A row that a fresh run can remove: it existed when the run began, and no list has contained it since."""

    run_id = BigIntegerField()
    #: Its primary key as text, as in `RunItem.item_id`.
    item_id = TextField()
    #: Its `unique_by` value when the run began: SQLite can give its primary key to another row later.
    row_key = TextField()

    class Meta:
        table_name = "sluice_old_rows"
        primary_key = CompositeKey("run_id", "item_id")


class BudgetRow(Table):
    """What a budget must remember when Redis loses its data."""

    name = TextField(primary_key=True)
    #: The watermark: after this time the API counts no request sent so far; null: no request was ever sent.
    counts_until = UTCDateTimeField(null=True)
    #: The longest time that one of its permits counts if no response comes.
    longest_ttl_seconds = FloatField(default=0.0)
    profile = TextField(default="")
    profile_why = TextField(default="")
    widened_seconds = FloatField(default=0.0)
    #: When the profile was learned or reset, and after how long without a refusal it is reset.
    learned_at = UTCDateTimeField(null=True)
    lesson_lasts_seconds = FloatField(default=0.0)
    #: The end of a long pause that the API asked for.
    paused_until = UTCDateTimeField(null=True)
    paused_why = TextField(default="")
    updated_at = UTCDateTimeField(default=_now)

    class Meta:
        table_name = "sluice_budgets"


class Schedule(Table):
    """When a source, for a tenant or for none, runs automatically."""

    id = BigAutoField()
    source = CharField(max_length=60)
    tenant = CharField(max_length=100, null=True)
    #: Five fields, read in `timezone`: see `cron`.
    cron = CharField(max_length=100)
    timezone = CharField(max_length=60)
    catch_up = CharField(max_length=10, default=CatchUp.LATEST)
    paused_at = UTCDateTimeField(null=True)
    #: The declaration of its source when it was last applied; null: a person made the schedule.
    declared = CharField(max_length=200, null=True)
    #: Whether a person has changed it since: then the declaration in the source is not applied any more.
    edited = BooleanField(default=False)
    #: When it was made, changed or resumed: earlier slots do not belong to it.
    since = UTCDateTimeField(default=_now)
    #: Incremented by each change and each decision: of two schedulers that decide at once, one gives up.
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
    """The idempotency key of an action on the page: see `idempotency_keys`."""

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
    "ONE_ACTIVE_INDEX",
    "OPEN",
    "OVERTAKEN",
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
