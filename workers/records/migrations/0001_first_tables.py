"""The first tables. A frozen copy, on purpose: the tables of today live in workers/records/tables.py."""

from typing import Any

from peewee import SqliteDatabase

AUTO = {True: "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", False: "BIGSERIAL NOT NULL PRIMARY KEY"}
JSON = {True: "TEXT", False: "JSONB"}
REAL = {True: "REAL", False: "DOUBLE PRECISION"}

TABLES = """
CREATE TABLE sluice_runs (
    id {auto}, kind VARCHAR(20) NOT NULL, source VARCHAR(60) NOT NULL, tenant VARCHAR(100), status VARCHAR(20) NOT NULL,
    scheduled_at TIMESTAMPTZ, started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ,
    total_count INTEGER, succeeded_count INTEGER NOT NULL, failed_count INTEGER NOT NULL,
    skipped_count INTEGER NOT NULL,
    discovery_cursor {json}, discovery_attempts INTEGER NOT NULL, discovery_due_at TIMESTAMPTZ,
    discovered_at TIMESTAMPTZ,
    lanes INTEGER NOT NULL, priority INTEGER NOT NULL, options {json} NOT NULL, error_summary TEXT,
    rate_limit_hits_count INTEGER NOT NULL, rate_limit_sleeps_count INTEGER NOT NULL,
    total_sleep_seconds {real} NOT NULL,
    finalize_attempts INTEGER NOT NULL, last_finalize_attempt_at TIMESTAMPTZ, metadata {json} NOT NULL,
    created_by VARCHAR(100) NOT NULL, created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX sluice_runs_status ON sluice_runs (status, scheduled_at);
CREATE UNIQUE INDEX sluice_runs_one_active ON sluice_runs (source, coalesce(tenant, ''))
    WHERE status IN ('running', 'paused');
CREATE TABLE sluice_run_items (
    id {auto}, run_id BIGINT NOT NULL, item_type VARCHAR(100), item_id VARCHAR(255), external_id VARCHAR(255) NOT NULL,
    status VARCHAR(20) NOT NULL, attempts INTEGER NOT NULL, due_at TIMESTAMPTZ NOT NULL, last_failed_at TIMESTAMPTZ,
    failure_class VARCHAR(20), failure_reason TEXT, failure_count INTEGER NOT NULL, completed_at TIMESTAMPTZ,
    metadata {json}
);
CREATE UNIQUE INDEX sluice_run_items_identity ON sluice_run_items (run_id, external_id);
CREATE INDEX sluice_run_items_item ON sluice_run_items (item_type, item_id);
CREATE INDEX sluice_run_items_claim ON sluice_run_items (run_id, status, due_at, id)
    WHERE status IN ('pending', 'processing');
CREATE INDEX sluice_run_items_finished ON sluice_run_items (run_id, completed_at) WHERE completed_at IS NOT NULL;
CREATE INDEX sluice_run_items_failed ON sluice_run_items (run_id, id) WHERE status = 'failed';
CREATE TABLE sluice_lanes (
    id {auto}, run_id BIGINT NOT NULL, lane INTEGER NOT NULL, turn INTEGER NOT NULL, due_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX sluice_lanes_identity ON sluice_lanes (run_id, lane);
CREATE TABLE sluice_run_events (
    id {auto}, run_id BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, what VARCHAR(40) NOT NULL, who VARCHAR(100) NOT NULL,
    door VARCHAR(20) NOT NULL, detail TEXT
);
CREATE INDEX sluice_run_events_run_id ON sluice_run_events (run_id)
"""


def up(migrator: Any, db: Any) -> None:
    sqlite = isinstance(db, SqliteDatabase)
    for statement in TABLES.format(auto=AUTO[sqlite], json=JSON[sqlite], real=REAL[sqlite]).split(";\n"):
        db.execute_sql(statement)


def down(migrator: Any, db: Any) -> None:
    for table in ("sluice_run_events", "sluice_lanes", "sluice_run_items", "sluice_runs"):
        db.execute_sql(f"DROP TABLE {table}")
