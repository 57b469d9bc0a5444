"""A pause that outlives Redis, and for how long what auto learned holds. A frozen copy, as all of these are."""

from typing import Any

from peewee import SqliteDatabase

REAL = {True: "REAL", False: "DOUBLE PRECISION"}
COLUMNS = {
    "paused_until": "TIMESTAMPTZ",
    "paused_why": "TEXT NOT NULL DEFAULT ''",
    "learned_at": "TIMESTAMPTZ",
    "lesson_lasts_seconds": "{real} NOT NULL DEFAULT 0",
}


def up(migrator: Any, db: Any) -> None:
    real = REAL[isinstance(db, SqliteDatabase)]
    for column, kind in COLUMNS.items():
        db.execute_sql(f"ALTER TABLE sluice_budgets ADD COLUMN {column} {kind.format(real=real)}")


def down(migrator: Any, db: Any) -> None:
    for column in COLUMNS:
        db.execute_sql(f"ALTER TABLE sluice_budgets DROP COLUMN {column}")
