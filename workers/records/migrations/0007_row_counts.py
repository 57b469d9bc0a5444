"""What a run's list did to the user's rows. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

COLUMNS = ("rows_created", "rows_updated", "rows_unchanged")


def up(migrator: Any, db: Any) -> None:
    for column in COLUMNS:
        db.execute_sql(f"ALTER TABLE sluice_runs ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


def down(migrator: Any, db: Any) -> None:
    for column in COLUMNS:
        db.execute_sql(f"ALTER TABLE sluice_runs DROP COLUMN {column}")
