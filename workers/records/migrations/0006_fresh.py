"""What a fresh run may remove, and how far. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

UP = """
CREATE TABLE sluice_old_rows (
    run_id BIGINT NOT NULL, item_id TEXT NOT NULL, row_key TEXT NOT NULL, PRIMARY KEY (run_id, item_id)
);
CREATE TABLE sluice_removals (
    run_id BIGINT NOT NULL PRIMARY KEY, state VARCHAR(20) NOT NULL, position TEXT, due_at TIMESTAMPTZ,
    removed_count INTEGER NOT NULL, reason TEXT
)
"""

DOWN = """
DROP TABLE sluice_removals;
DROP TABLE sluice_old_rows
"""


def up(migrator: Any, db: Any) -> None:
    for statement in UP.split(";\n"):
        db.execute_sql(statement)


def down(migrator: Any, db: Any) -> None:
    for statement in DOWN.split(";\n"):
        db.execute_sql(statement)
