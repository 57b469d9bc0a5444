"""Crashes of lanes, and pages of lists. A frozen copy, on purpose: see workers/records/tables.py."""

from typing import Any

PAGES = """
CREATE TABLE sluice_list_pages (
    run_id BIGINT NOT NULL, cursor VARCHAR(16) NOT NULL, digest VARCHAR(16), number INTEGER NOT NULL,
    PRIMARY KEY (run_id, cursor)
)
"""


def up(migrator: Any, db: Any) -> None:
    db.execute_sql("ALTER TABLE sluice_lanes ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0")
    db.execute_sql("ALTER TABLE sluice_lanes ADD COLUMN crash_reason TEXT")
    db.execute_sql(PAGES)
    db.execute_sql("CREATE INDEX sluice_list_pages_digest ON sluice_list_pages (run_id, digest)")


def down(migrator: Any, db: Any) -> None:
    db.execute_sql("DROP TABLE sluice_list_pages")
    for column in ("crash_reason", "crashes"):
        db.execute_sql(f"ALTER TABLE sluice_lanes DROP COLUMN {column}")
