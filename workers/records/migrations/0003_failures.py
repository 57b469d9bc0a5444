"""Failures grouped, and the circuit. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

UP = """
ALTER TABLE sluice_run_items ADD COLUMN failure_fingerprint VARCHAR(12);
ALTER TABLE sluice_runs ADD COLUMN auth_failures_in_a_row INTEGER NOT NULL DEFAULT 0;
DROP INDEX sluice_run_items_failed;
CREATE INDEX sluice_run_items_failures ON sluice_run_items (run_id, failure_class, failure_fingerprint, id)
    WHERE status = 'failed'
"""

DOWN = """
DROP INDEX sluice_run_items_failures;
CREATE INDEX sluice_run_items_failed ON sluice_run_items (run_id, id) WHERE status = 'failed';
ALTER TABLE sluice_runs DROP COLUMN auth_failures_in_a_row;
ALTER TABLE sluice_run_items DROP COLUMN failure_fingerprint
"""


def up(migrator: Any, db: Any) -> None:
    for statement in UP.split(";\n"):
        db.execute_sql(statement)


def down(migrator: Any, db: Any) -> None:
    for statement in DOWN.split(";\n"):
        db.execute_sql(statement)
