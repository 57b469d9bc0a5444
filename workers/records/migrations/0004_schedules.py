"""Schedules, the slots of runs, and retention. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

from peewee import SqliteDatabase

AUTO = {True: "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", False: "BIGSERIAL NOT NULL PRIMARY KEY"}

UP = """
CREATE TABLE sluice_schedules (
    id {auto}, source VARCHAR(60) NOT NULL, tenant VARCHAR(100), cron VARCHAR(100) NOT NULL,
    timezone VARCHAR(60) NOT NULL, catch_up VARCHAR(10) NOT NULL, paused_at TIMESTAMPTZ, declared VARCHAR(200),
    edited BOOLEAN NOT NULL, since TIMESTAMPTZ NOT NULL, version INTEGER NOT NULL, created_by VARCHAR(100) NOT NULL,
    created_at TIMESTAMPTZ NOT NULL, updated_by VARCHAR(100) NOT NULL, updated_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX sluice_schedules_identity ON sluice_schedules (source, coalesce(tenant, ''));
ALTER TABLE sluice_runs ADD COLUMN schedule_id BIGINT;
ALTER TABLE sluice_runs ADD COLUMN slot_at TIMESTAMPTZ;
ALTER TABLE sluice_runs ADD COLUMN items_removed_at TIMESTAMPTZ;
CREATE UNIQUE INDEX sluice_runs_slot ON sluice_runs (schedule_id, slot_at) WHERE schedule_id IS NOT NULL;
CREATE UNIQUE INDEX sluice_runs_one_future ON sluice_runs (schedule_id)
    WHERE status = 'scheduled' AND scheduled_at = slot_at;
CREATE INDEX sluice_runs_ahead ON sluice_runs (schedule_id) WHERE status IN ('scheduled', 'pending');
CREATE INDEX sluice_runs_old_items ON sluice_runs (ended_at, id)
    WHERE ended_at IS NOT NULL AND items_removed_at IS NULL;
CREATE INDEX sluice_runs_bare ON sluice_runs (ended_at, id)
    WHERE ended_at IS NOT NULL AND items_removed_at IS NOT NULL
"""

DOWN = """
DELETE FROM sluice_runs WHERE status = 'scheduled' AND scheduled_at = slot_at;
DROP INDEX sluice_runs_bare;
DROP INDEX sluice_runs_old_items;
DROP INDEX sluice_runs_ahead;
DROP INDEX sluice_runs_one_future;
DROP INDEX sluice_runs_slot;
ALTER TABLE sluice_runs DROP COLUMN items_removed_at;
ALTER TABLE sluice_runs DROP COLUMN slot_at;
ALTER TABLE sluice_runs DROP COLUMN schedule_id;
DROP TABLE sluice_schedules
"""


def up(migrator: Any, db: Any) -> None:
    for statement in UP.format(auto=AUTO[isinstance(db, SqliteDatabase)]).split(";\n"):
        db.execute_sql(statement)


def down(migrator: Any, db: Any) -> None:
    for statement in DOWN.split(";\n"):
        db.execute_sql(statement)
