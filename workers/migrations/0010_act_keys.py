"""The keys of acts that were done from a page. A frozen copy, on purpose: today's tables are in workers/tables.py."""

from typing import Any

TABLE = """
CREATE TABLE sluice_act_keys (key TEXT NOT NULL PRIMARY KEY, at TIMESTAMPTZ NOT NULL, who VARCHAR(100) NOT NULL)
"""


def up(migrator: Any, db: Any) -> None:
    db.execute_sql(TABLE)


def down(migrator: Any, db: Any) -> None:
    db.execute_sql("DROP TABLE sluice_act_keys")
