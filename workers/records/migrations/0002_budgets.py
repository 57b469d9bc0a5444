"""What outlives Redis of a budget. A frozen copy, on purpose: today: workers/records/tables.py."""

from typing import Any

from peewee import SqliteDatabase

REAL = {True: "REAL", False: "DOUBLE PRECISION"}

TABLE = """
CREATE TABLE sluice_budgets (
    name TEXT NOT NULL PRIMARY KEY, counts_until TIMESTAMPTZ, longest_ttl_seconds {real} NOT NULL,
    profile TEXT NOT NULL, profile_why TEXT NOT NULL, widened_seconds {real} NOT NULL, updated_at TIMESTAMPTZ NOT NULL
)
"""


def up(migrator: Any, db: Any) -> None:
    db.execute_sql(TABLE.format(real=REAL[isinstance(db, SqliteDatabase)]))


def down(migrator: Any, db: Any) -> None:
    db.execute_sql("DROP TABLE sluice_budgets")
