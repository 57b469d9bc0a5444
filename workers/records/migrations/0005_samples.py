"""Samples, requests counted, and what lists need. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

from peewee import SqliteDatabase

REAL = {True: "REAL", False: "DOUBLE PRECISION"}
LABEL = (
    "(CASE WHEN status = 'completed' AND failed_count > 0 THEN 'completed with failures' "
    "WHEN status = 'cancelled' AND slot_at IS NOT NULL AND started_at IS NULL THEN 'skipped' ELSE status END)"
)

UP = """
CREATE TABLE sluice_samples (
    run_id BIGINT NOT NULL, slot BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL, skipped INTEGER NOT NULL, requests INTEGER NOT NULL, hits INTEGER NOT NULL,
    sleeps INTEGER NOT NULL, waiting_seconds {real} NOT NULL, PRIMARY KEY (run_id, slot)
);
ALTER TABLE sluice_runs ADD COLUMN requests_count INTEGER NOT NULL DEFAULT 0;
CREATE INDEX sluice_runs_of_source ON sluice_runs (source, id);
CREATE INDEX sluice_runs_created ON sluice_runs (created_at);
CREATE INDEX sluice_runs_label ON sluice_runs ({label}, id);
CREATE INDEX sluice_runs_label_of_source ON sluice_runs (source, {label}, id);
CREATE INDEX sluice_runs_of_tenant ON sluice_runs (tenant, id) WHERE tenant IS NOT NULL
"""

DOWN = """
DROP INDEX sluice_runs_of_tenant;
DROP INDEX sluice_runs_label_of_source;
DROP INDEX sluice_runs_label;
DROP INDEX sluice_runs_created;
DROP INDEX sluice_runs_of_source;
ALTER TABLE sluice_runs DROP COLUMN requests_count;
DROP TABLE sluice_samples
"""


def up(migrator: Any, db: Any) -> None:
    for statement in UP.format(real=REAL[isinstance(db, SqliteDatabase)], label=LABEL).split(";\n"):
        db.execute_sql(statement)


def down(migrator: Any, db: Any) -> None:
    for statement in DOWN.split(";\n"):
        db.execute_sql(statement)
