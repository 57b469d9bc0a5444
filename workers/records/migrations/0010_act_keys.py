"""Acts done from a page, and idle time. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

from peewee import SqliteDatabase

REAL = {True: "REAL", False: "DOUBLE PRECISION"}

UP = """
CREATE TABLE sluice_act_keys (key TEXT NOT NULL PRIMARY KEY, at TIMESTAMPTZ NOT NULL, who VARCHAR(100) NOT NULL);
ALTER TABLE sluice_runs ADD COLUMN idle_seconds {real} NOT NULL DEFAULT 0
"""


def up(migrator: Any, db: Any) -> None:
    for statement in UP.format(real=REAL[isinstance(db, SqliteDatabase)]).split(";\n"):
        db.execute_sql(statement)


def down(migrator: Any, db: Any) -> None:
    db.execute_sql("ALTER TABLE sluice_runs DROP COLUMN idle_seconds")
    db.execute_sql("DROP TABLE sluice_act_keys")
